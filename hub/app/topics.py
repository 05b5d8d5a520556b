"""The parties' topics of one process: carriers' ingress and the telling of answers, where Kafka is configured."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from hub.adapters.kafka.parties import KafkaTopics
from hub.app.kafka import kafka_security
from hub.app.settings import Settings
from hub.flow.holding import Holder
from hub.flow.ingest.topic import TopicIntake
from hub.flow.members import Members
from hub.flow.tell import Tell
from hub.ports.clock import Clock
from hub.ports.ledger import Ledger
from hub.ports.metrics import Metrics
from hub.ports.topics import TopicNames
from hub.workers.ingress import CarrierIngress, Ingress, publishing_carriers
from hub.workers.outbox import Outbox


@dataclass(frozen=True, slots=True)
class PartyTopics:
    topics: KafkaTopics
    ingress: Ingress
    outbox: Outbox


def open_party_topics(
    settings: Settings,
    intake: TopicIntake,
    ledger: Ledger,
    members: Members,
    holder: Holder | None,
    clock: Clock,
    metrics: Metrics,
    partitions: int,
) -> PartyTopics | None:
    """None without Kafka. Each carrier's ingress runs in one process at a time, under a lease of its own."""
    ledger.keeps_outbox = bool(settings.kafka_bootstrap)
    if not settings.kafka_bootstrap:
        return None
    topics = KafkaTopics(settings.kafka_bootstrap, kafka_security(settings))
    names = TopicNames(settings.kafka_topic_prefix)

    def follow(carrier_id: str) -> Coroutine[Any, Any, None]:
        ingress = CarrierIngress(carrier_id, topics, names, intake, ledger, clock, metrics)
        return ingress.run() if holder is None else holder.while_held(f"ingress/{carrier_id}", ingress.run)

    return PartyTopics(
        topics,
        Ingress(follow, lambda: publishing_carriers(members), clock),
        Outbox(ledger, Tell(ledger, members, clock, partitions), topics, names, clock, metrics),
    )
