"""Implements `hub.ports.ledger.Ledger` by handing each call to the module of its group."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from hub.adapters.sql import (
    answers,
    batches,
    belonging,
    catalogue,
    clearances,
    deliveries,
    delivery_lists,
    judgements,
    redrives,
    renewals,
    reports,
    topics,
)
from hub.adapters.sql.directory import SqlDirectory
from hub.adapters.sql.engine import make_room, open_database
from hub.adapters.sql.keys import Keys
from hub.adapters.sql.leases import SqlLeases
from hub.adapters.sql.runner import Runner
from hub.domain.batches import Batch
from hub.ports.clock import Clock
from hub.ports.leases import Fences
from hub.ports.ledger import (
    Answer,
    AttemptRecord,
    CatalogueEntry,
    ChunkStanding,
    ClearanceRecord,
    Cursor,
    DeliveryRow,
    IngressPositions,
    OutboxEntry,
    ParkedChunk,
    Receipt,
    RedriveOrder,
    RenewalRecord,
    Told,
    Waiver,
)
from hub.ports.metrics import Metrics

READERS = 4

_INLINE_ROWS = 20_000
"""Exceptions with more rows than this are packed away from the event loop."""


class SqlLedger:
    """Several processes may open the same database. `close` also ends the directory opened with it."""

    def __init__(self, runner: Runner, keys: Keys, clock: Clock, at: str | Path) -> None:
        self.keeps_outbox = False
        self._runner, self._keys, self._clock, self._at = runner, keys, clock, at

    @classmethod
    def open(
        cls,
        url_or_path: str | Path,
        clock: Clock,
        metrics: Metrics | None = None,
        *,
        readers: int = READERS,
        migrate: bool = True,
    ) -> SqlLedger:
        """Open or create the database. Blocks shortly. Raises SchemaTooNew, SchemaBehind, Unavailable.

        ``migrate``: bring older tables up to date, rather than refuse them. A ledger on a server belongs to the event
        loop that first uses it.
        """
        return cls(*open_database(url_or_path, clock, metrics, readers, migrate), clock, url_or_path)

    def directory(self) -> SqlDirectory:
        """The directory in the same database."""
        return SqlDirectory(self._runner, self._keys, self._clock)

    def leases(self) -> SqlLeases:
        """The leases in the same database."""
        return SqlLeases(self._runner, self._clock)

    # -- itself

    async def belongs_to(self, log_id: str, *, replace: bool = False) -> str:
        return await self._runner.write(lambda conn: belonging.bind(conn, log_id, replace))

    async def make_room(self) -> int:
        """See to it that tables that grow for years have parts ready; how many were made. Nothing on SQLite.

        On a connection of its own, which waits for a table two seconds at most: who comes behind it waits as long."""
        return await asyncio.to_thread(make_room, self._at)

    # -- cursors and receipts

    async def open_cursors(self, cursors: Sequence[Cursor]) -> None:
        await self._runner.write(lambda conn: deliveries.open_cursors(conn, self._keys, cursors))

    async def cursors(self, subscription_id: str | None = None) -> list[Cursor]:
        return await self._runner.read(lambda conn: delivery_lists.all_cursors(conn, subscription_id))

    async def deliver(
        self,
        *,
        receipts: Sequence[Receipt] = (),
        parked: Sequence[ParkedChunk] = (),
        cursors: Sequence[Cursor] = (),
        attempts: Sequence[AttemptRecord] = (),
        fences: Fences | None = None,
    ) -> frozenset[int]:
        call = deliveries.Delivery(receipts, parked, cursors, attempts, fences or {})
        return await self._runner.write_bulk(self._deliver, call)

    def _deliver(self, conn: Connection, calls: list[deliveries.Delivery]) -> list[frozenset[int]]:
        return deliveries.deliver(conn, self._keys, calls)

    async def rewind(self, subscription_id: str, cursors: Sequence[Cursor]) -> None:
        await self._runner.write(lambda conn: deliveries.rewind(conn, self._keys, subscription_id, cursors))

    async def restart(self, cursors: Sequence[Cursor]) -> None:
        await self._runner.write(lambda conn: deliveries.restart(conn, self._keys, cursors))

    async def order_redrive(self, order: RedriveOrder) -> None:
        await self._runner.write(lambda conn: redrives.put(conn, order))

    async def redrive_orders(self) -> list[RedriveOrder]:
        return await self._runner.read(redrives.pending)

    async def redrive_done(self, order_ids: Sequence[str]) -> None:
        await self._runner.write(lambda conn: redrives.done(conn, order_ids))

    async def receipts_of(self, subscription_id: str, chunk_ids: Sequence[str]) -> dict[str, Receipt]:
        return await self._runner.read(lambda conn: delivery_lists.receipts_of(conn, subscription_id, chunk_ids))

    async def parked_of(self, subscription_id: str, *, limit: int = 1000) -> list[ParkedChunk]:
        return await self._runner.read(lambda conn: delivery_lists.parked_of(conn, subscription_id, limit))

    async def parked_total(self) -> int:
        return await self._runner.read(delivery_lists.parked_total)

    async def unpark(self, subscription_id: str, chunk_ids: Sequence[str]) -> int:
        return await self._runner.write(lambda conn: deliveries.unpark(conn, subscription_id, chunk_ids))

    async def deliveries_of(self, subscription_id: str, *, limit: int = 100) -> list[DeliveryRow]:
        return await self._runner.read(lambda conn: delivery_lists.deliveries_of(conn, subscription_id, limit))

    # -- catalogue

    async def catalogue(self, entries: Sequence[CatalogueEntry], positions: Mapping[int, int]) -> None:
        await self._runner.write(lambda conn: catalogue.put(conn, self._keys, entries, positions))

    async def catalogue_positions(self) -> dict[int, int]:
        return await self._runner.read(catalogue.positions)

    async def clear_catalogue(self) -> None:
        await self._runner.write(catalogue.clear)

    async def chunks_of_batch(self, batch_id: str) -> list[CatalogueEntry]:
        return await self._runner.read(lambda conn: catalogue.of_batch(conn, batch_id))

    async def chunk(self, chunk_id: str) -> CatalogueEntry | None:
        return await self._runner.read(lambda conn: catalogue.one(conn, chunk_id))

    # -- answers

    async def answer(self, answers: Sequence[Answer]) -> list[bool]:
        """Also raises InvalidRequest if the rows of an exception are not ascending or lie outside the chunk."""
        if not answers:
            return []
        if sum(len(exception.rows) for answer in answers for exception in answer.exceptions) > _INLINE_ROWS:
            call = await asyncio.to_thread(_prepare, answers)
        else:
            call = _prepare(answers)
        return await self._runner.write_bulk(self._answer, call, patient=True)

    def _answer(self, conn: Connection, calls: list[list[answers.Prepared]]) -> list[list[bool]]:
        return answers.answer(conn, self._keys, calls, self.keeps_outbox)

    async def standings(
        self, chunks: Sequence[tuple[str, int]], subscription_ids: Sequence[str]
    ) -> list[ChunkStanding]:
        return await self._runner.read(lambda conn: answers.standings(conn, chunks, subscription_ids))

    async def answers_of(self, subscription_id: str, chunk_id: str) -> list[Answer]:
        return await self._runner.read(lambda conn: answers.answers_of(conn, subscription_id, chunk_id))

    # -- batches

    async def put_batch(self, batch: Batch) -> None:
        await self._runner.write(lambda conn: batches.put(conn, batch))

    async def batch(self, batch_id: str) -> Batch | None:
        return await self._runner.read(lambda conn: batches.one(conn, batch_id))

    async def batch_by_key(self, carrier_id: str, idempotency_key: str) -> Batch | None:
        return await self._runner.read(lambda conn: batches.by_key(conn, carrier_id, idempotency_key))

    async def batches(
        self, carrier_id: str | None = None, *, state: str | None = None, limit: int = 100
    ) -> list[Batch]:
        return await self._runner.read(lambda conn: batches.newest(conn, carrier_id, state, limit))

    # -- clearance and waivers

    async def moment(self) -> int:
        return await self._runner.read(judgements.moment)

    async def record_clearance(self, record: ClearanceRecord, *, since: int, chunk_ids: Collection[str]) -> bool:
        return await self._runner.write(lambda conn: clearances.record(conn, record, since, chunk_ids))

    async def put_waiver(self, waiver: Waiver) -> None:
        await self._runner.write(lambda conn: clearances.put_waiver(conn, waiver))

    async def waivers(self) -> list[Waiver]:
        return await self._runner.read(clearances.all_waivers)

    # -- renewals

    async def put_renewal(self, renewal: RenewalRecord) -> None:
        await self._runner.write(lambda conn: renewals.put(conn, renewal))

    async def renewal(self, renewal_id: str) -> RenewalRecord | None:
        return await self._runner.read(lambda conn: renewals.one(conn, renewal_id))

    # -- the parties' topics

    async def ingress_positions(self, carrier_id: str) -> IngressPositions | None:
        return await self._runner.read(lambda conn: topics.positions(conn, carrier_id))

    async def move_ingress(self, carrier_id: str, positions: IngressPositions) -> None:
        await self._runner.write(lambda conn: topics.move(conn, carrier_id, positions))

    async def forget_ingress(self, carrier_id: str) -> bool:
        return await self._runner.write(lambda conn: topics.forget(conn, carrier_id))

    async def outbox(self, after: int = 0, limit: int = 500) -> list[OutboxEntry]:
        return await self._runner.read(lambda conn: topics.outbox(conn, after, limit))

    async def outbox_size(self) -> int:
        return await self._runner.read(topics.outbox_size)

    async def told(self, chunk_ids: Sequence[str]) -> list[Told]:
        return await self._runner.read(lambda conn: topics.told(conn, chunk_ids))

    async def settle_outbox(self, numbers: Sequence[int], told: Sequence[Told] = ()) -> None:
        await self._runner.write(lambda conn: topics.settle(conn, numbers, told))

    # -- reports

    async def report(self, name: str, **filters: Any) -> list[dict[str, Any]]:
        """Raises InvalidRequest for an unknown report, filter or day."""
        now = self._clock.now()
        return await self._runner.read(lambda conn: reports.report(conn, name, filters, now))

    async def close(self) -> None:
        await self._runner.close()


def _prepare(said: Sequence[Answer]) -> list[answers.Prepared]:
    return [answers.prepare(answer) for answer in said]


def open_ledger(
    url_or_path: str | Path,
    clock: Clock,
    metrics: Metrics | None = None,
    *,
    readers: int = READERS,
    migrate: bool = True,
) -> tuple[SqlDirectory, SqlLedger]:
    """Both halves over one database; closing the ledger closes both."""
    ledger = SqlLedger.open(url_or_path, clock, metrics, readers=readers, migrate=migrate)
    return ledger.directory(), ledger
