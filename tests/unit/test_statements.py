"""Statements in the dialect of SQLite: as many rows at once as there are, and never a table read whole for some."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, select

from hub.adapters.sql.schema import answer_tallies, answers, metadata, subscription_keys
from hub.adapters.sql.statements import Insert, OfPairs, Upsert

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{tmp_path / 'some.db'}")
    with engine.begin() as open_:
        metadata.create_all(open_, [answers, answer_tallies, subscription_keys])
        yield open_
    engine.dispose()


def row(place: int) -> dict[str, object]:
    return {
        "subscription_no": place % 7,
        "chunk_no": place,
        "place": 0,
        "numbers": 10,
        "default_code": 1,
        "default_review_at": None if place % 2 else AT + timedelta(microseconds=place),
        "answered_at": AT,
        "digest": b"%d" % place,
        "exceptions": None,
    }


@pytest.mark.parametrize("count", [1, 2, 64, 65, 256, 600])
def test_every_row_arrives_as_it_was_given(conn: Connection, count: int) -> None:
    """In one statement or several, with the types of the columns, whatever the number."""
    Insert(answers).run(conn, [row(place) for place in range(count)])
    found = conn.execute(select(answers).order_by(answers.c.chunk_no)).mappings().all()
    assert [dict(each) for each in found] == [row(place) for place in range(count)]


def test_an_upsert_keeps_or_replaces_what_is_there(conn: Connection) -> None:
    """Also where a key comes twice in one call: the later row wins, or is passed over."""
    key = ["subscription_no", "chunk_no", "place", "code"]
    Upsert(subscription_keys, ["subscription_id"]).run(conn, [{"subscription_id": name} for name in "aba"])
    assert conn.scalars(select(subscription_keys.c.subscription_id)).all() == ["a", "b"]
    one = {"subscription_no": 1, "chunk_no": 1, "place": 0, "code": 2}
    Upsert(answer_tallies, key).run(conn, [one | {"delta": 5}, one | {"delta": 6}])
    assert conn.scalar(select(answer_tallies.c.delta)) == 5
    replace = Upsert(answer_tallies, key, ["delta"], guard=lambda new: answer_tallies.c.delta < new.delta)
    replace.run(conn, [one | {"delta": 7}, one | {"delta": 3}])
    assert conn.scalar(select(answer_tallies.c.delta)) == 7


def test_pairs_are_looked_up_not_searched_for(conn: Connection) -> None:
    """The rows of the pairs and no others, each by the primary key: cost must not grow with the table."""
    Insert(answers).run(conn, [row(place) for place in range(100)])
    columns = answers.c.subscription_no, answers.c.chunk_no
    pairs = [(3, 10), (3, 11), (0, 14), (6, 99)]
    of_pairs = OfPairs(select(*columns).order_by(*columns), columns)
    assert list(of_pairs.run(conn, pairs)) == [(0, 14), (3, 10)]
    assert list(of_pairs.run(conn, [])) == []
    plan = [each[-1] for each in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {of_pairs.text}", ("[]",))]
    assert any("SEARCH answers USING PRIMARY KEY" in step for step in plan), plan
    assert not any("SCAN answers" in step for step in plan), plan
