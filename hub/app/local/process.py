"""One child process of a local service: started in the foreground, found dead or alive, ended by its pid."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LOOPBACK = "127.0.0.1"

_STARTER = ThreadPoolExecutor(1, thread_name_prefix="local-services")
"""All children are started from this one thread: Linux sends a child its parent-death signal when the *thread* that
started it ends, and this one lives as long as the process."""


class LocalError(Exception):
    """A local service did not do what it was asked to; the message is one line and says why."""


class LocalUnavailable(LocalError):
    """The service cannot be started on this machine: the message says what is missing."""


def program(name: str, package: str, *places: Path) -> str:
    """Where ``name`` is, on the PATH or in ``places``. Raises LocalUnavailable."""
    found = shutil.which(name) or next((str(place / name) for place in places if (place / name).is_file()), None)
    if found is None:
        raise LocalUnavailable(f"no {name} on the PATH (Debian's package {package} has it)")
    return found


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, from below the range the system gives to clients.

    A port of that range could be taken by any outgoing connection while its service is down for a restart; a client
    that keeps calling it may even end up connected to itself.
    """
    chosen: list[int] = []
    for port in random.SystemRandom().sample(range(18_000, 32_000), 2_000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise LocalError("no free port between 18000 and 32000")


def answers(port: int) -> bool:
    """Does somebody take connections on this loopback port?"""
    try:
        with socket.create_connection((LOOPBACK, port), 1):
            return True
    except OSError:
        return False


class Child:
    """One foreground process. ``outlive`` leaves it running when the starting process ends (``numhub dev``); without
    it the child dies with its parent, however that ends."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        outlive: bool = False,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name, self.log = name, log
        self._argv, self._cwd, self._outlive, self.stop_signal = list(argv), cwd, outlive, stop_signal
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        if self.running:
            return
        argv = self._argv
        if not self._outlive and (setpriv := shutil.which("setpriv")):
            argv = [setpriv, "--pdeathsig", "KILL", *argv] if "--pdeathsig" not in argv else argv
        self._process = _STARTER.submit(self._spawn, argv).result()

    def _spawn(self, argv: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            self._log_from = log.tell()
            return subprocess.Popen(  # noqa: S603 - a program found by `program`, arguments of our own
                argv,
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is for numhub, which then stops its services in order
            )

    def wait_until(self, ready: Callable[[], bool], within: float) -> None:
        """Until ``ready()``. Raises LocalError when the process ends first or the time is over."""
        deadline = time.monotonic() + within
        pause = 0.02
        while not ready():
            if not self.running:
                raise LocalError(f"{self.name} ended while starting: {self._last_words()} (log: {self.log})")
            if time.monotonic() > deadline:
                raise LocalError(f"{self.name} was not ready within {within:.0f} s (log: {self.log})")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    def _last_words(self) -> str:
        try:
            lines = self.log.read_bytes()[self._log_from :].decode(errors="replace").splitlines()
        except OSError:
            lines = []
        telling = [line for line in lines if any(word in line for word in ("FATAL", "ERROR", "rror:", "xception"))]
        return (telling or lines or ["it said nothing"])[-1].strip()[:300]

    def stop(self, within: float = 15.0) -> None:
        """Ask to end, wait, then kill."""
        if not self.running:
            return
        assert self._process is not None
        self.resume()
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nobody says goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: the port stays open and nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
