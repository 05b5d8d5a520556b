"""One JSON object per line, and no full number in any of them.

Masking happens twice: `MaskNumbers` cleans message, arguments and extra fields of a record for whatever handler
follows, and `JsonLines` cleans the finished line, tracebacks included.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from hub.domain.numbers import FIRST_NATIONAL, LAST_NATIONAL, mask, mask_in

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_DEEPEST = 6


def masked(value: Any, depth: int = 0) -> Any:
    """``value`` with every mobile number in it masked: in texts, as integers, inside containers."""
    if isinstance(value, str):
        return mask_in(value)
    if isinstance(value, bool) or value is None or isinstance(value, float):
        return value
    if isinstance(value, int):
        return mask(value) if FIRST_NATIONAL <= value <= LAST_NATIONAL else _long_form(value)
    if depth >= _DEEPEST:
        return mask_in(repr(value))
    if isinstance(value, Mapping):
        return {masked(key, depth + 1): masked(member, depth + 1) for key, member in value.items()}
    if isinstance(value, tuple):
        return tuple(masked(member, depth + 1) for member in value)
    if isinstance(value, list | set | frozenset):
        return [masked(member, depth + 1) for member in value]
    return mask_in(str(value))


def _long_form(value: int) -> int | str:
    national = value - 86 * 10**11
    return mask(national) if FIRST_NATIONAL <= national <= LAST_NATIONAL else value


class MaskNumbers(logging.Filter):
    """A filter that never refuses a record and leaves no number in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):
            text = f"{record.msg} {record.args}"  # a format that does not fit must not lose the line
        record.msg, record.args = mask_in(text), None
        for name in set(vars(record)) - _STANDARD:
            setattr(record, name, masked(getattr(record, name)))
        return True


class JsonLines(logging.Formatter):
    """Members: ts, level, logger, event, the extra fields, and error (traceback) where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return mask_in(json.dumps(masked(line), ensure_ascii=False, default=str))


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Make the root logger write masked JSON lines to ``stream`` (standard error); whatever was set up before goes."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(MaskNumbers())
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
    # its warnings are other people's broken requests: counted in the metrics, not a log to be filled by strangers
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    # addresses are access data, and a request line may hold what a caller should not have put there
    logging.getLogger("uvicorn.access").disabled = True
