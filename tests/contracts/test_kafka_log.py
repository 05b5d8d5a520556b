"""The log contract on Kafka, and what only that adapter promises."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from kafka_world import delete_records, make_topic
from log_contract import PARTITIONS, LogContract

from hub.adapters.kafka.log import KafkaLog
from hub.ports.log import EventLog


class TestKafkaLog(LogContract):
    bootstrap: str

    @pytest.fixture(autouse=True)
    def _broker(self, kafka_bootstrap: str) -> None:
        type(self).bootstrap = kafka_bootstrap

    async def make_log(self, where: Path) -> EventLog:
        topic = "contract." + hashlib.sha256(str(where).encode()).hexdigest()[:16]
        await make_topic(self.bootstrap, topic, PARTITIONS)
        return await KafkaLog.open(self.bootstrap, topic)

    async def drop_before(self, log: EventLog, partition: int, offset: int) -> None:
        assert isinstance(log, KafkaLog)
        await delete_records(self.bootstrap, log.topic, partition, offset)
        await log.starts()  # memory is told, as it is once a minute
