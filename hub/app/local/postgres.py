"""A PostgreSQL of our own: one cluster below a folder, on a loopback port, with a password in a private file."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from hub.app.local.process import LOOPBACK, Child, LocalError, LocalUnavailable, answers, free_ports, program

USER = "numhub"
INSTALLED = Path("/usr/lib/postgresql")

_OPTIONS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class LocalPostgres:
    """``fsync=False`` is for tests whose machine never loses power: a killed server keeps every commit all the same.

    PostgreSQL refuses to run as root. Started by root it runs as the user ``postgres`` (or ``nobody``), who gets the
    one capability to pass through folders that are closed to him, and owns nothing but the cluster's own folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        fsync: bool = True,
        options: dict[str, str] | None = None,
        outlive: bool = False,
    ) -> None:
        self.folder = folder.resolve()
        self.port = port or free_ports(1)[0]
        self._data = self.folder / "data"
        self._as_user = _as_another_user(outlive) if os.geteuid() == 0 else []
        settings = {**_OPTIONS, "port": str(self.port), "fsync": "on" if fsync else "off", **(options or {})}
        argv = [*self._as_user, _binary("postgres"), "-D", str(self._data)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.child = Child(
            "PostgreSQL",
            argv,
            log=self.folder / "postgres.log",
            cwd=self.folder,
            env={"TZ": "UTC"},
            outlive=outlive,
            stop_signal=signal.SIGINT,  # "fast": ends sessions, keeps what is committed
        )

    @property
    def password(self) -> str:
        return (self.folder / "password").read_text(encoding="utf-8").strip()

    @property
    def url(self) -> str:
        """The address of the first database; each other one has the same with another name at the end."""
        return f"postgresql://{USER}:{self.password}@{LOOPBACK}:{self.port}/{USER}"

    @property
    def running(self) -> bool:
        return self.child.running

    def start(self, within: float = 60.0) -> Self:
        """Until it answers. After a kill its last backends may still hold on for a moment: then it is started again."""
        fresh = not (self._data / "PG_VERSION").exists()
        if fresh:
            self._make_cluster()
        for attempt in range(20):
            self.child.start()
            try:
                self.child.wait_until(self._ready, within)
                break
            except LocalError as error:
                held = any(sign in str(error) for sign in ("lock file", "shared memory", "still running"))
                if attempt == 19 or not held:
                    raise
                time.sleep(0.25)
        if fresh:
            self.create_database(USER)
        return self

    def stop(self) -> None:
        self.child.stop()

    def kill(self) -> None:
        """SIGKILL for the postmaster; its backends notice and end by themselves."""
        self.child.kill()

    def create_database(self, name: str) -> str:
        """The address of a fresh, empty database."""
        self.run_sql(f'CREATE DATABASE "{name}"')
        return f"{self.url.rpartition('/')[0]}/{name}"

    def run_sql(self, statement: str, database: str = "postgres") -> str:
        """Run one statement with psql; what it printed. Raises LocalError with PostgreSQL's own line."""
        command = [_binary("psql"), "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement]
        env = {
            **os.environ,
            "PGHOST": LOOPBACK,
            "PGPORT": str(self.port),
            "PGUSER": USER,
            "PGPASSWORD": self.password,
            "PGDATABASE": database,
        }
        done = subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)  # noqa: S603
        if done.returncode:
            raise LocalError((done.stderr.strip().splitlines() or ["psql failed"])[0])
        return done.stdout.strip()

    def _ready(self) -> bool:
        if not answers(self.port):
            return False
        try:
            return self.run_sql("SELECT 1") == "1"
        except LocalError as error:
            if "password authentication failed" in str(error):
                raise
            return False

    def _make_cluster(self) -> None:
        secret = self.folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_urlsafe(24), encoding="utf-8")
        self._data.mkdir(mode=0o700, exist_ok=True)
        if self._as_user:
            user = _other_user()
            os.chown(self._data, user.pw_uid, user.pw_gid)
        # initdb reads the password from its standard input: no other place that another user could read
        command = [*self._as_user, _binary("initdb"), "-D", str(self._data), "-U", USER, "--pwfile=/dev/stdin"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(  # noqa: S603
            command, cwd=self.folder, input=self.password, capture_output=True, text=True, check=False
        )
        if done.returncode:
            shutil.rmtree(self._data, ignore_errors=True)
            said = [line for line in (done.stderr or done.stdout).splitlines() if "rror" in line or "FATAL" in line]
            raise LocalError(f"initdb failed: {(said or ['it said nothing'])[0].strip()}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def _binary(name: str) -> str:
    """PostgreSQL's own programs: of the newest version Debian has installed, or from the PATH."""
    installed = sorted(INSTALLED.glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for place in installed:
        if (place / name).is_file() and (place / "postgres").is_file():
            return str(place / name)
    return program(name, "postgresql")


def _other_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise LocalUnavailable("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def _as_another_user(outlive: bool) -> list[str]:
    user = _other_user()
    command = [program("setpriv", "util-linux"), f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    # bits of capabilities(7): reading and searching folders alone, or, where that is not given, any file access
    allowed = _bounding_set()
    for bit, name in ((2, "dac_read_search"), (1, "dac_override")):
        if allowed >> bit & 1:
            command += [f"--inh-caps=+{name}", f"--ambient-caps=+{name}"]
            break
    return command if outlive else [*command, "--pdeathsig", "KILL"]


def _bounding_set() -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapBnd:")), 0)
