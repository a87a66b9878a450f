"""One connection, kept open between the calls of whoever works in a loop.

It is taken from the engine's pool and detached from it, so that it leaves the pool's places
to others, and what is set on its session stays its own.

On failure: an outage becomes `UnavailableError`, the connection is dropped, and the next
call opens a new one. Three things are no outage, and the work is done again on a new
connection:
    * the server has rolled back, as it does to end a deadlock;
    * the connection was lost before the transaction was to be committed, as when the server
      closes what is idle;
    * a statement was refused on a connection that was there already. What is refused on a
      new one too is raised as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from math import inf
from typing import Any, Protocol, TypeVar

from sqlalchemy import select
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from beatstore.database.dialects import dialect_of
from beatstore.database.drivers import ANSWER, RECENT, prepare_connection
from beatstore.database.engine import Database
from beatstore.database.faults import read_only, rolled_back, unavailable, withheld
from beatstore.database.functions import db_now
from beatstore.errors import UnavailableError

__all__ = [
    "GIVE_WAY",
    "TRIES",
    "Attempt",
    "Executes",
    "KeptConnection",
    "PatientConnection",
    "read_now",
    "translated",
]

T = TypeVar("T")

_NOW = select(db_now())

#: How often work is tried that the database undid.
TRIES = 5

#: How many seconds work waits then, times the number of the try. Whoever waits for its rows gets
#: them first: PostgreSQL gives a row to the next who asks until the one that waits has woken up.
GIVE_WAY = 0.01

#: For how many seconds a beat or worker may be silent in a transaction before the server ends it:
#: for as long as they wait for an answer of the server.
SILENCE = int(ANSWER)

#: In how many seconds a server says that it has closed a connection.
PROMPT = 5.0


class Executes(Protocol):
    """A connection, or a transaction of the API."""

    @property
    def dialect(self) -> Dialect:
        """The SQLAlchemy dialect of the database."""
        ...

    def execute(self, statement: Any, rows: Any = None, /) -> Any:
        """Execute a statement; with `rows`, once for each row."""
        ...


class KeptConnection:
    """The connection of one beat, or of one process of a worker."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._connection: Connection | None = None
        self._driver: DBAPIConnection | None = None
        self._answered_at = -inf

    @property
    def may_write_at_once(self) -> bool:
        """Whether `writing_at_once` is right here and now.

        The database must have such statements. And the server must have answered a moment ago, so
        that the connection is hardly closed by now: nobody knows what was written on one that is.
        """
        in_use = self._connection is not None and time.monotonic() - self._answered_at < RECENT
        return in_use and dialect_of(self.database.engine.dialect).writes_in_queries

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """Yield the connection, and drop it if anything goes wrong."""
        try:
            with translated():
                yield self._connection or self._connect()
        except BaseException:
            self.drop(orderly=False)
            raise

    @contextmanager
    def claiming(self) -> Iterator[Connection]:
        """Open a transaction that locks what it will write; see `DatabaseDialect.begin_claim`."""
        with (
            self.connected() as connection,
            dialect_of(connection.dialect).begin_claim(connection),
        ):
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open no transaction, where that would be a round trip; see `begin_statement`."""
        with (
            self.connected() as connection,
            dialect_of(connection.dialect).begin_statement(connection),
        ):
            yield connection

    def reading_again(self, work: Callable[[Connection], T]) -> T:
        """Return `work(connection)`, which writes nothing; tried as the module's text says."""
        return self._again(self.reading, work)

    def claiming_again(self, work: Callable[[Connection], T]) -> T:
        """Return `work(connection)`, committed; tried as the module's text says."""
        return self._again(self.claiming, work)

    def writing_at_once(self, work: Callable[[Connection], T]) -> T:
        """Return `work(connection)`, one statement that commits by itself; see `may_write_at_once`.

        It is tried again only if it can't have been committed.
        """
        return self._again(self.reading, work, at_once=True)

    def drop(self, *, orderly: bool) -> None:
        """Close the connection; if not `orderly`, cut it, also under a thread that waits."""
        connection, self._connection = self._connection, None
        driver, self._driver = self._driver, None
        if connection is None:
            return
        with suppress(Exception):
            if not orderly:
                connection.invalidate()
            connection.close()
        if not orderly and driver is not None:
            # SQLAlchemy closes nothing by invalidating what is detached from its pool.
            with suppress(Exception):
                self.database.engine.dialect.do_terminate(driver)

    def _again(
        self,
        opened: Callable[[], AbstractContextManager[Connection]],
        work: Callable[[Connection], T],
        *,
        at_once: bool = False,
    ) -> T:
        for tried in range(1, TRIES + 1):
            kept = self._connection is not None
            attempt = Attempt(tried, committing=at_once)
            try:
                with opened() as connection:
                    result = work(connection)
                    attempt.committing = True
            except UnavailableError as error:
                if not attempt.repeatable(error.__cause__):
                    raise
                self.database.learn(error.__cause__)
                attempt.give_way(error.__cause__)
            except DBAPIError:
                if (attempt.committing and not at_once) or not kept:
                    raise
            else:
                self._answered_at = time.monotonic()
                return result
        raise AssertionError("unreachable")

    def _connect(self) -> Connection:
        """Open the connection; what fails half-way is dropped by the caller."""
        engine = self.database.engine
        self._connection = connection = engine.connect()
        self._driver = connection.connection.dbapi_connection
        dialect = dialect_of(engine.dialect)
        connection.execution_options(
            isolation_level=dialect.claim_isolation, **self.database.options
        )
        if isinstance(engine.pool, QueuePool):
            connection.detach()
            prepare_connection(self._driver)
        dialect.limit_session(connection, SILENCE)
        return connection


