"""The numbering plan."""

import numpy as np
import pytest

from hub.adapters.number_plan.package import FIRST_BLOCK, HOLDERS, LAST_BLOCK, PackagePlan


@pytest.fixture(scope="module")
def plan() -> PackagePlan:
    return PackagePlan()


def test_every_block_of_the_package_is_there(plan: PackagePlan) -> None:
    """The package holds 499,527 blocks in 31 provinces; none is lost on the way into the tables."""
    blocks, holders, provinces = plan.blocks()
    assert len(blocks) == 499_527
    assert blocks[0] >= FIRST_BLOCK and blocks[-1] <= LAST_BLOCK and (np.diff(blocks) > 0).all()
    assert holders.min() > 0 and provinces.min() > 0
    assert len(plan.provinces) == 32 and plan.provinces[0] == ""


def test_agrees_with_the_package_itself(plan: PackagePlan) -> None:
    """Sampled blocks have the province and city that the package's own search finds."""
    from phone import Phone

    package = Phone()
    blocks, _, _ = plan.blocks()
    for block in blocks[:: len(blocks) // 200].tolist():
        expected = package.find(block)
        found = plan.find(block * 10_000 + 1234)
        assert found is not None and expected is not None
        assert (found.province, found.city) == (expected["province"], expected["city"])


@pytest.mark.parametrize(
    ("number", "holder"),
    [
        (13800138000, "cmcc"),
        (13010000000, "cucc"),
        (13310000000, "ctcc"),
        (19210000000, "cbn"),
        (17000000000, "mvno:ctcc"),
        (17050000000, "mvno:cmcc"),
        (17090000000, "mvno:cucc"),
        (17110000000, "mvno:cucc"),
    ],
)
def test_holder_of_known_ranges(plan: PackagePlan, number: int, holder: str) -> None:
    """Basic carriers keep their ranges; reseller ranges belong to resellers, whatever the package marks."""
    block = plan.find(number)
    assert block is not None and block.holder == holder


@pytest.mark.parametrize(("prefix", "holder"), [(162, "mvno:ctcc"), (165, "mvno:cmcc"), (167, "mvno:cucc")])
def test_reseller_ranges_are_overridden_as_a_whole(plan: PackagePlan, prefix: int, holder: str) -> None:
    """Every known block of a range issued to resellers belongs to them; unknown blocks stay unknown."""
    blocks, holders, _ = plan.blocks()
    inside = blocks // 10_000 == prefix
    assert inside.any()
    assert {HOLDERS[code] for code in np.unique(holders[inside])} == {holder}


def test_columns_agree_with_single_lookups(plan: PackagePlan) -> None:
    """The vectorised way and the single way give the same, unknown and impossible numbers included."""
    numbers = np.array([0, 12_999_999_999, 13_000_000_000, 13_800_138_000, 15_400_000_000, 20_000_000_000], np.int64)
    holders, provinces = plan.holder_of(numbers), plan.province_of(numbers)
    for number, holder, province in zip(numbers.tolist(), holders, provinces, strict=True):
        block = plan.find(number)
        assert HOLDERS[holder] == (block.holder if block else "")
        assert plan.provinces[province] == (block.province if block else "")


def test_damaged_data_is_refused() -> None:
    """A file that is no block data stops the start with a clear error."""
    with pytest.raises(ValueError, match="block data"):
        PackagePlan(b"2312\xff\xff\xff\x7f")
