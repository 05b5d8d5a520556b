"""Access tokens (RFC 9068) for client credentials (RFC 6749 section 4.4), clients proven by private_key_jwt (RFC 7523).

Given out for 10 minutes; verified by signature once and by digest afterwards; party and suspension judged on every
use. Replay of assertions is refused by `Coordination.first_use`, whose memory may be lost at any moment: assertions
issued before it began are therefore refused, and the client simply signs a fresh one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError

from hub.adapters.oauth.assertions import BadSignature, read_claims
from hub.adapters.oauth.keys import ALGORITHMS, SIGNING_ALGORITHM, HubKeys
from hub.domain.errors import TooManyRequests, Unauthenticated
from hub.domain.parties import SCOPES, Party, PartyKey, Principal, Scope
from hub.ports.clock import Clock
from hub.ports.coordination import Coordination
from hub.ports.ledger import DirectorySnapshot
from hub.ports.tokens import AccessToken, TokenRefused, TokenRequest

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LIFETIME = 600  # seconds
MAX_ASSERTION_LIFE = 300
SKEW = 5  # seconds a client's clock may be ahead
CACHE_SIZE = 20_000

_SCOPE_NAMES = frozenset(scope.value for scope in Scope)


class InvalidClient(TokenRefused):
    def __init__(self, description: str = "Client authentication failed.") -> None:
        super().__init__("invalid_client", description)


class JwtTokens:
    """Implements `ports.tokens.Tokens`.

    ``issuer`` is the hub's public base address, also the audience of its tokens. ``snapshot`` yields the directory and
    may raise Unavailable. ``per_minute`` bounds the tokens one client is given in a minute.
    """

    def __init__(
        self,
        issuer: str,
        keys: HubKeys,
        snapshot: Callable[[], DirectorySnapshot],
        coordination: Coordination,
        clock: Clock,
        *,
        per_minute: int = 120,
    ) -> None:
        self._issuer = issuer.rstrip("/")
        self._keys = keys
        self._snapshot = snapshot
        self._coordination = coordination
        self._clock = clock
        self._per_minute = per_minute
        self._verified: dict[bytes, tuple[float, str, frozenset[Scope]]] = {}
        self._callers: dict[bytes, tuple[Party, Principal]] = {}  # of verified tokens, by the party they were made of

    # ---- giving out

    async def issue(self, request: TokenRequest) -> AccessToken:
        if request.grant_type is None:
            raise TokenRefused("invalid_request", "grant_type is missing.")
        if request.grant_type != "client_credentials":
            raise TokenRefused("unsupported_grant_type", "Only client_credentials is offered.")
        party = await self._authenticate(request)
        scopes = _granted(party, request.scope)
        wait = await self._coordination.allow(f"token:{party.party_id}", limit=self._per_minute, window=60)
        if wait:
            raise TooManyRequests(
                "Keep your token: it is good for ten minutes.", retry_after=wait, per_minute=self._per_minute
            )
        scope = " ".join(sorted(scopes))
        now = int(self._clock.now().timestamp())
        claims = {
            "iss": self._issuer,
            "aud": self._issuer,
            "sub": party.party_id,
            "client_id": party.party_id,
            "iat": now,
            "exp": now + LIFETIME,
            "jti": secrets.token_urlsafe(16),
            "scope": scope,
        }
        header = {"typ": "at+jwt", "alg": SIGNING_ALGORITHM, "kid": self._keys.signing_kid}
        value = jwt.encode(header, claims, self._keys.signing, algorithms=[SIGNING_ALGORITHM])
        return AccessToken(value, LIFETIME, scope, self._per_minute, wait.left, wait.resets_after)

    async def _authenticate(self, request: TokenRequest) -> Party:
        by_assertion = request.client_assertion is not None or request.client_assertion_type is not None
        ways = [by_assertion, request.client_secret is not None, request.basic is not None]
        if sum(ways) > 1:
            raise TokenRefused("invalid_request", "Use exactly one way of client authentication.")
        if by_assertion:
            return await self._by_assertion(request)
        client_id, secret = request.basic or (request.client_id, request.client_secret)
        if client_id is None or secret is None:
            raise InvalidClient("Client authentication is missing; send a signed client_assertion.")
        if request.client_id not in (None, client_id):
            raise InvalidClient
        return self._by_secret(client_id, secret)

    def _by_secret(self, client_id: str, secret: str) -> Party:
        party = self._snapshot().parties.get(client_id)
        stored = party.client_secret_hash if party is not None else None
        matches = hmac.compare_digest(hash_secret(secret), stored or hash_secret(secrets.token_hex(8)))
        # a secret that can be read and copied is good enough for a sandbox and for nothing else
        if party is None or not matches or not stored or not party.sandbox or party.suspended:
            raise InvalidClient
        return party

    async def _by_assertion(self, request: TokenRequest) -> Party:
        if request.client_assertion_type != ASSERTION_TYPE or not request.client_assertion:
            raise InvalidClient(f"client_assertion_type must be {ASSERTION_TYPE}.")
        snapshot, now = self._snapshot(), self._clock.now()
        claimed = _claimed_subject(request.client_assertion)
        party = snapshot.parties.get(claimed)
        valid = [key for key in snapshot.keys.get(claimed, ()) if key.retired_at is None or now < key.retired_at]
        try:
            # an unknown client costs one verification too: the time taken does not tell who is enrolled
            claims = read_claims(request.client_assertion, valid or [self._own_key()])
        except BadSignature:
            raise InvalidClient from None
        if party is None or not valid or party.suspended:
            raise InvalidClient
        jti, iat, exp = self._judge(claims, party.party_id, now.timestamp())
        if request.client_id not in (None, party.party_id):
            raise InvalidClient
        nonce = hashlib.sha256(f"{party.party_id}\n{jti}".encode()).hexdigest()
        if iat > now.timestamp():
            # The client's clock is ahead. Used now, the assertion would look as if issued after a memory that began
            # between now and then, and could be used again; so its own time has to come first.
            await self._clock.sleep(iat - now.timestamp())
        lasts = exp - now.timestamp() + SKEW + 1
        if not await self._coordination.first_use(f"jti:{nonce}", ttl=lasts, issued_at=iat):
            raise InvalidClient(
                "This client_assertion was used before, or was issued before the hub began to remember which were;"
                " sign a fresh one for every request."
            )
        return party

    def _judge(self, claims: dict[str, Any], client_id: str, now: float) -> tuple[str, float, float]:
        """(jti, iat, exp) if the claims are those of RFC 7523 section 3 for client and hub. Raises InvalidClient."""
        registry = jwt.JWTClaimsRegistry(
            now=int(now),
            leeway=SKEW,
            iss={"essential": True, "value": client_id},
            sub={"essential": True, "value": client_id},
            aud={"essential": True, "value": self._issuer},
            exp={"essential": True},
            iat={"essential": True},
            jti={"essential": True},
        )
        try:
            registry.validate(claims)
        except (JoseError, ValueError, TypeError, OverflowError):
            raise InvalidClient("The claims of client_assertion are not acceptable.") from None
        iat, exp, jti = claims["iat"], claims["exp"], claims["jti"]
        if not isinstance(claims["aud"], str):
            raise InvalidClient("aud must be the issuer, as one string.")
        if not 8 <= len(jti) <= 128 or not (type(iat) in (int, float) and type(exp) in (int, float)):
            raise InvalidClient("jti must have 8 to 128 characters; iat and exp must be numbers.")
        if exp - iat > MAX_ASSERTION_LIFE or exp > now + MAX_ASSERTION_LIFE + SKEW or exp <= now:
            raise InvalidClient(f"client_assertion may live {MAX_ASSERTION_LIFE} seconds at most.")
        return jti, iat, exp

    def _own_key(self) -> PartyKey:
        return PartyKey("", self._keys.signing_kid, self._keys.jwks()["keys"][0], self._clock.now())

    # ---- checking

    def verify(self, token: str) -> Principal:
        now = self._clock.now().timestamp()
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is None:
            known = self._read(token, now)
            self._remember(digest, known, now)
        exp, party_id, scopes = known
        if exp <= now:
            self._verified.pop(digest, None)
            self._callers.pop(digest, None)
            raise Unauthenticated("The access token has expired.", code="invalid_token")
        party = self._snapshot().parties.get(party_id)
        if party is None or party.suspended:
            raise Unauthenticated("The access token is not valid any more.", code="invalid_token")
        of, caller = self._callers.get(digest, (None, None))
        if caller is None or of is not party:  # another snapshot of the directory: another party, perhaps
            caller = Principal(party_id, party.role, scopes & SCOPES[party.role])
            self._callers[digest] = (party, caller)
        return caller

    def _read(self, token: str, now: float) -> tuple[float, str, frozenset[Scope]]:
        refused = Unauthenticated("The access token is not valid.", code="invalid_token")
        try:
            header = jws.extract_compact(token.encode()).headers()
            key = self._keys.get(header.get("kid"))
            if key is None or header.get("typ") != "at+jwt" or "crit" in header:
                raise refused
            claims = jwt.decode(token, key, algorithms=[SIGNING_ALGORITHM]).claims
            jwt.JWTClaimsRegistry(
                now=int(now),
                iss={"essential": True, "value": self._issuer},
                aud={"essential": True, "value": self._issuer},
                sub={"essential": True},
                client_id={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
                jti={"essential": True},
                scope={"essential": True, "allow_blank": True},
            ).validate(claims)
        except (JoseError, ValueError, TypeError, RecursionError):
            raise refused from None
        scopes = frozenset(Scope(name) for name in str(claims["scope"]).split() if name in _SCOPE_NAMES)
        return float(claims["exp"]), str(claims["sub"]), scopes

    def _remember(self, digest: bytes, known: tuple[float, str, frozenset[Scope]], now: float) -> None:
        if len(self._verified) >= CACHE_SIZE:
            self._verified = {key: value for key, value in self._verified.items() if value[0] > now}
            self._callers.clear()
            if len(self._verified) >= CACHE_SIZE:
                self._verified.clear()
        self._verified[digest] = known

    # ---- telling

    def jwks(self) -> dict[str, Any]:
        return self._keys.jwks()

    def metadata(self) -> dict[str, Any]:
        return {
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["private_key_jwt", "client_secret_basic", "client_secret_post"],
            "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        }


def _granted(party: Party, asked: str | None) -> frozenset[Scope]:
    allowed = SCOPES[party.role]
    if asked is None or not asked.strip():
        return allowed
    names = asked.split(" ")
    if any(name not in _SCOPE_NAMES or Scope(name) not in allowed for name in names):
        raise TokenRefused("invalid_scope", f"Your role may ask for: {' '.join(sorted(allowed))}.")
    return frozenset(Scope(name) for name in names)


def _claimed_subject(assertion: str) -> str:
    """Whom the assertion claims to be, unverified: it only chooses the keys to verify with."""
    try:
        claims = json.loads(jws.extract_compact(assertion.encode()).payload)
        return claims["sub"] if isinstance(claims["sub"], str) else ""
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        return ""


def hash_secret(secret: str) -> str:
    """Client secrets are 256 random bits made by the hub: one SHA-256 is enough to keep them unreadable."""
    return "sha256$" + hashlib.sha256(secret.encode()).hexdigest()
