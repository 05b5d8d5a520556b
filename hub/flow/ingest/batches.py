"""A carrier's file from announcement to the last row: announce, upload, commit, follow, collect what was refused.

Commit answers at once; the work runs as a task that survives any crash: `resume_all` takes up every batch that was
being validated. Count and digest are judged before anything is appended; then slice after slice goes through
`hub.flow.ingest.slices`. At the end every row stands exactly once, in the log or in the result file.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hub.domain.batches import Batch, BatchState, ContentEncoding, ContentFormat
from hub.domain.errors import BatchConflict, Forbidden, IdempotencyMismatch, NotFound, Unavailable
from hub.domain.events import EventType
from hub.domain.refusals import BY_NUMBER, Refusal
from hub.flow.append import Writer
from hub.flow.fold import Fold
from hub.flow.ingest.chunks import Cleared
from hub.flow.ingest.publisher import publisher_for
from hub.flow.ingest.slices import Job, Slices
from hub.flow.members import Members
from hub.ports.batch_files import BatchFiles, ContentProblem, Rows, SliceSummary
from hub.ports.clock import Clock
from hub.ports.codec import Codec
from hub.ports.ledger import Ledger
from hub.ports.log import EventLog
from hub.ports.metrics import Metrics
from hub.ports.number_index import NumberIndex
from hub.ports.number_plan import NumberPlan

log = logging.getLogger("numhub.batches")

AT_ONCE = 2
"""Batches worked on at the same time: bounds memory, and one huge file does not keep a small one waiting."""

RETRY_MIN, RETRY_MAX = 0.5, 30.0

Alone = Callable[[str, Callable[[], Coroutine[Any, Any, None]]], Awaitable[bool]]

_OPEN = (BatchState.announced, BatchState.uploading, BatchState.uploaded, BatchState.failed)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a carrier says of a file before it sends it. ``sha256`` is of the content bytes as uploaded, hex."""

    batch_seq: int
    rows: int
    sha256: str
    event_type: EventType
    form: ContentFormat
    encoding: ContentEncoding
    acting_for: str | None = None

    @property
    def digest(self) -> str:
        said = (self.batch_seq, self.rows, self.sha256, self.event_type, self.form, self.encoding, self.acting_for)
        return hashlib.sha256("|".join(map(str, said)).encode()).hexdigest()


