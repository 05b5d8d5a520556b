"""The index contract on sorted columns, the same index against a plain dictionary, and what damage does to it."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_contract import PARTITIONS, IndexContract, column, states

from hub.adapters.columns import ColumnIndex, IndexInUse
from hub.adapters.columns.level import PIECE, Level, merge_pieces
from hub.ports.log import Position
from hub.ports.number_index import STATE, NumberIndex


class TestColumnIndex(IndexContract):
    def make_index(self, where: Path, log_id: str = "log") -> NumberIndex:
        return ColumnIndex(where, PARTITIONS, log_id)


class TestColumnIndexThatFlushesAllTheTime(IndexContract):
    """The same with next to nothing in memory: every step goes through runs and merges."""

    def make_index(self, where: Path, log_id: str = "log") -> NumberIndex:
        return ColumnIndex(where, PARTITIONS, log_id, memory_rows=1)


_steps = st.lists(
    st.tuples(
        st.sampled_from(["apply", "apply", "apply", "flush", "reopen", "merge"]),
        st.sets(st.integers(0, 60), min_size=1, max_size=40),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(_steps)
def test_the_index_agrees_with_a_dictionary(steps: list[tuple[str, set[int]]]) -> None:
    """Whatever the order of singles, chunks, flushes, merges and reopenings, a dictionary knows the same."""
    model: dict[int, int] = {}
    everything = np.arange(61, dtype=np.int64)
    with tempfile.TemporaryDirectory() as directory:
        index = ColumnIndex(directory, 1, "log")
        offset = 0
        for step, chosen in steps:
            if step == "apply":
                numbers = np.array(sorted(chosen), np.int64)
                index.apply(Position(0, offset), f"r{offset}", numbers, states(numbers, duty=offset + 1))
                model.update(dict.fromkeys(chosen, offset + 1))
                offset += 1
            elif step == "flush":
                index.flush()
            elif step == "merge":
                with index._writing:
                    index._merge_runs()
            else:
                index.close()
                index = ColumnIndex(directory, 1, "log")
            assert index.lookup(0, everything)["duty"].tolist() == [model.get(n, 0) for n in range(61)]
            asked = min(chosen)
            assert index.lookup(0, column(asked))["duty"][0] == model.get(asked, 0)
            assert index.count() == len(model)
            assert index.position_of(0) == offset
        assert [index.find(f"r{i}") for i in range(offset)] == [Position(0, i) for i in range(offset)]
        assert index.verify() == []
        index.close()


def test_merging_in_pieces_equals_merging_at_once() -> None:
    """Levels longer than one piece: the newest value of every key, each key once, ascending."""
    random = np.random.default_rng(7)
    levels = []
    model: dict[int, int] = {}
    for age in range(3):
        keys = np.unique(random.integers(0, 3 * PIECE, PIECE + PIECE // 2))
        values = np.full(len(keys), age, np.int64)
        levels.append(Level(keys, values))
        model.update(zip(keys.tolist(), values.tolist(), strict=True))
    pieces = list(merge_pieces(levels))
    assert len(pieces) > 1
    keys = np.concatenate([piece[0] for piece in pieces])
    values = np.concatenate([piece[1] for piece in pieces])
    assert (keys[1:] > keys[:-1]).all()
    assert dict(zip(keys.tolist(), values.tolist(), strict=True)) == model


def _filled(directory: Path, records: int = 30) -> ColumnIndex:
    index = ColumnIndex(directory, PARTITIONS, "log")
    for offset in range(records):
        numbers = np.arange(offset * 50, offset * 50 + 100, dtype=np.int64)
        index.apply(Position(0, offset), f"r{offset}", numbers, states(numbers, duty=offset + 1))
        if offset % 7 == 0:
            index.flush()
    return index


@pytest.mark.parametrize("suffix", [".keys", ".values", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damage_is_found_and_the_index_starts_anew(
    tmp_path: Path, suffix: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A flipped bit, a cut or a missing file: nothing of it is used, and the log message says so."""
    _filled(tmp_path).close()
    path = max(p for p in tmp_path.iterdir() if p.name.endswith(suffix))
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 4
        path.write_bytes(content if damage == "flip" else content[:-3])
    with caplog.at_level(logging.WARNING):
        index = ColumnIndex(tmp_path, PARTITIONS, "log")
    assert (index.count(), index.position_of(0)) == (0, 0)
    assert "index.deleted_for_rebuild" in caplog.messages
    assert not list(tmp_path.glob("*.keys"))
    index.close()


