"""What benches say: one JSON object of fixed form, whatever the figures; and refusals for what cannot be run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hub.domain.events import EventType
from hub.domain.parties import SigningSecret
from hub.wire.signing import sign_headers
from tests.bench import sink, world
from tests.bench.__main__ import BENCHES, main
from tests.bench.processes import ROOT, environment
from tests.bench.shape import Result, median_of, percentile


def result(rate: float) -> Result:
    return Result(
        name="ingest",
        main="rows_per_s",
        figures={"rows_per_s": rate},
        bound={"polars_read_rows_per_s": 4_000_000.0},
        ratio={"of_polars_read": rate / 4_000_000},
        settings={"rows": 10},
        floors={"rows_per_s": (">=", 200_000)},
    )


def test_the_json_object_has_its_seven_members() -> None:
    """One line, with machine and versions beside the figures."""
    text = result(250_000.4).as_json()
    said = json.loads(text)
    assert "\n" not in text
    assert list(said) == ["name", "figures", "bound", "ratio", "settings", "machine", "versions"]
    assert said["figures"] == {"rows_per_s": 250_000} and said["ratio"] == {"of_polars_read": 0.063}
    assert said["machine"]["cores"] >= 1 and "python" in said["versions"]


def test_of_repeats_the_median_run_is_told() -> None:
    """Not the best one; all of them stand in the settings, in the order in which they were run."""
    middle = median_of([result(300_000), result(100_000), result(200_000)])
    assert middle.figures["rows_per_s"] == 200_000 and not middle.missed()
    assert middle.settings["rows_per_s_of_repeats"] == [300_000, 100_000, 200_000]
    assert median_of([result(1.0)]).missed() == ["rows_per_s is 1.0, the floor is >= 200,000"]


def test_percentiles() -> None:
    """The value below which a share lies; none for none."""
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([float(n) for n in range(100)], 0.99) == 99.0
    assert percentile([], 0.99) == 0.0


@pytest.mark.parametrize("arguments", [["nonsense"], ["ingest", "--full"], ["storage", "--stack", "services"]])
def test_what_cannot_be_run_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one clear line."""
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and any(why in said for why in ("embedded only", "no bench", "--full"))


def test_the_sink_tells_good_signatures_from_bad_ones() -> None:
    """Judged by the secret that belongs to the number in the path."""
    now = world.SystemClock().now()
    signature = sign_headers("msg_1", 5, b"body", [SigningSecret("v1", sink.secret_of(7), now)])
    head = f"POST /s/7 HTTP/1.1\r\nwebhook-id: msg_1\r\nwebhook-timestamp: 5\r\nwebhook-signature: {signature}"
    assert sink._signed_well(head.encode(), b"body")
    assert not sink._signed_well(head.encode(), b"other")
    assert not sink._signed_well(head.replace("/s/7", "/s/8").encode(), b"body")


def test_prefilled_chunks_are_full_and_parted() -> None:
    """Every number once, at most 10,000 a chunk, each chunk in its partition."""
    numbers = world.draw_numbers(30_000, seed=1)
    records = list(world.records_of(numbers, EventType.deactivated, "test"))
    assert sum(int(record.headers["count"]) for record in records) == len(np.unique(numbers)) == 30_000
    assert {record.partition for record in records} == set(range(8))


def test_of_two_runs_that_prepare_at_once_both_go_on(tmp_path: Path) -> None:
    """Benches of several checkouts share what they prepared; who comes second uses what the first one made."""
    kept = tmp_path / "open"
    for name in ("first", "second"):
        making = tmp_path / name
        making.mkdir()
        (making / "maker").write_text(name)
        world.keep(making, kept)
    assert (kept / "maker").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["open"]


async def test_what_was_prepared_outlives_a_change_of_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another checkout may be copying it right now: it goes only when it has not been used for hours."""
    monkeypatch.setattr(world.tempfile, "gettempdir", lambda: str(tmp_path))
    cache = tmp_path / f"numhub-bench-cache-{world.os.getuid()}"
    for name, age in (("open-50-other", 60), ("open-50-older", world.UNUSED_SECONDS + 60)):
        (cache / name).mkdir(parents=True)
        then = world.time.time() - age
        world.os.utime(cache / name, (then, then))
    data, _ = await world.open_numbers(50)
    assert (data / "index").is_dir()
    world.shutil.rmtree(data)
    assert sorted(path.name for path in cache.iterdir())[-1] == "open-50-other" and len(list(cache.iterdir())) == 2


def test_a_tiny_bench_runs_from_the_command_line() -> None:
    """A hub in a process of its own takes a small file in; the last line is the JSON object."""
    sizes = ["--set", "rows=400", "--set", "open_numbers=400"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", BENCHES[0], "--json", *sizes],
        cwd=Path(ROOT), env=environment(), capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["name"] == "ingest" and said["settings"]["rows"] == 400 and said["figures"]["chunks"] >= 8
