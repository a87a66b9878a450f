"""Whose transaction a call of the API runs in, and what its failures are called.

A call without `session=` gets a transaction of its own; one with it joins the caller's.

Invariants:
    * A caller's transaction is neither committed nor rolled back here, and what its
      driver raises reaches the caller unchanged, but for missing tables.
    * A transaction of our own that writes can't be overtaken between reading a row and
      writing it: SQLite queues the writers, the others lock rows.

On failure: where nothing can have been committed (a deadlock, a connection that was cut in
the middle, a statement that a pooler forgot), the work is done again, a few times. Where a
connection was cut in a commit, or in a statement that commits by itself, nobody knows whether it
counts: that is reported, and not done again. An outage is an `UnavailableError`; missing tables are
a `SchemaError` with the command that makes them; a right that the user lacks is a `DeniedError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from beatstore.database.connection import TRIES, Attempt
from beatstore.database.dialects import dialect_of
from beatstore.database.engine import Database
from beatstore.database.faults import (
    denied,
    missing,
    read_only,
    timed_out,
    unavailable,
    unprepared,
)
from beatstore.errors import (
    DeniedError,
    QueryTimeoutError,
    SchemaError,
    SessionError,
    UnavailableError,
)

__all__ = ["ReadingSession", "explained", "read", "reading", "write"]

T = TypeVar("T")


class ReadingSession(Session):
    """The session of `reading`.

    Attributes:
        timeout: how many seconds each statement may take.
        known: what was read in it and stays true, since it sees one state of the database.
    """

    timeout: float
    known: dict[tuple[str, ...], Any]


@contextmanager
def reading(database: Database, timeout: float) -> Iterator[ReadingSession]:
    """Open a session that only reads, of one state of the database; see `Store.reading`."""
    raised: OSError | None = None
    with (
        explained(database, timeout=timeout),
        database.engine.connect() as connection,
        dialect_of(connection.dialect).begin_reading(connection, timeout),
        ReadingSession(connection, expire_on_commit=False) as session,
    ):
        session.timeout, session.known = timeout, {}
        try:
            yield session
        except OSError as error:
            # The caller's own, such as a missing file: a method of the store has translated
            # what its driver raised.
            raised = error
    if raised is not None:
        raise raised


def read(database: Database, given: Any, work: Callable[[Session], T]) -> T:
    """Return `work(session)`, done in a transaction that only reads, or in the caller's.

    Args:
        database: where.
        given: None, or the caller's session.
        work: executes its statements on the session it is given, and returns results
            that need no session any more.
    """
    if given is None:
        return _again(database, database.session, work)
    timeout = given.timeout if isinstance(given, ReadingSession) else None
    own = timeout is not None
    with explained(database, own=own, timeout=timeout), database.session(given) as session:
        return work(session)


def write(
    database: Database, given: Any, work: Callable[[Session], T], *, at_once: bool = False
) -> T:
    """Return `work(session)`, committed when this returns, or done in the caller's transaction.

    In a transaction of our own, `work` may be called again after a deadlock.

    Args:
        database: where.
        given: None, or the caller's session.
        work: executes its statements on the session it is given.
        at_once: whether one statement of `work` writes all, where a query may write by the way.
            There it commits by itself, without BEGIN and COMMIT.
    """
    if isinstance(given, ReadingSession):
        raise SessionError(
            "session: expected one that may write, got that of Store.reading(); write without "
            "session=, or give a session of your own"
        )
    if given is not None:
        return read(database, given, work)
    at_once = at_once and database.kind.writes_in_queries
    return _again(database, lambda: _writing(database, at_once), work, at_once=at_once)


def _again(
    database: Database,
    opened: Callable[[], AbstractContextManager[Session]],
    work: Callable[[Session], T],
    *,
    at_once: bool = False,
) -> T:
    for tried in range(1, TRIES + 1):
        attempt = Attempt(tried, committing=at_once)
        try:
            with explained(database, own=True), opened() as session:
                with _left_clean(session):
                    result = work(session)
                attempt.committing = True
        except UnavailableError as error:
            if not attempt.repeatable(error.__cause__):
                raise
            database.learn(error.__cause__)
            attempt.give_way(error.__cause__)
        else:
            return result
    raise AssertionError("unreachable")


@contextmanager
def _left_clean(session: Session) -> Iterator[None]:
    """Close the connection of a session, and not keep it, if no later call can use it.

    Its prepared statements are off; or its server takes no writes, and after a failover another
    does, which only a new connection finds.
    """
    try:
        yield
    except SQLAlchemyError as error:
        if unprepared(error) or read_only(error):
            session.invalidate()
        raise


@contextmanager
def _writing(database: Database, at_once: bool) -> Iterator[Session]:
    """Open a transaction in which a row that was read can be written.

    The same as the one beats claim in; see `DatabaseDialect.begin_claim`. With `at_once`, each
    statement is a transaction of its own.
    """
    connection = database.engine.connect()
    dialect = dialect_of(connection.dialect)
    try:
        if at_once:
            connection.execution_options(isolation_level="AUTOCOMMIT")
        elif not database.is_isolated:
            connection.execution_options(isolation_level=dialect.claim_isolation)
        begun = connection.begin() if at_once else dialect.begin_claim(connection)
        with begun, Session(connection, expire_on_commit=False) as session:
            yield session
    finally:
        # Giving it back executes a statement, and one that was cut by now raises the driver's
        # own error: what was committed is no less so.
        with suppress(Exception):
            connection.close()


@contextmanager
def explained(
    database: Database, *, own: bool = True, timeout: float | None = None
) -> Iterator[None]:
    """Turn what a driver raises for missing tables or rights, or no answer, into our errors.

    Args:
        database: for the message.
        own: whether the transaction is; a caller's own sees its driver's errors.
        timeout: the limit of the time of its statements, in seconds, if it has one.
    """
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        if missing(error):
            raise SchemaError(
                f"{database.where}: not the tables of this beatstore ({_first_line(error)}): "
                f"{database.to_migrate}"
            ) from error
        if timeout is not None and timed_out(error):
            raise QueryTimeoutError(timeout, database.safe_url) from error
        if own and denied(error):
            raise DeniedError(database.safe_url, _first_line(error)) from error
        if own and unavailable(error):
            raise UnavailableError(f"{database.safe_url}: {_first_line(error)}") from error
        raise


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    lines = str(cause).splitlines()
    return f"{type(cause).__name__}: {lines[0] if lines else ''}"
