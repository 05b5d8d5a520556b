"""The figures, as far as the caller may see them.

In: a caller, a report's name, filters. Out: columns and rows with the watermark up to which they were counted.
Guaranteed: every figure is counted from ledger rows when asked; a receipt never counts as an answer; carriers see
subscribers only by app class and dispositions only by standing, subscribers see their own and no carrier; counts of
fewer than ten numbers are withheld from everybody who is neither the regulator nor the subscriber they are about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any

from hub.domain.dispositions import Disposition
from hub.domain.errors import Forbidden, InvalidRequest, NotFound
from hub.domain.parties import Principal, Role
from hub.flow.fold import Fold
from hub.flow.members import Members
from hub.flow.overview import overview
from hub.ports.clock import Clock
from hub.ports.ledger import Ledger

Row = dict[str, Any]

K = 10
"""Counts of numbers below this are withheld."""
OTHERS = "其他"
"""Stands for the provinces that are too small to be named, see `pooled`."""

NAMES = ("summary", "delivery", "answers", "lateness", "provinces", "batches", "clearances")


@dataclass(frozen=True, slots=True)
class Filters:
    """None = not limited. Days are China's, both included."""

    since: date | None = None
    until: date | None = None
    carrier: str | None = None
    app_class: str | None = None
    event_type: str | None = None


@dataclass(frozen=True, slots=True)
class Watermark:
    judged_at: datetime
    log_positions: tuple[int, ...]
    catalogue_positions: tuple[int, ...]
    waivers: int


@dataclass(frozen=True, slots=True)
class Table:
    """``rows`` in the order of ``columns``; None = withheld, or nothing to say."""

    name: str
    watermark: Watermark
    columns: tuple[str, ...]
    rows: list[Row]
    suppressed_below: int | None


_DELIVERED = ("chunks_owed", "chunks_received", "chunks_parked", "numbers_owed", "numbers_received")
_OPEN = ("chunks_open", "numbers_open", "overdue_chunks")
_SUMMARY = (
    "numbers_published", "pairs_owed", "pairs_received", "pairs_answered", "done", "held", "failed", "pending",
)  # fmt: skip
_PROVINCE = ("numbers_published", "pairs_owed", "pairs_received", "pairs_answered", "pairs_overdue")
_COUNTS_OF_PEOPLE = {*_SUMMARY, *_PROVINCE, "numbers", "numbers_owed", "numbers_received", "numbers_open"} - {
    "numbers_published"
}

_WHO: dict[Role, tuple[str, ...]] = {
    Role.regulator: ("carrier_id", "subscriber_id", "app_id", "app_class"),
    Role.operator: ("carrier_id", "subscriber_id", "app_id", "app_class"),
    Role.carrier: ("app_class",),
    Role.subscriber: ("app_id", "subscription_id"),
}
_OF_CARRIERS = frozenset({"batches", "clearances"})
_NOT_FOR_SUBSCRIBERS = _OF_CARRIERS | {"provinces"}
_FILTERS: Mapping[str, frozenset[str]] = {
    name: frozenset({"since", "until", "carrier"} | (set() if name in _OF_CARRIERS else {"app_class", "event_type"}))
    for name in NAMES
}
"""What each report can be narrowed by; anything else is refused, since a figure that ignored it would be wrong."""


