"""Never backwards, never half: the guard, the helpers built on it, and the examples of the README."""

from __future__ import annotations

import importlib.util
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numhub_client
import pytest
from numhub_client import Answer, Chunk, Guard, NumberEvent, Receiver, run_pull, unbind_all
from numhub_client.testing import FakeHub, Published

CLIENT = Path(__file__).parents[2] / "clients" / "python"
CUTOFF = datetime(2026, 1, 1, tzinfo=UTC)
N = 13800138000


@pytest.fixture(params=["memory", "sqlite"])
def guard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guard]:
    if request.param == "memory":
        yield Guard()
        return
    with closing(sqlite3.connect(tmp_path / "guard.db")) as db:
        yield Guard.sqlite(db)


def read(hub: FakeHub, published: Published, **options: Any) -> Chunk:
    subscription = hub.subscribe()
    receiver = Receiver(subscription.secret, subscription_id=subscription.subscription_id)
    message = receiver.open(*hub.webhook(subscription, published, **options))
    assert isinstance(message, Chunk)
    return message


def counting(calls: list[int]) -> Callable[[NumberEvent], Any]:
    def unbind(event: NumberEvent) -> str:
        calls.append(event.number)
        return "unbound"

    return unbind


def test_an_older_event_that_comes_late_changes_nothing(hub: FakeHub, guard: Guard) -> None:
    """restored (seq 3) overtakes release_scheduled (seq 2): the number of the restored holder is not touched."""
    order = read(hub, hub.publish("release_scheduled", [N, N + 1], seq=2))
    restored = read(hub, hub.publish("restored", [N], seq=3, lane="live"))
    calls: list[int] = []
    assert unbind_all(restored, lambda event: None, guard=guard).empty
    assert guard.stale_rows(order) == {0}
    answer = unbind_all(order, counting(calls), guard=guard)
    assert calls == [N + 1]
    assert (answer.of_row(0), answer.of_row(1)) == ("rejected_cutoff", "unbound")


def test_a_new_generation_beats_any_seq(hub: FakeHub, guard: Guard) -> None:
    """(1, 1) is newer than (0, 9)."""
    unbind_all(read(hub, hub.publish("reassigned", [N], generation=1, seq=1)), counting([]), guard=guard)
    late = read(hub, hub.publish("release_scheduled", [N], generation=0, seq=9))
    calls: list[int] = []
    unbind_all(late, counting(calls), guard=guard)
    assert calls == []


def test_a_finished_chunk_is_answered_again_in_the_same_words(hub: FakeHub, guard: Guard) -> None:
    """The repeat calls nothing and says the same."""
    published = hub.publish("release_scheduled", [N, N + 1])
    calls: list[int] = []
    first = unbind_all(read(hub, published), counting(calls), guard=guard, known={N})
    again = unbind_all(read(hub, published), counting(calls), guard=guard, known={N})
    assert calls == [N]
    assert first.to_json() == again.to_json()


def test_a_crash_in_the_middle_leaves_no_mark_and_no_effect(hub: FakeHub, tmp_path: Path) -> None:
    """Effect, mark and answer commit together or not at all; the repeat does the whole work."""
    published = hub.publish("release_scheduled", [N, N + 1])
    with closing(sqlite3.connect(tmp_path / "app.db")) as db:
        db.execute("CREATE TABLE bindings (number INTEGER PRIMARY KEY)")
        db.executemany("INSERT INTO bindings VALUES (?)", [(N,), (N + 1,)])
        db.commit()
        guard = Guard.sqlite(db)
        fuse = [True]

        def unbind(event: NumberEvent) -> Any:
            if event.number == N + 1 and fuse:
                raise OSError(fuse.pop())
            db.execute("DELETE FROM bindings WHERE number = ?", (event.number,))
            return "unbound"

        with pytest.raises(OSError):
            unbind_all(read(hub, published), unbind, guard=guard)
        assert db.execute("SELECT count(*) FROM bindings").fetchone() == (2,)
        assert db.execute("SELECT count(*) FROM numhub_marks").fetchone() == (0,)
        answer = unbind_all(read(hub, published), unbind, guard=guard)
        assert answer.counts() == {"unbound": 2}
        assert db.execute("SELECT count(*) FROM bindings").fetchone() == (0,)
    with closing(sqlite3.connect(tmp_path / "app.db")) as reopened:
        assert Guard.sqlite(reopened).stale_rows(read(hub, published)) == frozenset()
        with Guard.sqlite(reopened).begin(read(hub, published)) as turn:
            assert turn.repeated == {0, 1}
            assert turn.previous is not None


