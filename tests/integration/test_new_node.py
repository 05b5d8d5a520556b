"""A node that comes without an index starts from a copy of another node's, and says honestly when it is ready."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from hub.api.routers import health
from hub.app.settings import INDEX_DIR, Settings
from hub.app.wiring import build
from hub.domain.parties import AppClass
from hub.ports.log import Record
from tests.factories import FIRST, HUB, TODAY, event, town, until

OLD, NEW = 200, 7  # events before the copy, and after it


async def test_a_new_node_starts_from_the_copy_and_reads_only_the_rest_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub publishes by itself; the next one has no index, takes the copy, is not ready before it has read on, and
    then knows all numbers."""
    home, shared = tmp_path / "hub", tmp_path / "shared"
    options: dict[str, Any] = {"data_dir": home, "snapshots_dir": str(shared), "snapshot_every": 1}
    async with town(home, snapshots_dir=str(shared), snapshot_every=1, partitions=1) as place:
        carrier = await place.carrier("cmcc")
        app = await place.app("bank", AppClass.bank)
        for start in range(FIRST, FIRST + OLD, 50):
            await carrier.events.publish([event(start + i, "deactivated", TODAY) for i in range(50)])
        await until(lambda: len(app.numbers("deactivated")) == OLD)
        folded = place.hub.fold.position(0)
        await until(lambda: any(int(made.name) >= folded for made in _made(shared)))
        copied = max(int(made.name) for made in _made(shared))
    shutil.move(shared, tmp_path / "kept")  # nothing newer is published from here on
    async with town(home, partitions=1) as place:
        carrier = await place.carrier("cucc")
        await carrier.events.publish([event(FIRST + 8_000 + i, "deactivated", TODAY) for i in range(NEW)])
    shutil.rmtree(home / INDEX_DIR)
    shutil.move(tmp_path / "kept", shared)

    monkeypatch.setattr(health, "NEAR", NEW - 1)
    hub = await build(Settings(**options, partitions=1), public_url=HUB)
    asked: list[int] = []
    reading, may_read = hub.log.read, asyncio.Event()

    async def read(partition: int, offset: int, **limits: Any) -> Sequence[Record]:
        asked.append(offset)
        if offset >= copied:
            await may_read.wait()
        return await reading(partition, offset, **limits)

    hub.log.read = read  # type: ignore[method-assign]
    try:
        assert hub.index.position_of(0) == copied
        await hub.start()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=hub.app), base_url=HUB) as asking:
            told = await asking.get("/health/ready")
            assert (told.status_code, told.json()["fold"]) == (503, "behind")
            assert told.json()["behind"] == (await hub.log.ends())[0] - copied >= NEW
            may_read.set()
            await hub.fold.catch_up()
            told = await asking.get("/health/ready")
            assert (told.status_code, told.json()["behind"]) == (200, 0)
        assert min(asked) >= copied - 1  # one record before it shows that the copy fits the log
        assert hub.index.count() == OLD + NEW
        assert hub.index.verify() == []
    finally:
        may_read.set()
        await hub.stop(within=2.0)


def _made(shared: Path) -> list[Path]:
    return [path for path in shared.glob("*/*") if path.name.isdecimal()]
