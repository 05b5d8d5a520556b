"""The client against a fake hub: every call once, sync and async, and what is done about trouble."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numhub_client
import pytest
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OKPKey
from numhub_client import Client, ClientSecret, Event, NumhubError, PrivateKey, Retry, errors
from numhub_client.models import AckException, Batch, Progress
from numhub_client.testing import FakeHub

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CSV = b"number,terminated_at\r\n13800138000,2026-01-01\r\n13800138001,2026-01-01\r\n\r\nwrong,2026-01-01"


def test_exported_names_are_sorted_and_complete() -> None:
    """The front door is one sorted list, and everything public in it is there."""
    names = numhub_client.__all__
    assert names == sorted(names, key=str.lower) or names == sorted(names)
    assert all(hasattr(numhub_client, name) for name in names)
    public = {
        name
        for name, value in vars(numhub_client).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    assert public == set(names)


def test_the_async_client_offers_the_same_calls() -> None:
    """The two shells differ in nothing but waiting."""
    with FakeHub().client() as client:
        sync = {name: part for name, part in vars(client).items() if not name.startswith("_")}
    waiting = {n: p for n, p in vars(FakeHub().async_client()).items() if not n.startswith("_")}
    assert sync.keys() == waiting.keys()
    for name, part in sync.items():
        calls = [call for call in vars(type(part)) if not call.startswith("_")]
        assert calls == [call for call in vars(type(waiting[name])) if not call.startswith("_")], name
        for call in calls:
            mine, theirs = (inspect.signature(getattr(p, call)) for p in (part, waiting[name]))
            assert list(mine.parameters.values()) == list(theirs.parameters.values()), f"{name}.{call}"


# -- errors


@pytest.mark.parametrize(
    ("code", "kind"),
    [(code, kind) for code, kind in errors.BY_CODE.items()],
)
def test_each_problem_code_has_its_class(hub: FakeHub, code: str, kind: type[errors.ApiError]) -> None:
    """Code decides the class; status and detail come along."""
    hub.fail(418, code=code, times=20)
    with hub.client() as client, pytest.raises(kind) as raised:
        client.apps.list()
    assert type(raised.value) is kind
    assert (raised.value.code, raised.value.status) == (code, 418)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (401, errors.Unauthenticated),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.RuleViolated),
        (410, errors.CursorExpired),
        (413, errors.PayloadTooLarge),
        (422, errors.InvalidRequest),
        (429, errors.TooManyRequests),
        (500, errors.UnexpectedAnswer),
        (502, errors.Unavailable),
        (503, errors.Unavailable),
        (302, errors.UnexpectedAnswer),
    ],
)
def test_an_answer_without_a_problem_document_is_judged_by_its_status(status: int, kind: type[errors.ApiError]) -> None:
    """A proxy's page is no problem document; nothing of it is shown."""

    def answer(request: httpx.Request) -> httpx.Response:
        if not request.url.path.startswith("/v1"):
            return FakeHub().handle(request)
        return httpx.Response(status, text="<html>13800138000</html>")

    with _client(answer) as client, pytest.raises(kind) as raised:
        client.apps.list()
    assert type(raised.value) is kind
    assert "13800138000" not in str(raised.value)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"apps": 1}', b'{"apps": [{}]}', b'{"apps": [1]}', b"\xff"])
def test_answers_that_break_the_contract_are_one_error(body: bytes) -> None:
    """No KeyError or TypeError ever leaves the client."""

    def answer(request: httpx.Request) -> httpx.Response:
        if not request.url.path.startswith("/v1"):
            return FakeHub().handle(request)
        return httpx.Response(200, content=body)

    with _client(answer) as client, pytest.raises(errors.UnexpectedAnswer):
        client.apps.list()


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(httpx).values() if isinstance(kind, type) and issubclass(kind, httpx.RequestError)],
    ids=lambda kind: kind.__name__,
)
def test_every_httpx_request_error_is_translated(kind: type[httpx.RequestError]) -> None:
    """No lower-layer error reaches the caller untranslated."""

    def answer(request: httpx.Request) -> httpx.Response:
        raise kind("secret 13800138000")

    with _client(answer) as client, pytest.raises(errors.ConnectionFailed) as raised:
        client.apps.list()
    assert "13800138000" not in str(raised.value)


def _client(answer: Any, **options: Any) -> Client:
    transport = httpx.MockTransport(answer)
    return Client(
        "https://hub.test", ClientSecret("a", "b"), transport=transport, retry=Retry(attempts=2, first=0), **options
    )


