"""The asyncio client: the same calls as `_sync`, awaited. Nothing is decided here; a test compares the two."""

from __future__ import annotations

import asyncio
import builtins
import time
from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, TypeVar

import httpx

from numhub_client import _flow as flow
from numhub_client import _requests as requests
from numhub_client._answer import Answer
from numhub_client._auth import Credentials, PrivateKey, TokenCache
from numhub_client._chunk import Chunk
from numhub_client._content import empty, examine
from numhub_client._feed import Page, Walk, fetch_chunk
from numhub_client._flow import Effect, Flow, Retry, Send, Sleep, Tell, Token
from numhub_client._http import USER_AGENT, http_error, http_request, timeout_of
from numhub_client._requests import Call
from numhub_client._send import ack_calls, one_answer, progress_of_digest
from numhub_client.errors import NumhubError
from numhub_client.models import (
    AckException,
    AckResult,
    App,
    Batch,
    BatchClearance,
    CheckAnswer,
    Clearance,
    CommitResult,
    ContentEncoding,
    ContentFormat,
    Delivery,
    Disposition,
    Event,
    EventResults,
    EventType,
    Lane,
    Mode,
    ProofResult,
    Purpose,
    RefusedRow,
    Renewal,
    Subscription,
    TestResult,
    Waiver,
)
from numhub_client.webhooks import Pointer

T = TypeVar("T")


