"""`numhub demo`."""

from __future__ import annotations

import asyncio
import signal
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from hub.app.cli._open import fail


class Stack(Enum):
    embedded = "embedded"
    services = "services"


def demo(
    numbers: Annotated[int, typer.Option(min=200, max=5_000_000, help="good rows the carriers publish")] = 100_000,
    subscribers: Annotated[int, typer.Option(min=5, max=300, help="app platforms")] = 12,
    seed: Annotated[int, typer.Option(help="the same seed gives the same world")] = 1,
    kills: Annotated[int, typer.Option(min=0, max=100, help="how often the hub is killed with kill -9")] = 3,
    file: Annotated[Path | None, typer.Option(help="publish this CSV instead (number,terminated_at,..)")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="leave the hub running and print how to reach it")] = False,
    stack: Annotated[
        Stack, typer.Option(help="embedded, or services: real Kafka, PostgreSQL and Redis on this machine")
    ] = Stack.embedded,
    workers: Annotated[int, typer.Option(min=1, max=10, help="worker processes, with --stack services")] = 2,
    brokers: Annotated[int, typer.Option(min=1, max=3, help="Kafka brokers, 1 or 3, with --stack services")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="last line of standard output: one JSON object")] = False,
) -> None:
    """Play the mission with real processes over real HTTP, kill the hub on the way, compare every pair with the truth.

    Exit code 0 if everything agrees with the ground truth, 1 if anything differs.
    """
    from hub.app.demo.play import DemoFailed, Options, play

    if file is not None and not file.is_file():
        raise fail(f"there is no file {file}")
    if keep and stack is Stack.services:
        raise fail("--keep goes with the embedded stack; for services that stay: numhub dev up")
    if brokers == 2:
        raise fail("--brokers takes 1 or 3: two brokers survive no more than one does")
    options = Options(numbers, subscribers, seed, kills, file, keep, as_json, stack.value, workers, brokers)

    async def interruptible() -> bool:
        # Ctrl-C, a closed terminal and a plain `kill` alike. Handlers of the process, not of the event loop, which
        # takes its own away when it closes: the first one cancels, whatever comes after finds the clearing up at work.
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        heard: list[int] = []

        def stop(number: int, _: object) -> None:
            if not heard:
                loop.call_soon_threadsafe(task.cancel)
            heard.append(number)

        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, stop)
        return await play(options)

    try:
        agrees = asyncio.run(interruptible())
    except DemoFailed as error:
        raise fail(str(error)) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise fail("interrupted; everything the demo started was stopped") from None
    if not agrees:
        raise typer.Exit(1)
