"""Copies of the number index: what a new node starts from."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hub.adapters.columns import snapshot
from hub.adapters.columns.index import ColumnIndex
from hub.ports.log import Position
from hub.ports.number_index import STATE

P = 2


def fill(index: ColumnIndex, records: range) -> None:
    for offset in records:
        numbers = np.arange(5, dtype=np.int64) + 10 * offset
        states = np.zeros(5, STATE)
        states["seq"] = offset + 1
        index.apply(Position(0, offset), f"r{offset}", numbers, states)


def filled(directory: Path, records: int, log_id: str = "log-1") -> ColumnIndex:
    index = ColumnIndex(directory, P, log_id)
    fill(index, range(records))
    index.skip(Position(1, 0))
    return index


def positions(index: ColumnIndex) -> list[int]:
    return [index.position_of(partition) for partition in range(P)]


@pytest.fixture(params=["one file system", "another file system"])
def shared(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that all nodes reach. Between file systems nothing can be linked."""
    folder = tmp_path / "shared"
    if request.param == "another file system":
        link = os.link

        def within(source: Path, target: Path) -> None:
            if folder in source.parents or folder in target.parents:
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            link(source, target)

        monkeypatch.setattr(os, "link", within)
    return folder


def test_a_new_node_starts_where_the_snapshot_was_taken(tmp_path: Path, shared: Path) -> None:
    """Same numbers, positions, skipped offsets and record ids; it folds on by itself, into an index of its own."""
    index = filled(tmp_path / "a", 4)
    assert index.snapshot(shared) is not None
    other = ColumnIndex(tmp_path / "b", P, "log-1", snapshots=shared)
    assert positions(other) == [4, 1]
    assert other.count() == index.count() == 20
    assert other.is_skipped(Position(1, 0)) and other.find("r3") == Position(0, 3)
    numbers = np.arange(5, dtype=np.int64) + 30
    assert (other.lookup(0, numbers) == index.lookup(0, numbers)).all()
    assert other.verify() == []
    fill(other, range(4, 6))
    other.close()
    index.close()
    shutil.rmtree(shared)
    again = ColumnIndex(tmp_path / "b", P, "log-1", snapshots=shared)
    assert (positions(again), again.count(), again.verify()) == ([6, 1], 30, [])
    again.close()


def test_what_the_publisher_merges_away_later_stays_in_the_snapshot(tmp_path: Path, shared: Path) -> None:
    """Runs are never changed, and a snapshot holds its own links or copies."""
    index = filled(tmp_path / "a", 2)
    made = index.snapshot(shared)
    assert made is not None
    for place in range(2, 40, 2):
        fill(index, range(place, place + 2))
        index.flush()
    index.close()
    shutil.rmtree(tmp_path / "a")
    other = ColumnIndex(tmp_path / "b", P, "log-1", snapshots=shared)
    assert (positions(other), other.count(), other.verify()) == ([2, 1], 10, [])
    other.close()


def test_nothing_new_makes_no_new_snapshot_and_two_are_kept(tmp_path: Path, shared: Path) -> None:
    """They are named by what is folded in them; a node that is behind another adds none; an empty index is none."""
    index = filled(tmp_path / "a", 1)
    behind = ColumnIndex(tmp_path / "b", P, "log-1")
    assert behind.snapshot(shared) is None
    behind.skip(Position(1, 0))
    assert index.snapshot(shared) is not None
    assert index.snapshot(shared) is None
    assert behind.snapshot(shared) is None
    behind.close()
    for offset in range(1, 4):
        index.skip(Position(1, offset))
        index.snapshot(shared)
    index.close()
    assert sorted(path.name for path in (shared / "log-1").iterdir()) == [f"{n:015d}" for n in (4, 5)]
    assert not (tmp_path / "a" / snapshot.STAGING).exists()


def test_folding_does_not_wait_for_a_slow_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the shared folder takes its time, the index is folded, flushed and merged; the copy is as it was staged."""
    index = filled(tmp_path / "a", 4)
    copying, go_on = threading.Event(), threading.Event()
    place = snapshot._place

    def slowly(*arguments: Any) -> None:
        copying.set()
        assert go_on.wait(10)
        place(*arguments)

    monkeypatch.setattr(snapshot, "_place", slowly)
    made: list[Path | None] = []
    publisher = threading.Thread(target=lambda: made.append(index.snapshot(tmp_path / "shared")))
    publisher.start()
    assert copying.wait(10)
    for offset in range(4, 12):
        fill(index, range(offset, offset + 1))
        index.flush()
    deadline = time.monotonic() + 10
    while len(list((tmp_path / "a").glob("*.keys"))) > 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    go_on.set()
    publisher.join()
    index.close()
    monkeypatch.setattr(snapshot, "_place", place)
    assert made[0] is not None
    other = ColumnIndex(tmp_path / "b", P, "log-1", snapshots=tmp_path / "shared")
    assert (positions(other), other.count()) == ([4, 1], 20)
    other.close()


def test_a_process_that_stops_does_not_wait_for_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing breaks it off; nothing half-made has a name."""
    index = filled(tmp_path / "a", 2)
    monkeypatch.setattr(os, "link", _link_within(tmp_path / "a"))
    index._closed = True
    with pytest.raises(InterruptedError):
        index.snapshot(tmp_path / "shared")
    index._closed = False
    index.close()
    assert list((tmp_path / "shared" / "log-1").iterdir()) == []


