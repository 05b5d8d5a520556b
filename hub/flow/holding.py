"""Holding leases: one process does a thing at a time, and stops in time when it no longer may.

A lease counts as held until ``ttl`` after the *beginning* of the call that took or renewed it, by this process's
monotonic clock, less a margin: so it always ends here before it ends in the ledger. A process that slept through that
moment finds itself without the lease before it does anything else; what it had under way is refused by its epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import timedelta
from random import Random
from typing import Any

from hub.domain.errors import Unavailable
from hub.domain.shards import SHARDS, shard_of
from hub.ports.clock import Clock
from hub.ports.leases import Leases, shard_lease
from hub.ports.metrics import Metrics

log = logging.getLogger("numhub.leases")

MARGIN = 0.1
"""Share of ``ttl`` that a lease ends earlier here than in the ledger."""
RENEW_EVERY = 1 / 3
PARTING = 2.0
"""Seconds that work has to end after its lease was lost, before it is given up on."""

POOL = [shard_lease(shard) for shard in range(SHARDS)]


class Holder:
    """Takes leases for this process under one name."""

    def __init__(self, leases: Leases, name: str, clock: Clock, random: Random, ttl: float = 10.0) -> None:
        self.leases, self.name, self.ttl = leases, name, timedelta(seconds=ttl)
        self._clock, self._random = clock, random

    def until(self, began: float) -> float:
        """The monotonic moment until which a lease asked for at ``began`` may be acted on."""
        return began + self.ttl.total_seconds() * (1 - MARGIN)

    async def pause(self) -> None:
        """Until the next renewal, give or take: many processes must not come to the ledger in one moment."""
        await self._clock.sleep(self.ttl.total_seconds() * RENEW_EVERY * (0.8 + 0.4 * self._random.random()))

    def now(self) -> float:
        return self._clock.monotonic()

    async def while_held(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """For ever: wait for the lease ``name``, run ``work`` while it is held, cancel it when it is lost.

        What ``work`` raises ends this too; ``work`` that returns is not begun again.
        """
        while not await self.once(name, work):
            await self.pause()

    async def once(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Run ``work`` if the lease is to be had now. False: it is held by another, or was lost on the way."""
        until = await self._take(name)
        if until is None:
            return False
        task: asyncio.Task[None] = asyncio.create_task(work(), name=name)
        try:
            while True:
                renewal = asyncio.create_task(self.pause(), name=f"{name} pause")
                try:
                    await asyncio.wait({task, renewal}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    renewal.cancel()
                if task.done():
                    task.result()
                    return True
                renewed = await self._take(name)
                if renewed is not None:
                    until = renewed
                elif self.now() >= until:
                    log.warning("lease_lost", extra={"lease": name})
                    return False
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=PARTING)
            await self._release(name)

    def alone_at(self, kind: str) -> Callable[[str, Callable[[], Coroutine[Any, Any, None]]], Awaitable[bool]]:
        """`once` for leases ``kind``/name."""
        return lambda name, work: self.once(f"{kind}/{name}", work)

    async def _take(self, name: str) -> float | None:
        began = self.now()
        try:
            taken = await self.leases.take(self.name, [name], self.ttl)
        except Unavailable:
            return None
        return self.until(began) if name in taken else None

    async def _release(self, name: str) -> None:
        try:
            await self.leases.release(self.name, [name])
        except Unavailable:
            log.warning("lease_not_released", extra={"lease": name})  # it ends by itself


class Shards:
    """Which shards of subscriptions this process delivers for, and under which epochs.

    ``run`` keeps a fair share of the pool; ``changed`` is called whenever shards came or went. Surplus shards are given
    up in good order: they stop being owned at once, and are released when ``parted`` says that nothing of them is out.
    """

    def __init__(self, holder: Holder, metrics: Metrics) -> None:
        self._holder, self._metrics = holder, metrics
        self._epochs: dict[int, int] = {}
        self._until = float("-inf")
        self._parting: set[int] = set()
        self.changed: Callable[[], None] = lambda: None
        self.parted: Callable[[set[int]], Awaitable[None]] = _nothing

    def owned(self) -> set[int]:
        """What may be delivered for now."""
        if self._holder.now() >= self._until:
            return set()
        return self._epochs.keys() - self._parting

    def epoch(self, subscription_id: str) -> tuple[int, int] | None:
        """(shard, epoch) under which to deliver for a subscription; None if this process may not."""
        shard = shard_of(subscription_id)
        epoch = self._epochs.get(shard)
        if epoch is None or shard in self._parting or self._holder.now() >= self._until:
            return None
        return shard, epoch

    def lost(self, shards: Iterable[int]) -> None:
        """The ledger refused results of these: somebody else has them, or had them for a while."""
        for shard in shards:
            self._epochs.pop(shard, None)
        log.warning("shards_lost", extra={"shards": sorted(shards)})
        self.changed()

    async def run(self) -> None:
        """Take part for ever; on cancellation what is held is given back."""
        try:
            while True:
                await self._turn()
                await self._holder.pause()
        finally:
            self._epochs.clear()
            try:
                async with asyncio.timeout(PARTING):
                    await asyncio.shield(self._holder.leases.leave(self._holder.name))
            except (Unavailable, TimeoutError):
                log.warning("leases_not_returned")  # they end by themselves

    async def _turn(self) -> None:
        began, until = self._holder.now(), self._until
        before = dict(self._epochs) if began < until else {}
        try:
            share = await self._holder.leases.share(self._holder.name, POOL, self._holder.ttl)
        except Unavailable:
            if began >= self._until and before != {}:
                self.changed()
            return
        self._epochs = {place: share.held[name] for place, name in enumerate(POOL) if name in share.held}
        self._until = self._holder.until(began)
        surplus = sorted(self._epochs)[share.due :]
        if surplus:
            await self._give_up(set(surplus))
        self._metrics.set("numhub_shards_held", len(self._epochs))
        if self._epochs != before or self._holder.now() >= until:  # it ran out while it was renewed
            self.changed()

    async def _give_up(self, shards: set[int]) -> None:
        self._parting = shards
        self.changed()
        try:
            await self.parted(shards)
            await self._holder.leases.release(self._holder.name, [shard_lease(shard) for shard in shards])
            for shard in shards:
                self._epochs.pop(shard, None)
            log.info("shards_given_up", extra={"shards": len(shards)})
        except Unavailable:
            pass  # they are served on, until the next turn
        finally:
            self._parting = set()
            self.changed()


class AllShards:
    """For a dispatcher that is alone by construction: every shard, no epochs."""

    def owned(self) -> set[int]:
        return set(range(SHARDS))

    def epoch(self, subscription_id: str) -> tuple[int, int] | None:
        return shard_of(subscription_id), 0


async def _nothing(_: set[int]) -> None:
    return None