def test_a_guard_never_works_inside_somebody_elses_transaction(hub: FakeHub) -> None:
    """Otherwise its rollback would undo more than its own."""
    with closing(sqlite3.connect(":memory:")) as db:
        guard = Guard.sqlite(db)
        db.execute("INSERT INTO numhub_marks VALUES (1, 1, 1)")
        with (
            pytest.raises(RuntimeError, match="transaction"),
            guard.begin(read(hub, hub.publish("released", [N]))),
        ):
            raise AssertionError("never reached")


def test_rows_the_hub_calls_superseded_are_not_acted_on(hub: FakeHub) -> None:
    """The header's rows are skipped; a list too long to send needs a guard."""
    published = hub.publish("release_scheduled", [N, N + 1, N + 2])
    calls: list[int] = []
    answer = unbind_all(read(hub, published, superseded="0-1"), counting(calls))
    assert calls == [N + 2]
    assert answer.counts() == {"rejected_cutoff": 2, "unbound": 1}
    unlisted = read(hub, published, superseded="see-feed")
    with pytest.raises(ValueError, match="Guard"):
        unbind_all(unlisted, counting(calls))
    assert unbind_all(unlisted, lambda event: None, guard=Guard()).counts() == {"no_account": 3}


def test_holds_need_a_review_date_and_dispositions_must_exist(hub: FakeHub) -> None:
    """Said wrong, refused at once and not by the hub later."""
    chunk = read(hub, hub.publish("release_scheduled", [N]))
    answer = chunk.answer("no_account")
    for wrong in (
        lambda: answer.row(0, "held_funds"),
        lambda: answer.row(0, "held_funds", review_at=datetime(2026, 1, 1)),  # noqa: DTZ001
        lambda: answer.row(0, "gone"),  # type: ignore[arg-type]
        lambda: answer.row(1, "unbound"),
        lambda: answer.row(-1, "unbound"),
        lambda: answer.number(N + 5, "unbound"),
        lambda: answer.number("123", "unbound"),
    ):
        with pytest.raises(ValueError) as refused:
            wrong()
        assert str(N)[3:] not in str(refused.value)
    held = unbind_all(chunk, lambda event: ("held_debt", CUTOFF))
    assert held.to_json()["exceptions"] == [
        {"disposition": "held_debt", "review_at": "2026-01-01T00:00:00Z", "rows": [0]}
    ]


def test_answers_with_too_many_different_dates_are_refused_here(hub: FakeHub) -> None:
    """The hub takes 64 groups; the caller hears how to get there."""
    chunk = read(hub, hub.publish("release_scheduled", range(N, N + 65)))
    answer = chunk.answer()
    for row in range(65):
        answer.row(row, "held_debt", review_at=CUTOFF + timedelta(minutes=row))
    with pytest.raises(ValueError, match="64"):
        answer.to_json()


def test_pulling_answers_before_it_commits(hub: FakeHub) -> None:
    """An answer the hub does not take leaves the cursor where it is; the next run does it all."""
    subscription = hub.subscribe()
    hub.publish("release_scheduled", [N])
    hub.fail(422, path="/v1/acks", code="invalid_request")

    def handle(chunk: Chunk) -> Answer:
        return unbind_all(chunk, lambda event: "unbound")

    with hub.client() as client:
        with pytest.raises(numhub_client.NumhubError):
            run_pull(client, subscription.subscription_id, handle, follow=False)
        assert subscription.position == 0
        assert run_pull(client, subscription.subscription_id, handle, stop=lambda: True) == 1
        assert subscription.position == 1
    assert hub.disposition(subscription.subscription_id, N) == "unbound"


