"""One timer for all requests in flight."""

from __future__ import annotations

import asyncio

from hub.adapters.webhook.deadlines import Deadlines


class Request:
    def __init__(self, expired: list[str], name: str) -> None:
        self._expired, self._name = expired, name

    def expire(self) -> None:
        self._expired.append(self._name)


async def test_each_expires_at_its_deadline_in_order_and_never_early() -> None:
    """Those that are done do not, nor does one watched anew before its new time."""
    loop = asyncio.get_running_loop()
    deadlines, expired, began = Deadlines(loop), [], loop.time()
    first, done, again, last = (Request(expired, name) for name in ("first", "done", "again", "last"))
    deadlines.watch(first, began + 0.05)
    deadlines.watch(done, began + 0.06)
    deadlines.watch(again, began + 0.07)
    deadlines.watch(last, began + 0.2)
    deadlines.done(done)
    deadlines.done(done)
    deadlines.done(again)
    deadlines.watch(again, began + 0.3)
    while len(expired) < 3:
        await asyncio.sleep(0.005)
        passed = loop.time() - began
        assert ("first" in expired) <= (passed >= 0.05) and ("last" in expired) <= (passed >= 0.2)
        assert ("again" in expired) <= (passed >= 0.3)
    assert expired == ["first", "last", "again"]


async def test_a_deadline_out_of_order_is_kept_too() -> None:
    """A request that waited long for its connection has less time left than those before it."""
    loop = asyncio.get_running_loop()
    deadlines, expired = Deadlines(loop), []
    deadlines.watch(Request(expired, "long"), loop.time() + 30)
    short = Request(expired, "short")
    deadlines.watch(short, loop.time() + 0.02)
    given_up = Request(expired, "given up")
    deadlines.watch(given_up, loop.time() + 0.02)
    deadlines.done(given_up)
    async with asyncio.timeout(5):
        while not expired:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.03)
    assert expired == ["short"]
