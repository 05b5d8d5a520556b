"""Standard Webhooks signatures, as the hub makes them.

Signed is ``id.timestamp.rawbody``; the header ``webhook-signature`` holds one signature per live secret, separated by
a blank: ``v1,<base64 of HMAC-SHA256>`` or ``v1a,<base64 of Ed25519>``. With v1a a receiver can verify but not forge.
Text forms of keys: ``whsec_`` (v1 secret), ``whsk_`` (v1a private seed), ``whpk_`` (v1a public key), each base64.
Source: the Standard Webhooks specification, version 1.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import os
from base64 import b64decode
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.domain.parties import SigningSecret

V1: Final = "v1"
V1A: Final = "v1a"
SECRET_BYTES: Final = 32
"""The specification asks for 24 to 64 random bytes; an Ed25519 seed has exactly 32."""

_PREFIXES: Final = {"whsec_": V1, "whsk_": V1A}
_SMALL: Final = 16_384  # below this, joining the parts costs less than feeding them one by one


def derive_webhook_id(subscription_id: str, chunk_id: str) -> str:
    """The ``webhook-id``: the same for every attempt to bring this chunk to this subscription, and for nobody else."""
    return "msg_" + hashlib.sha256(f"{subscription_id}|{chunk_id}".encode()).hexdigest()[:32]


def sign_headers(webhook_id: str, timestamp: int, body: bytes, secrets: Iterable[SigningSecret]) -> str:
    """The value of ``webhook-signature``: one signature per secret that has not expired at ``timestamp`` (unix s).

    Raises ValueError if no secret is live, or for an id that would make the signed text ambiguous.
    """
    if "." in webhook_id:
        raise ValueError("a webhook id may not hold a dot")
    prefix = f"{webhook_id}.{timestamp}.".encode("ascii")
    signatures = [
        _sign(secret, prefix, body)
        for secret in secrets
        if secret.expires_at is None or secret.expires_at.timestamp() > timestamp
    ]
    if not signatures:
        raise ValueError("no live secret to sign with")
    return " ".join(signatures)


def new_secret(scheme: str = V1, *, random_bytes: Callable[[int], bytes] = os.urandom) -> bytes:
    """Fresh key material for `SigningSecret.secret`: 32 random bytes for either scheme."""
    _known(scheme)
    return random_bytes(SECRET_BYTES)


def public_text(scheme: str, secret: bytes) -> str:
    """What the receiver is given to verify with: ``whsec_`` and the secret itself, or ``whpk_`` and the public key."""
    if _known(scheme) == V1:
        return "whsec_" + _base64(secret)
    return "whpk_" + _base64(_private_key(secret).public_key().public_bytes_raw())


def private_text(scheme: str, secret: bytes) -> str:
    """The signer's own text form: ``whsec_`` or ``whsk_``."""
    return ("whsec_" if _known(scheme) == V1 else "whsk_") + _base64(secret)


def parse_private_text(text: str) -> tuple[str, bytes]:
    """``whsec_``/``whsk_`` text to (scheme, key material).

    A ``whsk_`` of 64 bytes (seed and public key, as some libraries write it) is read too. Raises ValueError; the
    text is never part of the message.
    """
    for prefix, scheme in _PREFIXES.items():
        if text.startswith(prefix):
            raw = _raw(text.removeprefix(prefix))
            if scheme == V1:
                if not 24 <= len(raw) <= 64:
                    raise ValueError("a whsec_ secret has 24 to 64 bytes")
                return scheme, raw
            if len(raw) == 64 and _private_key(raw[:32]).public_key().public_bytes_raw() != raw[32:]:
                raise ValueError("the two halves of the whsk_ key do not belong together")
            if len(raw) not in (32, 64):
                raise ValueError("a whsk_ key has 32 or 64 bytes")
            return scheme, raw[:32]
    raise ValueError("a signing key starts with whsec_ or whsk_")


def _sign(secret: SigningSecret, prefix: bytes, body: bytes) -> str:
    if _known(secret.scheme) == V1A:
        return "v1a," + _base64(_private_key(secret.secret).sign(prefix + body))
    if len(body) <= _SMALL:
        return "v1," + _base64(hmac.digest(secret.secret, prefix + body, "sha256"))
    mac = hmac.new(secret.secret, prefix, hashlib.sha256)
    mac.update(body)
    return "v1," + _base64(mac.digest())


def _known(scheme: str) -> str:
    if scheme not in (V1, V1A):
        raise ValueError(f"unknown signature scheme {scheme[:8]!r}")
    return scheme


@lru_cache(maxsize=4096)
def _private_key(seed: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(seed)


def _base64(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).decode("ascii")


def _raw(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("a signing key is base64 after its prefix") from None
