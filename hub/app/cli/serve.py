"""`numhub serve`: the whole hub in one process."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from hub.adapters.columns.store import IndexInUse
from hub.adapters.oauth.keys import KeyFileError
from hub.adapters.sqlite.log_file import LogMismatch
from hub.adapters.telemetry.logging import configure
from hub.api.server import bind, new_event_loop
from hub.api.server import serve as serve_http
from hub.app.cli._open import MaybeData, console, fail
from hub.app.roles import EVERYTHING, WORKER, Role
from hub.app.settings import Settings, load
from hub.app.wiring import Hub, build
from hub.domain.errors import NumhubError

log = logging.getLogger("numhub.serve")

_M_ARENA_MAX = -8  # malloc.h


_OF_OTHER_COMMANDS = {"NUMHUB_URL", "NUMHUB_CLIENT_ID", "NUMHUB_KEY", "NUMHUB_LISTEN_SECRET"}


def settings_for(config: Path | None, **overrides: object) -> Settings:
    """The settings of a command (options given over environment over file), or its end with one clear line."""
    given = {name: value for name, value in overrides.items() if value is not None}
    known = {f"NUMHUB_{name.upper()}" for name in Settings.model_fields} | _OF_OTHER_COMMANDS
    odd = sorted(
        name
        for name in os.environ
        if name.startswith("NUMHUB_") and not name.startswith("NUMHUB_TEST_") and name not in known
    )
    if odd:
        raise fail(f"there is no setting {', '.join(odd)}; see deploy/hub.example.toml")
    try:
        return load(config, **given)
    except FileNotFoundError as error:
        raise fail(str(error)) from None
    except ValidationError as error:
        raise fail("the settings are wrong: " + "; ".join(map(_told, error.errors()))) from None
    except ValueError as error:
        raise fail(f"{config} is not a TOML file: {error}") from None


def _told(mistake: Any) -> str:
    text = str(mistake["msg"]).removeprefix("Value error, ")
    where = ".".join(map(str, mistake["loc"]))
    if mistake["type"] == "extra_forbidden":
        text = "there is no such setting"
    return f"{where}: {text}" if where else text


ALL_ROLES = ",".join(sorted(role.value for role in WORKER))

Host = Annotated[str | None, typer.Option(help="address to listen on")]
Port = Annotated[int | None, typer.Option(help="port to listen on; 0 takes a free one")]
Config = Annotated[Path | None, typer.Option(help="settings file (TOML); see deploy/hub.example.toml")]


def serve(
    data: MaybeData = None,
    host: Host = None,
    port: Port = None,
    config: Config = None,
) -> None:
    """Run the whole hub in one process: API, fold, dispatcher, catalogue. Stops cleanly on SIGTERM and Ctrl-C."""
    _run(settings_for(config, data_dir=data, host=host, port=port), EVERYTHING)


def api(
    data: MaybeData = None,
    host: Host = None,
    port: Port = None,
    config: Config = None,
) -> None:
    """Answer HTTP requests only; any number of these beside workers, each with a data directory of its own."""
    settings = settings_for(config, data_dir=data, host=host, port=port)
    _only_on_services(settings, "api")
    _run(settings, frozenset({Role.api}))


def worker(
    data: MaybeData = None,
    roles: Annotated[str, typer.Option(help="what to do, comma-separated")] = ALL_ROLES,
    host: Host = None,
    port: Annotated[int | None, typer.Option(help="port for health and metrics; 0 takes a free one")] = None,
    config: Config = None,
) -> None:
    """Do the work behind the API: deliver, list, publish. Any number of these; they share what there is to do."""
    settings = settings_for(config, data_dir=data, host=host, worker_port=port)
    _only_on_services(settings, "worker")
    chosen = {role.strip() for role in roles.split(",") if role.strip()}
    unknown = sorted(chosen - set(ALL_ROLES.split(",")))
    if unknown or not chosen:
        said = f"there is no worker role {', '.join(unknown)}" if unknown else "no role was named"
        raise fail(f"{said}; there are {ALL_ROLES}")
    _run(settings, frozenset(Role(role) for role in chosen))


def _only_on_services(settings: Settings, command: str) -> None:
    """Several processes need a log and a ledger that they can share; embedded ones belong to one process."""
    if not settings.kafka_bootstrap or not settings.ledger_url.get_secret_value():
        raise fail(
            f"numhub {command} needs kafka_bootstrap and ledger_url, which its processes share; "
            "the embedded hub runs whole in one process: numhub serve"
        )


def _run(settings: Settings, roles: frozenset[Role]) -> None:
    configure(settings.log_level)
    _bound_arenas()  # before the first thread
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        try:
            runner.run(_serve(settings, roles))
        except IndexInUse:
            raise fail(f"a hub is running on {settings.data_dir} already; give this one another --data") from None
        except (NumhubError, KeyFileError, LogMismatch) as error:
            raise fail(str(error)) from None
        except OSError as error:
            raise fail(f"{error.filename or settings.data_dir}: {error.strerror or error}") from None


async def _serve(settings: Settings, roles: frozenset[Role]) -> None:
    answers = Role.api in roles
    wanted = settings.port if answers else settings.worker_port
    try:
        listener = bind(settings.host, wanted)
    except OSError as error:
        raise fail(f"cannot listen on {settings.host}:{wanted}: {error.strerror}; choose another --port") from None
    port = int(listener.getsockname()[1])
    hub = await build(settings, public_url=settings.base_url(port) if answers else None)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)

    def refused(status: int) -> None:
        hub.metrics.count("numhub_http_requests_total", route="unreadable", status=str(status))

    try:
        await hub.start(roles)
    except NumhubError:
        listener.close()
        await hub.close()
        raise
    server = asyncio.create_task(
        serve_http(
            hub.app if answers else hub.health,
            listener=listener,
            stop=stop,
            max_connections=settings.max_connections,
            drain_within=settings.drain_within,
            refused=refused,
        ),
        name="http",
    )
    watch = asyncio.create_task(hub.supervisor.wait(), name="supervisor")
    _tune_interpreter()
    if answers:
        _say_where(hub, port)
    else:
        _say_roles(hub, port, roles)
    await asyncio.wait({server, watch}, return_when=asyncio.FIRST_COMPLETED)
    failure = hub.supervisor.failure
    stop.set()
    await server
    given_up = await hub.stop()
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await watch
    log.info("hub_stopped", extra={"given_up": given_up})
    if failure is not None:
        raise fail(f"a worker failed: {failure!r}; its trace stands in the log above")


def _tune_interpreter() -> None:
    """For one busy event loop beside threads that commit.

    What stands after the start lives as long as the process: the garbage collector need not walk it again and again
    (with the usual thresholds it took a third of the CPU under load). A commit takes the interpreter's lock dozens of
    times and waits for it up to the switch interval each time: the usual 5 ms would add up to the live lane's delay.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    sys.setswitchinterval(0.0005)


