"""From the database's errors to the hub's."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from hub.domain.errors import BatchConflict, InvalidRequest, NumhubError, RuleError, Unavailable


class SchemaTooNew(NumhubError):
    """The ledger was written by a newer version of numhub; use that version or restore an older copy."""

    code = "ledger_schema_too_new"


class SchemaBehind(NumhubError):
    """The ledger's tables are older than this numhub; run `numhub ledger migrate`."""

    code = "ledger_schema_behind"


class Gone(Unavailable):
    """The ledger's database does not answer right now; repeat in a moment."""


class Refused(Gone):
    """The ledger's database refuses the hub's login; its operator has been told."""


class Raced(Unavailable):
    """Another process changed the same rows at the same time; repeat in a moment."""


# Not there, locked, full, torn connection, no free connection: the same call may succeed later.
_LATER = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError, sqlite3.OperationalError)

_RACED = frozenset({"40001", "40P01", "0A000"})  # serialization failure, deadlock, plan of an older schema
_GONE = ("08", "57P")  # connection lost; shut down, starting up
_REFUSED = ("28", "3D")  # who are you; no such database
_UNAVAILABLE = ("53", "55", "57", "58", "XX", "25006")  # full, locked, cancelled, damaged; read-only since a failover

_ANSWER_KEY = re.compile(r"answers(_p\d+|_rest)?_pkey|answer_tallies(_p\d+|_rest)?_pkey|parties_by_carrier_no")
"""Keys on which two processes meet that both carried on from what stood there before."""


def translated(error: BaseException) -> NumhubError | None:
    """What ``error`` is in the hub's terms; None if it did not come from the database layer."""
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    if isinstance(state, str):
        return _by_state(state, str(getattr(error, "orig", error)))
    if isinstance(error, exc.IntegrityError):  # SQLite names the columns (batches.batch_seq)
        return _integrity(str(error.orig))
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return Gone()
    if isinstance(error, _LATER):
        return Unavailable()
    if type(getattr(error, "orig", error)) is sqlite3.DatabaseError:  # "file is not a database", "malformed": no values
        return NumhubError(f"the ledger cannot be read: {getattr(error, 'orig', error)}")
    if isinstance(error, exc.DataError):
        return _unstorable()
    if isinstance(error, (exc.SQLAlchemyError, sqlite3.Error)):
        return NumhubError("the ledger could not carry this out")
    if isinstance(error, OSError | TimeoutError):  # no connection could be made
        return Gone()
    if type(error).__module__.startswith("asyncpg."):  # its errors without a state are those of the connection
        return Gone()
    return None


def _by_state(state: str, text: str) -> NumhubError:
    """By SQLSTATE, the code that PostgreSQL documents (appendix A of its manual). ``text`` never leaves here."""
    if state in _RACED:
        return Raced()
    if state.startswith("23"):
        return _integrity(text)
    if state.startswith(_REFUSED):
        return Refused()
    if state.startswith(_GONE):
        return Gone()
    if state.startswith(_UNAVAILABLE):
        return Unavailable()
    if state.startswith("22"):
        return _unstorable()
    if state == "42P01":
        return SchemaBehind()
    return NumhubError(f"the ledger could not carry this out (SQLSTATE {state})")


def _integrity(text: str) -> NumhubError:
    """PostgreSQL names the constraint (batches_by_seq), SQLite the columns."""
    if _ANSWER_KEY.search(text):
        return Raced()
    if "batches" in text:
        return BatchConflict("Another batch of yours has this batch_seq; follow that one, or take the next number.")
    return RuleError("the ledger holds something else there")


def _unstorable() -> NumhubError:
    return InvalidRequest("A text holds characters, or a number a size, that cannot be kept.")


@contextmanager
def translating() -> Iterator[None]:
    """Let only errors of the domain out of the block (and mistakes of the program, untouched)."""
    try:
        yield
    except Exception as error:
        known = None if isinstance(error, NumhubError) else translated(error)
        if known is None:
            raise
        raise known from error
