"""What clearance judgements rest on: a number that each change to it raises, so that no judgement goes stale unseen.

A judgement reads for seconds and is recorded in one transaction at the end. It rests on answers, waivers, cursors and
the directory. Whatever may turn a "go" into a "wait" there raises `judgement_state.changes` in its own transaction,
and says which chunk it was about (or EVERYTHING). The record locks that row, and with it waits for changes under way
and keeps later ones waiting; then it looks whether any change since its beginning was about what it rests on.

A first answer is no such change: silence it replaces was waited for, so it can only end a waiting. That leaves answers
at full speed, without serializable transactions, which could not do this anyway: PostgreSQL would let a correction
that commits between a judgement's reads and its record count as having come after it.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, delete, insert, select, update

from hub.adapters.sql.schema import chunk_keys, judgement_changes, judgement_state

EVERYTHING = 0
"""In place of a chunk's key: any judgement may rest on what changed."""

KEPT = 100_000
"""Changes whose chunks are remembered; a judgement that began before them is made anew."""

_raise = update(judgement_state).values(changes=judgement_state.c.changes + 1).returning(judgement_state.c.changes)


def moment(conn: Connection) -> int:
    return int(conn.scalar(select(judgement_state.c.changes)) or 0)


def changed(conn: Connection, chunk_nos: Collection[int] = (EVERYTHING,)) -> None:
    """To be called last in a transaction, if it can be: others that change something wait from here on."""
    number = conn.scalar(_raise)
    assert number is not None
    conn.execute(insert(judgement_changes), [{"number": number, "chunk_no": no} for no in sorted(chunk_nos)])
    conn.execute(delete(judgement_changes).where(judgement_changes.c.number <= number - KEPT))


def still_holds(conn: Connection, since: int, chunk_ids: Collection[str]) -> bool:
    """Has nothing changed after ``since`` that a judgement over ``chunk_ids`` rests on? Holds until the transaction
    ends: whoever wants to change something waits."""
    newest = int(conn.scalar(select(judgement_state.c.changes).with_for_update()) or 0)
    if newest == since:
        return True
    if not since < newest <= since + KEPT:
        return False
    query = (
        select(judgement_changes.c.chunk_no, chunk_keys.c.chunk_id)
        .outerjoin_from(judgement_changes, chunk_keys, chunk_keys.c.chunk_no == judgement_changes.c.chunk_no)
        .where(judgement_changes.c.number > since)
    )
    mine = frozenset(chunk_ids)
    return not any(number == EVERYTHING or chunk_id in mine for number, chunk_id in conn.execute(query))
