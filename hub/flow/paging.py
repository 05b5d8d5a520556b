"""A page of the pull feed while it is put together, and the judgement of what belongs into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from hub.domain.events import Lane
from hub.domain.parties import Subscription
from hub.flow.cursors import Strand, Stretch, sum_of
from hub.flow.members import Members
from hub.flow.reader import Readable
from hub.ports.log import Header

_LOOKED_AT: Final = 20_000  # records looked at for one page: then the caller is asked to come again


@dataclass(frozen=True, slots=True)
class Page:
    cursor: str
    events: list[bytes] = field(repr=False)
    more: bool

    def body(self) -> bytes:
        """The page as JSON, with every event byte for byte as it is stored."""
        more = b"true" if self.more else b"false"
        parts = [b'{"cursor":"', self.cursor.encode("ascii"), b'","events":[', b",".join(self.events), b'],"more":']
        return b"".join([*parts, more, b"}"])


class Reading:
    """One page being put together."""

    def __init__(self, stretches: dict[Strand, Stretch], handed_out: int, max_numbers: int, max_bytes: int) -> None:
        self.stretches, self.handed_out = stretches, handed_out
        self.events: list[bytes] = []
        self.full = False
        self._numbers, self._bytes, self._looks = max_numbers, max_bytes, _LOOKED_AT

    def take(self, readable: Readable) -> bool:
        """Put it in, unless it is one too many."""
        plain = readable.plain()
        numbers = int(readable.record.headers[Header.count])
        if self.events and (numbers > self._numbers or len(plain) > self._bytes):
            self.full = True
            return False
        self._numbers -= numbers
        self._bytes -= len(plain) + 1
        self.events.append(plain)
        self.handed_out = sum_of(self.handed_out, readable.record.record_id)
        return True

    def looked_at(self, records: int) -> None:
        self._looks -= max(records, 1)
        if self._looks <= 0:
            self.full = True


class Wanted:
    """`Members.entitled` for one subscription at one moment, asked once per kind of record."""

    def __init__(self, members: Members, subscription: Subscription, now: datetime) -> None:
        self._members, self._subscription, self._now = members, subscription, now
        self._known: dict[tuple[str, str], bool] = {}

    def judge(self, lane: Lane, headers: Mapping[str, str]) -> bool:
        if headers[Header.lane] != lane.value:
            return False
        if Header.apps in headers:
            return self._members.entitled(self._subscription, headers, self._now)
        key = headers[Header.type], headers[Header.carrier]
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._members.entitled(self._subscription, headers, self._now)
        return known
