"""One database: its engine, its clock, and whose transaction a statement joins.

Invariants:
    * No connection is opened before the first statement, so a `Database` can be made at
      import time, and a child process never uses its parent's connections.
    * A caller's session is only ever flushed by the caller: beatstore executes its
      statements on it and neither commits nor rolls back.

On failure: what the driver raises for a lost connection leaves this module as it is;
`beatstore.database.faults` tells it apart from a mistake in a statement.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from threading import Lock
from typing import Any

from sqlalchemy import URL, Engine, Select, create_engine, event, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.expression import bindparam

from beatstore.clock import Clock
from beatstore.database.address import checked, same_database, shown
from beatstore.database.columns import Instant
from beatstore.database.dialects import dialect_at
from beatstore.database.drivers import (
    Listener,
    connect_defaults,
    ping_idle,
    prepare_engine,
    prepare_nothing,
)
from beatstore.database.faults import (
    codes,
    contended,
    refused,
    rolled_back,
    unavailable,
    unprepared,
)
from beatstore.database.functions import db_now
from beatstore.database.models import EntryModel
from beatstore.errors import ConfigError, PoolerError, SessionError, UnavailableError

__all__ = ["Database", "codes", "contended", "make_engine", "rolled_back", "unavailable"]

logger = logging.getLogger(__name__)

#: The bytes of a schema's name that PostgreSQL keeps; MySQL keeps 64 characters.
_LONGEST_NAME = 63


def make_engine(url: URL, **options: Any) -> Engine:
    """Make an engine with these options of `create_engine`; nothing is connected.

    Raises:
        ConfigError: the driver is not installed, and the error says what to install; or an option
            can't be used.
    """
    with _installed(url), _usable(options):
        return create_engine(url, **options)


def _check_name(schema: str | None) -> None:
    """Refuse a name that PostgreSQL would cut, or in which a driver looks for parameters."""
    if schema and ("%" in schema or len(schema.encode()) > _LONGEST_NAME):
        expected = f"a name without %, of at most {_LONGEST_NAME} bytes"
        raise ConfigError("beatstore_schema", schema, expected, "'beatstore'")


@contextmanager
def _usable(options: Mapping[Any, Any]) -> Iterator[None]:
    """Say that an option is wrong, where SQLAlchemy raises whatever comes of it."""
    try:
        yield
    except ConfigError:
        raise
    except (TypeError, ValueError, AttributeError, ArgumentError) as error:
        raise ConfigError(
            "engine_options",
            sorted(map(str, options)),  # without the values, which may be secret
            f"keyword arguments of create_engine ({type(error).__name__}: {error})",
            "{'pool_size': 5}",
        ) from error


@contextmanager
def _installed(url: URL) -> Iterator[None]:
    """Say what to install where the driver is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        hints, missing = dialect_at(url).install_hints, (error.name or "").partition(".")[0]
        raise ConfigError(
            "url",
            url.drivername,
            f"a driver that is installed ({error})",
            hints.get(missing, f"pip install {missing}"),
        ) from error


