"""From the database's errors to the hub's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from hub.domain.errors import BatchConflict, NumhubError, RuleError, Unavailable


class SchemaTooNew(NumhubError):
    """The ledger was written by a newer version of numhub; use that version or restore an older copy."""

    code = "ledger_schema_too_new"


# Not there, locked, full, torn connection, no free connection: the same call may succeed later.
_LATER = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError, sqlite3.OperationalError)


def translated(error: BaseException) -> NumhubError | None:
    """What ``error`` is in the hub's terms; None if it did not come from the database layer."""
    if isinstance(error, exc.IntegrityError):
        # SQLite names the columns (batches.batch_seq), PostgreSQL the constraint (batches_by_seq).
        if "batches" in str(error.orig):
            return BatchConflict("Another batch of yours has this batch_seq; follow that one, or take the next number.")
        return RuleError("the ledger holds something else there")
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return Unavailable()
    if isinstance(error, _LATER):
        return Unavailable()
    if type(getattr(error, "orig", error)) is sqlite3.DatabaseError:  # "file is not a database", "malformed": no values
        return NumhubError(f"the ledger cannot be read: {getattr(error, 'orig', error)}")
    if isinstance(error, (exc.SQLAlchemyError, sqlite3.Error)):
        return NumhubError("the ledger could not carry this out")
    return None


@contextmanager
def translating() -> Iterator[None]:
    """Let only errors of the domain out of the block (and mistakes of the program, untouched)."""
    try:
        yield
    except (exc.SQLAlchemyError, sqlite3.Error) as error:
        known = translated(error)
        if known is None:
            raise
        raise known from error
