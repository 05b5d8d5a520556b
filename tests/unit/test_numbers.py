"""One number: what is read, what is refused, and that nobody sees it in full."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.domain.errors import InvalidNumber
from hub.domain.numbers import FIRST_NATIONAL, LAST_NATIONAL, PhoneNumber, mask, partition_of

nationals = st.integers(FIRST_NATIONAL, LAST_NATIONAL)


@given(nationals, st.sampled_from(["", "+86", "0086", "86", "+86 ", "+86-"]))
def test_every_way_to_write_a_number_is_read(national: int, prefix: str) -> None:
    """With and without country code, blanks and hyphens."""
    digits = str(national)
    assert PhoneNumber.parse(prefix + digits).national == national
    assert PhoneNumber.parse(f"{prefix}{digits[:3]} {digits[3:7]}-{digits[7:]}").national == national


def test_full_width_digits_are_read() -> None:
    """As Chinese keyboards write them."""
    assert PhoneNumber.parse("１３８１２３４５６７８").national == 13812345678
    assert PhoneNumber.parse("＋８６１３８１２３４５６７８").e164 == "+8613812345678"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1381234567",
        "138123456789",
        "12812345678",
        "010-12345678",
        "+8513812345678",
        "+1 13812345678",
        "10086",
        "1064812345678",
        "=13812345678",
        "13812345678x",
        "13812345678\n",
        "١٣٨١٢٣٤٥٦٧٨",
        "1" * 33,
        "+86+8613812345678",
    ],
)
def test_everything_else_is_refused_without_an_echo(text: str) -> None:
    """Wrong length, landline, service and machine numbers, other countries, formulas, other digits."""
    with pytest.raises(InvalidNumber) as raised:
        PhoneNumber.parse(text)
    assert "13812345678" not in str(raised.value)


@pytest.mark.parametrize("national", [0, FIRST_NATIONAL - 1, LAST_NATIONAL + 1, -13812345678])
def test_no_object_exists_for_what_is_no_number(national: int) -> None:
    """Out of range is refused at construction."""
    with pytest.raises(InvalidNumber):
        PhoneNumber(national)


@given(nationals)
def test_people_and_logs_see_it_masked(national: int) -> None:
    """repr, str and mask show three and four digits."""
    number = PhoneNumber(national)
    for shown in (repr(number), str(number), f"{number}", mask(national)):
        assert str(national) not in shown
        assert f"{str(national)[:3]}****{str(national)[-4:]}" in shown


@given(nationals, st.integers(1, 64))
def test_a_block_stays_together(national: int, partitions: int) -> None:
    """All numbers of a block share one partition."""
    block = national // 10_000 * 10_000
    assert 0 <= partition_of(national, partitions) < partitions
    assert (
        partition_of(national, partitions) == partition_of(block, partitions) == partition_of(block + 9_999, partitions)
    )
    assert PhoneNumber(national).block7 == block // 10_000
