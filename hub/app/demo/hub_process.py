"""The hub of a demo: `numhub serve` as a process of its own, killed with SIGKILL and started again on the same data."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from random import SystemRandom

import httpx

STARTS_WITHIN = 60.0


class HubDidNotStart(RuntimeError):
    """The hub's process ended or never became ready; the message ends with its own last words."""


def free_port() -> int:
    """A port nobody listens on, below those that systems hand to outgoing connections: between the choice and its use,
    and while a killed hub is down, no stranger's connection can come to sit on it."""
    chance = SystemRandom()
    while True:
        port = chance.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class HubProcess:
    """Starts, kills and restarts one hub. ``kills`` counts SIGKILLs; ``down_seconds`` sums kill to ready again."""

    def __init__(self, data: Path, port: int, settings: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log_file = data / "hub.log"
        self.kills = 0
        self.down_seconds = 0.0
        self._command = [sys.executable, "-m", "hub.app.cli", "serve", "--data", str(data), "--port", str(port)]
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
                    raise HubDidNotStart(f"the hub ended with code {self._process.returncode}; {self._last_words()}")
                try:
                    if (await probe.get(self.url + "/health/ready")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        raise HubDidNotStart(f"the hub was not ready within {STARTS_WITHIN:.0f} s; {self._last_words()}")

    def _last_words(self) -> str:
        """The end of its log (in which no full number can stand): the folder may be gone when somebody looks."""
        said = self.log_file.read_text(errors="replace").splitlines()[-20:]
        return "\n".join([f"{self.log_file} ends with:", *said])

    async def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed; then start again."""
        assert self._process is not None
        began = time.monotonic()
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        self.kills += 1
        await self.start()
        self.down_seconds += time.monotonic() - began

    def abandon(self) -> None:
        """End the process at once, without waiting, and never start it again."""
        self._abandoned = True
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

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
