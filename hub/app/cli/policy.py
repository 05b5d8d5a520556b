"""``numhub policy``: what the regulator has decided, shown and set by the operator on the data directory."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hub.app.cli._open import DEFAULT_DATA, Data, Opened, console, on_data
from hub.app.cli.parties import _row, _table
from hub.domain.policies import ClearancePolicy, Policy

policy = typer.Typer(no_args_is_help=True, help="What the regulator has decided: clearance, rest, time to answer.")

_MEANT = {
    "clearance": "open: only the rest counts; tiered: tier-1 apps and a share of the others; strict: every app",
    "tiered_share": "share of the other apps that must be final (tiered)",
    "freeze_days": "full days a number rests after its line ended",
    "answer_within": "release_scheduled to disposition",
    "soft_lock_within": "deactivated to soft lock",
    "renewal_working_days": "working days in which apps answer a new holder",
    "check_lag_within": "a carrier silent for longer makes a check's `no` impossible",
}
_SPANS = ("answer_within", "soft_lock_within", "check_lag_within")


@policy.command("show")
def show(data: Data = DEFAULT_DATA) -> None:
    """The policy in force."""

    async def act(opened: Opened) -> Policy:
        return opened.members.policy

    _print(on_data(data, act))


@policy.command("set")
def set_policy(
    clearance: Annotated[ClearancePolicy | None, typer.Option(help=_MEANT["clearance"])] = None,
    tiered_share: Annotated[float | None, typer.Option(help="0 to 1; " + _MEANT["tiered_share"])] = None,
    freeze_days: Annotated[int | None, typer.Option(help=_MEANT["freeze_days"] + ", never below 90")] = None,
    answer_within_days: Annotated[float | None, typer.Option(help=_MEANT["answer_within"])] = None,
    soft_lock_within_hours: Annotated[float | None, typer.Option(help=_MEANT["soft_lock_within"])] = None,
    renewal_working_days: Annotated[int | None, typer.Option(help=_MEANT["renewal_working_days"])] = None,
    check_lag_within_hours: Annotated[float | None, typer.Option(help=_MEANT["check_lag_within"])] = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Change what is given and leave the rest; a running hub obeys within about a second."""
    given: dict[str, Any] = {
        "clearance": clearance.value if clearance else None,
        "tiered_share": tiered_share,
        "freeze_days": freeze_days,
        "answer_within": _seconds(answer_within_days, 86_400),
        "soft_lock_within": _seconds(soft_lock_within_hours, 3_600),
        "renewal_working_days": renewal_working_days,
        "check_lag_within": _seconds(check_lag_within_hours, 3_600),
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise typer.BadParameter("name at least one thing to change; see numhub policy set --help")
    _print(on_data(data, lambda opened: opened.enrol.set_policy(changes)))


def _seconds(count: float | None, unit: int) -> int | None:
    return None if count is None else round(count * unit)


def _span(seconds: float) -> str:
    """20 days, 26 hours, 1.5 hours."""
    days, hours = seconds / 86_400, seconds / 3_600
    count, unit = (days, "day") if days >= 2 and days == int(days) else (hours, "hour")
    return f"{count:g} {unit}{'' if count == 1 else 's'}"


def _print(found: Policy) -> None:
    table = _table("policy", "value", "meaning")
    for name, value in found.to_mapping().items():
        _row(table, name, _span(float(value)) if name in _SPANS else str(value), _MEANT[name])
    console.print(table)
