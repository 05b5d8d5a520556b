"""Getting in: a signed one-time link, then a signed session cookie.

Both are ``base64url(JSON) . base64url(HMAC-SHA256)`` under keys derived from one secret, so that neither passes for the
other. A link opens once, within ten minutes; a session lasts eight hours. Neither says what the party may do: its role
and whether it is suspended are judged anew at every request.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

LINK_WITHIN = timedelta(minutes=10)
SESSION_WITHIN = timedelta(hours=8)
MAX_LENGTH = 1024  # characters of a ticket or cookie worth reading

_LINK, _SESSION = b"numhub login link v1", b"numhub web session v1"


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a link or cookie says: who, until when, and a nonce of 128 random bits."""

    party_id: str
    expires_at: int  # epoch seconds
    nonce: str

    @property
    def issued_at(self) -> float:
        """When a link was signed, in epoch seconds."""
        return self.expires_at - LINK_WITHIN.total_seconds()

    def left(self, now: datetime) -> float:
        """Seconds until it ends; not positive once it has."""
        return self.expires_at - now.timestamp()


def sign_link(key: bytes, party_id: str, now: datetime) -> str:
    """The ticket of a link ``/login?ticket=...`` that opens the page for ``party_id``."""
    return _sign(key, _LINK, party_id, now + LINK_WITHIN)


def read_link(key: bytes, ticket: str, now: datetime) -> Ticket | None:
    """What a ticket says; None if it is forged, damaged or too old. That it is used once only is the caller's duty."""
    return _read(key, _LINK, ticket, now)


def sign_session(key: bytes, party_id: str, now: datetime) -> str:
    """The value of a session cookie."""
    return _sign(key, _SESSION, party_id, now + SESSION_WITHIN)


def read_session(key: bytes, cookie: str, now: datetime) -> Ticket | None:
    """What a session cookie says; None if it is forged, damaged or too old."""
    return _read(key, _SESSION, cookie, now)


def _sign(key: bytes, use: bytes, party_id: str, expires_at: datetime) -> str:
    said = {"party": party_id, "exp": int(expires_at.timestamp()), "nonce": secrets.token_urlsafe(16)}
    body = _encode(json.dumps(said, separators=(",", ":")).encode())
    return f"{body}.{_encode(_mac(key, use, body))}"


def _read(key: bytes, use: bytes, text: str, now: datetime) -> Ticket | None:
    body, dot, mac = text.partition(".")
    if not dot or len(text) > MAX_LENGTH or not text.isascii():
        return None
    try:
        if not hmac.compare_digest(_decode(mac), _mac(key, use, body)):
            return None
        said = json.loads(_decode(body))
    except (ValueError, binascii.Error):
        return None
    ticket = Ticket(said["party"], said["exp"], said["nonce"])
    return ticket if ticket.left(now) > 0 else None


def _mac(key: bytes, use: bytes, body: str) -> bytes:
    own = hmac.digest(key, use, hashlib.sha256)
    return hmac.digest(own, body.encode("ascii"), hashlib.sha256)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
