"""A hub in memory, for the tests of your receiver or carrier code: no network, no clock to wait for.

```python
hub = FakeHub()
subscription = hub.subscribe("shop")
hub.publish("release_scheduled", ["+8613800138000"], binding_cutoff_at=ended)
with hub.client() as client:
    run_pull(client, subscription.subscription_id, handle, follow=False)
assert hub.disposition(subscription.subscription_id, "+8613800138000") == "unbound"
```

It speaks the real API's paths, bodies and errors as far as this client uses them, accepts any credentials, judges no
lifecycle, and delivers every event to every subscription that wants its type. `FakeHub.fail` and `FakeHub.cut` script
trouble; `FakeHub.requests` tells what was asked.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple

import httpx

from numhub_client._async import AsyncClient
from numhub_client._auth import ClientSecret
from numhub_client._decode import rfc3339
from numhub_client._fake_routes import ROUTES, Refusal, new_secret
from numhub_client._flow import Retry
from numhub_client._sync import Client
from numhub_client.models import EventType, Lane
from numhub_client.webhooks import POINTER_TYPE, PROOF_TYPE, TEST_TYPE, sign

__all__ = ["Answered", "FakeHub", "FakeSubscription", "Published", "Webhook", "chunk_body"]

URL = "https://hub.test"


class Webhook(NamedTuple):
    """A request as the hub would post it."""

    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Published:
    """One chunk in the fake's log; ``body`` is what push and pull both carry."""

    chunk_id: str
    event_type: str
    lane: str
    numbers: tuple[int, ...] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(slots=True)
class FakeSubscription:
    subscription_id: str
    app_id: str
    secret: str = field(repr=False)
    event_types: tuple[str, ...] | None
    mode: str = "pull"
    endpoint: str | None = None
    state: str = "active"
    position: int = 0  # in the log: the next chunk to hand out
    old_secret: str | None = field(default=None, repr=False)

    def wants(self, chunk: Published) -> bool:
        return self.event_types is None or chunk.event_type in self.event_types


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer as it was recorded; ``rows`` gives each row's disposition (None: not answered)."""

    subscription_id: str
    chunk_id: str
    message: Mapping[str, Any]
    rows: tuple[str | None, ...]


@dataclass(slots=True)
class _Trouble:
    times: int
    path: str
    method: str | None
    act: Callable[[httpx.Request], httpx.Response | None]  # None: go on, then lose the answer


