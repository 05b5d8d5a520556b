"""The numbering plan out of the data file of the PyPI package ``phone``.

The file: 4 bytes version, int32 offset of the index, then zero-terminated texts ``province|city|postcode|area code``,
then the index: 9 bytes a block (int32 block of 7 digits, int32 offset of its text, uint8 type). It is read once into
lookup tables over all possible blocks (1300000..1999999), 0.7 to 1.4 MB each; no block is found by search.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import numpy.typing as npt

from hub.domain.numbers import BLOCK_SIZE, FIRST_NATIONAL, LAST_NATIONAL
from hub.ports.number_index import Numbers
from hub.ports.number_plan import Block

FIRST_BLOCK, LAST_BLOCK = FIRST_NATIONAL // BLOCK_SIZE, LAST_NATIONAL // BLOCK_SIZE

HOLDERS = ("", "cmcc", "cucc", "ctcc", "mvno:ctcc", "mvno:cucc", "mvno:cmcc", "cbn", "mvno:cbn")
"""The file's type numbers are the places in this tuple."""

MVNO_PREFIXES = {
    "mvno:ctcc": ("162", "1700", "1701", "1702"),
    "mvno:cmcc": ("165", "1703", "1705", "1706"),
    "mvno:cucc": ("167", "171", "1704", "1707", "1708", "1709"),
}
"""Ranges issued to resellers, by host network; the file marks many of their blocks as the host's own."""

_INDEX = np.dtype([("block", "<i4"), ("text", "<i4"), ("type", "u1")])


class PackagePlan:
    """Implements ports.number_plan.NumberPlan. Immutable and thread-safe."""

    def __init__(self, data: bytes | None = None) -> None:
        """``data``: the content of a phone.dat; by default that of the installed package. ValueError if damaged."""
        raw = files("phone").joinpath("phone.dat").read_bytes() if data is None else data
        start = int.from_bytes(raw[4:8], "little")
        if not 8 <= start < len(raw) or (len(raw) - start) % _INDEX.itemsize:
            raise ValueError("this is not a block data file")
        index = np.frombuffer(raw, _INDEX, offset=start)
        inside = (index["block"] >= FIRST_BLOCK) & (index["block"] <= LAST_BLOCK)
        index = index[inside & (index["type"] >= 1) & (index["type"] < len(HOLDERS))]
        texts, text_of = np.unique(index["text"], return_inverse=True)
        regions = [raw[at : raw.index(b"\0", at)].decode().split("|")[:2] for at in texts.tolist()]

        self.source_version = f"phone {raw[:4].decode('ascii', 'replace')}"
        self.holders: tuple[str, ...] = HOLDERS
        self.provinces: tuple[str, ...] = ("", *sorted({province for province, _ in regions}))
        self._cities = ("", *(city for _, city in regions))
        place = index["block"] - FIRST_BLOCK
        self._holder = np.zeros(LAST_BLOCK - FIRST_BLOCK + 1, np.uint8)
        self._province = np.zeros_like(self._holder)
        self._city = np.zeros(len(self._holder), np.uint16)
        self._holder[place] = index["type"]
        number_of = {name: number for number, name in enumerate(self.provinces)}
        self._province[place] = np.array([number_of[province] for province, _ in regions], np.uint8)[text_of]
        self._city[place] = (text_of + 1).astype(np.uint16)
        self._override()

    def _override(self) -> None:
        for holder, prefixes in MVNO_PREFIXES.items():
            for prefix in prefixes:
                width = 10 ** (7 - len(prefix))
                low = int(prefix) * width - FIRST_BLOCK
                blocks = self._holder[low : low + width]
                blocks[blocks > 0] = HOLDERS.index(holder)

    def find(self, national: int) -> Block | None:
        place = national // BLOCK_SIZE - FIRST_BLOCK
        if not 0 <= place < len(self._holder) or not self._holder[place]:
            return None
        return Block(
            HOLDERS[self._holder[place]], self.provinces[self._province[place]], self._cities[self._city[place]]
        )

    def holder_of(self, numbers: Numbers) -> npt.NDArray[np.uint8]:
        return self._take(self._holder, numbers)

    def province_of(self, numbers: Numbers) -> npt.NDArray[np.uint8]:
        return self._take(self._province, numbers)

    @staticmethod
    def _take(table: npt.NDArray[np.uint8], numbers: Numbers) -> npt.NDArray[np.uint8]:
        place = numbers // BLOCK_SIZE - FIRST_BLOCK
        outside = (place < 0) | (place >= len(table))
        if outside.any():
            return np.where(outside, np.uint8(0), table[np.where(outside, 0, place)])
        return table[place]

    def blocks(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """All known blocks ascending, with their holder and province indexes: for making synthetic numbers."""
        known = np.flatnonzero(self._holder)
        return (known + FIRST_BLOCK).astype(np.int32), self._holder[known], self._province[known]
