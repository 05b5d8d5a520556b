"""For whom is something published, and may the caller do that?"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hub.domain.errors import Forbidden
from hub.domain.parties import Role
from hub.flow.members import Members
from hub.ports.number_plan import NumberPlan


@dataclass(frozen=True, slots=True)
class Publisher:
    """The carrier whose numbers these are; ``may_publish`` says so per holder index of the numbering plan."""

    carrier_id: str
    carrier_no: int
    may_publish: npt.NDArray[np.bool_] = field(repr=False)


def publisher_for(members: Members, plan: NumberPlan, caller_id: str, acting_for: str | None) -> Publisher:
    """The caller itself, or the MVNO it acts for. Raises Forbidden."""
    caller = members.party(caller_id)
    if caller is None or caller.role is not Role.carrier or caller.suspended:
        raise Forbidden("Only carriers publish events.")
    party = caller
    if acting_for is not None and acting_for != caller_id:
        found = members.party(acting_for)
        if acting_for not in caller.acting_for or found is None or found.role is not Role.carrier or found.suspended:
            raise Forbidden("You are not enrolled to act for that party.")
        party = found
    may_publish = np.array([not party.block_holders or holder in party.block_holders for holder in plan.holders])
    return Publisher(party.party_id, party.carrier_no, may_publish)
