"""The regulator's figures, counted by the database from the rows of the ledger; nothing is remembered.

**Owed**: a listed chunk is owed to a subscription whose cursor of that partition and lane began at or before it, which
asked for its event type and lane, whose app is meant (holder renewals name their apps), and for which an agreement
with the carrier was in force when the chunk was reported. A deleted subscription is owed only what it had passed.

**Answered**: the sum of an answer's tallies is the number of rows with an effective disposition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    type_coerce,
)

from hub.adapters.sql.catalogue import EPOCH_ORDINAL
from hub.adapters.sql.report_filters import Filters, limits, moments, of_catalogue, of_subscription
from hub.adapters.sql.schema import (
    LANE_BY_NUMBER,
    agreements,
    answer_tallies,
    batches,
    catalogue,
    catalogue_apps,
    catalogue_provinces,
    clearances,
    cursors,
    parked,
    receipts,
    renewals,
    subscription_keys,
    subscriptions,
)
from hub.domain.dispositions import BY_NUMBER as DISPOSITION_BY_NUMBER
from hub.domain.errors import InvalidRequest
from hub.domain.events import ASKS_FOR_ANSWER
from hub.domain.events import BY_NUMBER as EVENT_BY_NUMBER
from hub.domain.parties import SubscriptionState

# Reports of reported_at are to the second; an agreement that began within that second covers them.
_SECOND = 1_000_000


def report(conn: Connection, name: str, given: Mapping[str, Any], now: datetime) -> list[dict[str, Any]]:
    """See `hub.ports.ledger.Ledger.report`. Moments are aware datetimes, days text. Raises InvalidRequest."""
    make = _REPORTS.get(name)
    if make is None:
        raise InvalidRequest(f"unknown report; known: {', '.join(sorted(_REPORTS))}")
    return [_plain(row) for row in conn.execute(make(Filters.read(given), now))]


def _plain(row: Row[Any]) -> dict[str, Any]:
    return {name: _READ[name](value) if name in _READ else value for name, value in row._mapping.items()}


def _day_text(day: int) -> str:
    return date.fromordinal(day + EPOCH_ORDINAL).isoformat()


_READ: dict[str, Callable[[Any], Any]] = {
    "day": _day_text,
    "event_type": lambda number: EVENT_BY_NUMBER[number].value,
    "lane": lambda number: LANE_BY_NUMBER[number].value,
    "disposition": lambda number: DISPOSITION_BY_NUMBER[number].value,
} | dict.fromkeys(
    # PostgreSQL's sums are Decimal
    (
        "numbers",
        "chunks_received",
        "chunks_parked",
        "numbers_owed",
        "numbers_received",
        "numbers_answered",
        "numbers_overdue",
        "numbers_open",
        "overdue_chunks",
        "rows_seen",
        "rows_accepted",
        "rows_refused",
        "app_requests",
    ),
    int,
)


# ---- what is owed ----------------------------------------------------------------------------------------------


def _has_bit(mask: Any, place: Any) -> ColumnElement[bool]:
    shifted: ColumnElement[bool] = mask.bitwise_and(literal(1, mask.type).bitwise_lshift(place)) != 0
    return shifted


def _owed(query: Select[Any], filters: Filters) -> Select[Any]:
    """``query`` over the pairs of subscription and chunk that are owed."""
    reported = type_coerce(catalogue.c.reported_at, BigInteger)
    meant = exists().where(
        catalogue_apps.c.chunk_no == catalogue.c.chunk_no, catalogue_apps.c.app_id == subscriptions.c.app_id
    )
    agreed = exists().where(
        agreements.c.subscriber_id == subscriptions.c.subscriber_id,
        agreements.c.purpose == subscriptions.c.purpose,
        agreements.c.carrier_id.in_((catalogue.c.carrier_id, "*")),
        type_coerce(agreements.c.starts_at, BigInteger) < reported + _SECOND,
        type_coerce(agreements.c.ends_at, BigInteger) > reported,
    )
    return (
        query.select_from(cursors)
        .join(subscriptions, subscriptions.c.subscription_no == cursors.c.subscription_no)
        .join(
            catalogue,
            and_(
                catalogue.c.part == cursors.c.part,
                catalogue.c.lane == cursors.c.lane,
                catalogue.c.log_offset >= cursors.c.start_offset,
            ),
        )
        .where(
            _has_bit(subscriptions.c.event_mask, catalogue.c.event_type),
            _has_bit(subscriptions.c.lane_mask, catalogue.c.lane),
            or_(catalogue.c.targeted.is_(False), meant),
            agreed,
            or_(
                subscriptions.c.state != SubscriptionState.deleted.value,
                catalogue.c.log_offset < cursors.c.next_offset,
            ),
            *of_catalogue(filters),
            *of_subscription(filters),
        )
    )


# ---- the reports -----------------------------------------------------------------------------------------------


def _published(filters: Filters, now: datetime) -> Select[Any]:
    by = (catalogue.c.carrier_id, catalogue.c.event_type, catalogue.c.lane, catalogue.c.day)
    counted = select(*by, func.count().label("chunks"), func.sum(catalogue.c.numbers).label("numbers"))
    return counted.where(*of_catalogue(filters)).group_by(*by).order_by(*by)


def _provinces(filters: Filters, now: datetime) -> Select[Any]:
    numbers = func.sum(catalogue_provinces.c.numbers)
    by = (catalogue_provinces.c.province, catalogue.c.event_type)
    return (
        select(*by, numbers.label("numbers"))
        .join(catalogue, catalogue.c.chunk_no == catalogue_provinces.c.chunk_no)
        .where(*of_catalogue(filters))
        .group_by(*by)
        .order_by(numbers.desc(), *by)
    )


def _regions(filters: Filters, now: datetime) -> Select[Any]:
    """Owed pairs by home region. An answer names rows of a chunk, which lie in several provinces: only of a chunk that
    is answered in full is it known how many of each province were, so the others count as not answered."""
    asking = catalogue.c.event_type.in_(sorted(event.number for event in ASKS_FOR_ANSWER))
    answered = _answered_rows() >= catalogue.c.numbers
    late = and_(asking, ~answered, catalogue.c.due_at <= now)
    arrived = exists().where(
        receipts.c.subscription_no == subscriptions.c.subscription_no, receipts.c.chunk_no == catalogue.c.chunk_no
    )
    owed = (
        _owed(
            select(
                catalogue.c.chunk_no,
                catalogue.c.event_type,
                case((arrived, 1), else_=0).label("received"),
                case((and_(asking, answered), 1), else_=0).label("answered"),
                case((late, 1), else_=0).label("overdue"),
            ),
            filters,
        )
    ).subquery()
    by, numbers = (catalogue_provinces.c.province, owed.c.event_type), catalogue_provinces.c.numbers
    return (
        select(
            *by,
            func.sum(numbers).label("numbers_owed"),
            func.sum(numbers * owed.c.received).label("numbers_received"),
            func.sum(numbers * owed.c.answered).label("numbers_answered"),
            func.sum(numbers * owed.c.overdue).label("numbers_overdue"),
        )
        .join(owed, owed.c.chunk_no == catalogue_provinces.c.chunk_no)
        .group_by(*by)
        .order_by(*by)
    )


def _answered_rows() -> Any:
    """How many rows of the chunk at hand the subscription at hand has answered."""
    return (
        select(func.coalesce(func.sum(answer_tallies.c.delta), 0))
        .where(
            answer_tallies.c.subscription_no == subscriptions.c.subscription_no,
            answer_tallies.c.chunk_no == catalogue.c.chunk_no,
        )
        .correlate(subscriptions, catalogue)
        .scalar_subquery()
    )


def _delivery(filters: Filters, now: datetime) -> Select[Any]:
    by = (
        subscriptions.c.subscription_id,
        catalogue.c.carrier_id,
        catalogue.c.event_type,
        catalogue.c.lane,
        catalogue.c.day,
    )
    arrived = receipts.c.chunk_no.is_not(None)
    aside = and_(parked.c.chunk_no.is_not(None), ~arrived)
    query = select(
        *by,
        func.count().label("chunks_owed"),
        func.sum(case((arrived, 1), else_=0)).label("chunks_received"),
        func.sum(case((aside, 1), else_=0)).label("chunks_parked"),
        func.sum(catalogue.c.numbers).label("numbers_owed"),
        func.sum(case((arrived, catalogue.c.numbers), else_=0)).label("numbers_received"),
    )
    query = _owed(query, filters)
    for table in (receipts, parked):
        query = query.outerjoin(
            table,
            and_(table.c.subscription_no == subscriptions.c.subscription_no, table.c.chunk_no == catalogue.c.chunk_no),
        )
    return query.group_by(*by).order_by(*by)


def _answers(filters: Filters, now: datetime) -> Select[Any]:
    by = (
        subscription_keys.c.subscription_id,
        catalogue.c.carrier_id,
        catalogue.c.event_type,
        catalogue.c.day,
        answer_tallies.c.code.label("disposition"),
    )
    numbers = func.sum(answer_tallies.c.delta)
    query = (
        select(*by, numbers.label("numbers"))
        .select_from(answer_tallies)
        .join(catalogue, catalogue.c.chunk_no == answer_tallies.c.chunk_no)
        .join(subscription_keys, subscription_keys.c.subscription_no == answer_tallies.c.subscription_no)
    )
    mine = of_subscription(filters)
    if mine:
        query = query.join(subscriptions, subscriptions.c.subscription_no == answer_tallies.c.subscription_no)
    return query.where(*mine, *of_catalogue(filters)).group_by(*by).having(numbers != 0).order_by(*by)


def _open(filters: Filters, now: datetime) -> Select[Any]:
    asking = sorted(event.number for event in ASKS_FOR_ANSWER)
    owed = (
        _owed(
            select(
                subscriptions.c.subscription_id,
                catalogue.c.event_type,
                catalogue.c.numbers,
                catalogue.c.reported_at,
                catalogue.c.due_at,
                _answered_rows().label("answered"),
            ),
            filters,
        )
        .where(catalogue.c.event_type.in_(asking), subscriptions.c.state != SubscriptionState.deleted.value)
        .subquery()
    )
    by = (owed.c.subscription_id, owed.c.event_type)
    return (
        select(
            *by,
            func.count().label("chunks_open"),
            func.sum(owed.c.numbers - owed.c.answered).label("numbers_open"),
            func.min(owed.c.reported_at).label("oldest_reported_at"),
            func.sum(case((owed.c.due_at <= now, 1), else_=0)).label("overdue_chunks"),
            func.min(owed.c.due_at).label("oldest_due_at"),
        )
        .where(owed.c.answered < owed.c.numbers)
        .group_by(*by)
        .order_by(*by)
    )


def _clearances(filters: Filters, now: datetime) -> Select[Any]:
    """Newest first. A batch counts for the party whose numbers it holds, whoever asked."""
    whose = func.coalesce(batches.c.acting_for, clearances.c.carrier_id)
    columns = (
        whose.label("carrier_id"),
        clearances.c.judged_at,
        clearances.c.batch_id,
        clearances.c.go,
        clearances.c.go_with_exceptions,
        clearances.c.wait,
    )
    mine = limits((filters.carrier_id, whose.__eq__))
    return (
        select(*columns)
        .select_from(clearances)
        .outerjoin(batches, batches.c.batch_id == clearances.c.batch_id)
        .where(*mine, *moments(filters, clearances.c.judged_at))
        .order_by(clearances.c.judged_at.desc(), clearances.c.clearance_id)
    )


def _batches(filters: Filters, now: datetime) -> Select[Any]:
    """By the party whose numbers the batches hold, whoever uploaded them."""
    whose = func.coalesce(batches.c.acting_for, batches.c.carrier_id)
    sums = [func.sum(batches.c[name]).label(name) for name in ("rows_seen", "rows_accepted", "rows_refused")]
    columns = (whose.label("carrier_id"), func.count().label("batches"), *sums)
    mine = limits((filters.carrier_id, whose.__eq__))
    counted = select(*columns).where(*mine, *moments(filters, batches.c.created_at))
    return counted.group_by(whose).order_by(whose)


def _renewals(filters: Filters, now: datetime) -> Select[Any]:
    mine = limits(
        (filters.carrier_id, renewals.c.carrier_id.__eq__),
        (filters.since, renewals.c.day.__ge__),
        (filters.until, renewals.c.day.__le__),
    )
    counted = select(
        renewals.c.day, func.count().label("requested"), func.sum(renewals.c.app_count).label("app_requests")
    )
    return counted.where(*mine).group_by(renewals.c.day).order_by(renewals.c.day)


_REPORTS: dict[str, Callable[[Filters, datetime], Select[Any]]] = {
    "published": _published,
    "provinces": _provinces,
    "regions": _regions,
    "delivery": _delivery,
    "answers": _answers,
    "open": _open,
    "clearances": _clearances,
    "batches": _batches,
    "renewals": _renewals,
}
