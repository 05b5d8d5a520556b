"""Answers as topics: what carriers and regulators are told of what subscribers did."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from hub.domain.dispositions import Disposition
from hub.domain.events import EventType
from hub.domain.parties import AppClass
from hub.wire.base import Message, Moment, OpaqueId, Slug
from hub.wire.ingress import TopicMessage

FOR_CARRIERS: Final = "numhub.answers.carrier.v1"
FOR_REGULATORS: Final = "numhub.answers.regulator.v1"


class ClassCounts(Message):
    """Numbers of the chunk by how they stand with the class as a whole.

    ``pending`` as long as one of the class has yet to answer for good; then ``failed`` if one could not unbind, else
    ``held`` if one keeps the account for a reason, else ``done``."""

    done: int
    held: int
    pending: int
    failed: int


class CarrierAnswer(TopicMessage):
    """How one of your chunks stands with one app class. Record key: ``<chunk_id>/<app_class>``; the newest counts.

    No app and no subscriber is named or counted, and nothing tells an account that was unbound from none at all."""

    schema_name: Literal["numhub.answers.carrier.v1"] = Field(default="numhub.answers.carrier.v1", alias="schema")
    chunk_id: OpaqueId
    event_type: EventType = Field(strict=False)
    batch_id: str | None = None
    app_class: AppClass = Field(strict=False)
    version: int = Field(description="grows by one with each change that you see; the highest counts")
    count: int
    counts: ClassCounts
    held_rows: list[int] = Field(description="rows of the chunk, from 0")
    failed_rows: list[int]
    as_of: Moment


class RegulatorAnswer(TopicMessage):
    """How one chunk stands with one subscription. Record key: ``<chunk_id>/<subscription_id>``; the newest counts."""

    schema_name: Literal["numhub.answers.regulator.v1"] = Field(default="numhub.answers.regulator.v1", alias="schema")
    chunk_id: OpaqueId
    subscription_id: OpaqueId
    subscriber_id: Slug | None = Field(description="null where the subscription has been deleted since")
    app_class: Annotated[AppClass | None, Field(strict=False)]
    carrier_id: Slug
    event_type: EventType = Field(strict=False)
    version: int = Field(description="place of the newest answer counted, from 0: corrections are new answers")
    count: int
    answered: int
    dispositions: dict[Annotated[Disposition, Field(strict=False)], int]
    due_at: Moment
    as_of: Moment
