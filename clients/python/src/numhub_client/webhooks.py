"""Receiving webhooks: verify first, then read.

```python
receiver = Receiver(["whsec_..."])          # during a rotation: both secrets
message = receiver.open(headers, raw_body)  # the body's bytes exactly as they came
```

The signature (Standard Webhooks: ``v1`` HMAC-SHA256, ``v1a`` Ed25519) covers ``webhook-id.webhook-timestamp.body``.
Answer 2xx only when what the message asks is done or safely yours; answer a `WebhookError` with 400.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from numhub_client._chunk import TYPE_PREFIX, Chunk, NumberEvent, read_chunk
from numhub_client.errors import (
    BodyMalformed,
    BodyTooLarge,
    HeaderMissing,
    Replayed,
    SignatureInvalid,
    TimestampOutOfTolerance,
)

__all__ = [
    "Chunk",
    "Message",
    "NumberEvent",
    "Pointer",
    "Proof",
    "Receiver",
    "Seen",
    "SeenStore",
    "TestEvent",
    "UnknownEvent",
]

MOST_BYTES = 16 << 20
MOST_SIGNATURES = 16  # a header with more is noise; the hub sends one per live secret
POINTER_TYPE = "cn.numhub.chunk.pointer.v1"
PROOF_TYPE = "cn.numhub.endpoint.proof.v1"
TEST_TYPE = "cn.numhub.endpoint.test.v1"


@dataclass(frozen=True, slots=True)
class Proof:
    """The hub asks whether this endpoint is yours: answer 200 with ``answer()`` as JSON."""

    challenge: str = field(repr=False)

    def answer(self) -> dict[str, str]:
        return {"challenge": self.challenge}


@dataclass(frozen=True, slots=True)
class Pointer:
    """A chunk is there to be fetched: ``client.chunks.get(subscription_id, pointer)`` verifies ``sha256``."""

    chunk_id: str
    event_type: str
    lane: str
    count: int
    sha256: str
    bytes: int
    subscription_id: str | None = None
    superseded: frozenset[int] = frozenset()
    superseded_unlisted: bool = False
    repeated: bool = False
    webhook_id: str | None = None


@dataclass(frozen=True, slots=True)
class TestEvent:
    """Somebody pressed the button; answer 2xx."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    event_id: str


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """Signed by the hub, but of a type this version does not know. Answer 2xx, or it will come again."""

    event_id: str
    type: str
    data: Any = field(repr=False)


Message = Chunk | Pointer | Proof | TestEvent | UnknownEvent


class Seen(Protocol):
    """What a Receiver remembers of requests that were *finished*. Claiming ids before the work is done would lose
    events in a crash, so nothing is written by `Receiver.open`; `Receiver.done` writes."""

    def get(self, webhook_id: str) -> int | None:
        """The timestamp of the finished request of this id."""
        ...

    def put(self, webhook_id: str, timestamp: int) -> None: ...


class SeenStore:
    """In memory, the newest ``most`` ids; enough for one process. At 120 kB a chunk, 100,000 ids are days."""

    def __init__(self, most: int = 100_000) -> None:
        self._most = most
        self._seen: OrderedDict[str, int] = OrderedDict()

    def get(self, webhook_id: str) -> int | None:
        return self._seen.get(webhook_id)

    def put(self, webhook_id: str, timestamp: int) -> None:
        self._seen[webhook_id] = timestamp
        self._seen.move_to_end(webhook_id)
        while len(self._seen) > self._most:
            self._seen.popitem(last=False)


