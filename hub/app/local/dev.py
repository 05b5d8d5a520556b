"""The local services of one developer: started in the background below a folder, found again by a state file.

The state file names each process by pid and by the moment it began, so that a pid that was given to somebody else in
the meantime is never touched.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from hub.app.local.kafka import LocalKafka
from hub.app.local.postgres import LocalPostgres
from hub.app.local.process import Child, LocalError
from hub.app.local.redis import LocalRedis

STATE = "dev.json"


@dataclass(frozen=True)
class Running:
    """One background process as it was started."""

    name: str
    pid: int
    began: str
    signal: int
    log: str

    @property
    def alive(self) -> bool:
        return _began(self.pid) == self.began


@dataclass
class State:
    brokers: int
    ports: dict[str, list[int]]
    processes: list[Running]
    settings: dict[str, str]


class Dev:
    """``say`` hears one line per step."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self._say = folder.resolve(), say
        self._file = self.folder / STATE

    def state(self) -> State | None:
        """What was started below the folder; None if nothing was."""
        try:
            said = json.loads(self._file.read_text(encoding="utf-8"))
            return State(
                said["brokers"], said["ports"], [Running(**one) for one in said["processes"]], said["settings"]
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise LocalError(f"{self._file} cannot be read: {error}") from None

    def up(self, brokers: int | None) -> dict[str, str]:
        """Start what does not run; the settings that lead a hub there. What this call started it stops if it fails."""
        known = self.state()
        if known and brokers not in (None, known.brokers):
            raise LocalError(f"{self.folder} has {known.brokers} broker(s); choose another --folder for {brokers}")
        brokers = known.brokers if known else brokers or 1
        ports = known.ports if known else {}
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Each is told apart before anything starts: what is missing on this machine is said before work is done.
        kafka = LocalKafka(self.folder / "kafka", brokers, ports=ports.get("kafka"), outlive=True)
        postgres = LocalPostgres(self.folder / "postgres", port=ports.get("postgresql", [None])[0], outlive=True)
        cache = LocalRedis(self.folder / "redis", port=ports.get("redis", [None])[0], outlive=True)
        state = State(
            brokers,
            {"kafka": kafka.ports, "postgresql": [postgres.port], "redis": [cache.port]},
            [one for one in (known.processes if known else []) if one.alive],
            {},
        )
        alive = {one.name for one in state.processes}
        fresh: list[Child] = []
        try:
            for child in (cache.child, postgres.child, *kafka.nodes):
                if child.name in alive:
                    self._say(f"{child.name} runs already")
                else:
                    fresh.append(child)
            began = time.monotonic()
            if cache.child in fresh:
                cache.start()
                self._started(state, cache.child, began)
            if postgres.child in fresh:
                postgres.start()
                self._started(state, postgres.child, began)
            if any(node in fresh for node in kafka.nodes):
                kafka.start(only=[node in fresh for node in kafka.nodes])
                for node in kafka.nodes:
                    if node in fresh:
                        self._started(state, node, began)
        except BaseException:
            for child in fresh:
                child.stop()
            raise
        state.settings = {
            "NUMHUB_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "NUMHUB_LEDGER_URL": postgres.url,
            "NUMHUB_REDIS_URL": cache.url,
        }
        self._keep(state)
        return state.settings

    def down(self, *, erase: bool = False) -> list[str]:
        """Stop what was recorded and still runs, and nothing else; the names of what was stopped."""
        state = self.state()
        stopped = []
        for one in reversed(state.processes if state else []):
            if one.alive:
                _end(one)
                stopped.append(one.name)
                self._say(f"{one.name} stopped")
        if state:
            state.processes = []
            self._keep(state)
        if erase and state:
            for name in ("kafka", "postgres", "redis"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            self._file.unlink(missing_ok=True)
            self._say(f"data below {self.folder} erased")
        return stopped

    def _started(self, state: State, child: Child, began: float) -> None:
        state.processes.append(
            Running(child.name, child.pid, _began(child.pid), int(child.stop_signal), str(child.log))
        )
        self._say(f"{child.name} started (pid {child.pid}, {time.monotonic() - began:.1f} s)")
        self._keep(state)

    def _keep(self, state: State) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
        fresh.replace(self._file)


def _end(one: Running, within: float = 20.0) -> None:
    """Ask it to end; kill it if it does not. It is no child of ours: whether it is gone is looked up."""
    deadline = time.monotonic() + within
    for how in (signal.SIGCONT, one.signal):
        if one.alive:
            os.kill(one.pid, how)
    while one.alive:
        if time.monotonic() > deadline:
            os.kill(one.pid, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.05)


def _began(pid: int) -> str:
    """When the process with this pid began, in the system's own words; "" if there is none, or it is over."""
    try:
        # after the name in parentheses, which may hold anything: state is the 3rd field, start time the 22nd
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
    ps = shutil.which("ps") or "/bin/ps"
    said = subprocess.run([ps, "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603
    return said.stdout.strip()
