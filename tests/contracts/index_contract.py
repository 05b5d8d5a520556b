"""What every number index must do: subclass and give `make_index`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hub.ports.log import Position
from hub.ports.number_index import STATE, NumberIndex, Numbers, States

PARTITIONS = 4


def column(*numbers: int) -> Numbers:
    return np.array(numbers, np.int64)


def states(numbers: Numbers, **fields: int) -> States:
    made = np.zeros(len(numbers), STATE)
    made["seq"] = 1
    for name, value in fields.items():
        made[name] = value
    return made


class IndexContract:
    """The promises of `hub.ports.number_index.NumberIndex`."""

    def make_index(self, where: Path, log_id: str = "log") -> NumberIndex:
        """An index of PARTITIONS partitions in ``where``; the same ``where`` opens the same index again."""
        raise NotImplementedError

    @pytest.fixture
    def index(self, tmp_path: Path) -> Iterator[NumberIndex]:
        index = self.make_index(tmp_path)
        yield index
        index.close()

    def test_unknown_numbers_are_zeros(self, index: NumberIndex) -> None:
        """Nothing is known at first, of one number or of many, in the order asked."""
        assert not index.lookup(0, column(13800000000)).view(np.uint8).any()
        assert not index.lookup(1, column(13800000000, 13800000001)).view(np.uint8).any()
        assert index.count() == 0
        assert [index.position_of(p) for p in range(PARTITIONS)] == [0] * PARTITIONS
        assert index.find("evt_unknown") is None

    def test_what_was_put_in_is_found(self, index: NumberIndex) -> None:
        """Known and unknown numbers mixed, each with its own state."""
        numbers = column(5, 7, 9)
        new = states(numbers, phase=2, ended_at=4_000_000_000)
        new["carrier"] = [1, 2, 65535]
        index.apply(Position(0, 0), "evt_a", numbers, new)
        found = index.lookup(0, column(4, 5, 6, 7, 8, 9, 10))
        assert found["carrier"].tolist() == [0, 1, 0, 2, 0, 65535, 0]
        assert found["ended_at"].tolist() == [0, 4_000_000_000, 0, 4_000_000_000, 0, 4_000_000_000, 0]
        assert index.lookup(0, column(7))[0] == new[1]
        assert index.count() == 3

    def test_a_number_may_be_asked_for_twice(self, index: NumberIndex) -> None:
        """Repeats get the same state, whether the number came alone, with others, or never."""
        index.apply(Position(0, 0), "evt_a", column(7), states(column(7), phase=2))
        index.apply(Position(0, 1), "evt_b", column(5, 9), states(column(5, 9), phase=3))
        asked = column(5, 5, 6, 6, 7, 7, 7, 9, 9)
        assert index.lookup(0, asked)["phase"].tolist() == [3, 3, 0, 0, 2, 2, 2, 3, 3]
        index.flush()
        assert index.lookup(0, asked)["phase"].tolist() == [3, 3, 0, 0, 2, 2, 2, 3, 3]

    def test_no_numbers_have_no_states(self, index: NumberIndex) -> None:
        """Asked for nothing, an index gives nothing, whatever it knows."""
        assert len(index.lookup(0, column())) == 0
        index.apply(Position(0, 0), "evt_a", column(5), states(column(5), phase=2))
        index.apply(Position(0, 1), "evt_b", column(5, 7), states(column(5, 7), phase=3))
        assert len(index.lookup(0, column())) == 0

    def test_the_newest_state_counts(self, index: NumberIndex) -> None:
        """Singly after many, many after singly: what was put in last is found."""
        index.apply(Position(0, 0), "a", column(1, 2, 3), states(column(1, 2, 3), seq=1))
        index.apply(Position(0, 1), "b", column(2), states(column(2), seq=2))
        assert index.lookup(0, column(1, 2, 3))["seq"].tolist() == [1, 2, 1]
        index.apply(Position(0, 2), "c", column(2, 3, 4), states(column(2, 3, 4), seq=3))
        assert index.lookup(0, column(1, 2, 3, 4))["seq"].tolist() == [1, 3, 3, 3]
        assert index.lookup(0, column(2))["seq"][0] == 3
        assert index.count() == 4

    def test_positions_move_record_by_record(self, index: NumberIndex) -> None:
        """Each partition has its own position; a record out of turn is refused and changes nothing."""
        index.apply(Position(1, 0), "a", column(1), states(column(1)))
        index.skip(Position(1, 1))
        assert [index.position_of(p) for p in range(PARTITIONS)] == [0, 2, 0, 0]
        with pytest.raises(ValueError):
            index.apply(Position(1, 1), "b", column(2), states(column(2)))
        with pytest.raises(ValueError):
            index.skip(Position(1, 5))
        assert index.position_of(1) == 2
        assert not index.lookup(1, column(2)).view(np.uint8).any()

    def test_skipped_offsets_are_remembered(self, index: NumberIndex) -> None:
        """Only what was skipped is skipped, per partition."""
        index.skip(Position(0, 0))
        index.apply(Position(0, 1), "a", column(1), states(column(1)))
        assert index.is_skipped(Position(0, 0))
        assert not index.is_skipped(Position(0, 1))
        assert not index.is_skipped(Position(1, 0))

    def test_record_ids_lead_to_positions(self, index: NumberIndex) -> None:
        """An accepted id names its place; a skipped one does not."""
        index.skip(Position(3, 0))
        index.apply(Position(3, 1), "evt_a", column(1), states(column(1)))
        index.apply(Position(0, 0), "evt_b", column(1, 2), states(column(1, 2)))
        assert index.find("evt_a") == Position(3, 1)
        assert index.find("evt_b") == Position(0, 0)
        assert index.find("evt_c") is None

    def test_reopening_after_a_flush_keeps_everything(self, tmp_path: Path) -> None:
        """States, positions, skipped offsets and ids are there again."""
        index = self.make_index(tmp_path)
        numbers = np.arange(100, 5100, dtype=np.int64)
        index.apply(Position(0, 0), "many", numbers, states(numbers, seq=1))
        index.apply(Position(0, 1), "one", column(100), states(column(100), seq=2))
        index.skip(Position(2, 0))
        index.flush()
        index.apply(Position(0, 2), "more", column(7), states(column(7), seq=9))
        index.close()
        again = self.make_index(tmp_path)
        assert [again.position_of(p) for p in range(PARTITIONS)] == [3, 0, 1, 0]
        assert again.lookup(0, column(7, 100, 101))["seq"].tolist() == [9, 2, 1]
        assert again.count() == 5001
        assert again.is_skipped(Position(2, 0))
        assert (again.find("many"), again.find("more")) == (Position(0, 0), Position(0, 2))
        again.close()

    def test_clearing_forgets_everything(self, tmp_path: Path) -> None:
        """After clear the index is as new, also when opened again, and can be filled anew."""
        index = self.make_index(tmp_path)
        index.apply(Position(0, 0), "a", column(1, 2), states(column(1, 2)))
        index.skip(Position(1, 0))
        index.flush()
        index.clear()
        assert (index.count(), index.position_of(0), index.find("a")) == (0, 0, None)
        assert not index.is_skipped(Position(1, 0))
        index.apply(Position(0, 0), "b", column(3), states(column(3)))
        index.close()
        again = self.make_index(tmp_path)
        assert (again.count(), again.find("a"), again.find("b")) == (1, None, Position(0, 0))
        again.close()

    def test_an_index_of_another_log_starts_anew(self, tmp_path: Path) -> None:
        """No position of one log is valid in another."""
        index = self.make_index(tmp_path, "one")
        index.apply(Position(0, 0), "a", column(1), states(column(1)))
        index.close()
        again = self.make_index(tmp_path, "another")
        assert (again.count(), again.position_of(0)) == (0, 0)
        again.close()