class AsyncClient:
    """Talks to one hub as one party. Use it as an async context manager, or `aclose` it; safe to share between tasks
    of one event loop.

    ``url``: the hub's address, e.g. https://hub.example.com. ``credentials``: a `PrivateKey` (or a `ClientSecret` in
    sandboxes). ``timeout``: seconds for connecting and for each silence while reading. ``issuer``: pin the hub's
    issuer name. ``transport``: any httpx transport, e.g. ``numhub_client.testing.FakeHub().transport`` or
    ``httpx.ASGITransport(app)`` (async only). Every call raises `NumhubError` (tree: ``numhub_client.errors``), and
    ValueError for arguments that no hub would take.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        timeout: float = 30.0,
        retry: Retry | None = None,
        issuer: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=url, timeout=timeout_of(timeout), transport=transport, headers={"user-agent": USER_AGENT}
        )
        self._credentials, self._issuer, self._timeout = credentials, issuer, timeout
        self._retry = retry or Retry()
        self._tokens, self._token_lock = TokenCache(), asyncio.Lock()
        self.batches = Batches(self)
        self.events = Events(self)
        self.subscriptions = Subscriptions(self)
        self.feed = Feed(self)
        self.chunks = Chunks(self)
        self.acks = Acks(self)
        self.check = Checks(self)
        self.renewals = Renewals(self)
        self.clearance = Clearances(self)
        self.waivers = Waivers(self)
        self.reports = Reports(self)
        self.apps = Apps(self)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def token(self) -> str:
        """A valid access token, for requests this package does not know."""
        return await self._token(None)

    # -- carrying out effects

    async def _call(self, call: Call[T]) -> T:
        return await self._run(flow.perform(call, self._retry))

    async def _run(self, steps: Flow[T]) -> T:
        reply: Any = None
        failure: NumhubError | None = None
        while True:
            try:
                effect = steps.send(reply) if failure is None else steps.throw(failure)
            except StopIteration as finished:
                return finished.value  # type: ignore[no-any-return]
            reply, failure = None, None
            try:
                reply = await self._carry_out(effect)
            except NumhubError as error:
                failure = error

    async def _carry_out(self, effect: Effect) -> Any:
        match effect:
            case Send():
                return await self._send(effect)
            case Sleep():
                await asyncio.sleep(effect.seconds)
            case Token():
                return await self._token(effect.refused)
        return None

    async def _send(self, effect: Send) -> httpx.Response:
        content = effect.request.content
        pieces = None if content is None else content.apieces(effect.request.offset, effect.request.told)
        request = http_request(self._http, effect, pieces, self._timeout)
        try:
            response = await self._http.send(request, stream=True)
            try:
                if effect.request.into is not None and response.is_success:
                    effect.request.into.seek(0)
                    effect.request.into.truncate()
                    async for piece in response.aiter_bytes():
                        effect.request.into.write(piece)
                else:
                    await response.aread()
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise http_error(error) from error
        return response

    async def _token(self, refused: str | None) -> str:
        async with self._token_lock:
            token = self._tokens.get(refused)
            if token is None:
                token = await self._run(flow.obtain(self._credentials, self._tokens, self._issuer, self._retry))
            return token


class _Resource:
    def __init__(self, client: AsyncClient) -> None:
        self._client = client


class Batches(_Resource):
    """Carrier files."""

    async def upload(
        self,
        source: str | Path | bytes | IO[bytes],
        *,
        batch_seq: int,
        event_type: EventType = "release_scheduled",
        acting_for: str | None = None,
        format: ContentFormat | None = None,
        encoding: ContentEncoding | None = None,
        rows: int | None = None,
        progress: Tell | None = None,
        idempotency_key: str | None = None,
        wait: bool = True,
        wait_within: float = 3600.0,
    ) -> Batch:
        """Announce, upload, commit and wait for the verdict; a cut anywhere is resumed where the hub says.

        ``source``: a path, bytes, or a seekable binary file. Format and encoding come from the file's name unless
        given. Calling it again with the same file and ``batch_seq`` continues the same batch. ``progress`` hears
        `Progress`. Raises BatchFailed when the file as a whole was refused; single refused rows are no error: see
        `result`.
        """
        content = examine(source, format=format, encoding=encoding, rows=rows, told=progress_of_digest(progress))
        announced = requests.announce(content, batch_seq, event_type, acting_for, idempotency_key)
        return await self._client._run(
            flow.upload(content, announced, self._client._retry, tell=progress, wait=wait, within=wait_within)
        )

    async def empty(
        self,
        *,
        batch_seq: int,
        event_type: EventType = "release_scheduled",
        acting_for: str | None = None,
        idempotency_key: str | None = None,
        wait_within: float = 60.0,
    ) -> Batch:
        """Say that there is nothing this period, so that silence stays noticeable."""
        announced = requests.announce(empty(), batch_seq, event_type, acting_for, idempotency_key)
        return await self._client._run(
            flow.upload(empty(), announced, self._client._retry, tell=None, wait=True, within=wait_within)
        )

    async def get(self, batch_id: str) -> Batch:
        return await self._client._call(requests.batch(batch_id))

    async def list(self) -> builtins.list[Batch]:
        """Your batches, newest first."""
        return await self._client._call(requests.batches())

    async def wait(self, batch_id: str, *, within: float = 3600.0, progress: Tell | None = None) -> Batch:
        """Until the batch is committed. Raises BatchFailed, WaitTimedOut."""
        return await self._client._run(flow.wait_batch(batch_id, self._client._retry, tell=progress, within=within))

    async def result(self, batch_id: str) -> builtins.list[RefusedRow]:
        """Each refused row with its line and reason, held in memory; for huge files use `save_result`."""
        return await self._client._call(requests.batch_result(batch_id))

    async def save_result(self, batch_id: str, path: str | Path) -> None:
        """Write the result file to ``path`` as it comes."""
        with Path(path).open("wb") as file:  # noqa: ASYNC230 - small writes to a local file
            await self._client._call(requests.batch_result_into(batch_id, file))


class Events(_Resource):
    """Single events of the live lane."""

    async def publish(self, events: Sequence[Event], *, idempotency_key: str | None = None) -> EventResults:
        """Up to 1,000 events; one result each, in order. Refused items are results, not exceptions.

        The key is made here and kept over retries. Give your own if you may have to repeat the call after a crash.
        """
        return await self._client._call(requests.publish(events, idempotency_key))


class Subscriptions(_Resource):
    """What your apps hear of, and how it reaches them."""

    async def create(
        self,
        app_id: str,
        *,
        mode: Mode = "webhook_full",
        endpoint: str | None = None,
        event_types: Sequence[EventType] | None = None,
        lanes: Sequence[Lane] | None = None,
        purpose: Purpose = "account_unbind",
        start: Literal["now", "earliest"] = "now",
        signature: Literal["v1", "v1a"] = "v1",
    ) -> Subscription:
        """``secret`` of the answer is shown this once. Webhook endpoints must then be proven (`prove`)."""
        return await self._client._call(
            requests.create_subscription(app_id, mode, endpoint, event_types, lanes, purpose, start, signature)
        )

    async def list(self) -> builtins.list[Subscription]:
        return await self._client._call(requests.subscriptions())

    async def get(self, subscription_id: str) -> Subscription:
        return await self._client._call(requests.subscription(subscription_id))

    async def patch(
        self,
        subscription_id: str,
        *,
        endpoint: str | None = None,
        event_types: Sequence[EventType] | None = None,
        lanes: Sequence[Lane] | None = None,
    ) -> Subscription:
        """What is left out stays. A new endpoint must be proven again."""
        return await self._client._call(requests.patch_subscription(subscription_id, endpoint, event_types, lanes))

    async def prove(self, subscription_id: str) -> ProofResult:
        """Have the hub post its challenge to the endpoint; nothing is delivered before it was answered."""
        return await self._client._call(requests.prove(subscription_id))

    async def rotate(self, subscription_id: str, *, overlap_seconds: int = 86_400) -> Subscription:
        """A new secret (shown this once); the old one signs too until the overlap ends."""
        return await self._client._call(requests.rotate(subscription_id, overlap_seconds))

    async def pause(self, subscription_id: str) -> Subscription:
        """Stand still and lose nothing."""
        return await self._client._call(requests.subscription_act(subscription_id, "pause"))

    async def resume(self, subscription_id: str) -> Subscription:
        return await self._client._call(requests.subscription_act(subscription_id, "resume"))

    async def test(self, subscription_id: str) -> TestResult:
        """Have the hub send a test event."""
        return await self._client._call(requests.send_test(subscription_id))

    async def delete(self, subscription_id: str) -> None:
        await self._client._call(requests.delete_subscription(subscription_id))

    async def deliveries(self, subscription_id: str) -> builtins.list[Delivery]:
        """The newest deliveries with their state and attempts."""
        return await self._client._call(requests.deliveries(subscription_id))

    async def redrive(
        self,
        subscription_id: str,
        *,
        since: datetime | None = None,
        chunk_ids: Sequence[str] | None = None,
        parked: bool = False,
    ) -> int | None:
        """Deliver again: everything since a moment, some chunks, or all parked ones. Gives the number of parked
        chunks."""
        return await self._client._call(requests.redrive(subscription_id, since, chunk_ids, parked))


class Feed(_Resource):
    """Pull: pages from a cursor, then a commit."""

    async def pages(
        self,
        subscription_id: str,
        *,
        wait_seconds: int = 20,
        follow: bool = True,
        commit: bool = True,
        idle: bool = False,
        cursor: str | None = None,
        max_numbers: int | None = None,
        max_bytes: int | None = None,
    ) -> AsyncIterator[Page]:
        """Pages from the committed position (or ``cursor``) on.

        A page is committed when the next one is asked for, that is, after your loop's body has finished with it;
        leave the loop early and it comes again. ``commit=False`` leaves that to you (`commit`). ``follow``: wait for
        more at the end (long poll of ``wait_seconds``), for ever; else stop there. ``idle``: yield empty pages too,
        to look at a stop flag.
        """
        walk = Walk(subscription_id, self._client._retry, wait_seconds, follow, commit, max_numbers, max_bytes, cursor)
        while (page := await self._client._run(walk.step())) is not None:
            if page.messages or idle:
                yield page

    async def events(
        self, subscription_id: str, *, wait_seconds: int = 20, follow: bool = True, cursor: str | None = None
    ) -> AsyncIterator[Chunk]:
        """The chunks of `pages`, one by one; a page is committed once its last chunk was finished with."""
        async for page in self.pages(subscription_id, wait_seconds=wait_seconds, follow=follow, cursor=cursor):
            for chunk in page.chunks:
                yield chunk

    async def commit(self, subscription_id: str, cursor: str) -> CommitResult:
        """The receipt for everything up to ``cursor``. Committing an older one again changes nothing."""
        return await self._client._call(requests.commit_feed(subscription_id, cursor))


class Chunks(_Resource):
    async def get(self, subscription_id: str | None, wanted: Pointer | str) -> Chunk:
        """The chunk a pointer names, its digest verified, or one by id. Raises DigestMismatch, NotFound."""
        return await self._client._run(fetch_chunk(subscription_id, wanted, self._client._retry))


class Acks(_Resource):
    """Saying what was done."""

    async def send(self, answers: Answer | Sequence[Answer], *, subscription_id: str | None = None) -> list[AckResult]:
        """Committed at the hub when this returns. Many answers go together, up to 1,000 per request."""
        results: list[AckResult] = []
        for call in ack_calls(answers, subscription_id):
            found = await self._client._call(call)
            results += found
        return results

    async def answer(
        self,
        subscription_id: str,
        chunk: Chunk | str,
        *,
        default: Disposition | None = None,
        review_at: datetime | None = None,
        exceptions: Sequence[AckException] = (),
    ) -> AckResult:
        """One chunk's answer written out, without an `Answer` object."""
        call = one_answer(subscription_id, chunk, default, review_at, exceptions)
        return (await self._client._call(call))[0]


