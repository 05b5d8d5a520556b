"""Webhooks as strangers may send them: what is believed, and what is refused with which error."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numhub_client import Chunk, Receiver
from numhub_client.errors import (
    BodyMalformed,
    BodyTooLarge,
    HeaderMissing,
    Replayed,
    SignatureInvalid,
    TimestampOutOfTolerance,
)
from numhub_client.testing import FakeHub, FakeSubscription, Published, Webhook
from numhub_client.webhooks import Pointer, Proof, TestEvent, UnknownEvent, sign

VECTORS = json.loads((Path(__file__).parents[2] / "schemas" / "vectors" / "signatures.json").read_text())["cases"]
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def subscription(hub: FakeHub) -> FakeSubscription:
    return hub.subscribe("shop")


@pytest.fixture
def chunk(hub: FakeHub) -> Published:
    return hub.publish("release_scheduled", [13800138000, 13800138001, 13800138002])


def opened(case: Mapping[str, Any], key: str, **changes: str) -> object:
    headers = {
        "webhook-id": case["webhook_id"],
        "webhook-timestamp": str(case["webhook_timestamp"]),
        "webhook-signature": case["webhook_signature"],
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    return Receiver(key, now=lambda: case["webhook_timestamp"]).open(headers, base64.b64decode(case["body_base64"]))


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: f"{case['scheme']}-{case['webhook_id'][4:10]}")
def test_every_shared_vector_passes_its_signature(case: Mapping[str, Any]) -> None:
    """The hub's vectors are accepted; bodies that are no event fail after the signature, never before it."""
    with contextlib.suppress(BodyMalformed):
        opened(case, case["receiver_key"])
    with pytest.raises(SignatureInvalid):
        opened(case, case["receiver_key"], webhook_id="msg_other")


@pytest.mark.parametrize("case", [c for c in VECTORS if c["scheme"] == "v1"], ids=lambda case: case["webhook_id"][4:10])
def test_own_signing_agrees_with_the_vectors(case: Mapping[str, Any]) -> None:
    """`sign` makes the same header as the hub."""
    moment = datetime.fromtimestamp(case["webhook_timestamp"], UTC)
    made = sign(case["private_key"], case["webhook_id"], moment, base64.b64decode(case["body_base64"]))
    assert made["webhook-signature"] == case["webhook_signature"]


def test_the_reference_library_accepts_what_the_fake_hub_signs(
    hub: FakeHub, subscription: FakeSubscription, chunk: Published
) -> None:
    """Judge: the standardwebhooks package."""
    headers, body = hub.webhook(subscription, chunk)
    verified = standardwebhooks.Webhook(subscription.secret).verify(body, headers)
    assert verified["data"]["chunk_id"] == chunk.chunk_id


def test_the_receiver_accepts_what_the_reference_library_signs(hub: FakeHub, chunk: Published) -> None:
    """The other way round."""
    now = datetime.now(UTC)
    signature = standardwebhooks.Webhook(SECRET).sign("msg_1", now, chunk.body.decode())
    headers = {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(now.timestamp())),
        "Webhook-Signature": signature,
    }
    message = Receiver(SECRET).open(headers, chunk.body)
    assert isinstance(message, Chunk)
    assert message.chunk_id == chunk.chunk_id


def test_any_fitting_signature_of_any_live_secret_is_enough(
    hub: FakeHub, subscription: FakeSubscription, chunk: Published
) -> None:
    """During a rotation receivers with the old, the new or both secrets all pass."""
    old = subscription.secret
    with hub.client() as client:
        new = client.subscriptions.rotate(subscription.subscription_id).secret
    assert new is not None
    headers, body = hub.webhook(subscription, chunk)
    assert len(headers["webhook-signature"].split()) == 2
    for secrets in (old, new.key, [old, new.key]):
        assert isinstance(Receiver(secrets).open(headers, body), Chunk)
    with pytest.raises(SignatureInvalid):
        Receiver(SECRET).open(headers, body)


def test_ed25519_is_verified_with_the_public_key_only(chunk: Published) -> None:
    """v1a: the receiver can verify and not forge."""
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = "whpk_" + base64.b64encode(private.public_key().public_bytes_raw()).decode()
    signature = base64.b64encode(private.sign(b"msg_1.1767225600." + chunk.body)).decode()
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1767225600",
        "webhook-signature": f"v1,AAAA v1a,{signature}",
    }
    receiver = Receiver(public, now=lambda: 1767225600.0)
    assert isinstance(receiver.open(headers, chunk.body), Chunk)
    with pytest.raises(SignatureInvalid):
        receiver.open(headers, chunk.body + b" ")


@pytest.mark.parametrize(
    "signature",
    ["v1,", "v1", "v2,AAAA", "v1a,AAAA", "v1,é", "v1,!!!!", ",", "v1," + "A" * 100_000, " ".join(["v1,AAAA"] * 500)],
    ids=["empty", "bare", "v2", "v1a", "non-ascii", "no-base64", "comma", "huge", "many"],
)
def test_signatures_of_any_other_shape_are_refused(chunk: Published, signature: str) -> None:
    """Garbage in the header is one and the same refusal."""
    headers = {"webhook-id": "msg_1", "webhook-timestamp": "1767225600", "webhook-signature": signature}
    with pytest.raises(SignatureInvalid):
        Receiver(SECRET, now=lambda: 1767225600.0).open(headers, chunk.body)


