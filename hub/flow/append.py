"""Appending as a writer should: under a deadline, again under the same id when in doubt, with the fold's verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hub.domain.errors import AppendInDoubt, LogUnavailable
from hub.flow.fold import Fold
from hub.ports.clock import Clock
from hub.ports.log import EventLog, Header, NewRecord, Position
from hub.ports.metrics import Metrics

DEADLINE_SECONDS = 30.0
_AGAIN_AFTER_SECONDS = 0.2


class Writer:
    """Stateless; share one. Appends of concurrent callers are committed together by the log."""

    def __init__(self, log: EventLog, fold: Fold, clock: Clock, metrics: Metrics) -> None:
        self._log, self._fold, self._clock, self._metrics = log, fold, clock, metrics

    async def append(self, records: Sequence[NewRecord]) -> list[bool]:
        """Append and wait for the fold: per record, was it accepted (now, or earlier under the same id)?

        False = void: somebody took its place in the meantime; judge anew and append under the same id. Raises
        LogUnavailable when certainly nothing was appended, AppendInDoubt when the outcome is not known after 30 s:
        the caller's repeat, with the same ids, settles it.
        """
        until = self._clock.monotonic() + DEADLINE_SECONDS
        positions = await self._appended(records, until)
        for record in records:
            self._metrics.count("numhub_records_appended_total", lane=record.headers.get(Header.lane, ""))
        verdicts = await self._judged(records, positions, until)
        for record, accepted in zip(records, verdicts, strict=True):
            if accepted and record.headers.get(Header.kind) == "chunk":
                self._metrics.count(
                    "numhub_events_accepted_total",
                    int(record.headers.get(Header.count, "0")),
                    event_type=record.headers.get(Header.type, ""),
                    lane=record.headers.get(Header.lane, ""),
                )
        return verdicts

    async def _judged(self, records: Sequence[NewRecord], positions: Sequence[Position], until: float) -> list[bool]:
        try:
            async with asyncio.timeout(self._left(until)):
                return [
                    await self._fold.verdict(record.record_id, position)
                    for record, position in zip(records, positions, strict=True)
                ]
        except TimeoutError as error:
            raise AppendInDoubt("the record stands in the log, but the hub has not judged it yet") from error

    async def _appended(self, records: Sequence[NewRecord], until: float) -> list[Position]:
        doubt: AppendInDoubt | None = None
        while True:
            try:
                async with asyncio.timeout(self._left(until)):
                    return await self._log.append(records)
            except TimeoutError as error:
                self._metrics.count("numhub_append_failures_total", outcome="in_doubt")
                raise AppendInDoubt from error
            except LogUnavailable as error:
                self._metrics.count("numhub_append_failures_total", outcome="unavailable")
                if doubt is None:
                    raise
                raise doubt from error  # this try took nothing; the one before may have
            except AppendInDoubt as error:
                self._metrics.count("numhub_append_failures_total", outcome="in_doubt")
                doubt = error
                if self._left(until) <= _AGAIN_AFTER_SECONDS:
                    raise
            await self._clock.sleep(_AGAIN_AFTER_SECONDS)

    def _left(self, until: float) -> float:
        return until - self._clock.monotonic()
