"""Everything accepted before a call counts in it: also in a hub that has just been started and is still folding, and
when another process appended a moment ago. Without it a number would be judged by an old state, and refused."""

from __future__ import annotations

import asyncio

from hub.domain.errors import Unavailable
from hub.flow.fold import Fold

WITHIN = 5.0
"""Seconds a call waits for the fold before its caller is asked to come back."""


async def caught_up(fold: Fold, within: float = WITHIN) -> list[int]:
    """Wait until what the log holds now is folded; the positions reached. Raises Unavailable after ``within`` s.

    Costs some microseconds where nothing is to be waited for."""
    try:
        async with asyncio.timeout(within):
            return await fold.catch_up()
    except TimeoutError:  # not knowing is not the same as not being there
        raise Unavailable("The hub is still reading its log; repeat in a moment.") from None