# -- retries and tokens


def test_a_lost_answer_is_repeated_under_the_same_key(hub: FakeHub) -> None:
    """Published once, though the first answer was lost and the second attempt was refused for a moment."""
    hub.cut(path="/v1/events")
    hub.fail(503, path="/v1/events")
    with hub.client() as client:
        results = client.events.publish([Event("+8613800138000", "restored", NOW)])
    assert results.results[0].accepted
    assert len(hub.events) == 1
    assert [path for _, path in hub.requests].count("/v1/events") == 3


def test_refusals_are_not_repeated(hub: FakeHub) -> None:
    """What is wrong stays wrong."""
    hub.fail(422, code="invalid_request", path="/v1/check", times=5)
    with hub.client() as client, pytest.raises(errors.InvalidRequest):
        client.check.one("+8613800138000", "2026-01-01")
    assert [path for _, path in hub.requests].count("/v1/check") == 1


def test_creating_a_subscription_is_never_repeated(hub: FakeHub) -> None:
    """The secret stood in the lost answer; a second subscription nobody asked for would be worse."""
    hub.cut(path="/v1/subscriptions")
    with hub.client() as client, pytest.raises(errors.ConnectionFailed):
        client.subscriptions.create("shop", mode="pull")
    assert len(hub.subscriptions) == 1


def test_retries_end(hub: FakeHub) -> None:
    """A hub that is gone stays gone: the error of the last attempt comes out."""
    hub.cut(after_bytes=0, times=99)
    with hub.client(retry=Retry(attempts=4, first=0)) as client, pytest.raises(errors.ConnectionFailed):
        client.apps.list()
    assert [path for _, path in hub.requests].count("/v1/apps") == 4


def test_waits_grow_have_jitter_and_keep_retry_after() -> None:
    """Half to all of the doubled wait, never beyond the longest, never below Retry-After; beyond patience an error."""
    retry = Retry(attempts=20, first=1, longest=8, patience=60, random=Random(7))
    busy = errors.Unavailable()
    waits = [retry.wait_after(attempt, busy, repeatable=True) or 0 for attempt in range(1, 9)]
    for wait, most in zip(waits, [1, 2, 4, 8, 8, 8, 8, 8], strict=True):
        assert most / 2 <= wait <= most
    assert len(set(waits)) == len(waits)
    assert retry.wait_after(1, errors.Unavailable(retry_after=30), repeatable=True) == 30
    assert retry.wait_after(1, errors.Unavailable(retry_after=61), repeatable=True) is None
    assert retry.wait_after(20, busy, repeatable=True) is None
    assert retry.wait_after(1, busy, repeatable=False) is None


@pytest.mark.parametrize("text", ["soon", "-1", "", "9" * 30])
def test_a_retry_after_that_makes_no_sense_is_ignored(hub: FakeHub, text: str) -> None:
    """The request is repeated after the client's own wait."""
    hub.fail(429, code="too_many_requests", retry_after=text)
    with hub.client() as client:
        assert client.apps.list() == []


def test_one_token_serves_many_calls_and_a_refused_one_is_refreshed_once(hub: FakeHub) -> None:
    """401 leads to one new token and one repeat, even for calls that are not repeatable otherwise."""
    with hub.client() as client:
        client.apps.list()
        client.apps.list()
        assert [path for _, path in hub.requests].count("/oauth2/token") == 1
        hub.expire_tokens()
        client.subscriptions.create("shop", mode="pull")
        assert [path for _, path in hub.requests].count("/oauth2/token") == 2
        hub.fail(401, times=9)
        with pytest.raises(errors.Unauthenticated):
            client.apps.list()
    assert [path for _, path in hub.requests].count("/oauth2/token") == 3