class Report:
    def __init__(self, ledger: Ledger, members: Members, fold: Fold, clock: Clock) -> None:
        self._ledger, self._members, self._fold, self._clock = ledger, members, fold, clock

    async def make(self, caller: Principal, name: str, filters: Filters) -> Table:
        """One report. Raises NotFound (no such report), Forbidden (not for this role), InvalidRequest (filters)."""
        if name not in NAMES:
            raise NotFound("There is no such report.")
        if caller.role is Role.subscriber and name in _NOT_FOR_SUBSCRIBERS:
            raise Forbidden("This report tells of carriers; it is not for subscribers.")
        given = {field.name for field in fields(filters) if getattr(filters, field.name) is not None}
        if unknown := sorted(given - _FILTERS[name]):
            raise InvalidRequest(f"The report {name} cannot be narrowed by {unknown[0]}.", code="invalid_query")
        limits = self._limits(caller, filters)
        watermark = await self.watermark()
        columns, rows = await getattr(self, f"_{name}")(caller, limits, filters.event_type)
        exact = caller.role is Role.carrier and name in _OF_CARRIERS  # a carrier's own acts, rows and verdicts
        hidden = caller.role is Role.operator or (caller.role is Role.carrier and not exact)
        if hidden:
            rows = [{key: _withheld(key, value) for key, value in row.items()} for row in rows]
        return Table(name, watermark, columns, rows, K if hidden else None)

    async def overview(self, since: date | None = None, until: date | None = None) -> Row:
        """Everything the regulator's page shows, at once; see `hub.flow.overview` for the members."""
        watermark = await self.watermark()
        days = {"since": since and since.isoformat(), "until": until and until.isoformat()}
        given = {name: day for name, day in days.items() if day}
        names = ("published", "provinces", "delivery", "answers", "open", "clearances", "batches", "renewals")
        rows = {name: await self._ledger.report(name, **given) for name in names}
        waivers = await self._ledger.waivers()
        shown = {
            "judged_at": watermark.judged_at,
            "log_positions": list(watermark.log_positions),
            "catalogue_positions": list(watermark.catalogue_positions),
        }
        return {"watermark": shown, **overview(rows, waivers, self._members.snapshot, watermark.judged_at)}

    async def watermark(self) -> Watermark:
        """Taken before the rows are read: the figures are at least that new."""
        now = self._clock.now()
        listed = await self._ledger.catalogue_positions()
        in_force = [w for w in await self._ledger.waivers() if w.ends_at is None or w.ends_at > now]
        folded = tuple(self._fold.positions())
        return Watermark(now, folded, tuple(listed.get(p, 0) for p in range(len(folded))), len(in_force))

    # ---- what the caller may ask for

    def _limits(self, caller: Principal, filters: Filters) -> list[dict[str, str]]:
        """The filters for the ledger; a carrier that acts for others is asked about one by one."""
        if filters.since and filters.until and filters.since > filters.until:
            raise InvalidRequest("since lies after until.")
        given = {"app_class": filters.app_class} if filters.app_class else {}
        given |= {name: day.isoformat() for name, day in (("since", filters.since), ("until", filters.until)) if day}
        if caller.role is Role.subscriber:
            if filters.carrier:
                raise Forbidden("Which carrier an event came from is not told to subscribers.")
            return [given | {"subscriber_id": caller.party_id}]
        if caller.role is Role.carrier:
            me = self._members.party(caller.party_id)
            mine = (caller.party_id, *(me.acting_for if me else ()))
            if filters.carrier and filters.carrier not in mine:
                raise Forbidden("You may ask for your own numbers, and for those you act for.")
            return [given | {"carrier_id": carrier} for carrier in ((filters.carrier,) if filters.carrier else mine)]
        return [given | ({"carrier_id": filters.carrier} if filters.carrier else {})]

    async def _rows(self, name: str, limits: Sequence[Mapping[str, str]], event_type: str | None) -> list[Row]:
        """Ledger rows with the subscription's app, class and subscriber beside them."""
        return [
            row | self._whose(row.get("subscription_id"))
            for limit in limits
            for row in await self._ledger.report(name, **limit)
            if event_type is None or row.get("event_type", event_type) == event_type
        ]

    def _whose(self, subscription_id: str | None) -> Row:
        if subscription_id is None:
            return {}
        subscription = self._members.snapshot.subscriptions.get(subscription_id)
        if subscription is None:  # deleted since; its figures stay
            return {"app_id": None, "subscriber_id": None, "app_class": None}
        return {
            "app_id": subscription.app_id,
            "subscriber_id": subscription.subscriber_id,
            "app_class": subscription.app_class.value,
        }

    # ---- the reports

    async def _delivery(
        self, caller: Principal, limits: Any, event_type: str | None
    ) -> tuple[tuple[str, ...], list[Row]]:
        by = (*_WHO[caller.role], "event_type", "lane", "day")
        return (*by, *_DELIVERED), grouped(await self._rows("delivery", limits, event_type), by, _DELIVERED)

    async def _answers(
        self, caller: Principal, limits: Any, event_type: str | None
    ) -> tuple[tuple[str, ...], list[Row]]:
        rows = await self._rows("answers", limits, event_type)
        rows = [row | {"standing": Disposition(row["disposition"]).standing.name} for row in rows]
        grain = ("standing",) if caller.role is Role.carrier else ("disposition", "standing")
        by = (*_WHO[caller.role], "event_type", "day", *grain)
        return (*by, "numbers"), grouped(rows, by, ("numbers",))

    async def _lateness(
        self, caller: Principal, limits: Any, event_type: str | None
    ) -> tuple[tuple[str, ...], list[Row]]:
        who = tuple(name for name in _WHO[caller.role] if name != "carrier_id")
        by, rows = (*who, "event_type"), await self._rows("open", limits, event_type)
        now = self._clock.now()
        found = grouped(rows, by, _OPEN, oldest=("oldest_reported_at", "oldest_due_at"))
        for row in found:
            due = row["oldest_due_at"]
            row["late_seconds"] = max(int((now - due).total_seconds()), 0) if due else 0
        found.sort(key=lambda row: -row["late_seconds"])
        return (*by, *_OPEN, "oldest_reported_at", "oldest_due_at", "late_seconds"), found

    async def _summary(
        self, caller: Principal, limits: Any, event_type: str | None
    ) -> tuple[tuple[str, ...], list[Row]]:
        """By event type: numbers, and pairs of number and subscription."""
        parts: list[Row] = []
        if caller.role is not Role.subscriber:
            parts += [
                {"event_type": row["event_type"], "numbers_published": row["numbers"]}
                for row in await self._rows("published", limits, event_type)
            ]
        for row in await self._rows("delivery", limits, event_type):
            pairs = {"pairs_owed": row["numbers_owed"], "pairs_received": row["numbers_received"]}
            parts.append({"event_type": row["event_type"], **pairs})
        for row in await self._rows("answers", limits, event_type):
            standing = Disposition(row["disposition"]).standing.name
            counted = {"pairs_answered": row["numbers"], standing: row["numbers"]}
            parts.append({"event_type": row["event_type"], **counted})
        columns = _SUMMARY[1:] if caller.role is Role.subscriber else _SUMMARY
        return ("event_type", *columns), grouped(parts, ("event_type",), columns)

    async def _provinces(
        self, caller: Principal, limits: Any, event_type: str | None
    ) -> tuple[tuple[str, ...], list[Row]]:
        """By home region: numbers, and pairs of number and subscription. Small provinces are pooled, see `pooled`."""
        parts: list[Row] = [
            {"province": row["province"], "numbers_published": row["numbers"]}
            for row in await self._rows("provinces", limits, event_type)
        ]
        for row in await self._rows("regions", limits, event_type):
            pairs = {f"pairs_{name}": row[f"numbers_{name}"] for name in ("owed", "received", "answered", "overdue")}
            parts.append({"province": row["province"], **pairs})
        rows = grouped(parts, ("province",), _PROVINCE)
        narrowed = event_type is not None or any(limits)
        if narrowed or caller.role is not Role.regulator:
            rows = pooled(rows)
        return ("province", *_PROVINCE), sorted(rows, key=lambda row: (-row["numbers_published"], row["province"]))

    async def _batches(
        self, caller: Principal, limits: Any, event_type: str | None
    ) -> tuple[tuple[str, ...], list[Row]]:
        columns = ("carrier_id", "batches", "rows_seen", "rows_accepted", "rows_refused")
        return columns, grouped(await self._rows("batches", limits, None), columns[:1], columns[1:])

    async def _clearances(
        self, caller: Principal, limits: Any, event_type: str | None
    ) -> tuple[tuple[str, ...], list[Row]]:
        columns = ("carrier_id", "judged_at", "batch_id", "go", "go_with_exceptions", "wait")
        rows = await self._rows("clearances", limits, None)
        return columns, sorted(rows, key=lambda row: row["judged_at"], reverse=True)


