"""The bytes of one chunk: a structured CloudEvent in JSON, zstd-compressed, written once and delivered as written.

``data.numbers`` lists the numbers in ascending order; row ``i`` of every attribute belongs to ``numbers[i]``. An
attribute stands in one of three places: in ``shared`` when all rows agree; in ``shared`` with ``exceptions`` (rows and
their own values) when at most a tenth of the rows differ; in ``columns``, one value a row, otherwise. Times within
``data`` are epoch seconds. ``release_planned_at`` and ``terminate_reason`` are absent when no row states them and null
in a row that does not. The carrier is never named.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import zstandard

from hub.domain.events import EventType, Lane, TerminateReason
from hub.domain.numbers import COUNTRY_CODE, FIRST_NATIONAL, LAST_NATIONAL
from hub.ports.codec import Chunk

MAX_ROWS = 10_000
MAX_PLAIN_BYTES = 16 << 20  # a full chunk is about 120 kB, 1 MB with every attribute a column
LEVEL = 1  # on these bodies smaller than level 3 and twice as quick
EXCEPTION_SHARE = 10  # exceptions while rows that differ x 10 <= rows

_TYPE = "cn.numhub.number.{}.v1"
_EVENT_OF_TYPE = {_TYPE.format(event.value): event for event in EventType}
_REASONS = (None, *(reason.value for reason in TerminateReason))
_REASON_TEXTS = np.array(_REASONS, object)
_REASON_NUMBER = {text: place for place, text in enumerate(_REASONS)}

_Column = npt.NDArray[Any]

_KEPT_ROWS, _CHUNK_ROWS = 320_000, 40  # decoded rows kept, some 50 bytes each; what a chunk costs besides its rows


class JsonCodec:
    """`hub.ports.codec.Codec`: orjson and zstd. Safe to share by threads.

    What was encoded or decoded last is kept, for a writer's own fold and the catalogue read a new chunk one after the
    other: for the same bytes object `decode` gives the same chunk again. Its columns are read-only.
    """

    def __init__(self, source: str = "urn:numhub:hub") -> None:
        self._source = source
        self._tools = threading.local()  # compressors are not to be shared, and dear to make
        self._kept: OrderedDict[int, tuple[bytes, Chunk]] = OrderedDict()
        self._kept_rows = 0
        self._keeping = threading.Lock()

    def encode(self, chunk: Chunk) -> bytes:
        """Raises ValueError for a chunk that `decode` would not take back: empty, too long, unordered, out of range."""
        _check(chunk)
        shared: dict[str, Any] = {}
        exceptions: dict[str, Any] = {}
        columns: dict[str, Any] = {}
        for name, column in _attributes(chunk):
            _place(name, column, shared, exceptions, columns)
        time = datetime.fromtimestamp(chunk.reported_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        data: dict[str, Any] = {
            "chunk_id": chunk.record_id,
            "event_type": chunk.event_type.value,
            "lane": chunk.lane.value,
            "count": len(chunk),
            "country_code": COUNTRY_CODE,
            "numbers": np.ascontiguousarray(chunk.numbers, np.int64),
            "shared": shared,
            "exceptions": exceptions,
            "columns": columns,
            "reported_at": chunk.reported_at,
        }
        if chunk.renewal is not None:
            data["renewal"] = dict(sorted(chunk.renewal.items()))
        event = {
            "specversion": "1.0",
            "id": chunk.record_id,
            "source": self._source,
            "type": _TYPE.format(chunk.event_type.value),
            "time": time,
            "timestamp": time,
            "datacontenttype": "application/json",
            "data": data,
        }
        plain = orjson.dumps(event, option=orjson.OPT_SERIALIZE_NUMPY)
        try:
            compressor = self._tools.compressor
        except AttributeError:
            compressor = self._tools.compressor = zstandard.ZstdCompressor(level=LEVEL)
        body: bytes = compressor.compress(plain)
        if chunk.renewal is None:  # whose members JSON might give back as something else
            self._keep(body, _as_decoded(chunk))
        return body

    def plain(self, body: bytes) -> bytes:
        """Raises ValueError when ``body`` is not zstd or would grow beyond 16 MiB."""
        try:
            size = zstandard.frame_content_size(body)
            if not 0 <= size <= MAX_PLAIN_BYTES:
                raise ValueError("the body states no size or one beyond the limit")
            try:
                decompressor = self._tools.decompressor
            except AttributeError:
                decompressor = self._tools.decompressor = zstandard.ZstdDecompressor()
            return decompressor.decompress(body)  # type: ignore[no-any-return]
        except zstandard.ZstdError as error:
            raise ValueError("the body is not zstd") from error

    def decode(self, body: bytes) -> Chunk:
        kept = self._kept.get(id(body))
        if kept is not None and kept[0] is body:
            return kept[1]
        chunk = self._decode(body)
        self._keep(body, chunk)
        return chunk

    def _keep(self, body: bytes, chunk: Chunk) -> None:
        """Kept under the identity of ``body``, which stays its own as long as it is kept."""
        for column in (chunk.numbers, *(column for _, column in _attributes(chunk))):
            column.setflags(write=False)
        with self._keeping:
            if id(body) in self._kept:
                return
            self._kept[id(body)] = body, chunk
            self._kept_rows += len(chunk) + _CHUNK_ROWS
            while self._kept_rows > _KEPT_ROWS:
                _, (_, gone) = self._kept.popitem(last=False)
                self._kept_rows -= len(gone) + _CHUNK_ROWS

    def _decode(self, body: bytes) -> Chunk:
        try:
            event = orjson.loads(self.plain(body))
            data = event["data"]
            chunk = _read(event, data)
        except (KeyError, TypeError, AttributeError, OverflowError, IndexError) as error:
            raise ValueError("the body is not a chunk of this version") from error
        _check(chunk)
        return chunk


def _as_decoded(chunk: Chunk) -> Chunk:
    """What `decode` would make of the chunk's body, in memory of its own."""

    def times(column: _Column) -> _Column:
        return np.array(column, np.int64)

    planned, reason = chunk.release_planned_at, chunk.reason
    return replace(
        chunk,
        numbers=times(chunk.numbers),
        generation=np.array(chunk.generation, np.uint8),
        seq=np.array(chunk.seq, np.uint16),
        occurred_at=times(chunk.occurred_at),
        binding_cutoff_at=times(chunk.binding_cutoff_at),
        release_planned_at=None if planned is None or not planned.any() else times(planned),
        reason=None if reason is None or not reason.any() else np.array(reason, np.uint8),
    )