def test_refused_credentials_are_told_as_such() -> None:
    """The token endpoint speaks OAuth's error form, and is not asked twice."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if request.url.path == "/oauth2/token":
            return httpx.Response(401, json={"error": "invalid_client", "error_description": "unknown key"})
        return FakeHub().handle(request)

    with _client(answer) as client, pytest.raises(errors.TokenRefused) as raised:
        client.apps.list()
    assert (raised.value.code, raised.value.status, raised.value.retriable) == ("invalid_client", 401, False)
    assert asked.count("/oauth2/token") == 1


def test_metadata_naming_another_issuer_get_no_assertion() -> None:
    """A pinned issuer is compared before anything is signed."""
    with _client(FakeHub().handle, issuer="https://other.test") as client, pytest.raises(errors.TokenRefused):
        client.apps.list()


@pytest.mark.parametrize("key", [ECKey.generate_key("P-256"), OKPKey.generate_key("Ed25519")], ids=["P-256", "Ed25519"])
@pytest.mark.parametrize("form", ["jwk", "pem"])
def test_assertions_are_signed_for_one_audience_and_one_use(tmp_path: Path, key: ECKey | OKPKey, form: str) -> None:
    """iss = sub = client id, aud = issuer, a minute of life, a fresh jti, kid in the header."""
    file = tmp_path / "key"
    if form == "jwk":
        named = "EdDSA" if isinstance(key, OKPKey) else "ES256"
        file.write_text(json.dumps({**key.as_dict(private=True), "kid": "k1", "alg": named, "use": "sig"}))
    else:
        file.write_bytes(key.as_pem(private=True))
    loaded = PrivateKey.load(file, "shop-co", kid=None if form == "jwk" else "k1")
    texts = [loaded.assertion("https://hub.test", 1_767_225_600.5) for _ in range(2)]
    tokens = [jwt.decode(text, key, algorithms=[loaded.alg]) for text in texts]
    claims = tokens[0].claims
    assert claims["iss"] == claims["sub"] == "shop-co"
    assert claims["aud"] == "https://hub.test"
    assert claims["exp"] - claims["iat"] == 60
    assert tokens[0].header["kid"] == "k1"
    assert claims["jti"] != tokens[1].claims["jti"]
    statement = jws.deserialize_compact(loaded.sign({"person": "某人"}), key, algorithms=[loaded.alg])
    assert json.loads(statement.payload) == {"person": "某人"}


@pytest.mark.parametrize(
    "material",
    [
        "",
        "{}",
        "[]",
        '{"kty":"oct","k":"AAAA","kid":"1"}',
        "-----BEGIN NONSENSE-----",
        '{"kty":"EC","crv":"P-256","x":"A","y":"A","d":"A","kid":"1"}',
        '{"kty":"EC","crv":"P-9","d":1}',
        '{"kty":"EC","crv":"P-256"}',
    ],
)
def test_keys_that_cannot_sign_are_refused_at_once(material: str) -> None:
    """Before any request, with ValueError."""
    with pytest.raises(ValueError):
        PrivateKey.parse(material, "shop-co", kid="k1")


def test_a_key_without_kid_and_a_public_key_are_refused() -> None:
    """The hub could not find the one, and the other signs nothing."""
    key = ECKey.generate_key("P-256")
    with pytest.raises(ValueError, match="kid"):
        PrivateKey.parse(key.as_pem(private=True), "shop-co")
    with pytest.raises(ValueError, match="public"):
        PrivateKey.parse(key.as_pem(private=False), "shop-co", kid="k1")


# -- carriers


def test_an_upload_is_resumed_where_the_hub_says(hub: FakeHub) -> None:
    """Two cuts on the way, one before the commit's answer: one batch, every byte once."""
    content = b"number\n" + b"".join(b"138%08d\n" % n for n in range(60_000))
    hub.cut(method="PUT", after_bytes=100_000)
    hub.cut(method="PUT")
    hub.cut(path="/v1/batches/", method="POST")
    steps: list[Progress] = []
    with hub.client() as client:
        batch = client.batches.upload(content, format="csv", batch_seq=1, progress=steps.append)
    assert hub.contents[batch.batch_id] == content
    assert (batch.state, batch.rows_declared, batch.rows_accepted) == ("committed", 60_000, 60_000)
    assert {step.stage for step in steps} == {"digest", "upload", "validate"}
    uploaded = [step.done for step in steps if step.stage == "upload"]
    assert uploaded[-1] == len(content)


def test_the_same_file_again_is_the_same_batch(hub: FakeHub, tmp_path: Path) -> None:
    """After a crash of the caller nothing is uploaded twice; another number of the batch is another batch."""
    file = tmp_path / "night.csv"
    file.write_bytes(CSV)
    with hub.client() as client:
        first = client.batches.upload(file, batch_seq=7)
        again = client.batches.upload(str(file), batch_seq=7)
        with file.open("rb") as opened:
            other = client.batches.upload(opened, batch_seq=8)
            assert not opened.closed
        assert first.batch_id == again.batch_id != other.batch_id
        assert [method for method, _ in hub.requests].count("PUT") == 2
        rows = client.batches.result(first.batch_id)
        assert [(row.line, row.reason) for row in rows] == [(5, "invalid_number")]
        client.batches.save_result(first.batch_id, tmp_path / "result.csv")
        assert (tmp_path / "result.csv").read_bytes().startswith(b"line,reason")
        assert [batch.batch_seq for batch in client.batches.list()] == [8, 7]


