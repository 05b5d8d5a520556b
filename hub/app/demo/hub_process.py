"""The hub of a demo as processes of its own, killed with SIGKILL and started again on the same data."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import httpx

from hub.app.settings import LEDGER_FILE

STARTS_WITHIN = 60.0


class HubDidNotStart(RuntimeError):
    """A process of the hub ended or never became ready; its own words stand in the log file named."""


class HubUnderTest(Protocol):
    """What a story needs of the hub it plays with. ``kills`` counts SIGKILLs; ``down_seconds`` sums kill to ready."""

    url: str
    log_file: Path
    kills: int
    down_seconds: float

    @property
    def pid(self) -> int | None:
        """Of the process that answers requests."""
        ...

    @property
    def next_victim(self) -> str:
        """What the next `kill` will hit, in words."""
        ...

    @property
    def ledger_address(self) -> str | Path: ...

    @property
    def keys_folder(self) -> Path: ...

    @property
    def environment(self) -> Mapping[str, str]:
        """What a command needs in its environment to reach the same hub."""
        ...

    async def prepare(self) -> None:
        """Whatever must stand before parties can be enrolled."""
        ...

    async def start(self) -> None: ...

    async def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed; then start again."""
        ...

    def abandon(self) -> None:
        """End everything at once, without waiting, and start nothing again."""
        ...

    async def stop(self) -> None: ...


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def run_numhub(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """One command of this installation, to its end. Raises HubDidNotStart with what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hub.app.cli", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, **environment},
    )  # fmt: skip
    said, _ = await process.communicate()
    if process.returncode:
        raise HubDidNotStart(f"numhub {' '.join(arguments)}: {said.decode(errors='replace').strip()}")


class NumhubProcess:
    """One long-running numhub command."""

    def __init__(self, arguments: Sequence[str], port: int, log_file: Path, settings: Mapping[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log_file = log_file
        self._command = [sys.executable, "-m", "hub.app.cli", *arguments, "--port", str(port)]
        self._environment = {**os.environ, **settings}
        self._process: asyncio.subprocess.Process | None = None
        self._abandoned = False

    async def start(self) -> None:
        """Start and wait until /health/ready answers 200."""
        if self._abandoned:
            raise HubDidNotStart("the demo is being stopped")
        with self.log_file.open("ab") as sink:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdout=sink, stderr=sink, env=self._environment, start_new_session=True
            )
        deadline = time.monotonic() + STARTS_WITHIN
        async with httpx.AsyncClient(trust_env=False, timeout=2.0) as probe:
            while time.monotonic() < deadline:
                if self._process.returncode is not None:
                    raise HubDidNotStart(f"the hub ended with code {self._process.returncode}; see {self.log_file}")
                try:
                    if (await probe.get(self.url + "/health/ready")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        raise HubDidNotStart(f"the hub was not ready within {STARTS_WITHIN:.0f} s; see {self.log_file}")

    def abandon(self) -> None:
        """End the process at once, without waiting, and never start it again."""
        self._abandoned = True
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def stop(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), 20)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None


class HubProcess:
    """The embedded hub: `numhub serve`, everything in one process on one data directory."""

    def __init__(self, data: Path, port: int, settings: Mapping[str, str]) -> None:
        self._data = data
        self._serve = NumhubProcess(["serve", "--data", str(data)], port, data / "hub.log", settings)
        self.url, self.log_file = self._serve.url, self._serve.log_file
        self.environment: Mapping[str, str] = {}
        self.kills = 0
        self.down_seconds = 0.0

    @property
    def ledger_address(self) -> Path:
        return self._data / LEDGER_FILE

    @property
    def keys_folder(self) -> Path:
        return self._data / "keys"

    @property
    def pid(self) -> int | None:
        return self._serve.pid

    @property
    def next_victim(self) -> str:
        return f"the hub (pid {self.pid})"

    async def prepare(self) -> None:
        return None

    async def start(self) -> None:
        await self._serve.start()

    async def kill(self) -> None:
        began = time.monotonic()
        await self._serve.kill()
        self.kills += 1
        await self._serve.start()
        self.down_seconds += time.monotonic() - began

    def abandon(self) -> None:
        self._serve.abandon()

    async def stop(self) -> None:
        await self._serve.stop()
