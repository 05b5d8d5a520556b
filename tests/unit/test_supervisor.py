"""The supervisor: one failing task ends everything visibly; a stop drains before it cancels."""

from __future__ import annotations

import asyncio

import pytest

from hub.adapters.system.clock import ManualClock, SystemClock
from hub.workers.supervisor import Supervisor, TaskEnded
from hub.workers.timers import flush_index, watch_loop
from tests.dispatch_world import NoMetrics


async def for_ever() -> None:
    await asyncio.sleep(3600)


async def test_a_failing_task_is_raised_to_the_one_who_waits(caplog: pytest.LogCaptureFixture) -> None:
    """The error itself comes out, and the log names the task."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise RuntimeError("broken")

    supervisor = Supervisor(SystemClock())
    supervisor.start("steady", for_ever())
    supervisor.start("weak", fail())
    with pytest.raises(RuntimeError, match="broken"):
        await supervisor.wait()
    assert any(getattr(record, "task", None) == "weak" for record in caplog.records)
    await supervisor.stop()


async def test_a_task_that_simply_ends_is_a_failure_too() -> None:
    """What runs for ever does not return."""

    async def end() -> None:
        return None

    supervisor = Supervisor(SystemClock())
    supervisor.start("short", end())
    with pytest.raises(TaskEnded, match="short"):
        await supervisor.wait()
    await supervisor.stop()


async def test_stop_drains_in_order_then_cancels_and_tells_what_was_given_up() -> None:
    """Drains run while the tasks still do; a drain that breaks does not keep the others from running."""
    seen: list[str] = []
    supervisor = Supervisor(SystemClock())

    async def work() -> None:
        try:
            await for_ever()
        finally:
            seen.append("cancelled")

    async def drain(within: float) -> int:
        assert within > 0
        seen.append("drained")
        return 2

    async def broken(within: float) -> int:
        raise OSError

    supervisor.start("work", work())
    supervisor.on_stop("broken", broken)
    supervisor.on_stop("work", drain)
    await asyncio.sleep(0)
    assert await supervisor.stop(1.0) == 2
    assert seen == ["drained", "cancelled"]
    await supervisor.wait()


async def test_a_name_is_taken_once() -> None:
    """Two tasks of one name would hide each other."""
    supervisor = Supervisor(SystemClock())
    supervisor.start("one", for_ever())
    with pytest.raises(ValueError, match="one"):
        supervisor.start("one", for_ever())
    await supervisor.stop()


async def test_timers_write_the_index_down_and_measure_the_loop() -> None:
    """One flush per period; the lag is a gauge."""
    clock, metrics = ManualClock(), NoMetrics()
    flushed = 0

    class Index:
        def flush(self) -> None:
            nonlocal flushed
            flushed += 1

    tasks = [
        asyncio.create_task(flush_index(Index(), clock, every=5)),  # type: ignore[arg-type]
        asyncio.create_task(watch_loop(clock, metrics, every=0.5)),  # type: ignore[arg-type]
    ]
    for _ in range(4):
        await asyncio.sleep(0.01)
        clock.advance(2.6)
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert flushed == 2
    assert metrics.counts["numhub_loop_lag_seconds"] == pytest.approx(2.1)
