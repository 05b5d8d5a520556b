"""The processes of a bench: started, waited for, and asked how much CPU they used."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """This environment, with the checkout in front of the path."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "clients/python/src"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)}


def cpu_of(pid: int | None) -> float:
    """Seconds of CPU a process used so far, user and system."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def memory_of(pid: int | None) -> float:
    """Resident MiB."""
    return float(psutil.Process(pid).memory_info().rss) / (1 << 20)


_running: set[int] = set()


@atexit.register
def _end_children() -> None:
    """A bench that failed leaves nothing behind."""
    for pid in _running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Child:
    """``python -m module`` that says one JSON line when it is ready (or done)."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> Mapping[str, Any]:
        """Returns what its first line of output says."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment(),
            cwd=ROOT,
        )
        _running.add(self._process.pid)
        return await self.says()

    async def go(self) -> Mapping[str, Any]:
        """Tell it to begin what it has prepared; returns what it says at the end."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(b"\n")
        return await self.says()

    async def says(self) -> Mapping[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._command[2]} ended with code {await self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def cpu(self) -> float:
        return cpu_of(self.pid)

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()
        if self._process is not None:
            _running.discard(self._process.pid)


def say(**what: Any) -> None:
    """In a child: one JSON line to the bench."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
