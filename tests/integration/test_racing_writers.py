"""Several processes write the same numbers at once, each judging by its own index: one truth comes out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from hub.adapters.columns import ColumnIndex
from hub.adapters.sqlite.log import SqliteLog
from hub.flow.fold import Fold
from hub.ports.log import Position
from hub.ports.number_index import STATE
from tests.making import CODEC, CountingMetrics, running

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WRITERS, ROUNDS = 2, 12


class Process:
    def __init__(self, where: Path, name: int) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                HERE / "racing_writer.py",
                where / "log.db",
                where / f"index-{name}",
                f"{name}",
                f"{ROUNDS}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(ROOT)},
        )

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> None:
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0


async def test_processes_that_write_the_same_numbers_end_with_one_truth(tmp_path: Path) -> None:
    """Every accepted event stands once in an unbroken row of seq; all indexes, and a new one, agree on everything."""
    await SqliteLog(tmp_path / "log.db").close()
    processes = [Process(tmp_path, name) for name in range(1, WRITERS + 1)]
    assert [process.line() for process in processes] == ["ready"] * WRITERS
    for process in processes:
        process.go_on()
    said: list[dict[str, Any]] = [json.loads(process.line()) for process in processes]
    for process in processes:
        process.go_on()
    views = [json.loads(process.line()) for process in processes]
    for process in processes:
        process.end()

    assert all(view == views[0] for view in views)
    assert sum(part["voids"] for part in said) > 0, "the processes never met: the test proves nothing"

    log = SqliteLog(tmp_path / "log.db")
    index = ColumnIndex(tmp_path / "index-new", 8, log.log_id)
    async with running(Fold(log, index, CODEC, CountingMetrics())) as fold:
        ends = await fold.catch_up()
        assert ends == views[0]["ends"]
        history: dict[int, list[int]] = {}
        visible: Counter[str] = Counter()
        for partition, end in enumerate(ends):
            skipped = [o for o in range(end) if index.is_skipped(Position(partition, o))]
            assert skipped == views[0]["skipped"][partition]
            for record in await log.read(partition, 0, max_records=100_000, max_bytes=1 << 30):
                if fold.is_visible(record.position):
                    visible[record.record_id] += 1
                    chunk = CODEC.decode(record.body)
                    for number, seq in zip(chunk.numbers.tolist(), chunk.seq.tolist(), strict=True):
                        history.setdefault(number, []).append(seq)

    accepted = [record_id for part in said for record_id, _ in part["accepted"]]
    assert sorted(accepted) == sorted(visible)
    assert set(visible.values()) == {1}
    times = Counter(number for part in said for _, numbers in part["accepted"] for number in numbers)
    assert {number: len(seqs) for number, seqs in history.items()} == times
    assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in history.values())
    for number, state in zip(sorted(history), views[0]["states"], strict=True):
        found = index.lookup(number // 10_000 % 8, np.array([number], np.int64))
        assert found.tobytes().hex() == state
        assert np.frombuffer(bytes.fromhex(state), STATE)["seq"][0] == len(history[number])
    index.close()
    await log.close()