def _attributes(chunk: Chunk) -> list[tuple[str, _Column]]:
    found: list[tuple[str, _Column]] = [
        ("generation", chunk.generation),
        ("seq", chunk.seq),
        ("occurred_at", chunk.occurred_at),
        ("binding_cutoff_at", chunk.binding_cutoff_at),
    ]
    if chunk.release_planned_at is not None and chunk.release_planned_at.any():
        found.append(("release_planned_at", chunk.release_planned_at))
    if chunk.reason is not None and chunk.reason.any():
        found.append(("terminate_reason", chunk.reason))
    return found


def _place(
    name: str, column: _Column, shared: dict[str, Any], exceptions: dict[str, Any], columns: dict[str, Any]
) -> None:
    if len(column) == 1:
        shared[name] = _shared(name, int(column[0]))
        return
    half = len(column) // 2
    # A value that more than half of the rows hold is the median: found without sorting or counting.
    common = np.partition(column, half)[half]
    differing = np.flatnonzero(column != common)
    if len(differing) * EXCEPTION_SHARE > len(column):
        columns[name] = _as_json(name, column)
        return
    shared[name] = _shared(name, int(common))
    if len(differing):
        exceptions[name] = {"rows": differing, "values": _as_json(name, column[differing])}


def _as_json(name: str, column: _Column) -> Any:
    """What orjson writes as a list; Python objects only where text or null must stand."""
    if name == "terminate_reason":
        return _REASON_TEXTS[column].tolist()
    if name == "release_planned_at" and not column.all():
        return [value or None for value in column.tolist()]
    return np.ascontiguousarray(column)


def _shared(name: str, value: int) -> int | str | None:
    if name == "terminate_reason":
        return _REASONS[value]
    return value or None if name == "release_planned_at" else value


