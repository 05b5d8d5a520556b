"""Tokens and signed statements by joserfc: algorithm, key and claims are judged, not only a signature."""
