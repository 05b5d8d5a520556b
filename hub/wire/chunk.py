"""What subscribers receive: the CloudEvents of webhook and feed, as models for schemas and tests.

The hub itself never builds these objects: bodies are written once by `adapters.codec` and forwarded as bytes. A test
holds the codec's output against these models.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, model_validator

from hub.domain.events import EventType, Lane, TerminateReason
from hub.domain.numbers import FIRST_NATIONAL, LAST_NATIONAL
from hub.wire.base import Message, Moment, OpaqueId

Epoch = Annotated[int, Field(ge=0, lt=2**32, description="seconds since 1970-01-01T00:00:00Z")]
National = Annotated[int, Field(ge=FIRST_NATIONAL, le=LAST_NATIONAL, description="11 national digits")]
Row = Annotated[int, Field(ge=0, lt=10_000)]
Generation = Annotated[int, Field(ge=0, le=255)]
Seq = Annotated[int, Field(ge=0, le=65_535)]
Reason = Annotated[TerminateReason, Field(strict=False)]
Value = TypeVar("Value")

REQUIRED = frozenset({"generation", "seq", "occurred_at", "binding_cutoff_at"})
"""Attributes every row has; the others are absent where no row states them."""


class SharedAttributes(Message):
    """Values that hold for every row unless ``exceptions`` or ``columns`` say otherwise."""

    generation: Generation | None = None
    seq: Seq | None = None
    occurred_at: Epoch | None = None
    binding_cutoff_at: Epoch | None = None
    release_planned_at: Epoch | None = None
    terminate_reason: Reason | None = None


class Differing(Message):
    """Rows (ascending) whose value differs from the shared one, and their values, place by place."""

    rows: list[Row]


class DifferingCounts(Differing):
    values: list[Seq]


class DifferingTimes(Differing):
    values: list[Epoch]


class DifferingOptionalTimes(Differing):
    values: list[Epoch | None]


class DifferingReasons(Differing):
    values: list[Reason | None]


class ExceptionAttributes(Message):
    """Only for attributes that stand in ``shared``."""

    generation: DifferingCounts | None = None
    seq: DifferingCounts | None = None
    occurred_at: DifferingTimes | None = None
    binding_cutoff_at: DifferingTimes | None = None
    release_planned_at: DifferingOptionalTimes | None = None
    terminate_reason: DifferingReasons | None = None


Column = Annotated[list[Value], Field(min_length=1, max_length=10_000)]


class ColumnAttributes(Message):
    """One value per row, in the order of ``numbers``."""

    generation: Column[Generation] | None = None
    seq: Column[Seq] | None = None
    occurred_at: Column[Epoch] | None = None
    binding_cutoff_at: Column[Epoch] | None = None
    release_planned_at: Column[Epoch | None] | None = None
    terminate_reason: Column[Reason | None] | None = None


class RenewalPart(Message):
    renewal_id: OpaqueId
    due_at: Epoch
    consent_digest: str


class ChunkData(Message):
    """Up to 10,000 numbers to which the same thing happened. Unbind only what was bound before the row's
    ``binding_cutoff_at``, strictly; never act on a row whose (generation, seq) is not above what you hold."""

    chunk_id: OpaqueId
    event_type: EventType = Field(strict=False)
    lane: Lane = Field(strict=False)
    count: Annotated[int, Field(ge=1, le=10_000)]
    country_code: Literal["86"]
    numbers: Annotated[list[National], Field(min_length=1, max_length=10_000, description="ascending, unique")]
    shared: SharedAttributes
    exceptions: ExceptionAttributes = Field(default_factory=ExceptionAttributes)
    columns: ColumnAttributes = Field(default_factory=ColumnAttributes)
    reported_at: Epoch
    renewal: RenewalPart | None = None

    @model_validator(mode="after")
    def _rows_agree(self) -> Self:
        """What a JSON Schema cannot say: every row has one value of every attribute, and only one."""
        if self.count != len(self.numbers):
            raise ValueError("count is not the number of numbers")
        if any(left >= right for left, right in pairwise(self.numbers)):
            raise ValueError("numbers are ascending and unique")
        shared, columns = self.shared.model_fields_set, self.columns.model_fields_set
        if shared & columns or REQUIRED - (shared | columns):
            raise ValueError("an attribute stands in shared or in columns, and the required ones in one of them")
        if any(len(getattr(self.columns, name) or ()) != self.count for name in columns):
            raise ValueError("a column has one value per number")
        if not self.exceptions.model_fields_set <= shared:
            raise ValueError("exceptions are exceptions to a shared value")
        for name in self.exceptions.model_fields_set:
            differing = getattr(self.exceptions, name)
            if differing is None or len(differing.rows) != len(differing.values):
                raise ValueError("an exception has as many values as rows")
            if any(a >= b for a, b in pairwise(differing.rows)) or differing.rows[-1:] >= [self.count]:
                raise ValueError("the rows of an exception are ascending places in numbers")
        return self


class CloudEvent(Message):
    """CloudEvents 1.0.2, structured mode. ``timestamp`` repeats ``time`` for Standard Webhooks readers."""

    specversion: Literal["1.0"]
    id: OpaqueId
    source: str
    time: Moment
    timestamp: Moment
    datacontenttype: Literal["application/json"]


class ChunkEvent(CloudEvent):
    """``type`` is ``cn.numhub.number.<event_type>.v1``."""

    type: Annotated[str, Field(pattern=r"^cn\.numhub\.number\.[a-z_]+\.v1$")]
    data: ChunkData

    @model_validator(mode="after")
    def _envelope_fits(self) -> Self:
        if self.id != self.data.chunk_id or self.type != f"cn.numhub.number.{self.data.event_type.value}.v1":
            raise ValueError("id and type of the envelope are those of the chunk")
        return self


class PointerData(Message):
    chunk_id: OpaqueId
    event_type: EventType = Field(strict=False)
    lane: Lane = Field(strict=False)
    count: Annotated[int, Field(ge=1, le=10_000)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="of the chunk's bytes")]
    bytes: Annotated[int, Field(ge=1)]
    url: str = Field(description="fetch with your access token and ?subscription_id=; relative to the hub's address")


class PointerEvent(CloudEvent):
    """Delivery mode ``webhook_pointer``: fetch the chunk, compare the digest, then treat it like a full delivery."""

    type: Literal["cn.numhub.chunk.pointer.v1"]
    data: PointerData


class ProofData(Message):
    challenge: str
    subscription_id: OpaqueId


class ProofEvent(CloudEvent):
    """Sent once to a new endpoint: verify the signature and answer 2xx with ``{"challenge": "<the same>"}``."""

    type: Literal["cn.numhub.endpoint.proof.v1"]
    data: ProofData


class ProofAnswer(Message):
    """What the endpoint answers to a `ProofEvent`, with any 2xx."""

    challenge: str


class TestData(Message):
    __test__ = False  # a message, not a test case
    subscription_id: OpaqueId
    message: str


class TestEvent(CloudEvent):
    """Asked for with ``POST /v1/subscriptions/{id}/test``: any 2xx will do, there is nothing to act on."""

    __test__ = False
    type: Literal["cn.numhub.endpoint.test.v1"]
    data: TestData
