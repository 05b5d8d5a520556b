"""No inbound port needed: pull, unbind, answer, commit; stop and start it whenever you like."""

from __future__ import annotations

import sqlite3

from numhub_client import Answer, Chunk, Client, Guard, NumberEvent, Outcome, run_pull, unbind_all


def run(client: Client, subscription_id: str, db: sqlite3.Connection, *, follow: bool = True) -> int:
    """``db`` holds ``bindings(number INTEGER PRIMARY KEY, account TEXT, bound_at REAL)``.

    The unbinding, the guard's marks and the answer are one transaction of ``db``: a crash leaves all of them or none.
    """
    guard = Guard.sqlite(db)

    def unbind(event: NumberEvent) -> Outcome:
        row = db.execute("SELECT bound_at FROM bindings WHERE number = ?", (event.number,)).fetchone()
        if row is None or not event.orders_unbind:
            return "soft_locked" if row and event.event_type == "deactivated" else None
        if row[0] >= event.binding_cutoff_at.timestamp():
            return "rejected_cutoff"
        db.execute("DELETE FROM bindings WHERE number = ?", (event.number,))
        return "unbound"

    def handle(chunk: Chunk) -> Answer:
        return unbind_all(chunk, unbind, guard=guard)

    return run_pull(client, subscription_id, handle, follow=follow)