def _link_within(folder: Path) -> Any:
    link = os.link

    def within(source: Path, target: Path) -> None:
        if folder not in target.parents:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target)

    return within


def test_what_a_dead_process_left_is_swept(tmp_path: Path) -> None:
    """Its links at the next start; what it was copying, after a day, by whoever publishes next."""
    index = filled(tmp_path / "a", 2)
    index.close()
    (tmp_path / "a" / snapshot.STAGING).mkdir()
    (tmp_path / "a" / snapshot.STAGING / "run-0000000001.keys").write_bytes(b"x")
    home = tmp_path / "shared" / "log-1"
    for name in (".making-old", ".making-new"):
        (home / name).mkdir(parents=True)
    long_ago = time.time() - 2 * 86_400
    os.utime(home / ".making-old", (long_ago, long_ago))
    index = ColumnIndex(tmp_path / "a", P, "log-1")
    assert not (tmp_path / "a" / snapshot.STAGING).exists()
    index.snapshot(tmp_path / "shared")
    index.close()
    assert {path.name for path in home.iterdir()} == {".making-new", f"{3:015d}"}


def test_a_node_with_an_index_of_its_own_keeps_it(tmp_path: Path) -> None:
    """What it lacks it reads from the log, as ever."""
    publisher = filled(tmp_path / "a", 2)
    publisher.snapshot(tmp_path / "shared")
    publisher.close()
    filled(tmp_path / "b", 1).close()
    other = ColumnIndex(tmp_path / "b", P, "log-1", snapshots=tmp_path / "shared")
    assert positions(other) == [1, 1]
    other.close()


@pytest.mark.parametrize("damage", ["manifest", "run"])
def test_a_node_whose_own_index_is_damaged_takes_the_snapshot(tmp_path: Path, damage: str) -> None:
    """Runs of the same names in its own directory are not mistaken for those of the copy."""
    publisher = filled(tmp_path / "a", 2)
    publisher.snapshot(tmp_path / "shared")
    publisher.close()
    filled(tmp_path / "b", 1).close()
    if damage == "manifest":
        (tmp_path / "b" / "manifest.json").write_bytes(b"{}")
    else:
        next((tmp_path / "b").glob("*.keys")).unlink()
    other = ColumnIndex(tmp_path / "b", P, "log-1", snapshots=tmp_path / "shared")
    assert (positions(other), other.count(), other.verify()) == ([2, 1], 10, [])
    other.close()


def test_a_snapshot_of_another_log_or_ahead_of_this_one_is_not_taken(tmp_path: Path) -> None:
    """A rewritten log has another id, a restored one has fewer records: the index starts from nothing."""
    shared = tmp_path / "shared"
    publisher = filled(tmp_path / "a", 2, "log-old")
    publisher.snapshot(shared)
    publisher.close()
    shutil.copytree(shared / "log-old", shared / "log-1")  # its manifest says whose it is
    for name, log_id, ends in (("b", "log-1", None), ("c", "log-old", [1, 1]), ("d", "log-none", None)):
        other = ColumnIndex(tmp_path / name, P, log_id, log_ends=ends, snapshots=shared)
        assert (positions(other), list((tmp_path / name).glob("*.keys"))) == ([0, 0], [])
        other.close()


@pytest.mark.parametrize("damage", ["manifest", "missing", "changed"])
def test_a_damaged_snapshot_is_passed_over_for_the_one_before(tmp_path: Path, shared: Path, damage: str) -> None:
    """What cannot be used costs nothing but reading more of the log."""
    index = filled(tmp_path / "a", 2)
    index.snapshot(shared)
    fill(index, range(2, 3))
    newest = index.snapshot(shared)
    index.close()
    assert newest is not None
    if damage == "manifest":
        (newest / "manifest.json").write_bytes(b"{}")
    else:
        run = max(newest.glob("*.keys"))
        content = run.read_bytes()
        run.unlink()
        if damage == "changed":
            run.write_bytes(content[:-1] + b"\xff")
    other = ColumnIndex(tmp_path / "b", P, "log-1", snapshots=shared)
    assert (positions(other), other.verify()) == ([2, 1], [])
    other.close()
