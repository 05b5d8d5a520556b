"""Who you are: a private key (RFC 7523 private_key_jwt) or, in sandboxes, a client secret; and the token got for it."""

from __future__ import annotations

import json
import secrets
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFE = 60  # seconds; the hub takes each assertion once, within its life

Key = ECKey | OKPKey | RSAKey
_KEY_MEMBERS = frozenset({"kty", "crv", "x", "y", "d", "n", "e", "p", "q", "dp", "dq", "qi"})


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A party's own key: ``client_id`` is its party id, ``key`` an EC P-256, Ed25519 or RSA private key.

    Make it with `load` or `parse`. Its repr never shows the key.
    """

    client_id: str
    key: Key = field(repr=False)
    kid: str
    alg: str

    @classmethod
    def load(cls, path: str | Path, client_id: str, *, kid: str | None = None) -> PrivateKey:
        """Read a file as ``numhub party add --key-out`` writes it (a private JWK), or PEM with ``kid`` given.

        Raises OSError, ValueError.
        """
        try:
            return cls.parse(Path(path).read_bytes(), client_id, kid=kid)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def parse(cls, material: bytes | str | Mapping[str, Any], client_id: str, *, kid: str | None = None) -> PrivateKey:
        """The same from memory: a JWK as mapping or JSON text, or PEM text. Raises ValueError."""
        if isinstance(material, bytes):
            material = material.decode("utf-8", "strict")
        if isinstance(material, str):
            if material.lstrip().startswith("-----BEGIN"):
                return cls._from_pem(material, client_id, kid)
            try:
                material = json.loads(material)
            except ValueError:
                raise ValueError("neither a JWK nor PEM") from None
        if not isinstance(material, Mapping):
            raise ValueError("neither a JWK nor PEM")
        members = dict(material)
        kid = kid or members.get("kid")
        kinds: dict[Any, type[Key]] = {"EC": ECKey, "OKP": OKPKey, "RSA": RSAKey}
        kind = kinds.get(members.get("kty"))
        if kind is None or "d" not in members:
            raise ValueError("this is no private JWK of type EC, OKP or RSA")
        # alg, use and key_ops stay behind: names of one algorithm differ (EdDSA, Ed25519), the key itself decides
        material = {name: value for name, value in members.items() if name in _KEY_MEMBERS}
        try:
            key = kind.import_key(material)
            key.private_key  # noqa: B018 - builds the key, which finds members that do not fit
        except (JoseError, ValueError, TypeError, ArithmeticError):
            raise ValueError("the private JWK is damaged") from None
        return cls._made(key, client_id, kid)

    @classmethod
    def _from_pem(cls, text: str, client_id: str, kid: str | None) -> PrivateKey:
        for kind in (ECKey, OKPKey, RSAKey):
            try:
                key = kind.import_key(text)
            except Exception:  # noqa: S112 - each kind refuses the others' PEM in its own way
                continue
            if not key.is_private:
                raise ValueError("this PEM holds a public key; the private one is needed")
            return cls._made(key, client_id, kid)
        raise ValueError("this PEM holds no EC, Ed25519 or RSA private key")

    @classmethod
    def _made(cls, key: Key, client_id: str, kid: str | None) -> PrivateKey:
        if not kid:
            raise ValueError("the key has no kid; give the one under which the hub knows it")
        curve = key.as_dict(private=False).get("crv")
        alg = {"P-256": "ES256", "P-384": "ES384", "Ed25519": "Ed25519"}.get(str(curve))
        if isinstance(key, RSAKey):
            alg = "RS256"
        if alg is None:
            raise ValueError("use a key on P-256 or Ed25519")
        return cls(client_id, key, kid, alg)

    def assertion(self, audience: str, now: float) -> str:
        """A fresh signed statement "I am client_id", for one audience, good for a minute and for one use."""
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": audience,
            "iat": int(now),
            "exp": int(now) + ASSERTION_LIFE,
            "jti": secrets.token_urlsafe(18),
        }
        return jwt.encode({"alg": self.alg, "kid": self.kid, "typ": "JWT"}, claims, self.key, algorithms=[self.alg])

    def sign(self, payload: Mapping[str, Any]) -> str:
        """A compact JWS over ``payload``, e.g. a waiver."""
        protected = {"alg": self.alg, "kid": self.kid}
        return jws.serialize_compact(
            protected, json.dumps(dict(payload), ensure_ascii=False).encode(), self.key, algorithms=[self.alg]
        )

    def grant(self, issuer: str, now: float) -> tuple[dict[str, str], dict[str, str]]:
        """Form members and headers for the token endpoint."""
        form = {"client_id": self.client_id, "client_assertion_type": ASSERTION_TYPE}
        return form | {"client_assertion": self.assertion(issuer, now)}, {}


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """Credentials of a sandbox party; production parties have none."""

    client_id: str
    secret: str = field(repr=False)

    def grant(self, issuer: str, now: float) -> tuple[dict[str, str], dict[str, str]]:
        pair = f"{quote(self.client_id, safe='')}:{quote(self.secret, safe='')}"
        return {}, {"Authorization": "Basic " + b64encode(pair.encode()).decode()}


Credentials = PrivateKey | ClientSecret


@dataclass(slots=True)
class TokenCache:
    """The access token in use. Not locked: the shells lock around it."""

    token: str | None = field(default=None, repr=False)
    good_until: float = 0.0

    def get(self, refused: str | None) -> str | None:
        """The token, unless it is about to end or is the very one the hub has just refused."""
        if self.token is None or self.token == refused or time.monotonic() >= self.good_until:
            return None
        return self.token

    def put(self, token: str, expires_in: float) -> None:
        """Used until a tenth of its life is left, at most a minute before its end."""
        self.token = token
        self.good_until = time.monotonic() + expires_in - min(60.0, expires_in / 10)
