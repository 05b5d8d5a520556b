"""The name under which a process holds leases: that of its data directory.

The directory is locked by the process that uses it (`adapters.columns.store`), so a new process on it knows that the
former one is gone, and goes on at once under the same name instead of waiting for that one's leases to end.
"""

from __future__ import annotations

import secrets
from pathlib import Path

FILE = "node-id"


def node_id(data: Path) -> str:
    """Made on first use and kept."""
    file = data / FILE
    if not file.exists():
        fresh = file.with_suffix(".new")
        fresh.write_text(f"node-{secrets.token_hex(6)}", "utf-8")
        fresh.replace(file)
    return file.read_text("utf-8").strip()
