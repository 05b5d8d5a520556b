"""What travels to a webhook: Standard Webhooks headers around a structured CloudEvent.

Full mode forwards the stored bytes untouched. Pointer mode, the proof of an endpoint and the test event are small
bodies of their own, built here as plain bytes. Headers of every request:

``webhook-id`` (the same on every attempt), ``webhook-timestamp`` (of this attempt), ``webhook-signature``,
``content-type``, ``user-agent``, and for chunks ``numhub-chunk-id``, ``numhub-event-type``, ``numhub-lane``.

``numhub-superseded-rows`` appears when some rows of a chunk were withdrawn between publication and this attempt: rows
of the chunk's ``numbers``, 0-based, as ``3,17-20``; ``see-feed`` where the list would be too long. A receiver skips
them. It is not part of the body, because one chunk id stands for one body on every attempt and for everybody.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from datetime import UTC, datetime

from hub.domain.parties import DeliveryMode, SigningSecret, Subscription
from hub.wire import signing
from hub.wire.base import rfc3339

SOURCE = "urn:numhub:hub"
CONTENT_TYPE = "application/cloudevents+json"
USER_AGENT = "numhub/0.1"
POINTER_TYPE = "cn.numhub.chunk.pointer.v1"
PROOF_TYPE = "cn.numhub.endpoint.proof.v1"
TEST_TYPE = "cn.numhub.endpoint.test.v1"

SUPERSEDED_HEADER = "numhub-superseded-rows"

_POINTERS_KEPT = 512


def cloud_event(event_id: str, event_type: str, time: str, data: dict[str, object]) -> bytes:
    """A structured CloudEvent as compact UTF-8 JSON; ``timestamp`` repeats ``time`` for Standard Webhooks readers."""
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": SOURCE,
        "type": event_type,
        "time": time,
        "timestamp": time,
        "datacontenttype": "application/json",
        "data": data,
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def pointer_body(*, chunk_id: str, event_type: str, lane: str, count: int, reported_at: int, plain: bytes) -> bytes:
    """Says that a chunk is there, how to fetch it and how to know that the fetched bytes are the right ones."""
    data: dict[str, object] = {
        "chunk_id": chunk_id,
        "event_type": event_type,
        "lane": lane,
        "count": count,
        "sha256": hashlib.sha256(plain).hexdigest(),
        "bytes": len(plain),
        "url": f"/v1/chunks/{chunk_id}",
    }
    return cloud_event(chunk_id, POINTER_TYPE, rfc3339(datetime.fromtimestamp(reported_at, UTC)), data)


class WebhookEnvelope:
    """Fits `hub.ports.envelope.Envelope` by shape. Pointer bodies are kept for a while: they are alike for all."""

    def __init__(self) -> None:
        self._pointers: OrderedDict[str, bytes] = OrderedDict()

    def chunk(
        self,
        subscription: Subscription,
        *,
        chunk_id: str,
        event_type: str,
        lane: str,
        count: int,
        reported_at: int,
        plain: bytes,
        now: datetime,
        superseded: str = "",
    ) -> tuple[dict[str, str], bytes]:
        body = plain
        if subscription.mode is DeliveryMode.webhook_pointer:
            pointer = self._pointers.get(chunk_id)
            if pointer is None:
                pointer = pointer_body(
                    chunk_id=chunk_id,
                    event_type=event_type,
                    lane=lane,
                    count=count,
                    reported_at=reported_at,
                    plain=plain,
                )
                self._pointers[chunk_id] = pointer
                if len(self._pointers) > _POINTERS_KEPT:
                    self._pointers.popitem(last=False)
            body = pointer
        webhook_id = signing.derive_webhook_id(subscription.subscription_id, chunk_id)
        headers = _signed(subscription, webhook_id, body, now)
        headers["numhub-chunk-id"] = chunk_id
        headers["numhub-event-type"] = event_type
        headers["numhub-lane"] = lane
        if superseded:
            headers[SUPERSEDED_HEADER] = superseded
        return headers, body

    def proof(
        self, subscription: Subscription, *, proof_id: str, challenge: str, now: datetime
    ) -> tuple[dict[str, str], bytes]:
        data: dict[str, object] = {"challenge": challenge, "subscription_id": subscription.subscription_id}
        body = cloud_event(proof_id, PROOF_TYPE, rfc3339(now), data)
        return _signed(subscription, signing.derive_webhook_id(subscription.subscription_id, proof_id), body, now), body

    def test_event(self, subscription: Subscription, *, event_id: str, now: datetime) -> tuple[dict[str, str], bytes]:
        data: dict[str, object] = {"subscription_id": subscription.subscription_id, "message": "a test; nothing to do"}
        body = cloud_event(event_id, TEST_TYPE, rfc3339(now), data)
        return _signed(subscription, signing.derive_webhook_id(subscription.subscription_id, event_id), body, now), body


def make_secret(scheme: str, now: datetime) -> tuple[SigningSecret, str]:
    """A fresh secret, and what its owner is shown once: ``whsec_`` secret (v1) or ``whpk_`` public key (v1a)."""
    raw = signing.new_secret(scheme)
    return SigningSecret(scheme, raw, now), signing.public_text(scheme, raw)


def _signed(subscription: Subscription, webhook_id: str, body: bytes, now: datetime) -> dict[str, str]:
    timestamp = int(now.timestamp())
    return {
        "content-type": CONTENT_TYPE,
        "user-agent": USER_AGENT,
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signing.sign_headers(webhook_id, timestamp, body, subscription.secrets),
    }
