"""From which day on does silence mean that nothing happened?

A number may be ported between the four basic carriers, so `no` needs all four: each connected, each having reported
without a gap, each heard of lately. For a block issued to an MVNO its carriers are needed besides. A carrier has
reported when it committed a batch, be it an explicitly empty one; its own batch numbers (``batch_seq``) show gaps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from hub.domain.batches import Batch, BatchState
from hub.domain.errors import Unavailable
from hub.domain.lifecycle import CHINA
from hub.domain.parties import Party, Role
from hub.flow.fold import Fold
from hub.flow.members import Members
from hub.ports.clock import Clock
from hub.ports.ledger import Ledger

BASIC_CARRIERS = ("cmcc", "cucc", "ctcc", "cbn")
"""Among these a holder may carry the number along (携号转网)."""

NEVER = 1 << 40
"""A day that does not come."""

REFRESH_AFTER = 2.0
"""Seconds for which what was found is used; the price is a carrier's silence noticed so much later."""

RECENT = 64
"""Batches of a carrier looked at each time; all of them only when these do not connect to what was seen before."""

_EPOCH_DAY = 719_163


@dataclass(frozen=True, slots=True)
class Covered:
    """``since_day``: days since 1970 (China) from which all is covered; ``blocked``: why it is not, whatever the day.

    ``heard_at`` is when the carrier that has been silent for longest reported last: a `no` is as of that moment.
    """

    since_day: int = NEVER
    blocked: str | None = "no_coverage"
    since_date: date | None = None
    heard_at: datetime | None = None

    def why_not(self, day: int) -> str | None:
        """Why silence since ``day`` proves nothing; None if it does prove that nothing happened."""
        return self.blocked or (None if day >= self.since_day else "before_coverage")


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is covered per holder code of the numbering plan, as of ``as_of``."""

    by_holder: Mapping[str, Covered]
    as_of: datetime

    def of(self, holder: str) -> Covered:
        return self.by_holder.get(holder, _NOTHING)


_NOTHING = Covered()


@dataclass(frozen=True, slots=True)
class Reporting:
    """What one carrier's batches say: from which day, whether all are there, and when the last one was committed."""

    since_day: int
    gapless: bool
    heard_at: datetime | None
    numbers: range  # its own batch numbers, first to last committed


def reporting(party: Party, batches: Iterable[Batch], complete: range = range(0)) -> Reporting:
    """``batches``: those that ``party`` uploaded, and those uploaded for it; ``complete``: own batch numbers that were
    seen committed before.

    Its own batches must be all there, from number 1 on, or from the one that follows the last batch made before
    ``coverage_since``. One that is missing, failed, or unfinished while a later one is there, is a gap: what it would
    have said is not known. An operator who has a gap filled by other means closes it by moving ``coverage_since``.
    """
    since = party.coverage_since
    heard_at: datetime | None = None
    seen: dict[int, BatchState] = {}
    before = 0
    for batch in batches:
        if (batch.acting_for or batch.carrier_id) == party.party_id and batch.committed_at is not None:
            heard_at = max(heard_at or batch.committed_at, batch.committed_at)
        if batch.carrier_id == party.party_id and since is not None:
            if batch.created_at >= since:
                seen[batch.batch_seq] = batch.state
            else:
                before = max(before, batch.batch_seq)
    committed = {seq for seq, state in seen.items() if state is BatchState.committed} | set(complete)
    expected = range(complete.start if complete else before + 1, max(committed, default=0) + 1)
    gapless = BatchState.failed not in seen.values() and committed.issuperset(expected)
    return Reporting(NEVER if since is None else _first_whole_day(since), gapless, heard_at, expected)


def _first_whole_day(moment: datetime) -> int:
    """A carrier that joins at noon covers from the next day on."""
    local = moment.astimezone(CHINA)
    whole = local.date() + timedelta(days=1 if local.time() != local.time().min else 0)
    return whole.toordinal() - _EPOCH_DAY


def covered(
    holder: str, parties: Iterable[Party], reports: Mapping[str, Reporting], now: datetime, within: timedelta
) -> Covered:
    """The coverage of blocks of one holder: what its weakest carrier allows."""
    needed = {*BASIC_CARRIERS, holder}
    carriers = [p for p in parties if not p.block_holders or needed.intersection(p.block_holders)]
    found = {code for party in carriers for code in party.block_holders}
    if not holder or not needed <= found or any(party.suspended for party in carriers):
        return _NOTHING
    said = [reports[party.party_id] for party in carriers]
    since = max(report.since_day for report in said)
    if since >= NEVER or not all(report.gapless for report in said):
        return _NOTHING
    heard = [report.heard_at for report in said if report.heard_at is not None]
    late = len(heard) < len(said) or now - min(heard) > within
    first = date.fromordinal(since + _EPOCH_DAY)
    return Covered(since, "stale" if late else None, first, min(heard, default=None))


@dataclass(slots=True)
class CoverageSource:
    """Keeps the coverage, and makes it anew when it is older than a moment and somebody asks."""

    ledger: Ledger
    members: Members
    fold: Fold
    clock: Clock
    _coverage: Coverage | None = None
    _made_at: float = 0.0
    _complete: dict[str, tuple[datetime | None, range]] = field(default_factory=dict)
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def current(self) -> Coverage:
        """Raises Unavailable when the fold does not reach the log's end of this moment within some seconds."""
        if self._coverage is None or self.clock.monotonic() - self._made_at > REFRESH_AFTER:
            async with self._making:
                if self._coverage is None or self.clock.monotonic() - self._made_at > REFRESH_AFTER:
                    self._coverage = await self._make()
                    self._made_at = self.clock.monotonic()
        return self._coverage

    async def _make(self) -> Coverage:
        """Time first, then the ledger, then the log's end: whatever is judged is at least that new."""
        now = self.clock.now()
        snapshot, within = self.members.snapshot, self.members.policy.check_lag_within
        carriers = [party for party in snapshot.parties.values() if party.role is Role.carrier]
        uploads = {party.party_id: await self.ledger.batches(party.party_id, limit=RECENT) for party in carriers}
        reports = {party.party_id: await self._report(party, uploads) for party in carriers}
        holders = {code for party in carriers for code in party.block_holders}
        found = {holder: covered(holder, carriers, reports, now, within) for holder in holders}
        try:
            async with asyncio.timeout(5):
                await self.fold.catch_up()
        except TimeoutError:
            raise Unavailable("The number index lags behind the log; repeat in a moment.") from None
        return Coverage(found, now.astimezone(UTC))

    async def _report(self, party: Party, uploads: Mapping[str, list[Batch]]) -> Reporting:
        """From the newest batches and what was found complete before; if that shows a gap, from all of them."""
        own = uploads[party.party_id]
        others = [b for whose, found in uploads.items() if whose != party.party_id for b in found]
        since, complete = self._complete.get(party.party_id, (None, range(0)))
        if since != party.coverage_since:
            complete = range(0)
        report = reporting(party, [*own, *others], complete)
        if len(own) >= RECENT and (not report.gapless or not complete):
            own = await self.ledger.batches(party.party_id, limit=1_000_000)
            report = reporting(party, [*own, *others])
        if report.gapless:
            self._complete[party.party_id] = (party.coverage_since, report.numbers)
        return report