class FakeHub:
    """``hub.client()`` and ``hub.async_client()`` are connected to it; ``hub.transport`` fits any httpx client."""

    def __init__(self, *, now: datetime | None = None) -> None:
        self.now = now or datetime.now(UTC).replace(microsecond=0)
        self.log: list[Published] = []
        self.subscriptions: dict[str, FakeSubscription] = {}
        self.answered: list[Answered] = []
        self.events: list[dict[str, Any]] = []  # what carriers published one by one
        self.batches: dict[str, dict[str, Any]] = {}  # as the API shows them
        self.contents: dict[str, bytes] = {}  # batch id -> uploaded bytes
        self.renewals: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, tuple[str, Any]] = {}  # idempotency key -> (digest of the request, answer)
        self.checks: dict[int, str] = {}  # number -> yes | no; all others are no_data
        self.verdicts: dict[int, str] = {}  # number -> go | go_with_exceptions | wait; all others wait
        self.waivers: list[dict[str, Any]] = []
        self.apps: list[dict[str, str]] = []
        self.tokens: set[str] = set()
        self.requests: list[tuple[str, str]] = []  # (method, path) of every request that arrived
        self.page_size = 64
        self._trouble: deque[_Trouble] = deque()
        self._made = 0
        self._random = Random(0)  # noqa: S311 - no secret comes from it

    # -- connecting

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.handle)

    def client(self, **options: Any) -> Client:
        """A blocking client that never waits between retries. ``options`` as for `Client`."""
        return Client(URL, ClientSecret("fake", "secret"), transport=self.transport, **self._patient(options))

    def async_client(self, **options: Any) -> AsyncClient:
        return AsyncClient(URL, ClientSecret("fake", "secret"), transport=self.transport, **self._patient(options))

    def _patient(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"retry": Retry(first=0.0, random=self._random)} | options

    # -- what happens in the world

    def subscribe(
        self, app_id: str = "app", *, event_types: Iterable[EventType] | None = None, start: str = "now"
    ) -> FakeSubscription:
        """A subscription as if somebody had created it; ``secret`` is its ``whsec_``."""
        wanted = None if event_types is None else tuple(event_types)
        made = FakeSubscription(f"sub_{self._id(16)}", app_id, new_secret(), wanted)
        made.position = 0 if start == "earliest" else len(self.log)
        self.subscriptions[made.subscription_id] = made
        return made

    def publish(
        self,
        event_type: EventType,
        numbers: Iterable[int | str],
        *,
        binding_cutoff_at: datetime | None = None,
        lane: Lane = "bulk",
        generation: int = 0,
        seq: int = 1,
        **attributes: Any,
    ) -> Published:
        """One chunk into the log. ``attributes`` and the named ones may be lists, one value per number in ascending
        order."""
        national = tuple(sorted({int(str(number).removeprefix("+86")) for number in numbers}))
        cutoff = binding_cutoff_at or self.now - timedelta(days=60)
        values = {
            "generation": generation,
            "seq": seq,
            "occurred_at": cutoff,
            "binding_cutoff_at": cutoff,
            **attributes,
        }
        chunk_id = f"evt_{self._id(32)}"
        body = chunk_body(chunk_id, event_type, national, lane=lane, reported_at=self.now, **values)
        published = Published(chunk_id, event_type, lane, national, body)
        self.log.append(published)
        return published

    def webhook(
        self,
        subscription: FakeSubscription | str,
        chunk: Published,
        *,
        pointer: bool = False,
        at: datetime | None = None,
        superseded: str = "",
    ) -> Webhook:
        """The signed request for a chunk, full or as a pointer; ``at`` is the attempt's time (else this moment)."""
        owner = self._subscription(subscription)
        body = chunk.body
        if pointer:
            data = {
                "chunk_id": chunk.chunk_id,
                "event_type": chunk.event_type,
                "lane": chunk.lane,
                "count": len(chunk.numbers),
                "sha256": hashlib.sha256(chunk.body).hexdigest(),
                "bytes": len(chunk.body),
                "url": f"/v1/chunks/{chunk.chunk_id}",
            }
            body = cloud_event(chunk.chunk_id, POINTER_TYPE, self.now, data)
        signed = self._signed(owner, chunk.chunk_id, body, at)
        signed.headers.update(
            {
                "numhub-chunk-id": chunk.chunk_id,
                "numhub-event-type": chunk.event_type,
                "numhub-lane": chunk.lane,
            }
        )
        if superseded:
            signed.headers["numhub-superseded-rows"] = superseded
        return signed

    def proof(self, subscription: FakeSubscription | str, challenge: str = "prove-it") -> Webhook:
        owner = self._subscription(subscription)
        event_id = f"evt_{self._id(32)}"
        return self._signed(
            owner, event_id, cloud_event(event_id, PROOF_TYPE, self.now, {"challenge": challenge}), None
        )

    def test_event(self, subscription: FakeSubscription | str) -> Webhook:
        owner = self._subscription(subscription)
        event_id = f"evt_{self._id(32)}"
        return self._signed(owner, event_id, cloud_event(event_id, TEST_TYPE, self.now, {}), None)

    def disposition(self, subscription_id: str, number: int | str) -> str | None:
        """What was last said of a number, over all chunks of this subscription; None: nothing."""
        national = int(str(number).removeprefix("+86"))
        for answered in reversed(self.answered):
            chunk = self.chunk(answered.chunk_id)
            if answered.subscription_id == subscription_id and chunk is not None and national in chunk.numbers:
                said = answered.rows[chunk.numbers.index(national)]
                if said is not None:
                    return said
        return None

    def chunk(self, chunk_id: str) -> Published | None:
        return next((chunk for chunk in self.log if chunk.chunk_id == chunk_id), None)

    # -- trouble

    def fail(
        self,
        status: int = 503,
        *,
        times: int = 1,
        path: str = "/v1/",
        method: str | None = None,
        code: str | None = None,
        retry_after: str | None = None,
    ) -> None:
        """Answer the next ``times`` requests whose path starts with ``path`` with an error and do nothing."""
        refusal = Refusal(status, code or {401: "unauthenticated", 503: "unavailable"}.get(status, "error"))
        extra = {} if retry_after is None else {"retry-after": retry_after}
        self._trouble.append(_Trouble(times, path, method, lambda _: refusal.response(extra)))

    def cut(
        self, *, times: int = 1, path: str = "/v1/", method: str | None = None, after_bytes: int | None = None
    ) -> None:
        """Break the connection of the next ``times`` requests.

        Before anything was done, with ``after_bytes=0``; after everything was done but before the answer, without
        ``after_bytes``; an upload, after so many bytes of it were taken.
        """

        def act(request: httpx.Request) -> httpx.Response | None:
            if after_bytes is None:
                return None
            if after_bytes and request.method == "PUT":
                part = httpx.Request("PUT", request.url, headers=request.headers, content=request.content[:after_bytes])
                self._route(part)
            raise httpx.ReadError("cut by the test", request=request)

        self._trouble.append(_Trouble(times, path, method, act))

    def expire_tokens(self) -> None:
        """Every token given out so far is refused from now on."""
        self.tokens.clear()

    # -- being a server

    def handle(self, request: httpx.Request) -> httpx.Response:
        """One request to one answer: the handler behind ``transport``."""
        request.read()
        path = request.url.path
        self.requests.append((request.method, path))
        trouble = next(
            (t for t in self._trouble if path.startswith(t.path) and t.method in (None, request.method)), None
        )
        if trouble is not None:
            trouble.times -= 1
            if trouble.times <= 0:
                self._trouble.remove(trouble)
            answer = trouble.act(request)
            if answer is not None:
                return answer
            self._route(request)
            raise httpx.ReadError("cut by the test", request=request)
        return self._route(request)

    def _route(self, request: httpx.Request) -> httpx.Response:
        try:
            if request.url.path.startswith("/v1/"):
                given = request.headers.get("authorization", "").removeprefix("Bearer ")
                if given not in self.tokens:
                    raise Refusal(401, "unauthenticated")
            for method, pattern, handler in ROUTES:
                found = pattern.fullmatch(request.url.path)
                if found and method == request.method:
                    return handler(self, request, *found.groups())
            raise Refusal(404, "not_found")
        except Refusal as refusal:
            return refusal.response({})

    # -- small helpers, for the routes too

    def record_answer(self, subscription_id: str, message: Mapping[str, Any]) -> bool:
        chunk = self.chunk(str(message.get("chunk_id")))
        if chunk is None:
            raise Refusal(404, "not_found")
        rows: list[str | None] = [message.get("default")] * len(chunk.numbers)
        for group in message.get("exceptions", ()):
            if group["disposition"].startswith("held_") and "review_at" not in group:
                raise Refusal(422, "invalid_request")
            named = [chunk.numbers.index(int(number.removeprefix("+86"))) for number in group.get("numbers", ())]
            for row in (*group.get("rows", ()), *named):
                if not 0 <= row < len(rows):
                    raise Refusal(422, "invalid_request")
                rows[row] = group["disposition"]
        answered = Answered(subscription_id, chunk.chunk_id, message, tuple(rows))
        before = [a for a in self.answered if (a.subscription_id, a.chunk_id) == (subscription_id, chunk.chunk_id)]
        if before and before[-1].rows == answered.rows:
            return False
        self.answered.append(answered)
        return True

    def _subscription(self, subscription: FakeSubscription | str) -> FakeSubscription:
        return self.subscriptions[subscription] if isinstance(subscription, str) else subscription

    def _signed(self, owner: FakeSubscription, event_id: str, body: bytes, at: datetime | None) -> Webhook:
        digest = hashlib.sha256(f"{owner.subscription_id}|{event_id}".encode()).hexdigest()
        moment = at or datetime.now(UTC)
        headers = sign(owner.secret, f"msg_{digest[:32]}", moment, body)
        if owner.old_secret is not None:
            old = sign(owner.old_secret, f"msg_{digest[:32]}", moment, body)
            headers["webhook-signature"] += " " + old["webhook-signature"]
        return Webhook(headers | {"content-type": "application/cloudevents+json"}, body)

    def _id(self, length: int) -> str:
        self._made += 1
        return hashlib.sha256(f"fake{self._made}".encode()).hexdigest()[:length]


