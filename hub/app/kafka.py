"""Opening the log on Kafka as the settings say, and looking at it for `numhub doctor`."""

from __future__ import annotations

import logging

from hub.adapters.kafka.cluster import Security
from hub.adapters.kafka.log import KafkaLog
from hub.app.settings import Settings
from hub.domain.errors import LogUnavailable, NumhubError
from hub.ports.clock import Clock

log = logging.getLogger(__name__)


class UnsafeLog(NumhubError):
    """The log could lose what was accepted."""

    code = "log_unsafe"


def kafka_security(settings: Settings) -> Security:
    return Security(
        settings.kafka_security,
        settings.kafka_sasl_mechanism,
        settings.kafka_username,
        settings.kafka_password.get_secret_value(),
        settings.kafka_ca_file,
    )


def log_topic(settings: Settings) -> str:
    return settings.kafka_topic_prefix + "log"


async def open_kafka_log(settings: Settings, clock: Clock | None = None) -> KafkaLog:
    """Raises LogUnavailable with one clear line where no broker answers, the topic is missing or credentials are wrong,
    and where ``partitions`` was set to something else than the topic has; UnsafeLog in the production profile where
    the topic could lose what was accepted."""
    topic = log_topic(settings)
    opened = await KafkaLog.open(settings.kafka_bootstrap, topic, security=kafka_security(settings), clock=clock)
    try:
        if "partitions" in settings.model_fields_set and settings.partitions != opened.partitions:
            raise LogUnavailable(
                f"The topic {topic} has {opened.partitions} partitions, the setting says {settings.partitions}: leave "
                "the setting out, a log keeps the number it was made with."
            )
        if settings.profile == "production" and (faults := await opened.unsafe()):
            text = f"The topic {topic} is not safe for production: {'; '.join(faults)}."
            if not settings.dangerous_allow_unsafe_kafka:
                raise UnsafeLog(f"{text} Mend it (numhub topics plan), or set dangerous_allow_unsafe_kafka.")
            log.warning("kafka.unsafe_and_allowed", extra={"cause": text})
    except BaseException:
        await opened.close()
        raise
    return opened


async def look_at(settings: Settings) -> list[tuple[str, bool, str]]:
    """(what, good, text) per finding: can it be reached, is it safe."""
    try:
        opened = await KafkaLog.open(settings.kafka_bootstrap, log_topic(settings), security=kafka_security(settings))
    except NumhubError as error:
        return [("log", False, error.message)]
    try:
        found = [("log", True, f"topic {opened.topic}, {opened.partitions} partitions, id {opened.log_id}")]
        production = settings.profile == "production"
        for fault in await opened.unsafe():
            text = f"topic {opened.topic}: {fault}"
            found.append(("log", not production, text if production else f"{text} (fine in development)"))
        if production and settings.dangerous_allow_unsafe_kafka:
            found.append(("log", False, "dangerous_allow_unsafe_kafka is on: accepted events could be lost"))
        return found
    finally:
        await opened.close()