class Database:
    """An engine and what beatstore needs to know about it.

    Args:
        target: an SQLAlchemy URL, or an Engine of the application's own.
        engine_options: keyword arguments for `create_engine`, with a URL only.
        schema: database schema of the tables.
        clock: replaces the database's clock.
        notify: whether transactions tell the beats that listen what is due.

    Attributes:
        kind: what kind of database it is, by the URL.
        program: what the server calls the connections of an engine made here, in
            `pg_stat_activity`, unless the user has named them.
        hint: what else may be wrong where the tables are not found.
    """

    program = "beatstore"
    hint = ""

    def __init__(
        self,
        target: str | URL | Engine,
        *,
        engine_options: Mapping[str, Any] | None = None,
        schema: str | None = None,
        clock: Clock | None = None,
        notify: bool = True,
    ) -> None:
        self.schema = schema
        self.clock = clock
        self.notify = notify
        self._own = not isinstance(target, Engine)
        self._engine_options = dict(engine_options or {})
        self._pooled, self._listens = False, notify
        self._engine: Engine | None = target if isinstance(target, Engine) else None
        self._making = Lock()
        self.url: URL = checked(target)
        self.kind = dialect_at(self.url)
        self.kind.check_schema(schema)
        _check_name(schema)
        _databases.add(self)

    @property
    def engine(self) -> Engine:
        """The engine, made at first use; nothing is connected by making it."""
        engine = self._engine
        if engine is None:
            # One, and ready, however many threads use the store for the first time at once.
            with self._making:
                engine = self._engine = self._engine or self._made()
        return engine

    def _made(self) -> Engine:
        options = dict(self._engine_options)
        if self.kind.session_isolation is not None:
            options.setdefault("isolation_level", self.kind.session_isolation)
        with _installed(self.url), _usable(options):  # some drivers say themselves what they take
            given = dict(options.get("connect_args", {}))
            defaults = connect_defaults(self.url, given, self.program)
            options["connect_args"] = defaults | given
            engine = make_engine(self.kind.to_connect(self.url), **options)
        prepare_engine(engine)
        if self.kind.is_server and "pool_pre_ping" not in options:
            ping_idle(engine)
        if self._pooled:
            event.listen(engine, "checkout", prepare_nothing)
        return engine

    @property
    def options(self) -> dict[str, Any]:
        """Execution options that put beatstore's tables into their schema."""
        return {"schema_translate_map": {None: self.schema}} if self.schema else {}

    @property
    def is_isolated(self) -> bool:
        """Whether sessions have the isolation level of claims already, without being told."""
        level = self._engine_options.get("isolation_level", self.kind.session_isolation)
        return self._own and level is not None and level == self.kind.claim_isolation

    @property
    def notification(self) -> Select[Any] | None:
        """The statement that wakes the beats that listen, or None where none is to be executed."""
        return self.kind.notification if self.notify else None

    @property
    def safe_url(self) -> str:
        """The URL as text, with its password hidden, and those among its parameters."""
        return shown(self.url)

    @property
    def where(self) -> str:
        """The same, with the schema."""
        return self.safe_url + (f", schema {self.schema}" if self.schema else "")

    @property
    def to_migrate(self) -> str:
        """What to do where the tables are not as they should be."""
        run = "run `celery -A proj beatstore migrate`, or Store.migrate()"
        return f"{run} ({self.hint})" if self.hint else run

    def now(self, session: Session) -> datetime:
        """Read the clock: the injected one, or the database's."""
        if self.clock is not None:
            return self.clock.now()
        at = session.scalar(select(db_now()))
        assert isinstance(at, datetime)
        return at

    def now_sql(self) -> ColumnElement[datetime]:
        """Return the same clock as an expression, for use inside a statement."""
        if self.clock is not None:
            return bindparam(None, self.clock.now(), Instant())
        return db_now()

    def given_now(self) -> dict[str, datetime | None]:
        """Return the parameter of `beatstore.database.functions.NOW`, for the same clock."""
        return {"now": None if self.clock is None else self.clock.now()}

    @contextmanager
    def session(self, given: Any = None) -> Iterator[Session]:
        """Open a session and its transaction, or join the caller's.

        Args:
            given: None; or a `Session`, a `scoped_session`, or the sync session that
                `AsyncSession.run_sync` hands out. Its transaction stays the caller's.

        Raises:
            SessionError: `given` is bound to another database than this one.
        """
        if given is not None:
            self._check_bind(given)
            yield given
            return
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def dispose(self) -> None:
        """Close the pooled connections of an engine made here; those in use, when given back."""
        if self._own and self._engine is not None:
            pool = self._engine.pool
            self._engine.dispose()
            # Another thread gives its connection back to this pool, which nobody asks any more.
            event.listen(pool, "checkin", _close)  # codespell:ignore
            pool.dispose()  # what came back in the meantime

    def forget_connections(self) -> None:
        """Drop the pool without touching its sockets, which belong to the parent process.

        An engine made here is made anew: the old one may hold a lock of a thread that did
        not come along. It is kept, since some drivers' connections say goodbye to the
        server when they are collected.
        """
        if self._own:
            _of_the_parent.append(self._engine)
            self._engine, self._making = None, Lock()
        elif self._engine is not None:
            self._engine.dispose(close=False)

    def listener(self) -> Listener | None:
        """Open what wakes a sleeping beat early, or return None where there is no such thing.

        Raises:
            UnavailableError: not now.
        """
        if not self._listens:
            return None
        try:
            return Listener.open(self.engine)
        except PoolerError:
            self._polls("a connection pooler stands before PostgreSQL")
        except (OSError, SQLAlchemyError, self.engine.dialect.loaded_dbapi.Error) as error:
            if refused(error):
                first = next(iter(str(error).splitlines()), "")
                self._polls(f"the server refuses LISTEN ({first})")
                return None
            raise UnavailableError(f"{type(error).__name__}: {error}") from error
        return None

    def _polls(self, why: str) -> None:
        """Listen no more; say so once."""
        self._listens = False
        logger.info("%s: what is added is noticed at the next look, not at once", why)

    def learn(self, error: BaseException | None) -> None:
        """Prepare nothing from now on, if `error` says that a pooler stands in between."""
        if unprepared(error) and not self._pooled:
            self._pooled = True
            event.listen(self.engine, "checkout", prepare_nothing)

    def _check_bind(self, session: Any) -> None:
        get_bind = getattr(session, "get_bind", None)
        if get_bind is None or hasattr(session, "run_sync"):
            raise SessionError(
                f"session: expected an SQLAlchemy session, got {session!r}; with an AsyncSession "
                "write `await session.run_sync(lambda s: store.add(…, session=s))`"
            )
        bind = get_bind(EntryModel)
        theirs = bind.engine.url
        if bind.engine is self._engine or same_database(theirs, self.url):
            return
        raise SessionError(
            f"session: bound to {theirs.render_as_string(hide_password=True)}, but beatstore's "
            f"tables are in {self.safe_url}; write without session=, or give both one database"
        )


def _close(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    record.close()


_databases: weakref.WeakSet[Database] = weakref.WeakSet()

#: What a forked child has inherited, and must not use.
_of_the_parent: list[Engine | None] = []


def _after_fork() -> None:
    for database in _databases:
        database.forget_connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
