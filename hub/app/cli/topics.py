"""`numhub topics`: the Kafka topics of a hub, from one file."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.table import Table

from hub.adapters.kafka import topics
from hub.app.cli._open import console, fail
from hub.app.cli.serve import settings_for
from hub.app.kafka import kafka_security
from hub.app.settings import Settings
from hub.domain.errors import NumhubError

app = typer.Typer(help="Kafka topics of this hub: compare them with deploy/topics.yaml, make and change them.")

Config = Annotated[Path | None, typer.Option(help="settings file (TOML)")]
File = Annotated[Path | None, typer.Option(help="topics wished for (YAML); as shipped if not given")]
Carriers = Annotated[
    list[str] | None, typer.Option("--carrier", help="party id of a carrier that has topics of its own")
]
Development = Annotated[
    bool,
    typer.Option(
        "--development", "--dangerous-single-broker", help="one copy of everything, as a single broker can give"
    ),
]

_PLACES = (Path(__file__).parents[1] / "topics.yaml", Path(__file__).parents[3] / "deploy" / "topics.yaml")
"""In an installed package, in a checkout."""


def _plan(found: topics.Plan) -> None:
    table = Table(show_header=False, box=None)
    for topic in found.fitting:
        table.add_row("[green]ok[/]", topic, "as wished")
    for topic, wish in found.missing:
        table.add_row("[yellow]make[/]", topic, f"{wish.partitions} partitions, {wish.copies} copies")
        for name, value in wish.configs.items():
            table.add_row("", "", f"{name} = {topics.readable(name, value)}")
    for each in found.differences:
        has, wants = topics.readable(each.what, each.has), topics.readable(each.what, each.wants)
        if each.appliable:
            table.add_row("[yellow]set[/]", each.topic, f"{each.what}: {has} -> {wants}")
        else:
            table.add_row("[red]by hand[/]", each.topic, f"{each.what}: is {has}, should be {wants}; {_HOW[each.what]}")
    console.print(table, highlight=False)


_HOW = {
    "partitions": "a topic keeps the number it was made with (change the file, or begin a new topic)",
    "copies": "move it with kafka-reassign-partitions",
    "min.insync.replicas": "first give the topic that many copies, or nothing could be written",
}


async def _compared(
    admin: topics.TopicAdmin, settings: Settings, file: Path | None, carriers: list[str] | None, development: bool
) -> topics.Plan:
    wished = _wished(file)
    if development:
        wished = [wish.on_one_broker() for wish in wished]
    prefix = settings.kafka_topic_prefix
    return topics.compare(wished, await admin.found(prefix), prefix, carriers or ())


def _wished(file: Path | None) -> list[topics.Wish]:
    place = file or next((place for place in _PLACES if place.is_file()), _PLACES[-1])
    try:
        return topics.wishes(yaml.safe_load(place.read_text(encoding="utf-8")))
    except OSError as error:
        raise fail(f"{place}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        raise fail(f"{place} is not a file of topics: {error}") from None


def _run(config: Path | None, act: Callable[[topics.TopicAdmin, Settings], Awaitable[None]]) -> None:
    settings = settings_for(config)
    if not settings.kafka_bootstrap:
        raise fail("kafka_bootstrap is not set: this hub's log is a file and needs no topics")

    async def run() -> None:
        admin = topics.TopicAdmin(settings.kafka_bootstrap, kafka_security(settings))
        try:
            await act(admin, settings)
        finally:
            await admin.close()

    try:
        asyncio.run(run())
    except NumhubError as error:
        raise fail(error.message) from None


@app.command()
def plan(config: Config = None, file: File = None, carrier: Carriers = None, development: Development = False) -> None:
    """Show what apply would do. Changes nothing."""

    async def act(admin: topics.TopicAdmin, settings: Settings) -> None:
        _plan(await _compared(admin, settings, file, carrier, development))

    _run(config, act)


@app.command()
def apply(config: Config = None, file: File = None, carrier: Carriers = None, development: Development = False) -> None:
    """Make what is missing and set what differs; exit code 1 if something is left to be done by hand."""

    async def act(admin: topics.TopicAdmin, settings: Settings) -> None:
        found = await _compared(admin, settings, file, carrier, development)
        brokers, copies = await admin.brokers(), max((wish.copies for _, wish in found.missing), default=0)
        if brokers < copies:
            raise fail(
                f"the cluster has {brokers} broker(s), too few for the copies wished for; "
                "on a single one for development: --development"
            )
        _plan(found)
        await topics.apply(admin, found)
        left = await _settled(admin, settings, file, carrier, development)
        console.print("all topics are as wished" if not left.differs else "some is left to be done by hand, see above")
        if left.differs:
            raise typer.Exit(1)

    _run(config, act)


async def _settled(
    admin: topics.TopicAdmin, settings: Settings, file: Path | None, carriers: list[str] | None, development: bool
) -> topics.Plan:
    """Brokers learn of a change one after the other."""
    for _ in range(50):
        left = await _compared(admin, settings, file, carriers, development)
        if not left.missing and not any(each.appliable for each in left.differences):
            break
        await asyncio.sleep(0.1)
    return left


@app.command()
def verify(
    config: Config = None, file: File = None, carrier: Carriers = None, development: Development = False
) -> None:
    """Compare only; exit code 1 if something differs."""

    async def act(admin: topics.TopicAdmin, settings: Settings) -> None:
        found = await _compared(admin, settings, file, carrier, development)
        _plan(found)
        if found.differs:
            raise typer.Exit(1)

    _run(config, act)
