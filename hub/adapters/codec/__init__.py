"""Between columns and JSON bodies."""
