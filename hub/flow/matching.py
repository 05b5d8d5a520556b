"""Do log and ledger belong together? Asked at every start, before anything moves.

Positions in the ledger are offsets of one log, whose id the ledger keeps. In another log (a topic that was deleted and
made again) they mean nothing. A log restored to an older state has the same id and ends before them: going on would
pass over everything that is accepted until it has grown as long.
"""

from __future__ import annotations

from dataclasses import replace

from hub.domain.errors import LogReplaced
from hub.ports.ledger import Ledger
from hub.ports.log import EventLog


async def check(ledger: Ledger, log: EventLog) -> None:
    """Raises LogReplaced when the ledger belongs to another log, or has positions that this one never reached.

    A ledger that belongs to none yet belongs to this one from now on."""
    listed = await ledger.catalogue_positions()
    cursors = await ledger.cursors()
    ends = await log.ends()  # after the ledger: other processes go on meanwhile
    told = [f"the catalogue of chunks is at {offset}" for part, offset in listed.items() if offset > _end(ends, part)]
    told += [
        f"subscription {cursor.subscription_id} stands at {cursor.offset}"
        for cursor in cursors
        if cursor.offset > _end(ends, cursor.partition)
    ]
    if told:
        raise LogReplaced(
            f"The log (id {log.log_id}) is not the one this ledger belongs to, or was restored to an older state: "
            f"{told[0]}, beyond the log's end ({len(told)} such positions). Bring the right log back, or accept this "
            "one with `numhub rebuild --log-replaced`: subscribers then get everything in it again."
        )
    if (owner := await ledger.belongs_to(log.log_id)) != log.log_id:
        raise LogReplaced(
            f"This ledger belongs to the log {owner}, and the log that was found is another one ({log.log_id}): a "
            "topic made anew, or the settings point to the log or the ledger of another hub. Correct them, bring the "
            "right log back, or accept this one with `numhub rebuild --log-replaced`: subscribers then get everything "
            "in it again."
        )


async def start_over(ledger: Ledger, log: EventLog) -> int:
    """Accept another log: every cursor goes to the first record kept, the catalogue is listed anew. Repeats, no gaps.

    Returns how many cursors were set."""
    starts = await log.starts()
    cursors = [
        replace(cursor, start=_end(starts, cursor.partition), offset=_end(starts, cursor.partition))
        for cursor in await ledger.cursors()
    ]
    await ledger.belongs_to(log.log_id, replace=True)
    await ledger.restart(cursors)
    await ledger.clear_catalogue()
    return len(cursors)


def _end(ends: list[int], partition: int) -> int:
    return ends[partition] if partition < len(ends) else 0