def cloud_event(event_id: str, event_type: str, time: datetime, data: Mapping[str, Any]) -> bytes:
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": "urn:numhub:hub",
        "type": event_type,
        "time": rfc3339(time),
        "timestamp": rfc3339(time),
        "datacontenttype": "application/json",
        "data": data,
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def chunk_body(
    chunk_id: str,
    event_type: str,
    numbers: Sequence[int],
    *,
    lane: str,
    reported_at: datetime,
    renewal: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> bytes:
    """The JSON body of a chunk: an attribute given once is shared; a list becomes exceptions to its commonest value
    when at most a tenth of the rows differ, a column otherwise."""
    shared: dict[str, Any] = {}
    exceptions: dict[str, Any] = {}
    columns: dict[str, Any] = {}
    for name, given in attributes.items():
        column = [_plain(value) for value in (given if isinstance(given, list) else [given] * len(numbers))]
        common = max(set(column), key=column.count)
        rows = [row for row, value in enumerate(column) if value != common]
        if len(rows) * 10 > len(column):
            columns[name] = column
            continue
        shared[name] = common
        if rows:
            exceptions[name] = {"rows": rows, "values": [column[row] for row in rows]}
    data: dict[str, Any] = {
        "chunk_id": chunk_id,
        "event_type": event_type,
        "lane": lane,
        "count": len(numbers),
        "country_code": "86",
        "numbers": list(numbers),
        "shared": shared,
        "exceptions": exceptions,
        "columns": columns,
        "reported_at": int(reported_at.timestamp()),
    }
    if renewal is not None:
        data["renewal"] = dict(renewal)
    return cloud_event(chunk_id, f"cn.numhub.number.{event_type}.v1", reported_at, data)


def _plain(value: Any) -> Any:
    return int(value.timestamp()) if isinstance(value, datetime) else value