class Batches:
    """One event loop; `start` before use, `stop` at the end (running work is taken up again at the next start)."""

    def __init__(
        self,
        ledger: Ledger,
        files: BatchFiles,
        members: Members,
        index: NumberIndex,
        fold: Fold,
        log: EventLog,
        writer: Writer,
        codec: Codec,
        plan: NumberPlan,
        clock: Clock,
        metrics: Metrics,
        cleared: Cleared,
        *,
        in_flight: int = 16,
        alone: Alone | None = None,
    ) -> None:
        """``alone`` runs the work on a batch unless another process is at it, and says whether it ran to its end.

        ``in_flight``: chunks of one batch under way to the log at a time, so that live events never queue long."""
        self._ledger, self._files, self._members, self._fold = ledger, files, members, fold
        self._plan, self._clock, self._metrics = plan, clock, metrics
        self._slices = Slices(files, log, index, writer, codec, plan, clock, cleared, in_flight)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._alone = alone

    # ---- what a carrier calls

    async def announce(self, caller_id: str, idempotency_key: str, said: Announcement) -> tuple[Batch, bool]:
        """The batch, and whether it is new. The same key with the same content gives the same batch.

        Raises IdempotencyMismatch (key used for another announcement), BatchConflict (``batch_seq`` used before),
        Forbidden.
        """
        publisher_for(self._members, self._plan, caller_id, said.acting_for)
        known = await self._ledger.batch_by_key(caller_id, idempotency_key)
        if known is None:
            batch = Batch(
                batch_id="bat_" + hashlib.sha256(f"{caller_id}|{idempotency_key}".encode()).hexdigest()[:24],
                carrier_id=caller_id,
                acting_for=said.acting_for,
                batch_seq=said.batch_seq,
                event_type=said.event_type,
                declared_rows=said.rows,
                declared_sha256=said.sha256,
                content_format=said.form,
                content_encoding=said.encoding,
                idempotency_key=idempotency_key,
                request_digest=said.digest,
                state=BatchState.announced,
                created_at=self._clock.now(),
            )
            async with self._lock(batch.batch_id):
                known = await self._ledger.batch(batch.batch_id)  # the same request may be running twice
                if known is None:
                    await self._ledger.put_batch(batch)
                    return batch, True
        if known.request_digest != said.digest:
            raise IdempotencyMismatch
        return await self._on_disk(known), False

    async def get(self, caller_id: str, batch_id: str) -> Batch:
        """Raises NotFound for what is unknown or somebody else's. The MVNO a batch acts for sees it too."""
        batch = await self._ledger.batch(batch_id)
        if batch is None or caller_id not in (batch.carrier_id, batch.acting_for):
            raise NotFound
        return await self._on_disk(batch)

    async def newest(self, caller_id: str, limit: int = 100) -> list[Batch]:
        return [await self._on_disk(batch) for batch in await self._ledger.batches(caller_id, limit=limit)]

    async def uploaded_bytes(self, caller_id: str, batch_id: str) -> int:
        """Where an interrupted upload continues."""
        return (await self.get(caller_id, batch_id)).uploaded_bytes

    async def upload(self, caller_id: str, batch_id: str, offset: int, content: AsyncIterator[bytes]) -> Batch:
        """Take content from ``offset`` on, straight to disk; 0 starts anew (the last upload before the commit wins).

        Raises BatchConflict when the offset is not the present size or the batch is committed, PayloadTooLarge.
        """
        async with self._lock(batch_id):
            batch = await self._own(caller_id, batch_id)
            if batch.state not in _OPEN:
                raise BatchConflict("The batch is committed; its content cannot change any more.")
            await self._judge_offset(batch_id, offset)
            await self._put(replace(batch, state=BatchState.uploading, failure=None))
        size = await self._files.receive(batch_id, offset, content)
        async with self._lock(batch_id):
            batch = await self._own(caller_id, batch_id)
            if batch.state is not BatchState.uploading:
                raise BatchConflict("The batch was committed while this upload ran.")
            return await self._put(replace(batch, state=BatchState.uploaded, uploaded_bytes=size))

    async def _judge_offset(self, batch_id: str, offset: int) -> None:
        size = await self._files.size(batch_id)
        if offset not in (0, size):
            raise BatchConflict(
                f"The upload continues at byte {size}; send Upload-Offset: {size}, or 0 to start anew.",
                uploaded_bytes=size,
                headers={"upload-offset": str(size)},
            )

    async def commit(self, caller_id: str, batch_id: str) -> Batch:
        """Start the judging of a batch; repeating it changes nothing. An explicitly empty batch is done at once.

        Raises BatchConflict while content is missing.
        """
        async with self._lock(batch_id):
            batch = await self._own(caller_id, batch_id)
            if batch.state in (BatchState.validating, BatchState.committed, BatchState.failed):
                return batch
            if batch.declared_rows == 0 and batch.state is BatchState.announced:
                done = replace(batch, state=BatchState.committed, committed_at=self._clock.now())
                return await self._put(done)
            if batch.state is BatchState.uploading and await self._files.is_whole(batch_id, batch.declared_sha256):
                # the last byte came, but the hub died, or the line was cut, before that could be said
                batch = replace(batch, state=BatchState.uploaded, uploaded_bytes=await self._files.size(batch_id))
            if batch.state is not BatchState.uploaded:
                raise BatchConflict("The content is not complete: upload it, or continue the upload, then commit.")
            batch = await self._put(replace(batch, state=BatchState.validating))
        self._start(batch_id)
        return batch

    async def result(self, caller_id: str, batch_id: str) -> AsyncIterator[bytes]:
        """The refused rows so far as CSV, in pieces. Raises NotFound before the first piece."""
        await self.get(caller_id, batch_id)
        return self._files.result(batch_id)

    # ---- the work behind a commit

    async def resume_all(self) -> int:
        """Take up every batch that was being validated; returns how many."""
        found = await self._ledger.batches(state=BatchState.validating.value, limit=100_000)
        for batch in found:
            self._start(batch.batch_id)
        return len(found)

    async def settled(self, batch_id: str) -> None:
        """Wait until no work runs for the batch in this process."""
        task = self._running.get(batch_id)
        if task is not None:
            await asyncio.shield(task)

    async def stop(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, batch_id: str) -> None:
        if batch_id in self._running:
            return
        task = asyncio.create_task(self._work_alone(batch_id), name=f"batch {batch_id}")
        self._running[batch_id] = task
        task.add_done_callback(lambda _: self._running.pop(batch_id, None))

    async def _work_alone(self, batch_id: str) -> None:
        if self._alone is None:
            await self._work(batch_id)
        else:  # who is refused comes back with `resume_all`
            await self._alone(batch_id, lambda: self._work(batch_id))

    async def _work(self, batch_id: str) -> None:
        """Until it is done: whatever fails for the moment is tried again, from where the disk says it stood."""
        wait = RETRY_MIN
        while True:
            try:
                async with self._places:
                    await self._validate(batch_id)
                return
            except Unavailable as error:
                log.warning("batch_waits", extra={"batch_id": batch_id, "code": error.reason_code})
            except Forbidden:
                log.warning("batch_waits", extra={"batch_id": batch_id, "code": "carrier_suspended"})
            except Exception:
                log.exception("batch_interrupted", extra={"batch_id": batch_id})
            await self._clock.sleep(wait)
            wait = min(wait * 2, RETRY_MAX)

    async def _validate(self, batch_id: str) -> None:
        batch = await self._ledger.batch(batch_id)
        if batch is None or batch.state is not BatchState.validating:
            return
        try:
            await self._verify(batch)
        except ContentProblem as problem:
            log.info("batch_failed", extra={"batch_id": batch_id})
            await self._put(replace(batch, state=BatchState.failed, failure=str(problem), uploaded_bytes=0))
            return
        await self._fold.catch_up()  # what an earlier run appended is known before anything is appended again
        finished = await self._files.finished(batch_id)
        left = [number for number in range(await self._files.slices(batch_id)) if number not in finished]
        async with aclosing(self._read_ahead(batch_id, left)) as slices:
            async for number, rows in slices:
                finished[number] = await self._slice(batch, number, rows)
                for reason, count in finished[number].reasons.items():
                    self._metrics.count("numhub_rows_refused_total", count, reason=reason)
                await self._put(_progress(batch, finished))
        done = _progress(batch, finished)
        await self._put(replace(done, state=BatchState.committed, committed_at=self._clock.now()))
        await self._files.drop_content(batch_id)
        log.info(
            "batch_committed",
            extra={"batch_id": batch_id, "accepted": done.rows_accepted, "refused": done.rows_refused},
        )

    async def _verify(self, batch: Batch) -> None:
        """Raises ContentProblem; nothing of the batch is in the log then."""
        rows = await self._files.verified(batch.batch_id)
        if rows is None:
            rows = await self._files.verify(
                batch.batch_id, batch.declared_sha256, batch.content_format, batch.content_encoding
            )
        if rows != batch.declared_rows:
            raise ContentProblem(f"{batch.declared_rows} rows were declared, the content has {rows}")

    async def _read_ahead(self, batch_id: str, numbers: Sequence[int]) -> AsyncGenerator[tuple[int, Rows], None]:
        """The slices in order; while one is taken in, the next is parsed."""
        coming: asyncio.Task[Rows] | None = None
        try:
            for place, number in enumerate(numbers):
                rows = await (coming or self._files.read_slice(batch_id, number))
                coming = None
                if place + 1 < len(numbers):
                    coming = asyncio.create_task(self._files.read_slice(batch_id, numbers[place + 1]))
                yield number, rows
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)

    async def _slice(self, batch: Batch, number: int, rows: Rows) -> SliceSummary:
        event, refusal = await asyncio.to_thread(_events_of, batch, rows)
        job = Job(
            batch_id=batch.batch_id,
            number=number,
            publisher=publisher_for(self._members, self._plan, batch.carrier_id, batch.acting_for),
            rows=replace(rows, event=event),
            refusal=refusal,
            freeze_days=self._members.policy.freeze_days,
        )
        chunks = await self._slices.take_in(job)
        refused = await asyncio.to_thread(np.flatnonzero, refusal)
        counts = dict(enumerate(np.bincount(refusal[refused]).tolist()))
        summary = SliceSummary(
            rows=len(rows),
            accepted=len(rows) - len(refused),
            refused=len(refused),
            chunks=chunks,
            reasons={BY_NUMBER[code].value: count for code, count in counts.items() if count},
        )
        await self._files.finish_slice(
            batch.batch_id, number, rows.line[refused], refusal[refused], rows.number[refused], summary
        )
        return summary

    # ---- small things

    async def _own(self, caller_id: str, batch_id: str) -> Batch:
        batch = await self._ledger.batch(batch_id)
        if batch is None or batch.carrier_id != caller_id:
            raise NotFound
        return batch

    async def _on_disk(self, batch: Batch) -> Batch:
        """Only the disk knows how far an upload came that runs, or was cut."""
        if batch.state is not BatchState.uploading:
            return batch
        return replace(batch, uploaded_bytes=await self._files.size(batch.batch_id))

    async def _put(self, batch: Batch) -> Batch:
        await self._ledger.put_batch(batch)
        return batch

    def _lock(self, batch_id: str) -> asyncio.Lock:
        """One change of a batch's state at a time. Kept only while somebody holds or awaits it."""
        if len(self._locks) > 1000:
            self._locks = {name: lock for name, lock in self._locks.items() if lock.locked()}
        return self._locks.setdefault(batch_id, asyncio.Lock())


def _progress(batch: Batch, finished: dict[int, SliceSummary]) -> Batch:
    reasons: Counter[str] = Counter()
    for summary in finished.values():
        reasons.update(summary.reasons)
    return replace(
        batch,
        rows_seen=sum(summary.rows for summary in finished.values()),
        rows_accepted=sum(summary.accepted for summary in finished.values()),
        rows_refused=sum(summary.refused for summary in finished.values()),
        chunks=sum(summary.chunks for summary in finished.values()),
        reasons=tuple(sorted(reasons.items())),
    )


def _events_of(batch: Batch, rows: Rows) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The event of every row, and what is refused from the start. A million rows: off the event loop."""
    event = np.where(rows.event == 0, np.uint8(batch.event_type.number), rows.event)
    refusal = rows.refusal.copy()
    # a holder's own request needs consent, which a file cannot carry
    refusal[(event == EventType.renewal_requested.number) & (refusal == 0)] = Refusal.invalid_value.number
    return event, refusal
