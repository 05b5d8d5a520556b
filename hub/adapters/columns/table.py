"""A sorted table that grows: a dictionary for what came singly, sorted levels for the rest, newest first.

Writers hold the owner's lock; readers take none. They read the dictionary first and the levels second, and writers
publish in the opposite order, so a reader finds every key in at least one of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hub.adapters.columns.level import Keys, Level, Values, merge
from hub.ports.number_index import opaque

SPILL = 1_024  # singles kept in the dictionary before they become a level
LARGE = 1 << 16  # rows; larger levels in memory wait for the background, so that no caller pays for a long merge
FAN = 4  # levels of similar size that are merged into one


class Table:
    """Keys of dtype ``key`` to values of dtype ``value``; absent keys read as zeros."""

    def __init__(self, key: npt.DTypeLike, value: npt.DTypeLike) -> None:
        self.key, self.value = np.dtype(key), np.dtype(value)
        self.levels: tuple[Level, ...] = ()  # newest first
        self._singles: dict[int, Any] = {}
        self._zero = np.zeros(1, self.value)

    # -- reading

    def get(self, key: int) -> Any | None:
        """The value of one key as a numpy scalar, None if absent."""
        found = self._singles.get(key)
        if found is not None:
            return found
        needle = self.key.type(key)
        for level in self.levels:
            place = level.keys.searchsorted(needle)
            if place < len(level.keys) and level.keys[place] == needle:
                return level.values[place]
        return None

    def lookup(self, keys: Keys) -> Values:
        """The values of ``keys`` (ascending, repeats allowed), zeros where absent."""
        if len(keys) == 1:
            found = self.get(int(keys[0]))
            result = self._zero.copy()
            if found is not None:
                result[0] = found
            return result
        singles = list(self._singles.items())
        result = np.zeros(len(keys), self.value)
        _lookup(self.levels, keys, opaque(result))
        if singles and len(keys):
            here = np.fromiter((key for key, _ in singles), self.key, len(singles))
            first, behind = np.searchsorted(keys, here), np.searchsorted(keys, here, side="right")
            for single in np.flatnonzero(behind > first).tolist():  # a key may be asked for twice
                result[first[single] : behind[single]] = singles[single][1]
        return result

    def count(self) -> int:
        """Known keys. What is in memory is looked up in what is older; a level is counted only once."""
        total = 0
        for place, level in enumerate(levels := self.levels):
            total += self.count_fresh(level, levels[place + 1 :])
        singles = self._singles
        keys = np.sort(np.fromiter(list(singles), self.key, len(singles)))
        return total + _count_missing(levels, keys)

    @staticmethod
    def count_fresh(level: Level, older: Sequence[Level]) -> int:
        if level.fresh is None:
            level.fresh = _count_missing(older, level.keys)
        return level.fresh

    @property
    def rows_in_memory(self) -> int:
        return len(self._singles) + sum(len(level) for level in self.levels if level.run is None)

    # -- writing, under the owner's lock

    def put_one(self, key: int, value: Any) -> None:
        self._singles[key] = value
        if len(self._singles) >= SPILL:
            self.spill()

    def put(self, keys: Keys, values: Values) -> None:
        """``keys`` ascending and unique. The arrays are kept: the caller does not change them afterwards."""
        if len(keys) == 1:
            self.put_one(int(keys[0]), values[0])
            return
        self.levels = _tidy((Level(keys, values), *self.levels))
        if self._singles:
            here = np.fromiter(self._singles, self.key, len(self._singles))
            for key in here[np.isin(here, keys)].tolist():
                del self._singles[key]

    def spill(self) -> None:
        """Make a level of the singles."""
        if not self._singles:
            return
        keys = np.fromiter(self._singles, self.key, len(self._singles))
        values = np.empty(len(keys), self.value)
        for place, value in enumerate(self._singles.values()):
            values[place] = value
        order = np.argsort(keys)
        self.levels = _tidy((Level(keys[order], values.take(order)), *self.levels))
        self._singles = {}

    def replace(self, old: Sequence[Level], new: Level | None) -> None:
        """Put ``new`` in the place of the neighbours ``old``, all at once."""
        gone = {id(level) for level in old}
        places = [place for place, level in enumerate(self.levels) if id(level) in gone]
        if not places:
            return
        kept = [level for level in self.levels if id(level) not in gone]
        kept[places[0] : places[0]] = [] if new is None else [new]
        self.levels = tuple(kept)


def similar_suffix(sizes: Sequence[int]) -> int:
    """How many of the newest levels (sizes newest first) should become one; 0 or 1 = none.

    Walks from the newest to older ones while the next is at most twice as large as all before it together; fewer than
    FAN of them are left alone. Keeps the number of levels logarithmic and each row's merges few.
    """
    together = taken = 0
    for size in sizes:
        if taken and size > 2 * together:
            break
        together += size
        taken += 1
    return taken if taken >= FAN else 0


def _tidy(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """Merge the newest levels in memory when they have become many. Levels that are being written stay as they are."""
    memory = 0
    for level in levels:
        if level.run is not None or level.frozen or len(level) > LARGE:
            break
        memory += 1
    taken = similar_suffix([len(level) for level in levels[:memory]])
    if not taken:
        return levels
    keys, values = merge([(level.keys, level.values) for level in reversed(levels[:taken])])
    return (Level(keys, values), *levels[taken:])


def _lookup(levels: Sequence[Level], keys: Keys, result: Values) -> None:
    """``result``: zeros, `opaque`."""
    pending: npt.NDArray[np.intp] | None = None  # None = all
    for level in levels:
        needles = keys if pending is None else keys[pending]
        if not len(needles):
            return
        places = level.keys.searchsorted(needles)
        places[places == len(level.keys)] = 0
        hit = level.keys[places] == needles
        if not hit.any():
            continue
        if hit.all():
            result[slice(None) if pending is None else pending] = opaque(level.values).take(places)
            return
        where = np.flatnonzero(hit)
        result[where if pending is None else pending[where]] = opaque(level.values).take(places[where])
        missing = np.flatnonzero(~hit)
        pending = missing if pending is None else pending[missing]


def _count_missing(levels: Sequence[Level], keys: Keys) -> int:
    for level in levels:
        if not len(keys):
            return 0
        places = level.keys.searchsorted(keys)
        places[places == len(level.keys)] = 0
        keys = keys[level.keys[places] != keys]
    return len(keys)
