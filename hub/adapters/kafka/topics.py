"""Topics as they are wished for, as the cluster has them, and what differs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import errors as kafka
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest

from hub.adapters.kafka.cluster import Cluster, Security
from hub.adapters.kafka.errors import told
from hub.adapters.kafka.messages import SetConfigs, TopicRequest
from hub.domain.errors import LogUnavailable, NumhubError

CARRIER = "<carrier>"
_TOPIC = 2
_MAKE_SECONDS = 30.0
_DAY_MS = 86_400_000

MIN_COPIES, MIN_IN_SYNC, MIN_RETENTION_DAYS, MIN_MESSAGE_BYTES = 3, 2, 180, 2 << 20
"""Below these a log can lose what was accepted, or refuse a full chunk."""


@dataclass(frozen=True)
class Wish:
    """One topic of deploy/topics.yaml; ``name`` without prefix, perhaps with CARRIER in it."""

    name: str
    partitions: int
    copies: int
    configs: Mapping[str, str]

    def on_one_broker(self) -> Wish:
        return Wish(self.name, self.partitions, 1, {**self.configs, "min.insync.replicas": "1"})


@dataclass(frozen=True)
class Found:
    partitions: int
    copies: int  # of the partition that has the fewest
    configs: Mapping[str, str]


@dataclass(frozen=True)
class Difference:
    """``what`` of a topic is ``has`` and should be ``wants``. Only some can be changed once a topic exists."""

    topic: str
    what: str
    has: str
    wants: str
    appliable: bool = True


@dataclass(frozen=True)
class Plan:
    """``missing`` topics are to be made, ``differences`` of the others changed; ``fitting`` ones are as wished."""

    missing: list[tuple[str, Wish]] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    fitting: list[str] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        return bool(self.missing or self.differences)


class BadTopicsFile(NumhubError):
    """The file of topics cannot be used."""

    code = "topics_file_unusable"


def wishes(document: Any) -> list[Wish]:
    """From the parsed file. Raises BadTopicsFile naming the entry."""
    if not isinstance(document, dict) or set(document) - {"topics", "patterns"}:
        raise BadTopicsFile("the file of topics has the members topics and patterns, and no others")
    found = []
    for entry in [*document.get("topics", []), *document.get("patterns", [])]:
        if not isinstance(entry, dict) or set(entry) != {"name", "partitions", "copies", "configs"}:
            raise BadTopicsFile(f"a topic has name, partitions, copies and configs: {entry}")
        configs = {str(name): _text(value) for name, value in entry["configs"].items()}
        found.append(Wish(str(entry["name"]), int(entry["partitions"]), int(entry["copies"]), configs))
    return found


def compare(wished: Sequence[Wish], there: Mapping[str, Found], prefix: str, carriers: Iterable[str] = ()) -> Plan:
    """What it takes. A pattern covers the topics of ``carriers`` and those that are there already."""
    plan = Plan()
    for wish in wished:
        for topic in _topics(wish, there, prefix, carriers):
            found = there.get(topic)
            if found is None:
                plan.missing.append((topic, wish))
                continue
            differing = _differences(topic, wish, found)
            plan.differences.extend(differing)
            if not differing:
                plan.fitting.append(topic)
    return plan


def _topics(wish: Wish, there: Mapping[str, Found], prefix: str, carriers: Iterable[str]) -> list[str]:
    if CARRIER not in wish.name:
        return [prefix + wish.name]
    named = [prefix + wish.name.replace(CARRIER, carrier) for carrier in carriers]
    shape = re.compile(re.escape(prefix + wish.name).replace(re.escape(CARRIER), r"[A-Za-z0-9_-]+"))
    return sorted({*named, *(topic for topic in there if shape.fullmatch(topic))})


def _differences(topic: str, wish: Wish, found: Found) -> list[Difference]:
    differing = []
    if found.partitions != wish.partitions:
        differing.append(Difference(topic, "partitions", str(found.partitions), str(wish.partitions), False))
    if found.copies != wish.copies:
        differing.append(Difference(topic, "copies", str(found.copies), str(wish.copies), False))
    for name, value in wish.configs.items():
        has = found.configs.get(name, "")
        if has != value:
            possible = name != "min.insync.replicas" or int(value) <= found.copies
            differing.append(Difference(topic, name, has, value, possible))
    return differing


def unsafe(found: Found) -> list[str]:
    """What of a log topic must not be so where real numbers are handled; one line each, empty when it is safe."""
    configs = found.configs
    faults = []
    if found.copies < MIN_COPIES:
        faults.append(f"copies (replication factor) is {found.copies}, at least {MIN_COPIES} are needed")
    in_sync = int(configs.get("min.insync.replicas", "1"))
    if in_sync < MIN_IN_SYNC:
        faults.append(f"min.insync.replicas is {in_sync}, at least {MIN_IN_SYNC} are needed: one broker could lose it")
    if configs.get("unclean.leader.election.enable") != "false":
        faults.append("unclean.leader.election.enable is on: a broker that missed events could become their leader")
    if "compact" in configs.get("cleanup.policy", ""):
        faults.append("cleanup.policy compacts: events of the same id, and with them offsets, would disappear")
    size = int(configs.get("max.message.bytes", "0"))
    if size < MIN_MESSAGE_BYTES:
        faults.append(f"max.message.bytes is {size:,}, a full chunk needs {MIN_MESSAGE_BYTES:,}")
    kept = int(configs.get("retention.ms", "0"))
    if 0 <= kept < MIN_RETENTION_DAYS * _DAY_MS:
        faults.append(f"retention.ms keeps {readable('retention.ms', str(kept))}, at least {MIN_RETENTION_DAYS} days")
    if int(configs.get("retention.bytes", "-1")) >= 0:
        faults.append(f"retention.bytes is {configs['retention.bytes']}: a full night could push out the morning")
    return faults


def readable(name: str, value: str) -> str:
    """A setting's value for people: 15552000000 is 180 days."""
    if not re.fullmatch(r"-?\d+", value):
        return value or "(not set)"
    number = int(value)
    if name in ("retention.ms", "retention.bytes") and number < 0:
        return "for ever" if name == "retention.ms" else "no limit"
    if name.endswith(".ms"):
        for size, unit in ((_DAY_MS, "days"), (3_600_000, "hours"), (60_000, "minutes"), (1_000, "seconds")):
            if number >= size and number % size == 0:
                return f"{number // size} {unit}"
    if name.endswith(".bytes"):
        for size, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if number >= size and number % size == 0:
                return f"{number // size} {unit}"
    return value