def test_rows_are_counted_as_the_hub_counts_them(hub: FakeHub, tmp_path: Path) -> None:
    """Header and empty lines are no rows; gzip is looked into; zstd needs the count."""
    packed = tmp_path / "night.csv.gz"
    packed.write_bytes(gzip.compress(CSV))
    plain = io.BytesIO(b'{"number":"13800138000"}\n\n{"number":"13800138001"}\n')
    with hub.client() as client:
        assert client.batches.upload(packed, batch_seq=1, wait=False).rows_declared == 3
        assert client.batches.upload(plain, batch_seq=2, format="ndjson").rows_declared == 2
        assert client.batches.empty(batch_seq=3).rows_declared == 0
        with pytest.raises(ValueError, match="rows"):
            client.batches.upload(b"(\xb5/\xfd", batch_seq=4, format="csv", encoding="zstd")
        with pytest.raises(ValueError, match="format"):
            client.batches.upload(b"number\n", batch_seq=5)
        table = tmp_path / "night.parquet"
        table.write_bytes(b"PAR1")
        with pytest.raises(ValueError, match="rows="):
            client.batches.upload(table, batch_seq=6)
        with pytest.raises(ValueError, match="compressed inside"):
            client.batches.upload(b"PAR1", batch_seq=6, rows=1, format="parquet", encoding="gzip")


def test_a_batch_that_failed_is_an_error_that_carries_it(hub: FakeHub) -> None:
    """Here the bytes changed on their way."""
    with hub.client() as client:
        batch = client.batches.upload(CSV, format="csv", batch_seq=1)
        hub.batches[batch.batch_id] |= {"state": "failed", "failure": "the digest differs"}
        with pytest.raises(errors.BatchFailed, match="digest") as raised:
            client.batches.wait(batch.batch_id)
    assert isinstance(raised.value.batch, Batch)


