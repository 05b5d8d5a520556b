"""Tokens: who gets one, what is refused, what is found at the well-known places."""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from door_world import ISSUER, Door, open_door
from joserfc import jwk, jws, jwt

from hub.adapters.memory.coordination import MemoryCoordination
from hub.adapters.oauth.keys import KeyFileError, generate, open_hub_keys
from hub.adapters.oauth.tokens import JwtTokens
from hub.domain.errors import Unauthenticated
from hub.domain.parties import SCOPES, Role, Scope

GOOD = {"number": "13812345678", "count": 1}


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(tmp_path) as opened:
        await opened.add("mobile", Role.carrier)
        await opened.add("bank", Role.subscriber)
        yield opened


def _b64(value: bytes | dict[str, Any]) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def test_a_signed_assertion_gets_a_token_that_opens_the_door(door: Door) -> None:
    """private_key_jwt gives an at+jwt of ten minutes with all scopes of the role, and the token works."""
    answer = await door.ask(door.assertion("mobile"))
    body = answer.json()
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 600
    assert set(body["scope"].split()) == {scope.value for scope in SCOPES[Role.carrier]}
    header = jws.extract_compact(body["access_token"].encode()).headers()
    assert header["typ"] == "at+jwt"
    assert header["kid"] == door.keys.signing_kid
    key = jwk.import_key((await door.client.get("/jwks.json")).json()["keys"][0])
    claims = jwt.decode(body["access_token"], key, algorithms=["ES256"]).claims
    assert {"iss", "aud", "sub", "client_id", "iat", "exp", "jti", "scope"} == set(claims)
    assert (claims["iss"], claims["aud"], claims["sub"]) == (ISSUER, ISSUER, "mobile")
    used = await door.client.post("/t/probe", json=GOOD, headers={"authorization": f"Bearer {body['access_token']}"})
    assert used.json() == {"count": 1, "by": "mobile"}


async def test_an_assertion_works_once(door: Door) -> None:
    """The same assertion again is invalid_client, also from a client that was served before."""
    assertion = door.assertion("mobile")
    assert (await door.ask(assertion)).status_code == 200
    again = await door.ask(assertion)
    assert (again.status_code, again.json()["error"]) == (401, "invalid_client")


async def test_after_a_cold_start_older_assertions_are_refused(door: Door) -> None:
    """A replay memory that was lost lets nothing through that was signed before it was lost."""
    assertion = door.assertion("mobile")
    door.clock.advance(10)
    door.context.tokens = JwtTokens(
        ISSUER, door.keys, lambda: door.members.snapshot, MemoryCoordination(door.clock), door.clock
    )
    refused = await door.ask(assertion)
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    assert (await door.ask(door.assertion("mobile"))).status_code == 200


ALIEN, ALIEN_PUBLIC = generate("ES256")


def _none(door: Door) -> str:
    return f"{_b64({'alg': 'none'})}.{_b64(door.claims('mobile'))}."


def _hmac_with_public_key(door: Door) -> str:
    """HS256 keyed with what everybody can know: the party's public key in PEM."""
    import hashlib
    import hmac

    key = jwk.import_key(door.private["mobile"])
    pem = key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[union-attr]
    signed = f"{_b64({'alg': 'HS256', 'kid': door.private['mobile']['kid']})}.{_b64(door.claims('mobile'))}"
    return f"{signed}.{_b64(hmac.digest(pem, signed.encode(), hashlib.sha256))}"


def _own_jwk(door: Door) -> str:
    header = {"alg": "ES256", "jwk": {name: ALIEN_PUBLIC[name] for name in ("kty", "crv", "x", "y")}}
    return jwt.encode(header, door.claims("mobile"), jwk.import_key(ALIEN), algorithms=["ES256"])


def _alien_key_with_the_right_kid(door: Door) -> str:
    header = {"alg": "ES256", "kid": door.private["mobile"]["kid"]}
    return jwt.encode(header, door.claims("mobile"), jwk.import_key(ALIEN), algorithms=["ES256"])