def test_damage_while_running_is_named(tmp_path: Path) -> None:
    """verify compares every run with its checksum."""
    index = _filled(tmp_path)
    index.flush()
    assert index.verify() == []
    path = min(tmp_path.glob("*.values"))
    with path.open("r+b") as file:
        file.write(b"\xff")
    assert [path.name in line for line in index.verify()] == [True]
    index.close()


def test_an_index_ahead_of_the_log_starts_anew(tmp_path: Path) -> None:
    """The log lost its end (an older copy came back): positions beyond it are worth nothing."""
    _filled(tmp_path).close()
    index = ColumnIndex(tmp_path, PARTITIONS, "log", log_ends=[30, 0, 0, 0])
    assert index.position_of(0) == 30
    index.close()
    index = ColumnIndex(tmp_path, PARTITIONS, "log", log_ends=[29, 0, 0, 0])
    assert (index.count(), index.position_of(0)) == (0, 0)
    index.close()


def test_one_directory_has_one_owner(tmp_path: Path) -> None:
    """A second opener is refused by name until the first has closed."""
    index = ColumnIndex(tmp_path, PARTITIONS, "log")
    with pytest.raises(IndexInUse, match="another process holds"):
        ColumnIndex(tmp_path, PARTITIONS, "log")
    index.close()
    ColumnIndex(tmp_path, PARTITIONS, "log").close()


def test_readers_see_a_consistent_state_while_runs_are_merged(tmp_path: Path) -> None:
    """Lookups from other threads never miss a number and never go back, whatever the writer does meanwhile."""
    index = ColumnIndex(tmp_path, 1, "log", memory_rows=3_000)
    numbers = np.arange(0, 4_000, 2, dtype=np.int64)
    index.apply(Position(0, 0), "r0", numbers, states(numbers, duty=1))
    wrong: list[str] = []
    done = threading.Event()

    def read() -> None:
        before = np.zeros(len(numbers), np.uint32)
        while not done.is_set():
            now = index.lookup(0, numbers)["duty"]
            if (now < np.maximum(before, 1)).any():
                wrong.append("went back")
            before = now.copy()
            one = int(index.lookup(0, numbers[:1])["duty"][0])
            if one < before[0]:
                wrong.append("single went back")

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for offset in range(1, 120):
        part = numbers[offset % 3 :: 3] if offset % 5 else numbers[offset : offset + 1]
        index.apply(Position(0, offset), f"r{offset}", part, states(part, duty=offset + 1))
    done.set()
    for thread in threads:
        thread.join()
    index.close()
    assert wrong == []


_FILLER = """
import sys
import numpy as np
from hub.adapters.columns import ColumnIndex
from hub.ports.log import Position
from hub.ports.number_index import STATE
index = ColumnIndex(sys.argv[1], 1, "log", memory_rows=20_000)
offset = index.position_of(0)
while True:
    numbers = np.unique(np.random.default_rng(offset).integers(0, 300_000, 4_000))
    new = np.zeros(len(numbers), np.dtype(STATE))
    new["duty"] = offset + 1
    if offset % 10 == 9:
        index.skip(Position(0, offset))
    else:
        index.apply(Position(0, offset), f"r{offset}", numbers, new)
    offset += 1
    print(offset, flush=True)
"""


def test_a_kill_leaves_an_index_that_goes_on(tmp_path: Path) -> None:
    """kill -9 while applying, flushing, merging, several times: what is there equals a rebuild up to its position."""
    index_directory = tmp_path / "index"
    reached = 0
    for round_ in range(4):
        filler = subprocess.Popen([sys.executable, "-c", _FILLER, str(index_directory)], stdout=subprocess.PIPE)
        assert filler.stdout is not None
        for _ in range(37 + 61 * round_):
            filler.stdout.readline()
        filler.kill()
        filler.communicate()
        index = ColumnIndex(index_directory, 1, "log")
        assert index.position_of(0) >= reached
        reached = index.position_of(0)
        model = np.zeros(300_000, np.uint32)
        for offset in range(reached):
            if offset % 10 == 9:
                assert index.is_skipped(Position(0, offset))
                continue
            assert index.find(f"r{offset}") == Position(0, offset)
            model[np.unique(np.random.default_rng(offset).integers(0, 300_000, 4_000))] = offset + 1
        found = index.lookup(0, np.arange(300_000, dtype=np.int64))
        assert (found["duty"] == model).all()
        assert index.count() == np.count_nonzero(model)
        assert index.find(f"r{reached}") is None
        index.close()
    assert reached > 0
    assert found.dtype == STATE
