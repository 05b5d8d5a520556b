"""From a record of a carrier's topic to what it says, or why it is set aside. Nothing in here raises."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hub.domain.errors import InvalidNumber, InvalidRequest
from hub.domain.events import TerminateReason
from hub.domain.numbers import FIRST_NATIONAL, LAST_NATIONAL, PhoneNumber
from hub.domain.quarantine import Quarantine
from hub.domain.refusals import Refusal
from hub.flow.ingest.events import Item
from hub.flow.ingest.judge import Claims
from hub.flow.ingest.lists import NumberList
from hub.flow.ingest.topic import Said, SaidEvent, Unreadable
from hub.ports.topics import SentRecord
from hub.wire.ingress import FIRST_SECOND, LAST_SECOND, SCHEMA, SCHEMA_HEADER, IngressEvent, IngressList, message
from hub.wire.strict_json import parse

MAX_BYTES: Final = 2 << 20
MAX_HEADERS: Final = 32
MAX_HEADER_BYTES: Final = 8 << 10

_REASONS: Final = {None: 0} | {reason.value: place for place, reason in enumerate(TerminateReason, start=1)}


def read(record: SentRecord) -> Said:
    """What the record says."""
    if record.damaged:
        return Unreadable(Quarantine.damaged)
    names = [len(name) + len(value) for name, value in record.headers]
    if len(names) > MAX_HEADERS or sum(names) > MAX_HEADER_BYTES:
        return Unreadable(Quarantine.headers_too_large)
    if record.size > MAX_BYTES:
        return Unreadable(Quarantine.too_large)
    if not record.value:
        return Unreadable(Quarantine.empty)
    try:
        value = parse(record.value)
    except InvalidRequest as error:
        return Unreadable(Quarantine.invalid_json, error.message)
    except RecursionError:
        return Unreadable(Quarantine.invalid_json)
    if not isinstance(value, dict):
        return Unreadable(Quarantine.invalid_json, "The value is JSON, but no object.")
    key = _key(value)
    versions = [said for name, said in record.headers if name == SCHEMA_HEADER]
    if "schema" in value:
        versions.append(value["schema"].encode() if isinstance(value["schema"], str) else b"")
    if not versions:
        return Unreadable(Quarantine.schema_missing, key=key)
    if any(version != SCHEMA.encode() for version in versions):
        return Unreadable(Quarantine.schema_unknown, f"This hub reads {SCHEMA}.", key)
    try:
        said = message(value)
    except InvalidRequest as error:
        return Unreadable(Quarantine.invalid_message, error.message, key)
    return _event(said) if isinstance(said, IngressEvent) else _list(said)


def _key(value: dict[str, Any]) -> str | None:
    """The carrier's own id, where it is one: a report names the record by it even if the rest is wrong."""
    key = value.get("id")
    fits = isinstance(key, str) and 1 <= len(key) <= 128 and all("!" <= char <= "~" for char in key)
    return key if fits else None


def _event(said: IngressEvent) -> SaidEvent:
    return SaidEvent(
        said.id,
        Item.said(
            said.number,
            said.event_type,
            said.occurred_at,
            said.terminated_at,
            said.release_planned_at,
            said.terminate_reason,
            said.acting_for,
        ),
    )


def _list(said: IngressList) -> NumberList:
    rows = len(said.numbers)
    refusal = np.zeros(rows, np.uint8)

    def times(name: str) -> npt.NDArray[np.int64]:
        column, shared = getattr(said.columns, name), getattr(said.shared, name)
        if column is None:
            return np.full(rows, shared or 0, np.int64)
        found = np.array([one or 0 for one in column], np.int64)
        bad = (found != 0) & ((found < FIRST_SECOND) | (found > LAST_SECOND))
        refusal[bad & (refusal == 0)] = Refusal.invalid_time.number
        found[bad] = 0
        return found

    numbers = np.fromiter((_national(one) for one in said.numbers), np.int64, rows)
    refusal[numbers == 0] = Refusal.invalid_number.number
    claims = Claims(times("occurred_at"), times("terminated_at"), times("release_planned_at"), np.zeros(rows, np.uint8))
    if said.columns.terminate_reason is not None:
        reasons = [_REASONS.get(one, -1) for one in said.columns.terminate_reason]
        unknown = np.array([one < 0 for one in reasons])
        refusal[unknown & (refusal == 0)] = Refusal.invalid_value.number
        claims.reason[:] = [max(one, 0) for one in reasons]
    elif said.shared.terminate_reason is not None:
        claims.reason[:] = _REASONS[said.shared.terminate_reason.value]
    return NumberList(said.id, said.event_type, numbers, claims, refusal, said.shared.acting_for)


def _national(said: int | str) -> int:
    """0 for what is no number."""
    if isinstance(said, int):
        return said if FIRST_NATIONAL <= said <= LAST_NATIONAL else 0
    try:
        return PhoneNumber.parse(said).national
    except InvalidNumber:
        return 0