def _tampered(door: Door) -> str:
    head, _, signature = door.assertion("mobile").split(".")
    return f"{head}.{_b64(door.claims('mobile', sub='bank', iss='bank'))}.{signature}"


def _with_header(**extra: Any) -> Callable[[Door], str]:
    def make(door: Door) -> str:
        header = {"alg": "ES256", "kid": door.private["mobile"]["kid"], **extra}
        signed = f"{_b64(header)}.{_b64(door.claims('mobile'))}"
        key = jwk.import_key(door.private["mobile"])
        good = jwt.encode({"alg": "ES256"}, door.claims("mobile"), key, algorithms=["ES256"])
        return f"{signed}.{good.rsplit('.', 1)[1]}"

    return make


def _claims(**changes: Any) -> Callable[[Door], str]:
    return lambda door: door.assertion("mobile", **changes)


def _times(**offsets: float) -> Callable[[Door], str]:
    def make(door: Door) -> str:
        now = int(door.clock.now().timestamp())
        changes: dict[str, Any] = {name: now + offset for name, offset in offsets.items()}
        return door.assertion("mobile", **changes)

    return make


BAD_ASSERTIONS: dict[str, Callable[[Door], str]] = {
    "alg none": _none,
    "hs256 with the public key": _hmac_with_public_key,
    "own jwk": _own_jwk,
    "another key under the kid": _alien_key_with_the_right_kid,
    "tampered": _tampered,
    "jku": _with_header(jku="https://evil.example/jwks"),
    "x5u": _with_header(x5u="https://evil.example/cert"),
    "crit unknown": _with_header(crit=["exp2"], exp2=1),
    "kid of a path": _with_header(kid="../../../../dev/null"),
    "kid a list": _with_header(kid=["a"]),
    "kid of sql": _with_header(kid="' or 1=1 --"),
    "exp missing": _claims(exp=None),
    "exp a text": _claims(exp="2999999999"),
    "exp true": _claims(exp=True),
    "exp huge": _claims(exp=1e300),
    "exp a list": _claims(exp=[1]),
    "iat missing": _claims(iat=None),
    "iat a text": _claims(iat="now"),
    "iat ahead": _times(iat=60, exp=120),
    "expired": _times(iat=-120, exp=-60),
    "lives thirty days": _times(iat=0, exp=30 * 86_400),
    "not before tomorrow": _times(nbf=86_400),
    "jti missing": _claims(jti=None),
    "jti a number": _claims(jti=12345678),
    "jti short": _claims(jti="a"),
    "jti long": _claims(jti="a" * 129),
    "aud wrong": _claims(aud="https://other.example"),
    "aud the token endpoint": _claims(aud=f"{ISSUER}/oauth2/token"),
    "aud missing": _claims(aud=None),
    "aud a list": _claims(aud=[ISSUER]),
    "aud of many": _claims(aud=[ISSUER, "https://other.example"]),
    "iss another": _claims(iss="bank"),
    "sub another": _claims(sub="bank"),
    "sub a number": _claims(sub=1),
    "sub unknown": _claims(sub="nobody", iss="nobody"),
    "empty": lambda _: "",
    "no jws": lambda _: "abc",
    "two dots": lambda _: "..",
    "not base64": lambda _: "!.!.!",
    "not ascii": lambda _: "é.é.é",
    "deep payload": lambda _: f"{_b64({'alg': 'ES256'})}.{_b64(b'[' * 3000)}.{_b64(b'x' * 64)}",
    "payload a list": lambda _: f"{_b64({'alg': 'ES256'})}.{_b64(b'[]')}.{_b64(b'x' * 64)}",
    "long": lambda _: "a" * 9000,
}


@pytest.mark.parametrize("name", BAD_ASSERTIONS)
async def test_a_bad_assertion_is_invalid_client(door: Door, name: str) -> None:
    """Every way in which an assertion can be wrong is 401 invalid_client, and nothing of it is repeated."""
    assertion = BAD_ASSERTIONS[name](door)
    answer = await door.ask(assertion)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert "www-authenticate" in answer.headers
    assert len(answer.content) < 300
    assert (await door.ask(door.assertion("mobile"))).status_code == 200