class Receiver:
    """Verifies and reads webhooks of one subscription.

    ``secrets``: one or more of ``whsec_..`` (v1) and ``whpk_..`` (v1a); a message passes if any signature fits any of
    them, so a rotation needs no downtime. ``tolerance``: seconds the timestamp may be off. ``subscription_id``: travels
    on the chunks, so that answers know where they belong. Raises ValueError for a secret it cannot read.
    """

    def __init__(
        self,
        secrets: str | Iterable[str],
        *,
        subscription_id: str | None = None,
        seen: Seen | None = None,
        tolerance: float = 300,
        most_bytes: int = MOST_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        texts = [secrets] if isinstance(secrets, str) else list(secrets)
        self._hmac_keys = [_key_bytes(text, "whsec_") for text in texts if text.startswith("whsec_")]
        self._public_keys = [
            Ed25519PublicKey.from_public_bytes(_key_bytes(text, "whpk_")) for text in texts if text.startswith("whpk_")
        ]
        if not texts or len(self._hmac_keys) + len(self._public_keys) != len(texts):
            raise ValueError("secrets start with whsec_ or whpk_, and at least one is needed")
        self._subscription_id = subscription_id
        self._seen = SeenStore() if seen is None else seen
        self._tolerance, self._most_bytes, self._now = tolerance, most_bytes, now

    def open(self, headers: Mapping[str, str], body: bytes) -> Message:
        """The verified message. Header names may be of any case. Raises `WebhookError` (see there for its kinds).

        A repeat by the hub of something finished comes out with ``repeated`` set: answer it as the first time.
        """
        if len(body) > self._most_bytes:
            raise BodyTooLarge
        found = {name.lower(): value for name, value in headers.items()}
        webhook_id, timestamp = self._verify(found, body)
        before = self._seen.get(webhook_id)
        if before is not None and before == timestamp:
            raise Replayed
        try:
            event = json.loads(body)
        except (ValueError, RecursionError):
            raise BodyMalformed("the body is no JSON") from None
        if not isinstance(event, dict):
            raise BodyMalformed("the body is no CloudEvent")
        rows, unlisted = superseded_rows(found.get("numhub-superseded-rows", ""))
        return read_event(
            event,
            raw=body,
            subscription_id=self._subscription_id,
            superseded=rows,
            superseded_unlisted=unlisted,
            repeated=before is not None,
            webhook_id=webhook_id,
        )

    def done(self, headers: Mapping[str, str]) -> None:
        """Remember that this (verified) request was worked off: call it when the effect is stored, before the 2xx."""
        found = {name.lower(): value for name, value in headers.items()}
        self._seen.put(found["webhook-id"], int(found["webhook-timestamp"]))

    def _verify(self, headers: Mapping[str, str], body: bytes) -> tuple[str, int]:
        webhook_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        signatures = headers.get("webhook-signature", "")
        if not webhook_id or not signatures or not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
            raise HeaderMissing
        if not webhook_id.isascii() or "." in webhook_id:
            raise HeaderMissing("the webhook-id is not one the hub makes")
        timestamp = int(stamp)
        if abs(self._now() - timestamp) > self._tolerance:
            raise TimestampOutOfTolerance
        prefix = f"{webhook_id}.{stamp}.".encode("ascii")
        if not self._fits(signatures.split()[:MOST_SIGNATURES], prefix, body):
            raise SignatureInvalid
        return webhook_id, timestamp

    def _fits(self, signatures: Sequence[str], prefix: bytes, body: bytes) -> bool:
        expected = [b64encode(_hmac(key, prefix, body)) for key in self._hmac_keys]
        fits = False
        for signature in signatures:
            scheme, _, text = signature.partition(",")
            if scheme == "v1":
                given = text.encode("utf-8", "replace")
                for each in expected:  # all compared, each in constant time
                    fits |= hmac.compare_digest(each, given)
            elif scheme == "v1a":
                fits |= any(_ed25519_fits(key, text, prefix + body) for key in self._public_keys)
        return fits


def read_event(
    event: Mapping[str, Any],
    *,
    subscription_id: str | None = None,
    superseded: frozenset[int] = frozenset(),
    superseded_unlisted: bool = False,
    repeated: bool = False,
    webhook_id: str | None = None,
    raw: bytes | None = None,
) -> Message:
    """A CloudEvent of the hub as its own type. Nothing is verified here. Raises BodyMalformed."""
    kind, event_id, data = event.get("type"), event.get("id"), event.get("data")
    if not isinstance(kind, str) or not isinstance(event_id, str):
        raise BodyMalformed("the event has no type or id")
    if kind.startswith(TYPE_PREFIX):
        return read_chunk(
            event,
            subscription_id=subscription_id,
            superseded=superseded,
            superseded_unlisted=superseded_unlisted,
            repeated=repeated,
            webhook_id=webhook_id,
            raw=raw,
        )
    members = data if isinstance(data, dict) else {}
    try:
        if kind == PROOF_TYPE:
            return Proof(_of(str, members, "challenge"))
        if kind == POINTER_TYPE:
            return Pointer(
                chunk_id=_of(str, members, "chunk_id"),
                event_type=_of(str, members, "event_type"),
                lane=_of(str, members, "lane"),
                count=_of(int, members, "count"),
                sha256=_of(str, members, "sha256"),
                bytes=_of(int, members, "bytes"),
                subscription_id=subscription_id,
                superseded=superseded,
                superseded_unlisted=superseded_unlisted,
                repeated=repeated,
                webhook_id=webhook_id,
            )
    except (KeyError, TypeError):
        raise BodyMalformed(f"the data of {kind} are not as documented") from None
    return TestEvent(event_id) if kind == TEST_TYPE else UnknownEvent(event_id, kind, data)


def superseded_rows(text: str) -> tuple[frozenset[int], bool]:
    """The header ``numhub-superseded-rows``: rows as ``3,17-20``, or ``see-feed`` where there are too many to list."""
    if text.strip() == "see-feed":
        return frozenset(), True
    rows: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, _, last = part.partition("-")
        try:
            low, high = int(first), int(last or first)
        except ValueError:
            raise BodyMalformed("numhub-superseded-rows is not a list of rows") from None
        if not 0 <= low <= high < 10_000:
            raise BodyMalformed("numhub-superseded-rows is not a list of rows")
        rows.update(range(low, high + 1))
    return frozenset(rows), False


def sign(secret: str, webhook_id: str, moment: datetime, body: bytes) -> dict[str, str]:
    """The three headers as a sender makes them with a ``whsec_`` secret: for tests and for forwarding to a laptop."""
    stamp = str(int(moment.timestamp()))
    signature = _hmac(_key_bytes(secret, "whsec_"), f"{webhook_id}.{stamp}.".encode("ascii"), body)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": stamp,
        "webhook-signature": "v1," + b64encode(signature).decode("ascii"),
    }


def _hmac(key: bytes, prefix: bytes, body: bytes) -> bytes:
    mac = hmac.new(key, prefix, hashlib.sha256)
    mac.update(body)
    return mac.digest()


def _key_bytes(text: str, prefix: str) -> bytes:
    try:
        raw = b64decode(text.removeprefix(prefix), validate=True)
    except Base64Error:
        raise ValueError("a secret is base64 after its prefix") from None
    if not (24 <= len(raw) <= 64 if prefix == "whsec_" else len(raw) == 32):
        raise ValueError("a secret of this length is not one of the hub's")
    return raw


def _ed25519_fits(key: Ed25519PublicKey, text: str, signed: bytes) -> bool:
    try:
        key.verify(b64decode(text, validate=True), signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def _of(kind: type[Any], members: Mapping[str, Any], name: str) -> Any:
    value = members[name]
    if type(value) is not kind:
        raise TypeError
    return value
