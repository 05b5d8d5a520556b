"""What other processes changed is looked at when they say so, instead of at the next round.

Nothing depends on it: every loop woken here looks by itself every second or two.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from hub.domain.errors import Unavailable
from hub.flow.members import Members
from hub.ports.coordination import DIRECTORY, REDRIVES, Coordination

log = logging.getLogger("numhub.wakeups")

_LOOK_ANYWAY = 60.0


class Wakeups:
    """Tells other processes of this one's changes to the directory and of its orders to deliver again, and follows
    theirs. ``look_for_orders`` makes this process's dispatcher look."""

    def __init__(self, coordination: Coordination, members: Members, look_for_orders: Callable[[], None]) -> None:
        self._coordination, self._members, self._look_for_orders = coordination, members, look_for_orders
        self._following = False
        members.on_change(self._changed)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._coordination.run(), name="coordination")
            group.create_task(self._follow(DIRECTORY, self._refresh), name="directory wake-ups")
            group.create_task(self._follow(REDRIVES, self._look), name="redrive wake-ups")

    def ordered(self) -> None:
        """An order to deliver again was stored."""
        self._look_for_orders()
        self._coordination.wake(REDRIVES)

    def _changed(self) -> None:
        if not self._following:  # else every process would tell all the others what it was told
            self._coordination.wake(DIRECTORY)

    async def _follow(self, topic: str, act: Callable[[], Awaitable[None]]) -> None:
        waiter = self._coordination.subscribe(topic)
        try:
            while True:
                if await waiter.wait(_LOOK_ANYWAY):
                    await act()
        finally:
            waiter.close()

    async def _refresh(self) -> None:
        self._following = True
        try:
            await self._members.refresh()
        except Unavailable as error:  # the next round finds it
            log.debug("wakeup_in_vain", extra={"error": type(error).__name__})
        finally:
            self._following = False

    async def _look(self) -> None:
        self._look_for_orders()
