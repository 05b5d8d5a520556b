"""Signatures, judged by the reference package; and the vectors other languages test themselves with.

``python tests/unit/test_signing.py`` writes schemas/vectors/signatures.json anew from `vectors()`.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from hub.domain.parties import SigningSecret
from hub.wire import signing

VECTORS = Path(__file__).parents[2] / "schemas" / "vectors" / "signatures.json"
MADE = datetime(2026, 1, 1, tzinfo=UTC)
SEED = bytes(range(32))


def secret(scheme: str = "v1", raw: bytes = SEED, expires_at: datetime | None = None) -> SigningSecret:
    return SigningSecret(scheme, raw, MADE, expires_at)


def vectors() -> dict[str, Any]:
    """Deterministic: both schemes are. Bodies are UTF-8 text; ``body_base64`` where the bytes are not text."""
    bodies = [
        b"",
        b'{"specversion":"1.0","id":"evt_1"}',
        '{"name":"中国移动"}'.encode(),
        b'{"numbers":[' + b",".join(b"%d" % n for n in range(13800000000, 13800002000)) + b"]}",
        bytes(range(256)),
    ]
    cases = []
    for place, body in enumerate(bodies):
        for scheme, raw in (("v1", SEED), ("v1", b"\xff" * 24), ("v1a", SEED), ("v1a", SEED[::-1])):
            webhook_id = signing.derive_webhook_id("sub_0123456789abcdef", f"evt_{place:032x}")
            timestamp = 1_767_225_600 + place
            cases.append(
                {
                    "scheme": scheme,
                    "private_key": signing.private_text(scheme, raw),
                    "receiver_key": signing.public_text(scheme, raw),
                    "webhook_id": webhook_id,
                    "webhook_timestamp": timestamp,
                    "body_base64": base64.b64encode(body).decode(),
                    "webhook_signature": signing.sign_headers(webhook_id, timestamp, body, [secret(scheme, raw)]),
                }
            )
    return {"about": "Standard Webhooks signatures over `id.timestamp.body`; keys are for tests only", "cases": cases}


def verify_v1a(key: str, webhook_id: str, timestamp: int, body: bytes, signature: str) -> None:
    raw = base64.b64decode(key.removeprefix("whpk_"))
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    Ed25519PublicKey.from_public_bytes(raw).verify(base64.b64decode(signature.removeprefix("v1a,")), signed)


def test_the_reference_package_accepts_our_v1_signature() -> None:
    """A receiver that uses `standardwebhooks` verifies a small and a large body."""
    now = int(datetime.now(UTC).timestamp())
    for body in (b'{"a":1}', json.dumps({"numbers": list(range(20_000))}).encode()):
        headers = {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(now),
            "webhook-signature": signing.sign_headers("msg_1", now, body, [secret()]),
        }
        assert Webhook(signing.public_text("v1", SEED)).verify(body, headers) == json.loads(body)
        with pytest.raises(WebhookVerificationError):
            Webhook(signing.public_text("v1", SEED)).verify(body + b" ", headers)


def test_v1a_verifies_with_the_public_key_only() -> None:
    """The whpk_ text verifies a v1a signature, and a changed body does not pass."""
    header = signing.sign_headers("msg_1", 1_700_000_000, b"{}", [secret("v1a")])
    key = signing.public_text("v1a", SEED)
    verify_v1a(key, "msg_1", 1_700_000_000, b"{}", header)
    with pytest.raises(InvalidSignature):
        verify_v1a(key, "msg_1", 1_700_000_000, b"[]", header)
    assert SEED not in base64.b64decode(key.removeprefix("whpk_"))


def test_rotation_signs_with_every_live_secret() -> None:
    """During the overlap both secrets sign in one header; an expired one no longer does."""
    at = int(MADE.timestamp())
    old = secret(raw=b"o" * 32, expires_at=MADE + timedelta(hours=1))
    both = signing.sign_headers("msg_1", at, b"{}", [secret(), old, secret("v1a")]).split(" ")
    assert [part.split(",")[0] for part in both] == ["v1", "v1", "v1a"]
    assert len(set(both)) == 3
    later = signing.sign_headers("msg_1", at + 3600, b"{}", [secret(), old])
    assert later == signing.sign_headers("msg_1", at + 3600, b"{}", [secret()])
    with pytest.raises(ValueError, match="no live secret"):
        signing.sign_headers("msg_1", at + 3600, b"{}", [old])


def test_the_webhook_id_is_one_per_subscription_and_chunk() -> None:
    """The id is stable over attempts and differs between subscriptions and between chunks."""
    first = signing.derive_webhook_id("sub_a", "evt_1")
    assert first == signing.derive_webhook_id("sub_a", "evt_1") and len(first) == 36 and first.startswith("msg_")
    assert len({first, signing.derive_webhook_id("sub_b", "evt_1"), signing.derive_webhook_id("sub_a", "evt_2")}) == 3


def test_key_texts_read_back() -> None:
    """whsec_ and whsk_ read back to the same material; a 64-byte whsk_ whose halves fit is read too."""
    for scheme in ("v1", "v1a"):
        raw = signing.new_secret(scheme)
        assert len(raw) == 32 and signing.parse_private_text(signing.private_text(scheme, raw)) == (scheme, raw)
    public = base64.b64decode(signing.public_text("v1a", SEED).removeprefix("whpk_"))
    assert signing.parse_private_text("whsk_" + base64.b64encode(SEED + public).decode()) == ("v1a", SEED)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whpk_AAAA",
        "whsec_",
        "whsec_!!!!",
        "whsec_" + base64.b64encode(b"short").decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        "whsk_" + base64.b64encode(b"x" * 31).decode(),
        "whsk_" + base64.b64encode(b"x" * 64).decode(),
    ],
)
def test_a_damaged_key_text_is_refused_without_echo(text: str) -> None:
    """Wrong prefix, length, alphabet or halves: ValueError, and the text is not in it."""
    with pytest.raises(ValueError) as refused:
        signing.parse_private_text(text)
    assert len(text) < 8 or text[6:] not in str(refused.value)


def test_unknown_schemes_and_dotted_ids_are_refused() -> None:
    """What would make the signed text ambiguous, or sign with nothing known, is an error."""
    with pytest.raises(ValueError, match="dot"):
        signing.sign_headers("msg.1", 1, b"", [secret()])
    with pytest.raises(ValueError, match="unknown signature scheme"):
        signing.sign_headers("msg_1", 1, b"", [secret("v2")])
    assert "000102" not in repr(secret()) and "\\x01" not in repr(secret())


def test_the_committed_vectors_are_what_the_code_signs() -> None:
    """schemas/vectors/signatures.json equals `vectors()`, and each case verifies with the receiver's key alone."""
    stored = json.loads(VECTORS.read_text(encoding="utf-8"))
    assert stored == vectors()
    for case in stored["cases"]:
        body = base64.b64decode(case["body_base64"])
        if case["scheme"] == "v1a":
            verify_v1a(
                case["receiver_key"], case["webhook_id"], case["webhook_timestamp"], body, case["webhook_signature"]
            )
        elif body != bytes(range(256)):  # the reference package signs text only
            at = datetime.fromtimestamp(case["webhook_timestamp"], UTC)
            judge = Webhook(case["receiver_key"])
            assert judge.sign(case["webhook_id"], at, body.decode()) == case["webhook_signature"]


if __name__ == "__main__":
    VECTORS.parent.mkdir(parents=True, exist_ok=True)
    VECTORS.write_text(json.dumps(vectors(), indent=2) + "\n", encoding="utf-8")