class PatientConnection(KeptConnection):
    """The connection of a beat, for which a missing right, table or column is an outage.

    It is missing for all rows alike, so none of them is to be found broken. Somebody grants the
    right, or ends the migration, and the beat goes on.
    """

    def _again(
        self,
        opened: Callable[[], AbstractContextManager[Connection]],
        work: Callable[[Connection], T],
        *,
        at_once: bool = False,
    ) -> T:
        try:
            return super()._again(opened, work, at_once=at_once)
        except DBAPIError as error:
            if withheld(error):
                raise UnavailableError(f"{type(error).__name__}: {error}") from error
            raise


class Attempt:
    """One try of work in a transaction.

    Attributes:
        committing: whether only the commit is left of the work, or a statement of it may commit
            by itself.
    """

    def __init__(self, number: int, *, committing: bool = False) -> None:
        self._number = number
        self._began = time.monotonic()
        self.committing = committing

    def repeatable(self, error: BaseException | None) -> bool:
        """Say whether the work is to be done again, on a new connection.

        Whether it counts nobody knows when the commit has failed, or a statement that commits by
        itself, unless the server says that it has rolled back, or that it takes no writes. And a
        server that was silent is not asked again at once.
        """
        if self._number >= TRIES:
            return False
        cut = isinstance(error, DBAPIError) and error.connection_invalidated
        at_once = cut and time.monotonic() - self._began < PROMPT
        unsure = self.committing and not (read_only(error) or _only_reads(error))
        return rolled_back(error) or (at_once and self._number == 1 and not unsure)

    def give_way(self, error: BaseException | None) -> None:
        """Let others go first, if the database has undone the work for their sake."""
        if rolled_back(error):
            time.sleep(GIVE_WAY * self._number)


def _only_reads(error: BaseException | None) -> bool:
    """Say whether what failed is a plain query; one that inserts by the way begins with WITH."""
    statement = getattr(error, "statement", None)
    return statement is not None and statement.lstrip().startswith("SELECT")


def read_now(connection: Connection, database: Database) -> datetime:
    """Return what the clock says: the database's, or the injected one."""
    if database.clock is not None:
        return database.clock.now()
    at = connection.scalar(_NOW)
    assert isinstance(at, datetime)
    return at


@contextmanager
def translated() -> Iterator[None]:
    """Turn an outage into an error that level 4 knows."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        if unavailable(error):
            raise UnavailableError(f"{type(error).__name__}: {error}") from error
        raise