def grouped(rows: Iterable[Row], by: Sequence[str], sums: Sequence[str], oldest: Sequence[str] = ()) -> list[Row]:
    """``rows`` added up by the columns ``by``, in their order; of ``oldest`` columns the smallest value stays."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = tuple(row.get(name) for name in by)
        total = found.get(key)
        if total is None:
            total = found[key] = {**dict(zip(by, key, strict=True)), **dict.fromkeys(sums, 0), **dict.fromkeys(oldest)}
        for name in sums:
            total[name] += row.get(name, 0) or 0
        for name in oldest:
            value = row.get(name)
            if value is not None and (total[name] is None or value < total[name]):
                total[name] = value
    return [found[key] for key in sorted(found, key=lambda key: [str(part or "") for part in key])]


def pooled(rows: Sequence[Row]) -> list[Row]:
    """``rows`` by province with those below K numbers added up as OTHERS, which has K itself wherever the whole has.

    A cell of three people of one carrier in one province on one day is nearly a name, and the watcher needs it for
    nothing; pooling keeps every total right, which leaving the cell out would not (and would let it be worked out).
    """
    left = sorted(rows, key=lambda row: row["numbers_published"])
    pool: list[Row] = []
    while left and (left[0]["numbers_published"] < K or 0 < sum(row["numbers_published"] for row in pool) < K):
        pool.append(left.pop(0))
    if not pool:
        return left
    return [*left, {"province": OTHERS, **{name: sum(row[name] for row in pool) for name in _PROVINCE}}]


def _withheld(name: str, value: Any) -> Any:
    return None if name in _COUNTS_OF_PEOPLE and isinstance(value, int) and 0 < value < K else value
