"""What a carrier is told of a stretch of its topic: one refusal per record that was not taken as it stands, one
summary of the stretch. Numbers are masked; a list's rows are named by their places in it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from hub.domain.numbers import mask
from hub.domain.quarantine import Quarantine
from hub.domain.refusals import Refusal
from hub.flow.ingest.events import Verdict
from hub.flow.ingest.lists import ListVerdict, NumberList
from hub.flow.ingest.topic import Outcome, Said, SaidEvent, Unreadable
from hub.ports.topics import Publication, SentRecord
from hub.wire.ingress import (
    KIND_HEADER,
    REPORT,
    SCHEMA_HEADER,
    AcceptedChunk,
    AcceptedEvent,
    AcceptedList,
    IngressRefusal,
    IngressSummary,
    RefusedRows,
    Source,
    SourceRange,
)


class Taken(NamedTuple):
    """One record, what it says, and what became of it."""

    record: SentRecord
    said: Said
    outcome: Outcome

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers accepted and refused; a record set aside as a whole counts as one refused."""
        if isinstance(self.outcome, Unreadable) or self.outcome.id_reused:
            return 0, 1
        if isinstance(self.outcome, Verdict):
            return (1, 0) if self.outcome.accepted else (0, 1)
        refused = int((self.outcome.refusal != 0).sum())
        return len(self.outcome.refusal) - refused, refused

    @property
    def quarantined(self) -> Quarantine | None:
        if isinstance(self.outcome, Unreadable):
            return self.outcome.reason
        return Quarantine.id_reused if self.outcome.id_reused else None


def reports(source: str, to: str, taken: Sequence[Taken], now: datetime) -> list[Publication]:
    """``source`` is the carrier's topic, ``to`` the one it reads; ``taken`` is of one partition, in order."""
    first, last = taken[0].record, taken[-1].record
    told = [refusal for one in taken if (refusal := _refusal(source, one, now)) is not None]
    accepted, refused = (sum(each) for each in zip(*(one.counts for one in taken), strict=True))
    summary = IngressSummary(
        source=SourceRange(topic=source, partition=first.partition, from_offset=first.offset, to_offset=last.offset),
        records=len(taken),
        accepted=accepted,
        refused=refused,
        events=[
            AcceptedEvent(offset=record.offset, id=said.key, event_id=outcome.event_id)
            for record, said, outcome in taken
            if isinstance(said, SaidEvent) and isinstance(outcome, Verdict) and outcome.accepted
        ],
        lists=[
            _list(record, said, outcome)
            for record, said, outcome in taken
            if isinstance(said, NumberList) and isinstance(outcome, ListVerdict) and not outcome.id_reused
        ],
        told_at=now,
    )
    place = f"{first.partition}/{first.offset}"
    return [*(_message(to, *each) for each in told), _message(to, f"summary/{place}", summary)]


def _message(to: str, key: str, report: IngressRefusal | IngressSummary) -> Publication:
    headers = {SCHEMA_HEADER: REPORT, KIND_HEADER: report.kind}
    return Publication(to, key, headers, report.model_dump_json().encode())


def _refusal(source: str, one: Taken, now: datetime) -> tuple[str, IngressRefusal] | None:
    record, said, outcome = one
    at = Source(topic=source, partition=record.partition, offset=record.offset)
    key = f"refusal/{record.partition}/{record.offset}"
    own = said.key
    if (quarantined := one.quarantined) is not None:
        detail = outcome.detail if isinstance(outcome, Unreadable) else None
        return key, IngressRefusal(
            source=at,
            id=own,
            reason=quarantined.value,
            detail=detail or quarantined.meaning,
            retriable=False,
            told_at=now,
        )
    assert not isinstance(outcome, Unreadable)
    if isinstance(outcome, Verdict):
        if outcome.refusal is None:
            return None
        number = said.item.number if isinstance(said, SaidEvent) else 0
        return key, IngressRefusal(
            source=at,
            id=own,
            reason=outcome.refusal.value,
            detail=outcome.detail or outcome.refusal.meaning,
            retriable=outcome.refusal.retriable,
            number=mask(number) if number else None,
            told_at=now,
        )
    if not outcome.refusal.any():
        return None
    rows = [_rows(refusal, places) for refusal, places in outcome.refused.items()]
    return key, IngressRefusal(
        source=at,
        id=own,
        retriable=any(each.retriable for each in rows),
        rows=rows,
        rows_refused=sum(len(each.rows) for each in rows),
        told_at=now,
    )


def _rows(refusal: Refusal, places: list[int]) -> RefusedRows:
    return RefusedRows(reason=refusal.value, meaning=refusal.meaning, retriable=refusal.retriable, rows=places)


def _list(record: SentRecord, said: NumberList, outcome: ListVerdict) -> AcceptedList:
    refused = int((outcome.refusal != 0).sum())
    return AcceptedList(
        offset=record.offset,
        id=said.key,
        accepted=len(outcome.refusal) - refused,
        refused=refused,
        chunks=[
            AcceptedChunk(chunk_id=chunk.chunk_id, count=len(chunk.rows), rows=chunk.rows.tolist())
            for chunk in outcome.chunks
        ],
    )
