"""One connection, kept open between the calls of whoever works in a loop.

On failure: whatever the database raises becomes `UnavailableError`, the connection is
dropped, and the next call opens a new one. A deadlock is no outage: the server has rolled
back, and `claiming_again` does the work once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from beatstore.dialects import begin_claim, claim_isolation, db_now
from beatstore.errors import UnavailableError
from beatstore.store.database.engine import Database, rolled_back, unavailable

__all__ = ["KeptConnection", "read_now", "translated"]

T = TypeVar("T")

_NOW = select(db_now())

#: How often work is done again that the database ended to resolve a deadlock.
_TRIES = 5


class KeptConnection:
    """The connection of one beat, or of one process of a worker."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._connection: Connection | None = None

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """Yield the connection, and drop it if anything goes wrong."""
        try:
            with translated():
                if self._connection is None:
                    self._connection = self._connect()
                yield self._connection
        except BaseException:
            self.drop(orderly=False)
            raise

    @contextmanager
    def claiming(self) -> Iterator[Connection]:
        """Open a transaction that locks what it will write; see `begin_claim`."""
        with self.connected() as connection, begin_claim(connection):
            yield connection

    def claiming_again(self, work: Callable[[Connection], T]) -> T:
        """Return `work(connection)`, committed; done again after a deadlock."""
        for left in reversed(range(_TRIES)):
            try:
                with self.claiming() as connection:
                    return work(connection)
            except UnavailableError as error:
                if not (left and rolled_back(error.__cause__)):
                    raise
        raise AssertionError("unreachable")

    def drop(self, *, orderly: bool) -> None:
        """Give the connection back; if not `orderly`, cut it, also under a thread that waits."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(Exception):
            if not orderly:
                connection.invalidate()
            connection.close()

    def _connect(self) -> Connection:
        engine = self.database.engine
        return engine.connect().execution_options(
            isolation_level=claim_isolation(engine.dialect), **self.database.options
        )


def read_now(connection: Connection, database: Database) -> datetime:
    """Return what the clock says: the database's, or the injected one."""
    if database.clock is not None:
        return database.clock.now()
    at = connection.scalar(_NOW)
    assert isinstance(at, datetime)
    return at


@contextmanager
def translated() -> Iterator[None]:
    """Turn "the database did not answer" into an error that level 4 knows."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        if isinstance(error, OSError) or unavailable(error):
            raise UnavailableError(f"{type(error).__name__}: {error}") from error
        raise