# -- the examples


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", CLIENT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_receiver_example_unbinds_what_is_older_than_the_cutoff(hub: FakeHub) -> None:
    """Proof, full chunk, pointer, forgery: all through the example's one function."""
    receiver_example = example("receiver")
    subscription = hub.subscribe()
    receiver = Receiver(subscription.secret, subscription_id=subscription.subscription_id)
    accounts = receiver_example.ACCOUNTS
    accounts |= {N: CUTOFF - timedelta(days=1), N + 1: CUTOFF, N + 2: CUTOFF - timedelta(days=1)}
    with hub.client() as client:

        def post(headers: dict[str, str], body: bytes) -> tuple[int, str]:
            status, text = receiver_example.handle(receiver, client, headers, body)
            return status, text

        assert post(*hub.proof(subscription, "abc")) == (200, '{"challenge": "abc"}')
        chunk = hub.publish("release_scheduled", [N, N + 1, N + 3], binding_cutoff_at=CUTOFF)
        assert post(*hub.webhook(subscription, chunk)) == (200, "")
        pointed = hub.publish("reassigned", [N + 2], binding_cutoff_at=CUTOFF, lane="live")
        assert post(*hub.webhook(subscription, pointed, pointer=True)) == (200, "")
        headers, body = hub.webhook(subscription, chunk)
        assert post(headers, body + b" ")[0] == 400
    said = {n: hub.disposition(subscription.subscription_id, n) for n in range(N, N + 4)}
    assert said == {N: "unbound", N + 1: "rejected_cutoff", N + 2: "unbound", N + 3: "no_account"}
    assert list(accounts) == [N + 1]


def test_the_pull_example_commits_effects_and_marks_together(hub: FakeHub) -> None:
    """Two runs: the second finds nothing to do."""
    subscription = hub.subscribe()
    hub.publish("deactivated", [N])
    hub.publish("release_scheduled", [N, N + 1], binding_cutoff_at=CUTOFF, seq=2)
    with closing(sqlite3.connect(":memory:")) as db, hub.client() as client:
        db.execute("CREATE TABLE bindings (number INTEGER PRIMARY KEY, account TEXT, bound_at REAL)")
        old, new = (CUTOFF - timedelta(days=1)).timestamp(), CUTOFF.timestamp()
        db.executemany("INSERT INTO bindings VALUES (?, ?, ?)", [(N, "ada", old), (N + 1, "bob", new)])
        db.commit()
        run = example("pull").run
        assert run(client, subscription.subscription_id, db, follow=False) == 2
        assert db.execute("SELECT account FROM bindings").fetchall() == [("bob",)]
        assert run(client, subscription.subscription_id, db, follow=False) == 0
    assert [answered.rows[0] for answered in hub.answered] == ["soft_locked", "unbound"]


def test_the_carrier_example_publishes_gives_back_and_asks(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A night in three functions."""
    carrier = example("carrier")
    file = tmp_path / "night.csv"
    file.write_text(f"number,terminated_at\n{N},2026-01-01\nwrong,2026-01-01\n")
    hub.verdicts = {N: "go"}
    with hub.client() as client:
        assert carrier.publish_night(client, file, 1) == {"invalid_number": 1}
        assert carrier.give_back(client, f"+86{N}", CUTOFF)
        assert carrier.sellable(client, [f"+86{N + 1}", f"+86{N}"]) == [f"+86{N}"]
    assert "line 3 invalid_number" in capsys.readouterr().out


def test_the_readme_runs(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its three lines, and its test with the fake hub, as they stand there."""
    blocks = re.findall(r"```python\n(.*?)```", (CLIENT / "README.md").read_text(), re.DOTALL)
    three = next(block for block in blocks if "# verify" in block)
    subscription = hub.subscribe()
    headers, body = hub.webhook(subscription, hub.publish("release_scheduled", [N]))
    with hub.client() as client:
        scope: dict[str, Any] = {
            "receiver": Receiver(subscription.secret, subscription_id=subscription.subscription_id),
            "client": client,
            "headers": headers,
            "body": body,
            "my_unbind": lambda event: "unbound",
            "unbind_all": unbind_all,
        }
        exec(compile(three, "README.md", "exec"), scope)
    assert len(three.strip().splitlines()) == 3
    assert hub.disposition(subscription.subscription_id, N) == "unbound"
    fake = next(block for block in blocks if "FakeHub" in block)
    handler = {"my_handler": lambda chunk: chunk.answer("unbound"), "ended": CUTOFF, "run_pull": run_pull}
    exec(compile(fake, "README.md", "exec"), handler)
    for block in blocks:
        compile(block, "README.md", "exec")