class Checks(_Resource):
    """Has this number changed hands since this date?"""

    async def one(self, number: str, since: date | str) -> CheckAnswer:
        return (await self.many([(number, since)]))[0]

    async def many(self, pairs: Sequence[tuple[str, date | str]]) -> list[CheckAnswer]:
        """Up to 1,000 (number, day in China) pairs; one answer each, in order."""
        return await self._client._call(requests.check(pairs))


class Renewals(_Resource):
    """One new holder presses one key (主动焕新)."""

    async def request(
        self,
        number: str,
        *,
        activated_at: datetime,
        apps: Sequence[str] | Literal["all"],
        consent_sha256: str,
        acting_for: str | None = None,
        idempotency_key: str | None = None,
    ) -> Renewal:
        return await self._client._call(
            requests.renewal_request(number, activated_at, apps, consent_sha256, acting_for, idempotency_key)
        )

    async def get(self, renewal_id: str) -> Renewal:
        return await self._client._call(requests.renewal(renewal_id))

    async def wait(self, renewal_id: str, *, within: float = 60.0) -> Renewal:
        """Until every app has answered. Raises WaitTimedOut."""
        return await self._client._run(flow.wait_renewal(renewal_id, self._client._retry, within=within))


class Clearances(_Resource):
    """May these numbers be sold again?"""

    async def batch(self, batch_id: str, *, detail: Literal["none", "not_go", "all"] = "none") -> BatchClearance:
        return await self._client._call(requests.batch_clearance(batch_id, detail))

    async def numbers(self, numbers: Sequence[str]) -> Clearance:
        """Up to 10,000 numbers; one verdict each."""
        return await self._client._call(requests.clearance(numbers))