class TopicAdmin:
    """The cluster's topics. Raises LogUnavailable with one clear line."""

    def __init__(self, bootstrap: str, security: Security) -> None:
        self._cluster = Cluster(bootstrap, "", security, "numhub-topics")

    async def brokers(self) -> int:
        return len((await self._cluster.ask_any(TopicRequest([]))).brokers)

    async def found(self, prefix: str) -> dict[str, Found]:
        """All topics whose names begin with ``prefix``."""
        response = await self._cluster.ask_any(TopicRequest(None))
        shapes = {
            name: (len(partitions), min((len(each[4]) for each in partitions), default=0))
            for code, name, _, internal, partitions, *_ in response.topics
            if not code and not internal and name.startswith(prefix)
        }
        configs = await self._configs(list(shapes))
        return {name: Found(*shape, configs[name]) for name, shape in shapes.items()}

    async def make(self, topic: str, wish: Wish) -> None:
        request = CreateTopicsRequest(
            [(topic, wish.partitions, wish.copies, [], list(wish.configs.items()))], int(_MAKE_SECONDS * 1000), False
        )
        response = await self._cluster.ask_any(request, _MAKE_SECONDS + 5)
        ((_, code, message),) = response.topic_errors
        _check(code, message, f"{topic} cannot be made", fine=(kafka.TopicAlreadyExistsError,))

    async def set(self, topic: str, configs: Mapping[str, str]) -> None:
        response = await self._cluster.ask_any(SetConfigs(topic, dict(configs)))
        ((code, message, _, _),) = response.resources
        _check(code, message, f"{topic} cannot be changed")

    async def close(self) -> None:
        await self._cluster.close()

    async def _configs(self, topics: list[str]) -> dict[str, dict[str, str]]:
        if not topics:
            return {}
        response = await self._cluster.ask_any(DescribeConfigsRequest([(_TOPIC, topic, None) for topic in topics]))
        found = {}
        for code, message, _, name, entries in response.resources:
            _check(code, message, f"the settings of {name} cannot be read")
            found[name] = {key: value for key, value, *_ in entries}
        return found


async def apply(admin: TopicAdmin, plan: Plan) -> None:
    """Make what is missing, set what differs and can be set."""
    for topic, wish in plan.missing:
        await admin.make(topic, wish)
    settings: dict[str, dict[str, str]] = {}
    for difference in plan.differences:
        if difference.appliable:
            settings.setdefault(difference.topic, {})[difference.what] = difference.wants
    for topic, configs in settings.items():
        await admin.set(topic, configs)


def _check(code: int, message: str | None, doing: str, fine: tuple[type[Exception], ...] = ()) -> None:
    if code and not issubclass(error := kafka.for_code(code), fine):
        raise LogUnavailable(f"{doing}: {message or told(error())}")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
