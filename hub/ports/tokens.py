"""Who is calling: access tokens given out and checked, and what parties sign besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from hub.domain.parties import PartyKey, Principal

TokenError = Literal["invalid_request", "invalid_client", "unsupported_grant_type", "invalid_scope"]


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """The members of a token request (RFC 6749 section 4.4, RFC 7523 section 2.2) as sent, and HTTP Basic if used."""

    grant_type: str | None = None
    scope: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    client_assertion_type: str | None = None
    client_assertion: str | None = field(default=None, repr=False)
    basic: tuple[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class AccessToken:
    value: str = field(repr=False)
    expires_in: int  # seconds
    scope: str  # space-separated, what was really granted
    per_minute: int = 0  # how many a party may have, how many are left, and for how many seconds that counts
    left: int = 0
    resets_after: float = 0.0


class TokenRefused(Exception):
    """The token endpoint says no. ``error`` is a code of RFC 6749 section 5.2; the description names no secret."""

    def __init__(self, error: TokenError, description: str) -> None:
        super().__init__(description)
        self.error, self.description = error, description


class Tokens(Protocol):
    async def issue(self, request: TokenRequest) -> AccessToken:
        """Raises TokenRefused; Unavailable while the directory cannot be read."""
        ...

    def verify(self, token: str) -> Principal:
        """The caller behind an access token of this hub, suspended parties excluded. Raises Unauthenticated."""
        ...

    def jwks(self) -> dict[str, Any]:
        """The hub's public keys as a JWK set."""
        ...

    def metadata(self) -> dict[str, Any]:
        """What RFC 8414 metadata say about algorithms and client authentication."""
        ...


class KeyReader(Protocol):
    def public(self, jwk: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """(kid, public JWK) of a key somebody wants registered; kid is the RFC 7638 thumbprint. Raises InvalidRequest
        for kinds and sizes the hub does not verify with."""
        ...


class Statements(Protocol):
    def verify(self, statement: str, keys: Sequence[PartyKey]) -> dict[str, Any]:
        """The claims of a compact JWS signed with one of ``keys``. Raises InvalidRequest. Claims are not judged."""
        ...
