"""Memory that a slice used is given back to the system: the C library would keep it for threads that are idle now."""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def _trimmer() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim  # type: ignore[no-any-return]
    except (OSError, AttributeError, TypeError):  # not glibc
        return None


_trim = _trimmer()


def give_back() -> None:
    """Some milliseconds, in the calling thread; other threads go on. Does nothing where the C library cannot."""
    if _trim is not None:
        _trim(0)
