"""Topics as wished for and as found: what differs, what is unsafe, and how it reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hub.adapters.kafka.topics import BadTopicsFile, Difference, Found, Wish, compare, readable, unsafe, wishes

FILE = Path(__file__).parents[2] / "deploy" / "topics.yaml"


def wished() -> list[Wish]:
    return wishes(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def as_found(wish: Wish, **changed: object) -> Found:
    shape = {"partitions": wish.partitions, "copies": wish.copies, "configs": wish.configs} | changed
    return Found(**shape)  # type: ignore[arg-type]


def test_the_shipped_log_is_safe() -> None:
    """deploy/topics.yaml itself passes what production demands, and has few enough partitions."""
    (log,) = (wish for wish in wished() if wish.name == "log")
    assert unsafe(as_found(log)) == []
    assert all(wish.partitions <= 16 for wish in wished())
    assert {wish.name for wish in wished()} == {
        "log", "answers", "ingress.<carrier>", "rejects.<carrier>", "answers.<carrier>",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("copies", "config", "value", "said"),
    [
        (2, "", "", "copies"),
        (3, "min.insync.replicas", "1", "one broker could lose it"),
        (3, "unclean.leader.election.enable", "true", "missed events"),
        (3, "max.message.bytes", "1048588", "full chunk"),
        (3, "retention.ms", "604800000", "7 days"),
        (3, "retention.bytes", "1000", "retention.bytes"),
        (3, "cleanup.policy", "compact,delete", "compacts"),
    ],
)
def test_each_unsafe_setting_is_named(copies: int, config: str, value: str, said: str) -> None:
    """One fault, one line that names it."""
    (log,) = (wish for wish in wished() if wish.name == "log")
    (line,) = unsafe(as_found(log, copies=copies, configs=log.configs | ({config: value} if config else {})))
    assert said in line


def test_what_differs_is_told_apart_from_what_cannot_be_changed() -> None:
    """Settings are set; partitions and copies of an existing topic are left to people."""
    wish = Wish("log", 16, 3, {"retention.ms": "-1"})
    there = {"p.log": Found(8, 1, {"retention.ms": "1000"})}
    assert compare([wish], there, "p.").differences == [
        Difference("p.log", "partitions", "8", "16", False),
        Difference("p.log", "copies", "1", "3", False),
        Difference("p.log", "retention.ms", "1000", "-1", True),
    ]
    assert compare([wish], {"p.log": as_found(wish)}, "p.").fitting == ["p.log"]
    assert compare([wish], {}, "p.").missing == [("p.log", wish)]


def test_more_in_sync_than_there_are_copies_is_never_set() -> None:
    """It would refuse every append."""
    wish = Wish("log", 16, 3, {"min.insync.replicas": "2"})
    plan = compare([wish], {"log": Found(16, 1, {"min.insync.replicas": "1"})}, "")
    assert [(each.what, each.appliable) for each in plan.differences] == [
        ("copies", False),
        ("min.insync.replicas", False),
    ]


def test_a_pattern_covers_named_carriers_and_topics_that_are_there() -> None:
    """Other topics of the cluster are nobody's business."""
    wish = Wish("ingress.<carrier>", 8, 3, {})
    there = {"p.ingress.old": as_found(wish), "p.ingressX": as_found(wish), "p.ingress.a.b": as_found(wish)}
    plan = compare([wish], there, "p.", ["new"])
    assert [topic for topic, _ in plan.missing] == ["p.ingress.new"]
    assert plan.fitting == ["p.ingress.old"]


def test_values_read_well() -> None:
    """Days, sizes and no limit instead of long figures."""
    assert readable("retention.ms", "15552000000") == "180 days"
    assert readable("retention.ms", "-1") == "for ever"
    assert readable("retention.bytes", "-1") == "no limit"
    assert readable("max.message.bytes", "4194304") == "4 MiB"
    assert readable("cleanup.policy", "delete") == "delete"
    assert readable("cleanup.policy", "") == "(not set)"


@pytest.mark.parametrize("document", [None, [], {"topic": []}, {"topics": [{"name": "log"}]}])
def test_a_file_that_is_none_is_refused(document: object) -> None:
    """With the entry named where there is one."""
    with pytest.raises(BadTopicsFile):
        wishes(document)