FORM = "application/x-www-form-urlencoded"
BAD_FORMS: dict[str, tuple[bytes, str, str]] = {
    "nothing": (b"", FORM, "invalid_request"),
    "no grant": (b"scope=a", FORM, "invalid_request"),
    "wrong grant": (b"grant_type=password&username=a&password=b", FORM, "unsupported_grant_type"),
    "refresh": (b"grant_type=refresh_token", FORM, "unsupported_grant_type"),
    "twice": (b"grant_type=client_credentials&grant_type=client_credentials", FORM, "invalid_request"),
    "json": (b'{"grant_type":"client_credentials"}', "application/json", "invalid_request"),
    "multipart": (b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x", "invalid_request"),
    "no type": (b"grant_type=client_credentials", "", "invalid_request"),
    "not ascii": ("grant_type=é".encode(), FORM, "invalid_request"),
    "bad escape": (b"grant_type=%ff%fe", FORM, "invalid_request"),
    "hundred fields": (b"&".join(b"a%d=1" % place for place in range(100)), FORM, "invalid_request"),
    "large": (b"grant_type=" + b"a" * 20_000, FORM, "invalid_request"),
    "no equals": (b"grant_type", FORM, "invalid_request"),
    "two ways": (
        b"grant_type=client_credentials&client_id=a&client_secret=b&client_assertion=c&client_assertion_type=d",
        FORM,
        "invalid_request",
    ),
}


@pytest.mark.parametrize("name", BAD_FORMS)
async def test_a_bad_form_is_refused_with_its_code(door: Door, name: str) -> None:
    """What is no token request is 400 with the code of RFC 6749."""
    body, kind, error = BAD_FORMS[name]
    answer = await door.client.post("/oauth2/token", content=body, headers={"content-type": kind} if kind else {})
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_no_client_authentication_is_invalid_client(door: Door) -> None:
    """A client id alone opens nothing."""
    for form in ({}, {"client_id": "mobile"}, {"client_id": "mobile", "client_secret": "x"}):
        answer = await door.client.post("/oauth2/token", data={"grant_type": "client_credentials", **form})
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_scopes_can_be_narrowed_never_raised(door: Door) -> None:
    """A subset is granted as asked, anything beyond the role is invalid_scope, and a narrow token stays narrow."""
    narrow = await door.token("mobile", scope="check.read")
    headers = {"authorization": f"Bearer {narrow}"}
    answer = await door.client.post("/t/probe", json=GOOD, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
    assert 'scope="events.publish"' in answer.headers["www-authenticate"]
    for scope in ("parties.manage", "check.read parties.manage", "nonsense", "check.read  events.publish"):
        refused = await door.ask(door.assertion("mobile"), scope=scope)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")


async def test_a_subscriber_cannot_publish(door: Door) -> None:
    """A valid token of another role is 403, not 401."""
    answer = await door.client.post("/t/probe", json=GOOD, headers=await door.bearer("bank"))
    assert answer.status_code == 403


async def test_secrets_are_for_sandboxes_only(door: Door) -> None:
    """client_secret works in both forms for a sandbox; the same secret is refused once it is no sandbox."""
    secret = await door.add("toy", Role.carrier, sandbox=True)
    assert secret is not None
    form = {"grant_type": "client_credentials"}
    posted = await door.client.post("/oauth2/token", data={**form, "client_id": "toy", "client_secret": secret})
    basic = await door.client.post("/oauth2/token", data=form, auth=("toy", secret))
    wrong = await door.client.post("/oauth2/token", data=form, auth=("toy", secret[:-1] + "x"))
    assert (posted.status_code, basic.status_code, wrong.status_code) == (200, 200, 401)
    from dataclasses import replace

    toy = door.members.snapshot.parties["toy"]
    await door.context.directory.put_party(replace(toy, sandbox=False))
    await door.members.refresh()
    assert (await door.client.post("/oauth2/token", data=form, auth=("toy", secret))).status_code == 401


@pytest.mark.parametrize("value", ["Basic", "Basic !!!", "Basic bm9jb2xvbg==", "Digest a=b", "Basic " + "YTpi" * 400])
async def test_a_bad_basic_header_is_invalid_client(door: Door, value: str) -> None:
    """An Authorization header that cannot be read is 401, never an error of the hub."""
    form = {"grant_type": "client_credentials"}
    answer = await door.client.post("/oauth2/token", data=form, headers={"authorization": value})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_suspension_stops_tokens_given_out_and_new_ones(door: Door) -> None:
    """A suspended party's token is refused at once, it gets no new one; resumed, the old token works again."""
    headers = await door.bearer("mobile")
    assert (await door.client.post("/t/probe", json=GOOD, headers=headers)).status_code == 200
    await door.enrol.suspend("mobile")
    refused = await door.client.post("/t/probe", json=GOOD, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")
    assert (await door.ask(door.assertion("mobile"))).status_code == 401
    await door.enrol.resume("mobile")
    assert (await door.client.post("/t/probe", json=GOOD, headers=headers)).status_code == 200


async def test_a_token_ends_after_ten_minutes_even_if_cached(door: Door) -> None:
    """Verification is remembered until exp and not a moment longer."""
    headers = await door.bearer("mobile")
    door.clock.advance(599)
    assert (await door.client.post("/t/probe", json=GOOD, headers=headers)).status_code == 200
    door.clock.advance(1)
    late = await door.client.post("/t/probe", json=GOOD, headers=headers)
    assert (late.status_code, late.json()["code"]) == (401, "invalid_token")
    assert "resource_metadata" in late.headers["www-authenticate"]


async def test_a_rotated_key_works_through_the_overlap_only(door: Door) -> None:
    """Old and new key both sign during the overlap; afterwards the old one is a stranger's."""
    old = dict(door.private["mobile"])
    private, public = generate("EdDSA")
    await door.enrol.rotate_key("mobile", public, overlap=timedelta(hours=1))
    new_key = jwk.import_key({name: value for name, value in private.items() if name != "alg"})

    def by_new(alg: str = "EdDSA") -> str:
        head = {"alg": alg, "kid": private["kid"]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library dislikes the older name; clients use both
            return jwt.encode(head, door.claims("mobile"), new_key, algorithms=[alg])

    assert old["kid"] != private["kid"]
    assert (await door.ask(door.assertion("mobile"))).status_code == 200
    assert (await door.ask(by_new())).status_code == 200
    assert (await door.ask(by_new("Ed25519"))).status_code == 200
    door.clock.advance(3601)
    assert (await door.ask(door.assertion("mobile"))).status_code == 401
    assert (await door.ask(by_new())).status_code == 200


async def _foreign_tokens(door: Door) -> dict[str, str]:
    now = int(door.clock.now().timestamp())
    good = {
        "iss": ISSUER, "aud": ISSUER, "sub": "mobile", "client_id": "mobile", "iat": now, "exp": now + 600,
        "jti": "abcdefgh", "scope": "events.publish",
    }  # fmt: skip

    def signed(header: dict[str, Any] | None = None, key: Any = None, **changes: Any) -> str:
        head = {"typ": "at+jwt", "alg": "ES256", "kid": door.keys.signing_kid, **(header or {})}
        claims = {name: value for name, value in (good | changes).items() if value is not None}
        return jwt.encode(head, claims, key or door.keys.signing, algorithms=["ES256"])

    return {
        "other audience": signed(aud="https://other.example"),
        "other issuer": signed(iss="https://other.example"),
        "other typ": signed(header={"typ": "JWT"}),
        "expired": signed(exp=now - 1),
        "no exp": signed(exp=None),
        "exp text": signed(exp="later"),
        "no sub": signed(sub=None),
        "unknown party": signed(sub="nobody"),
        "alien key": signed(key=jwk.import_key(ALIEN)),
        "alien kid": signed(header={"kid": "x"}, key=jwk.import_key(ALIEN)),
        "alg none": f"{_b64({'alg': 'none', 'typ': 'at+jwt', 'kid': door.keys.signing_kid})}.{_b64(good)}.",
        "an assertion": door.assertion("mobile"),
        "garbage": "abc",
        "empty parts": "..",
    }


async def test_foreign_tokens_are_401(door: Door) -> None:
    """Whatever the hub did not sign for itself, as an access token, for now, is 401 invalid_token with a challenge."""
    for name, token in (await _foreign_tokens(door)).items():
        answer = await door.client.post("/t/probe", json=GOOD, headers={"authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token"), name
        assert answer.headers["www-authenticate"].startswith("Bearer "), name


async def test_two_authorization_headers_are_401(door: Door) -> None:
    """Which of two tokens counts is nobody's guess."""
    good = (await door.bearer("mobile"))["authorization"]
    headers = [("authorization", good), ("authorization", good)]
    assert (await door.client.post("/t/probe", json=GOOD, headers=headers)).status_code == 401


async def test_no_token_is_401_with_the_way_to_get_one(door: Door) -> None:
    """The challenge names the protected resource metadata (RFC 9728)."""
    answer = await door.client.post("/t/probe", json=GOOD)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert f'resource_metadata="{ISSUER}/.well-known/oauth-protected-resource"' in answer.headers["www-authenticate"]


async def test_metadata_lead_to_everything(door: Door) -> None:
    """RFC 9728 leads to RFC 8414, whose issuer is exact and whose addresses answer."""
    resource = (await door.client.get("/.well-known/oauth-protected-resource")).json()
    server = (await door.client.get("/.well-known/oauth-authorization-server")).json()
    assert resource["authorization_servers"] == [server["issuer"]] == [ISSUER]
    assert server["token_endpoint"] == f"{ISSUER}/oauth2/token"
    assert "private_key_jwt" in server["token_endpoint_auth_methods_supported"]
    assert "none" not in server["token_endpoint_auth_signing_alg_values_supported"]
    assert set(server["scopes_supported"]) == {scope.value for scope in Scope}
    keys = (await door.client.get(server["jwks_uri"])).json()["keys"]
    assert keys[0]["kid"] == jwk.import_key(keys[0]).thumbprint()
    assert all("d" not in key for key in keys)


async def test_tokens_per_minute_are_bounded(door: Door) -> None:
    """A client that asks for a token with every request is told to wait; another one is not."""
    door.context.tokens._per_minute = 3  # type: ignore[attr-defined]
    answers = [await door.ask(door.assertion("mobile")) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    left = [answer.headers["ratelimit"].split(";t=")[0] for answer in answers]
    assert left == ['"token";r=2', '"token";r=1', '"token";r=0', '"token";r=0', '"token";r=0']
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"token";q=3;w=60'}
    assert (await door.ask(door.assertion("bank"))).status_code == 200


def test_the_hubs_key_survives_a_restart_and_is_for_its_eyes_only(tmp_path: Path) -> None:
    """The key is made once with mode 0600; a file that others can read stops the start."""
    first, second = open_hub_keys(tmp_path / "keys"), open_hub_keys(tmp_path / "keys")
    assert first.signing_kid == second.signing_kid
    (file,) = (tmp_path / "keys").glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    with pytest.raises(KeyFileError, match="can be read by others"):
        open_hub_keys(tmp_path / "keys")
    file.chmod(0o600)
    file.write_text("{}", "utf-8")
    with pytest.raises(KeyFileError, match="does not hold"):
        open_hub_keys(tmp_path / "keys")


async def test_verification_is_remembered(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature of a token is checked once, however often it is used."""
    token = await door.token("mobile")
    calls: list[int] = []
    real = jwt.decode

    def counted(*given: Any, **more: Any) -> Any:
        calls.append(1)
        return real(*given, **more)

    monkeypatch.setattr(jwt, "decode", counted)
    for _ in range(5):
        assert door.context.tokens.verify(token).party_id == "mobile"
    assert len(calls) == 1
    with pytest.raises(Unauthenticated):
        door.context.tokens.verify(token + "x")