class Waivers(_Resource):
    """Signed statements that count as an answer."""

    async def sign_and_put(
        self,
        subscriber_id: str,
        *,
        person: str,
        reason: str,
        batch_id: str | None = None,
        ends_at: datetime | None = None,
        key: PrivateKey | None = None,
    ) -> Waiver:
        """Signs with ``key``, else with this client's own key. Raises ValueError if that is a secret, which signs
        nothing."""
        key = key or (self._client._credentials if isinstance(self._client._credentials, PrivateKey) else None)
        if key is None:
            raise ValueError("a waiver is signed with a registered private key; give key=")
        return await self._client._call(
            requests.waiver(key, subscriber_id, person, reason, batch_id, ends_at, time.time())
        )

    async def list(self) -> builtins.list[Waiver]:
        return await self._client._call(requests.waivers())


class Reports(_Resource):
    async def get(self, name: str, **filters: str | int | None) -> dict[str, Any]:
        """One of the hub's reports, e.g. ``delivery``, as the JSON object it sends.

        Filters: ``since``, ``until`` (days), ``carrier``, ``app_class``, ``event_type``; None means no filter.
        """
        return await self._client._call(requests.report(name, filters))

    async def csv(self, name: str, **filters: str | int | None) -> str:
        """The same as CSV text, for a spreadsheet."""
        return await self._client._call(requests.report_csv(name, filters))


class Apps(_Resource):
    async def list(self) -> builtins.list[App]:
        """Apps a renewal can name."""
        return await self._client._call(requests.apps())
