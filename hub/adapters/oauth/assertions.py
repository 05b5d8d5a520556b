"""Reading what a party signed: one compact JWS, judged by that party's registered keys and nothing it brings along."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError

from hub.adapters.oauth.keys import ALGORITHMS, Key, algorithms_of, read_public
from hub.domain.errors import InvalidRequest
from hub.domain.parties import PartyKey

MAX_LENGTH = 8192
_OWN_KEYS = ("jwk", "jku", "x5u", "x5c")


class _Algorithms(jws.JWSRegistry):
    """joserfc's algorithms; ``EdDSA`` without its warning: RFC 9864 retires the name, and clients still use it."""

    algorithms = {name: copy(algorithm) for name, algorithm in jws.JWSRegistry.algorithms.items()}


_Algorithms.algorithms["EdDSA"].security_warning = None


class BadSignature(Exception):
    """Not signed by one of the keys, or not in the form the hub accepts. Says no more: it goes to strangers."""


@lru_cache(maxsize=4096)
def _imported(kind: str, *values: str) -> Key:
    names = {"EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "RSA": ("e", "n")}[kind]
    return read_public({"kty": kind, **dict(zip(names, values, strict=True))})


def key_of(party_key: PartyKey) -> Key:
    given = party_key.jwk
    names = {"EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "RSA": ("e", "n")}[str(given.get("kty"))]
    return _imported(str(given["kty"]), *(str(given[name]) for name in names))


def read_claims(text: str, keys: Sequence[PartyKey]) -> dict[str, Any]:
    """The claims of ``text`` if one of ``keys`` signed it. Raises BadSignature. The claims are not judged here.

    Algorithms come from the key's kind, never from the header; ``crit`` is refused and so are headers that bring a key
    or point to one.
    """
    if len(text) > MAX_LENGTH or not text.isascii():
        raise BadSignature
    try:
        header = jws.extract_compact(text.encode()).headers()
        if "crit" in header or any(name in header for name in _OWN_KEYS) or header.get("alg") not in ALGORITHMS:
            raise BadSignature
        key = _choose(header.get("kid"), keys)
        return jwt.decode(text, key, registry=_Algorithms(algorithms=algorithms_of(key))).claims
    except (JoseError, ValueError, TypeError, KeyError, RecursionError, InvalidRequest):
        raise BadSignature from None


def _choose(kid: object, keys: Sequence[PartyKey]) -> Key:
    if kid is None and len(keys) == 1:
        return key_of(keys[0])
    for key in keys:
        if key.kid == kid:
            return key_of(key)
    raise BadSignature


class JwsStatements:
    """Implements `ports.tokens.Statements`."""

    def verify(self, statement: str, keys: Sequence[PartyKey]) -> dict[str, Any]:
        try:
            return read_claims(statement, keys)
        except BadSignature:
            raise InvalidRequest(
                "The statement is not a compact JWS signed with a registered key of yours.", code="invalid_statement"
            ) from None
