"""Keys: the hub's own signing key in its data directory, and the public keys parties register.

The hub's private key never leaves its keys folder; a party's private key never enters the hub.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from joserfc import jwk
from joserfc.errors import JoseError

from hub.domain.errors import InvalidRequest

Key = jwk.ECKey | jwk.RSAKey | jwk.OKPKey

ALGORITHMS = ("ES256", "RS256", "PS256", "EdDSA", "Ed25519")
"""What the hub verifies; ``Ed25519`` is the newer name (RFC 9864) of EdDSA with that curve."""

SIGNING_ALGORITHM = "ES256"

_PREFIX = "token-signing-"
_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}
_MIN_RSA, _MAX_RSA = 2048, 8192


def algorithms_of(key: Key) -> list[str]:
    """The algorithms a key of this kind may be used with; the header of a token never decides."""
    if isinstance(key, jwk.ECKey):
        return ["ES256"]
    return ["RS256", "PS256"] if isinstance(key, jwk.RSAKey) else ["EdDSA", "Ed25519"]


def read_public(given: Mapping[str, Any]) -> Key:
    """A public key the hub can verify with: EC P-256, OKP Ed25519, or RSA of 2048 to 8192 bits. Members besides the
    key itself (alg, use, kid, x5u ..) and private members are dropped. Raises InvalidRequest."""
    kind = given.get("kty")
    names = _MEMBERS.get(kind) if isinstance(kind, str) else None
    if names is None or not all(isinstance(given.get(name), str) and len(given[name]) <= 2048 for name in names):
        raise InvalidRequest("A public JWK of kty EC, OKP or RSA is needed.", code="invalid_key")
    if given.get("crv") not in {"EC": ("P-256",), "OKP": ("Ed25519",), "RSA": (given.get("crv"),)}[str(kind)]:
        raise InvalidRequest("Only the curves P-256 and Ed25519 are accepted.", code="invalid_key")
    try:
        key = jwk.import_key({name: given[name] for name in names})
        key.public_key  # noqa: B018  builds the key, which finds points off the curve
    except (JoseError, ValueError, TypeError, ArithmeticError):
        raise InvalidRequest("The JWK cannot be read as a public key.", code="invalid_key") from None
    assert isinstance(key, Key)
    if isinstance(key, jwk.RSAKey) and not _MIN_RSA <= key.public_key.key_size <= _MAX_RSA:
        raise InvalidRequest("An RSA key must have 2048 to 8192 bits.", code="invalid_key")
    return key


class JwkReader:
    """Implements `ports.tokens.KeyReader`."""

    def public(self, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        key = read_public(given)
        return key.thumbprint(), dict(key.as_dict(private=False))


def generate(kind: Literal["ES256", "EdDSA"] = "ES256") -> tuple[dict[str, Any], dict[str, Any]]:
    """A fresh key pair as (private JWK, public JWK), both with kid = thumbprint and alg."""
    key = jwk.generate_key("EC", "P-256") if kind == "ES256" else jwk.generate_key("OKP", "Ed25519")
    extra: dict[str, Any] = {"kid": key.thumbprint(), "alg": kind, "use": "sig"}
    members = _MEMBERS[key.key_type]
    private, public = key.as_dict(private=True), key.as_dict(private=False)
    return (
        {**{name: private[name] for name in (*members, "d")}, **extra},
        {**{name: public[name] for name in members}, **extra},
    )


def write_private(path: Path, private: Mapping[str, Any]) -> None:
    """Write a private JWK to a new file of mode 0600. Raises FileExistsError rather than replace a key."""
    text = json.dumps(private, indent=2) + "\n"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


class HubKeys:
    """The hub's signing keys: the newest signs, all verify and are published."""

    def __init__(self, keys: Sequence[jwk.ECKey]) -> None:
        self._by_kid = {key.thumbprint(): key for key in keys}
        self.signing = keys[-1]
        self.signing_kid = self.signing.thumbprint()

    def get(self, kid: object) -> jwk.ECKey | None:
        return self._by_kid.get(kid) if isinstance(kid, str) else None

    def jwks(self) -> dict[str, Any]:
        """A JWK set (RFC 7517 section 5), public members only."""
        keys = []
        for kid, key in self._by_kid.items():
            public = key.as_dict(private=False)
            keys.append(
                {**{name: public[name] for name in _MEMBERS["EC"]}, "kid": kid, "use": "sig", "alg": SIGNING_ALGORITHM}
            )
        return {"keys": keys}


class KeyFileError(Exception):
    """A key file that must not be used; the message is one clear line."""


def open_hub_keys(folder: Path) -> HubKeys:
    """The signing keys in ``folder``; one is made if there is none. Raises KeyFileError for files that
    others could read or that hold no key."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not list(folder.glob(f"{_PREFIX}*.json")):
        _make(folder)
    files = sorted(folder.glob(f"{_PREFIX}*.json"), key=lambda file: (file.stat().st_mtime_ns, file.name))
    return HubKeys([_read(file) for file in files])


def _make(folder: Path) -> None:
    private, _ = generate("ES256")
    # complete before it has its name: a kill in between leaves no half key behind
    temporary = folder / f".new-{secrets.token_hex(8)}"
    write_private(temporary, private)
    temporary.rename(folder / f"{_PREFIX}{private['kid'][:16]}.json")


def _is_open(file: os.stat_result) -> bool:
    """Readable by others? A file of somebody else that our group may read is a secret mounted for us; our own file
    is for us alone."""
    mode = stat.S_IMODE(file.st_mode)
    return bool(mode & (0o077 if file.st_uid == os.geteuid() else 0o027))


def rotate_hub_keys(folder: Path) -> HubKeys:
    """Make a further signing key; it signs in every process that starts from now on."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make(folder)
    return open_hub_keys(folder)


def _read(file: Path) -> jwk.ECKey:
    if os.name == "posix" and _is_open(file.stat()):
        raise KeyFileError(f"{file} can be read by others; chmod 600 it, or replace the key if it may be known")
    try:
        key = jwk.import_key(json.loads(file.read_text("utf-8")))
    except (JoseError, ValueError, TypeError) as error:
        raise KeyFileError(f"{file} does not hold a JWK") from error
    if not isinstance(key, jwk.ECKey) or not key.is_private or key.curve_name != "P-256":
        raise KeyFileError(f"{file} does not hold a private EC key on P-256")
    return key
