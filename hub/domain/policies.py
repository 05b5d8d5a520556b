"""What a regulator may set, and the defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from hub.domain.errors import InvalidRequest
from hub.domain.lifecycle import FREEZE_DAYS


class ClearancePolicy(StrEnum):
    open = "open"  # answers are reported but only the freeze decides
    tiered = "tiered"  # every tier-1 app final, of the others a share
    strict = "strict"  # every app final


@dataclass(frozen=True, slots=True)
class Policy:
    clearance: ClearancePolicy = ClearancePolicy.tiered
    tiered_share: float = 0.8  # share of the other apps that must be final
    freeze_days: int = FREEZE_DAYS
    answer_within: timedelta = timedelta(days=20)  # release_scheduled -> disposition
    soft_lock_within: timedelta = timedelta(days=1)  # deactivated -> soft_locked
    renewal_working_days: int = 5
    check_lag_within: timedelta = timedelta(hours=26)  # a carrier silent for longer makes `no` impossible

    def to_mapping(self) -> dict[str, str | int | float]:
        """As plain values for the directory; spans of time in whole seconds. `from_mapping` reads it back."""
        return {
            "clearance": self.clearance.value,
            "tiered_share": self.tiered_share,
            "freeze_days": self.freeze_days,
            "answer_within": _seconds(self.answer_within),
            "soft_lock_within": _seconds(self.soft_lock_within),
            "renewal_working_days": self.renewal_working_days,
            "check_lag_within": _seconds(self.check_lag_within),
        }

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Policy:
        """Read what `to_mapping` wrote; what is missing takes its default, unknown names are left alone.

        A newer version may have stored more than this one knows. Raises InvalidRequest naming the value that is wrong.
        """
        default = cls()
        return cls(
            clearance=_read(values, "clearance", ClearancePolicy, default.clearance),
            tiered_share=_within(values, "tiered_share", float, default.tiered_share, 0.0, 1.0),
            freeze_days=_within(values, "freeze_days", int, default.freeze_days, FREEZE_DAYS, 3650),
            answer_within=_span(values, "answer_within", default.answer_within),
            soft_lock_within=_span(values, "soft_lock_within", default.soft_lock_within),
            renewal_working_days=_within(values, "renewal_working_days", int, default.renewal_working_days, 1, 60),
            check_lag_within=_span(values, "check_lag_within", default.check_lag_within),
        )


N = TypeVar("N", int, float)
T = TypeVar("T")


def _seconds(span: timedelta) -> int:
    return int(span.total_seconds())


def _read(values: Mapping[str, Any], name: str, kind: Callable[[Any], T], default: T) -> T:
    if name not in values:
        return default
    try:
        return kind(values[name])
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest(f"policy: {name} is not understood") from None


def _within(values: Mapping[str, Any], name: str, kind: Callable[[Any], N], default: N, low: N, high: N) -> N:
    value = _read(values, name, kind, default)
    if not low <= value <= high:
        raise InvalidRequest(f"policy: {name} must lie between {low} and {high}")
    return value


def _span(values: Mapping[str, Any], name: str, default: timedelta) -> timedelta:
    return timedelta(seconds=_within(values, name, int, _seconds(default), 1, 366 * 86_400))