@pytest.mark.parametrize(("off", "fits"), [(-300, True), (300, True), (-301, False), (301, False)])
def test_five_minutes_either_way_are_tolerated(
    hub: FakeHub, subscription: FakeSubscription, chunk: Published, off: int, fits: bool
) -> None:
    """The bounds belong to the tolerance."""
    headers, body = hub.webhook(subscription, chunk, at=hub.now + timedelta(seconds=off))
    receiver = Receiver(subscription.secret, now=hub.now.timestamp)
    if fits:
        assert isinstance(receiver.open(headers, body), Chunk)
    else:
        with pytest.raises(TimestampOutOfTolerance):
            receiver.open(headers, body)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_each_header_is_needed(hub: FakeHub, subscription: FakeSubscription, chunk: Published, name: str) -> None:
    """A missing header is told as such."""
    headers, body = hub.webhook(subscription, chunk)
    del headers[name]
    with pytest.raises(HeaderMissing):
        Receiver(subscription.secret).open(headers, body)


@pytest.mark.parametrize("stamp", ["", "12.5", "-5", "1e9", "١٧", "9" * 40, "now"])
def test_timestamps_that_are_no_unix_seconds_are_refused(chunk: Published, stamp: str) -> None:
    """Nothing is guessed from a damaged timestamp."""
    headers = {"webhook-id": "msg_1", "webhook-timestamp": stamp, "webhook-signature": "v1,AAAA"}
    with pytest.raises(HeaderMissing):
        Receiver(SECRET).open(headers, chunk.body)


def test_a_re_encoded_body_is_refused(hub: FakeHub, subscription: FakeSubscription, chunk: Published) -> None:
    """The signature covers the bytes, not their meaning."""
    headers, body = hub.webhook(subscription, chunk)
    with pytest.raises(SignatureInvalid):
        Receiver(subscription.secret).open(headers, json.dumps(json.loads(body)).encode())


def test_a_huge_body_is_refused_before_it_is_hashed(hub: FakeHub, subscription: FakeSubscription) -> None:
    """The limit stands before the signature."""
    with pytest.raises(BodyTooLarge):
        Receiver(subscription.secret, most_bytes=10).open({}, b"x" * 11)


def test_an_exact_replay_of_finished_work_is_refused_and_the_hubs_own_repeat_is_marked(
    hub: FakeHub, subscription: FakeSubscription, chunk: Published
) -> None:
    """The same request again is a replay; the same id with a new timestamp is the hub, which missed our answer."""
    receiver = Receiver(subscription.secret, now=hub.now.timestamp)
    first = hub.webhook(subscription, chunk, at=hub.now)
    message = receiver.open(*first)
    assert isinstance(message, Chunk) and not message.repeated
    assert isinstance(receiver.open(*first), Chunk), "not finished yet: a crash must not lose it"
    receiver.done(first.headers)
    with pytest.raises(Replayed):
        receiver.open(*first)
    again = receiver.open(*hub.webhook(subscription, chunk, at=hub.now + timedelta(seconds=5)))
    assert isinstance(again, Chunk) and again.repeated


def test_each_kind_of_message_comes_out_as_its_own_type(
    hub: FakeHub, subscription: FakeSubscription, chunk: Published
) -> None:
    """Chunk, pointer, proof, test, and what a newer hub may send."""
    receiver = Receiver(subscription.secret, subscription_id=subscription.subscription_id)

    def kind(webhook: Webhook) -> object:
        return receiver.open(webhook.headers, webhook.body)

    proof = kind(hub.proof(subscription, "abc"))
    assert isinstance(proof, Proof) and proof.answer() == {"challenge": "abc"}
    pointer = kind(hub.webhook(subscription, chunk, pointer=True, superseded="1"))
    assert isinstance(pointer, Pointer) and pointer.count == 3 and pointer.superseded == {1}
    with hub.client() as client:
        assert client.chunks.get(None, pointer).superseded == {1}
    assert isinstance(kind(hub.test_event(subscription)), TestEvent)
    body = json.dumps({"type": "cn.numhub.weather.v1", "id": "evt_1", "data": {}}).encode()
    unknown = receiver.open(sign(subscription.secret, "msg_1", datetime.now(UTC), body), body)
    assert isinstance(unknown, UnknownEvent)


@pytest.mark.parametrize("secrets", [[], "", "secret", "whsec_???", "whsec_AAAA", "whpk_AAAA", [SECRET, "whsk_AAAA"]])
def test_secrets_that_cannot_be_read_are_refused_at_once(secrets: Any) -> None:
    """A receiver that could verify nothing is never made."""
    with pytest.raises(ValueError):
        Receiver(secrets)