def test_waiting_ends_with_an_error_that_may_be_repeated(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """For batches and for renewals."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with hub.client() as client:
        batch = client.batches.upload(CSV, format="csv", batch_seq=1)
        hub.batches[batch.batch_id]["state"] = "validating"
        with pytest.raises(errors.WaitTimedOut):
            client.batches.wait(batch.batch_id, within=1)
        renewal = client.renewals.request("13800138000", activated_at=NOW, apps="all", consent_sha256="0" * 64)
        with pytest.raises(errors.WaitTimedOut):
            client.renewals.wait(renewal.renewal_id, within=1)
        hub.renewals[renewal.renewal_id]["state"] = "completed"
        assert client.renewals.wait(renewal.renewal_id).final


def test_a_reused_key_with_another_body_is_its_own_error(hub: FakeHub) -> None:
    """The caller's own key is checked by the hub."""
    with hub.client() as client:
        client.events.publish([Event("13800138000", "restored", NOW)], idempotency_key="night-1")
        with pytest.raises(errors.IdempotencyMismatch):
            client.events.publish([Event("13800138001", "restored", NOW)], idempotency_key="night-1")
        for key in ("", "a b", 'a"b', "é", "x" * 129):
            with pytest.raises(ValueError):
                client.events.publish([Event("13800138000", "restored", NOW)], idempotency_key=key)


def test_clearance_waivers_reports_and_apps(hub: FakeHub) -> None:
    """The smaller calls, each read into its model."""
    hub.apps = [{"app_id": "shop", "name": "Shop", "app_class": "e_commerce"}]
    hub.verdicts = {13800138000: "go"}
    key = PrivateKey.parse({**ECKey.generate_key("P-256").as_dict(private=True), "kid": "k1"}, "regulator")
    with hub.client() as client:
        assert [app.app_id for app in client.apps.list()] == ["shop"]
        verdicts = client.clearance.numbers(["+8613800138000", "+8613800138001"])
        assert [number.verdict for number in verdicts.numbers] == ["go", "wait"]
        batch = client.batches.upload(CSV, format="csv", batch_seq=1)
        assert client.clearance.batch(batch.batch_id).numbers == ()
        detail = client.clearance.batch(batch.batch_id, detail="not_go")
        assert [number.index for number in detail.numbers] == [1]
        waiver = client.waivers.sign_and_put("bank", person="Wang", reason="court order", key=key)
        assert client.waivers.list() == [waiver]
        with pytest.raises(ValueError, match="key"):
            client.waivers.sign_and_put("bank", person="Wang", reason="no key")
        assert client.reports.get("delivery", since="2026-01-01", until=None)["filters"] == {"since": "2026-01-01"}
        assert client.reports.csv("delivery").startswith("day,")


# -- subscribers


def test_a_subscription_from_birth_to_end(hub: FakeHub) -> None:
    """Create, prove, patch, rotate, pause, resume, test, delete."""
    with hub.client() as client:
        made = client.subscriptions.create("shop", endpoint="https://shop.test/hook", event_types=["reassigned"])
        assert made.state == "unproven" and made.secret is not None
        assert made.secret.key not in repr(made)
        assert client.subscriptions.prove(made.subscription_id).proven
        assert client.subscriptions.patch(made.subscription_id, event_types=["released"]).event_types == ("released",)
        rotated = client.subscriptions.rotate(made.subscription_id).secret
        assert rotated is not None and rotated.key != made.secret.key
        assert client.subscriptions.pause(made.subscription_id).state == "paused"
        assert client.subscriptions.resume(made.subscription_id).state == "active"
        assert client.subscriptions.test(made.subscription_id).delivered
        client.subscriptions.delete(made.subscription_id)
        assert client.subscriptions.get(made.subscription_id).state == "deleted"
        assert len(client.subscriptions.list()) == 1


def test_a_page_is_committed_when_the_next_one_is_asked_for(hub: FakeHub) -> None:
    """Leaving the loop early leaves the page uncommitted, so it comes again."""
    subscription = hub.subscribe()
    hub.page_size = 2
    chunks = [hub.publish("released", [13800138000 + n]) for n in range(5)]
    with hub.client() as client:
        for page in client.feed.pages(subscription.subscription_id, follow=False):
            assert len(page) == 2
            break
        assert subscription.position == 0
        seen = []
        for chunk in client.feed.events(subscription.subscription_id, follow=False):
            seen.append(chunk.chunk_id)
            assert subscription.position <= len(seen) - 1
        assert seen == [chunk.chunk_id for chunk in chunks]
        assert subscription.position == 5
        assert client.subscriptions.deliveries(subscription.subscription_id)[0].chunk_id == chunks[-1].chunk_id
        assert client.subscriptions.redrive(subscription.subscription_id, since=NOW) is None
        assert len(list(client.feed.events(subscription.subscription_id, follow=False))) == 5


def test_pages_carry_the_bytes_a_webhook_would_carry(hub: FakeHub) -> None:
    """What `numhub listen` forwards is what the hub would have posted."""
    subscription = hub.subscribe()
    chunk = hub.publish("released", [13800138000], renewal={"name": "焕新"})
    with hub.client() as client:
        (page,) = client.feed.pages(subscription.subscription_id, follow=False)
    assert page.bodies() == [chunk.body]


def test_a_pointer_is_only_followed_to_the_bytes_it_names(hub: FakeHub) -> None:
    """Another digest, another error; the right digest, the chunk."""
    subscription = hub.subscribe()
    chunk = hub.publish("released", [13800138000])
    receiver = numhub_client.Receiver(subscription.secret, subscription_id=subscription.subscription_id)
    pointer = receiver.open(*hub.webhook(subscription, chunk, pointer=True))
    with hub.client() as client:
        assert client.chunks.get(None, pointer).numbers == [13800138000]  # type: ignore[arg-type]
        hub.log[0] = hub.publish("released", [13800138001])
        object.__setattr__(hub.log[0], "chunk_id", chunk.chunk_id)
        with pytest.raises(errors.DigestMismatch):
            client.chunks.get(None, pointer)  # type: ignore[arg-type]
        with pytest.raises(errors.NotFound):
            client.chunks.get(subscription.subscription_id, "evt_unknown")


def test_answers_reach_the_hub_grouped(hub: FakeHub) -> None:
    """One default, exceptions by row and by number; the same again is not new; a correction is."""
    subscription = hub.subscribe()
    chunk = hub.publish("release_scheduled", range(13800138000, 13800138010))
    review = NOW + timedelta(days=30)
    with hub.client() as client:
        (read,) = client.feed.events(subscription.subscription_id, follow=False)
        answer = read.answer("no_account").row(0, "unbound").number("+8613800138001", "unbound")
        answer.number(13800138002, "held_funds", review_at=review)
        message = answer.to_json()
        assert message["default"] == "no_account"
        assert [group["rows"] for group in message["exceptions"]] == [[2], [0, 1]]
        assert answer.counts() == {"no_account": 7, "unbound": 2, "held_funds": 1}
        assert [result.new for result in client.acks.send([answer, answer])] == [True, False]
        assert hub.disposition(subscription.subscription_id, 13800138002) == "held_funds"
        exceptions = [AckException("unbound", numbers=["13800138009"])]
        done = client.acks.answer(subscription.subscription_id, chunk.chunk_id, exceptions=exceptions)
        assert done.new
        assert hub.disposition(subscription.subscription_id, 13800138009) == "unbound"
        assert hub.disposition(subscription.subscription_id, 13800138000) == "unbound", "a correction corrects one row"


def test_answers_that_say_nothing_or_belong_nowhere(hub: FakeHub) -> None:
    """The one is not sent, the other is the caller's mistake."""
    with hub.client() as client:
        assert client.acks.send(numhub_client.Answer("evt_1", subscription_id="sub_1")) == []
        with pytest.raises(ValueError, match="subscription_id"):
            client.acks.send(numhub_client.Answer("evt_1", "no_account"))
    assert hub.requests == []


def test_checks_keep_no_data_apart_from_no(hub: FakeHub) -> None:
    """Silence of the hub is never a no."""
    hub.checks = {13800138000: "yes", 13800138001: "no"}
    with hub.client() as client:
        pairs = [("13800138000", "2026-01-01"), ("13800138001", NOW.date()), ("13800138002", NOW)]
        assert [answer.answer for answer in client.check.many(pairs)] == ["yes", "no", "no_data"]
        assert client.check.one("13800138000", "2026-01-01").as_of == NOW
        with pytest.raises(ValueError):
            client.check.many([])


async def test_the_async_client_does_the_same(hub: FakeHub) -> None:
    """Upload with a cut, publish, follow the feed, answer: awaited."""
    subscription = hub.subscribe()
    hub.cut(method="PUT", after_bytes=10)
    async with hub.async_client() as client:
        batch = await client.batches.upload(CSV, format="csv", batch_seq=1)
        assert batch.rows_accepted == 2
        await client.events.publish([Event("13800138009", "reassigned", NOW)])

        async def handle(chunk: numhub_client.Chunk) -> numhub_client.Answer:
            return chunk.answer("no_account")

        done = await numhub_client.run_pull_async(client, subscription.subscription_id, handle, follow=False)
        assert done == 2
        async for _ in client.feed.events(subscription.subscription_id, follow=False):
            raise AssertionError("everything was committed")
    assert hub.disposition(subscription.subscription_id, 13800138000) == "no_account"


async def test_tasks_that_start_together_fetch_one_token(hub: FakeHub) -> None:
    """The token is waited for, not fetched by each."""
    async with hub.async_client() as client:
        await asyncio.gather(*(client.apps.list() for _ in range(20)))
    assert [path for _, path in hub.requests].count("/oauth2/token") == 1


def test_an_unseekable_file_is_refused() -> None:
    """It is read twice: once for its digest, once to be uploaded."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with FakeHub().client() as client, pytest.raises(ValueError, match="seekable"):
        client.batches.upload(Pipe(CSV), format="csv", batch_seq=1)


def test_naive_moments_are_refused(hub: FakeHub) -> None:
    """A guessed zone would move a day boundary."""
    with hub.client() as client, pytest.raises(ValueError, match="zone"):
        client.events.publish([Event("13800138000", "restored", datetime(2026, 1, 1))])  # noqa: DTZ001


def test_errors_say_what_they_are() -> None:
    """A code and a default text for every class of the tree."""

    def walk(kind: type[NumhubError]) -> list[type[NumhubError]]:
        return [kind, *(leaf for sub in kind.__subclasses__() for leaf in walk(sub))]

    for kind in walk(NumhubError):
        assert kind.__doc__, kind
        assert kind.__name__ in (errors.__doc__ or ""), f"{kind.__name__} is missing in the tree"
