"""Memory that a slice used is given back to the system: the C library would keep it for threads that are idle now."""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def _trimmer() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # not glibc
        return None
    return trim


_trim = _trimmer()


def give_back() -> None:
    """Some milliseconds, in the calling thread; other threads go on. Does nothing where the C library cannot."""
    if _trim is not None:
        _trim(0)