def _read(event: dict[str, Any], data: dict[str, Any]) -> Chunk:
    event_type = _EVENT_OF_TYPE.get(event["type"])
    if event_type is None or data["event_type"] != event_type.value:
        raise ValueError("unknown event type")
    if event["specversion"] != "1.0" or data["chunk_id"] != event["id"] or not isinstance(event["id"], str):
        raise ValueError("the ids of envelope and chunk differ")
    numbers = _integers(data["numbers"])
    rows = len(numbers)
    if data["count"] != rows:
        raise ValueError("count is not the number of rows")
    columns = {name: _column(name, data, rows) for name in ("generation", "seq", "occurred_at", "binding_cutoff_at")}
    for name, column in columns.items():
        if column is None:
            raise ValueError(f"{name} is missing")
    generation, seq, occurred_at, cutoff = columns.values()
    assert generation is not None and seq is not None and occurred_at is not None and cutoff is not None
    planned, reason = _column("release_planned_at", data, rows), _column("terminate_reason", data, rows)
    return Chunk(
        record_id=event["id"],
        event_type=event_type,
        lane=Lane(data["lane"]),
        reported_at=_integer(data["reported_at"]),
        numbers=numbers,
        generation=_narrow(generation, np.uint8),
        seq=_narrow(seq, np.uint16),
        occurred_at=occurred_at,
        binding_cutoff_at=cutoff,
        release_planned_at=planned,
        reason=None if reason is None else _narrow(reason, np.uint8),
        renewal=data.get("renewal"),
    )


def _column(name: str, data: dict[str, Any], rows: int) -> npt.NDArray[np.int64] | None:
    if name in data["columns"]:
        column = _from_json(name, data["columns"][name])
        if len(column) != rows:
            raise ValueError(f"{name} has another length than numbers")
        return column
    if name not in data["shared"]:
        return None
    column = np.full(rows, _from_json(name, [data["shared"][name]])[0], np.int64)
    exceptions = data["exceptions"].get(name)
    if exceptions is not None:
        places = _integers(exceptions["rows"])
        values = _from_json(name, exceptions["values"])
        if len(places) != len(values) or (len(places) and not 0 <= places.min() <= places.max() < rows):
            raise ValueError(f"the exceptions of {name} do not fit the rows")
        column[places] = values
    return column


def _from_json(name: str, values: Any) -> npt.NDArray[np.int64]:
    if name == "terminate_reason":
        return np.fromiter(map(_REASON_NUMBER.__getitem__, values), np.int64, len(values))
    if name == "release_planned_at" and None in values:
        values = [0 if value is None else value for value in values]
    return _integers(values)


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("a whole number is needed")
    return value


def _integers(values: Any) -> npt.NDArray[np.int64]:
    if not isinstance(values, list):
        raise ValueError("a list is needed")
    if values and type(values[0]) is not int:
        raise ValueError("a list of whole numbers is needed")
    return np.frombuffer(array("q", values), np.int64)  # TypeError for anything but integers


def _narrow(column: npt.NDArray[np.int64], dtype: Any) -> npt.NDArray[Any]:
    if len(column) and not 0 <= column.min() <= column.max() <= np.iinfo(dtype).max:
        raise ValueError("a value is out of range")
    return column.astype(dtype)


def _bounds(column: _Column) -> tuple[int, int]:
    if len(column) == 1:
        return int(column[0]), int(column[0])
    return int(column.min()), int(column.max())


def _check(chunk: Chunk) -> None:
    """What both directions insist on. Times fit 32 bits, as the index keeps them."""
    rows = len(chunk.numbers)
    if not 1 <= rows <= MAX_ROWS:
        raise ValueError("a chunk holds 1 to 10,000 numbers")
    times = [chunk.occurred_at, chunk.binding_cutoff_at]
    if chunk.release_planned_at is not None:
        times.append(chunk.release_planned_at)
    others: list[_Column] = [chunk.generation, chunk.seq, *([] if chunk.reason is None else [chunk.reason])]
    if any(len(column) != rows for column in (*times, *others)):
        raise ValueError("the columns differ in length")
    numbers = chunk.numbers
    if numbers[0] < FIRST_NATIONAL or numbers[-1] > LAST_NATIONAL:
        raise ValueError("numbers must be mobile numbers")
    if rows > 1 and not (numbers[1:] > numbers[:-1]).all():
        raise ValueError("numbers must be ascending and unique")
    if any(min_ < 0 or max_ >= 1 << 32 for min_, max_ in map(_bounds, times)):
        raise ValueError("a time is out of range")
    if not 0 <= chunk.reported_at < 1 << 32:
        raise ValueError("reported_at is out of range")
    if chunk.reason is not None and chunk.reason.max() >= len(_REASONS):
        raise ValueError("unknown terminate_reason")
    if chunk.renewal is not None and rows != 1:
        raise ValueError("a holder renewal is a chunk of one number")