def _bound_arenas() -> None:
    """The C library gives each thread a heap of its own and keeps what they grew to: a large file, worked on by a
    dozen threads in turn, would leave several hundred MiB behind in pieces."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # not glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _say_where(hub: Hub, port: int) -> None:
    url, data = hub.settings.base_url(port), hub.settings.data_dir.resolve()
    console.print(f"numhub listens on {url}", highlight=False)
    for name, what in (
        ("data", f"{data} (log.db, ledger.db, index/, batches/, keys/)"),
        ("regulator's page", f"{url}/ (numhub login-link PARTY)"),
        ("API document", f"{url}/openapi.json"),
        ("health, metrics", f"{url}/health/ready, {url}/metrics"),
    ):
        console.print(f"  {name:<17} {what}", highlight=False, soft_wrap=True)
    if hub.settings.kafka_bootstrap:
        console.print(f"  {'log':<17} Kafka at {hub.settings.kafka_bootstrap}", highlight=False, soft_wrap=True)
    if hub.settings.dangerous_allow_loopback_receivers:
        console.print(
            "  [yellow]webhooks may go to plain http on this machine (dangerous_allow_loopback_receivers)[/]",
            soft_wrap=True,
        )


def _say_roles(hub: Hub, port: int, roles: frozenset[Role]) -> None:
    host, data = hub.settings.host, hub.settings.data_dir.resolve()
    console.print(
        f"numhub worker {hub.holder.name if hub.holder else ''}: {', '.join(sorted(role.value for role in roles))}",
        highlight=False,
    )
    console.print(f"  {'data':<17} {data} (index/)", highlight=False, soft_wrap=True)
    console.print(f"  {'health, metrics':<17} http://{host}:{port}/health/ready, /metrics", highlight=False)
