"""What carriers publish to their own topic, and what the hub says of it on the topic of rejects."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, model_validator

from hub.domain.errors import InvalidRequest
from hub.domain.events import EventType, TerminateReason
from hub.domain.numbers import mask_in
from hub.wire.base import Message, Moment, OpaqueId, Slug
from hub.wire.events import EventIn

SCHEMA: Final = "numhub.ingress.v1"
REPORT: Final = "numhub.rejects.v1"
SCHEMA_HEADER: Final = "schema"
KIND_HEADER: Final = "kind"

MAX_NUMBERS: Final = 10_000
MAX_DETAIL: Final = 300
FIRST_SECOND, LAST_SECOND = 946_684_800, 4_133_980_799  # of the years 2000 and 2100

OwnId = Annotated[
    str,
    StringConstraints(pattern=r"^[!-~]{1,128}$"),
    Field(description="your own, printable and without blanks: what is sent again under it is the same thing"),
]
SchemaName = Annotated[
    Literal["numhub.ingress.v1"] | None,
    Field(alias="schema", description="may stand in the record's header `schema` instead"),
]
Second = Annotated[int, Field(ge=FIRST_SECOND, le=LAST_SECOND)]


class TopicMessage(Message):
    """A message of a topic: ``schema`` names its version."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, ser_json_timedelta="iso8601", validate_by_name=True,
        validate_by_alias=True, serialize_by_alias=True,
    )  # fmt: skip


class IngressEvent(EventIn):
    """One event, for the live lane: the members of an item of ``POST /v1/events``, and your own id.

    The id is the one you would send as ``Idempotency-Key`` of a call with this event alone: over either way it is the
    same event."""

    model_config = TopicMessage.model_config

    schema_name: SchemaName = None
    id: OwnId


class SharedAttributes(Message):
    """Attributes that all numbers of the list have in common. Times are epoch seconds."""

    occurred_at: Second | None = None
    terminated_at: Second | None = None
    release_planned_at: Second | None = None
    terminate_reason: Annotated[TerminateReason | None, Field(strict=False)] = None
    acting_for: Slug | None = None


Seconds = Annotated[list[int | None], Field(max_length=MAX_NUMBERS)]


class ColumnAttributes(Message):
    """Attributes that differ: one entry per number, in the order of ``numbers``; null where a row states none."""

    occurred_at: Seconds | None = None
    terminated_at: Seconds | None = None
    release_planned_at: Seconds | None = None
    terminate_reason: Annotated[list[str | None], Field(max_length=MAX_NUMBERS)] | None = None


class IngressList(TopicMessage):
    """Up to 10,000 numbers of one event, for the bulk lane. A row that cannot be taken spoils no other row.

    Rows are the places in ``numbers``, from 0; that is how refusals and chunks name them."""

    schema_name: SchemaName = None
    id: OwnId
    event_type: EventType = Field(strict=False)
    numbers: Annotated[list[int | str], Field(min_length=1, max_length=MAX_NUMBERS, examples=[[13800138000]])]
    shared: SharedAttributes = Field(default_factory=SharedAttributes)
    columns: ColumnAttributes = Field(default_factory=ColumnAttributes)

    @model_validator(mode="after")
    def _fits(self) -> IngressList:
        for name in ColumnAttributes.model_fields:
            column = getattr(self.columns, name)
            if column is None:
                continue
            if getattr(self.shared, name) is not None:
                raise ValueError(f"{name} stands both in shared and in columns")
            if len(column) != len(self.numbers):
                raise ValueError(f"the column {name} has not as many entries as there are numbers")
        return self


def message(value: dict[str, Any]) -> IngressEvent | IngressList:
    """Raises InvalidRequest that names the first faults with their places and repeats no value."""
    try:
        return IngressList.model_validate(value) if "numbers" in value else IngressEvent.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [f"/{'/'.join(str(step) for step in fault['loc'])}: {fault['msg']}" for fault in faults[:3]]
    more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
    raise InvalidRequest(mask_in("; ".join(lines))[:MAX_DETAIL] + more)


# ---- what the hub says of it


class Source(Message):
    """Where the record stands in your topic."""

    topic: str
    partition: int
    offset: int


class SourceRange(Message):
    """``from_offset`` to ``to_offset``, both included, of one partition."""

    topic: str
    partition: int
    from_offset: int
    to_offset: int


class RefusedRows(Message):
    reason: str
    meaning: str
    retriable: bool
    rows: list[int]


class IngressRefusal(TopicMessage):
    """A record, or rows of it, that was not taken. ``reason`` concerns all of it, ``rows`` single numbers of a list.

    Record key: ``refusal/<partition>/<offset>``; when it is told again after a crash, the later one counts."""

    schema_name: Literal["numhub.rejects.v1"] = Field(default="numhub.rejects.v1", alias="schema")
    kind: Literal["refusal"] = "refusal"
    source: Source
    id: str | None = None
    reason: str | None = None
    detail: str | None = None
    retriable: bool = Field(description="may be taken if it is sent again, under the same id")
    number: str | None = Field(default=None, description="masked; of a single event")
    rows: list[RefusedRows] = Field(default_factory=list)
    rows_refused: int = 0
    told_at: Moment


class AcceptedEvent(Message):
    offset: int
    id: str
    event_id: OpaqueId


class AcceptedChunk(Message):
    """``rows``: for each number of the chunk, in its order, its row in your list. Answers name rows of the chunk."""

    chunk_id: OpaqueId
    count: int
    rows: list[int]


class AcceptedList(Message):
    offset: int
    id: str
    accepted: int
    refused: int
    chunks: list[AcceptedChunk]


class IngressSummary(TopicMessage):
    """What became of a stretch of your topic: every record in it is counted, every accepted one named. Record key:
    ``summary/<partition>/<from_offset>``; stretches told again after a crash may be cut otherwise."""

    schema_name: Literal["numhub.rejects.v1"] = Field(default="numhub.rejects.v1", alias="schema")
    kind: Literal["summary"] = "summary"
    source: SourceRange
    records: int
    accepted: int = Field(description="numbers, of events and lists together")
    refused: int = Field(description="numbers; records that were set aside as a whole count one each")
    events: list[AcceptedEvent] = Field(default_factory=list)
    lists: list[AcceptedList] = Field(default_factory=list)
    told_at: Moment
