"""A Redis of our own: on a loopback port, with a password, keeping nothing on disk unless asked to."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from hub.app.local.process import LOOPBACK, Child, free_ports, program


class LocalRedis:
    """Restarted, it comes back empty, as a Redis without persistence does; ``persist`` keeps an append-only file."""

    def __init__(self, folder: Path, *, port: int | None = None, persist: bool = False, outlive: bool = False) -> None:
        self.folder = folder.resolve()
        self.port = port or free_ports(1)[0]
        self._persist = persist
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "redis.conf"
        self.child = Child(
            "Redis",
            [program("redis-server", "redis-server"), str(config)],
            log=self.folder / "redis.log",
            cwd=self.folder,
            outlive=outlive,
        )

    @property
    def password(self) -> str:
        return (self.folder / "password").read_text(encoding="utf-8").strip()

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    @property
    def running(self) -> bool:
        return self.child.running

    def start(self, within: float = 30.0) -> Self:
        secret, config = self.folder / "password", self.folder / "redis.conf"
        if not secret.exists():
            secret.touch(mode=0o600)
            secret.write_text(secrets.token_urlsafe(24), encoding="utf-8")
        config.touch(mode=0o600)
        config.write_text(
            f"bind {LOOPBACK}\nport {self.port}\nrequirepass {self.password}\ndir {self.folder}\ndaemonize no\n"
            f'appendonly {"yes" if self._persist else "no"}\nsave ""\nmaxmemory-policy noeviction\n',
            encoding="utf-8",
        )
        self.child.start()
        self.child.wait_until(self._ready, within)
        return self

    def stop(self) -> None:
        self.child.stop()

    def kill(self) -> None:
        self.child.kill()

    def pause(self) -> None:
        self.child.pause()

    def resume(self) -> None:
        self.child.resume()

    def _ready(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), 1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                said = b""
                while said.count(b"\r\n") < 2 and (part := connection.recv(256)):
                    said += part
                return said.endswith(b"+PONG\r\n")
        except OSError:
            return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
