"""The fold's judgement as pure functions over columns: succession and new states, never policy.

Changing a line here changes the verdict on old records: nodes of two versions would disagree. Add, do not change.
"""

from __future__ import annotations

import numpy as np

from hub.domain.events import EventType
from hub.domain.lifecycle import OUTCOME
from hub.ports.codec import Chunk
from hub.ports.number_index import States, opaque

_ENDS_LINE = frozenset({EventType.deactivated, EventType.release_scheduled})
_NEW_HOLDER = frozenset({EventType.reassigned, EventType.owner_transferred})


def judge(states: States, chunk: Chunk) -> bool:
    """Is every row the direct successor (`lifecycle.is_successor`) of its number's state? One that is not voids all."""
    generation, next_generation = states["generation"].astype(np.int32), chunk.generation.astype(np.int32)
    seq, next_seq = states["seq"].astype(np.int32), chunk.seq.astype(np.int32)
    same = (next_generation == generation) & (next_seq == seq + 1)
    return bool((same | ((next_generation == generation + 1) & (next_seq == 1))).all())


def next_states(states: States, chunk: Chunk, carrier_no: int, offset: int) -> States:
    """The states after an accepted chunk; ``states`` (those before it, row by row) is left as it is."""
    event, cutoff = chunk.event_type, chunk.binding_cutoff_at
    new = opaque(states).copy().view(states.dtype)
    new["generation"], new["seq"] = chunk.generation, chunk.seq
    new["phase"] = OUTCOME[event].to
    new["carrier"] = carrier_no
    if event in _ENDS_LINE:
        new["ended_at"] = cutoff
    if event is EventType.release_scheduled:
        new["duty"] = 1 + offset
    elif event is EventType.release_cancelled:
        new["duty"] = 0
    elif event is EventType.restored:
        new["ended_at"] = new["duty"] = 0
    elif event in _NEW_HOLDER:
        new["ended_at"] = new["duty"] = 0
        new["holder_since"] = cutoff
    elif event is EventType.renewal_requested:
        # In generation 0 the hub keeps the first date it learned; from then on each holder states his own.
        tells = (chunk.generation >= 1) | (states["holder_since"] == 0)
        new["holder_since"] = np.where(tells, cutoff, states["holder_since"])
    return new
