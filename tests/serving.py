"""A whole hub on a real socket, on a loop of its own in a thread: for callers that are no coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from hub.api.server import bind, new_event_loop, serve
from hub.app.settings import Settings
from hub.app.wiring import Hub, build

T = TypeVar("T")


class Served:
    """``url`` answers; `run` carries out a coroutine on the hub's own loop."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self.url, self._loop = url, loop
        self.hub: Hub

    def run(self, make: Callable[[Hub], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run_coroutine_threadsafe(make(self.hub), self._loop).result(30)


@contextlib.contextmanager
def served(folder: Path, **settings: Any) -> Iterator[Served]:
    """Serve ``folder`` on a free port of this machine until the block is left."""
    loop, stop, up = new_event_loop(), asyncio.Event(), threading.Event()
    listener = bind("127.0.0.1", 0)
    place = Served(f"http://127.0.0.1:{listener.getsockname()[1]}", loop)
    failures: list[BaseException] = []

    async def run() -> None:
        place.hub = await build(Settings(data_dir=folder, **settings), public_url=place.url)
        await place.hub.start()
        up.set()
        await serve(place.hub.app, listener=listener, stop=stop, drain_within=1.0)
        await place.hub.stop(within=1.0)

    def live() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(run())
        except BaseException as error:
            failures.append(error)
        finally:
            up.set()

    thread = threading.Thread(target=live, name="served hub")
    thread.start()
    up.wait(30)
    try:
        if not failures:
            yield place
    finally:
        if not failures:
            loop.call_soon_threadsafe(stop.set)
        thread.join(30)
    if failures:
        raise failures[0]
