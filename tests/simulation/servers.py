"""Schedules on PostgreSQL and MariaDB: slower by far, and with locks of rows.

The driver is real, and so is the server, which knows the time of the schedule: on PostgreSQL by
functions of its own names in a schema that is searched first, on MariaDB by a setting of the
session. A statement that waits for a lock waits in a thread, while others go on.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import NullPool

from beatstore.database.columns import Instant
from beatstore.database.drivers import prepare_engine
from beatstore.database.engine import make_engine
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN
from tests.simulation.ground import TABLES, Ground
from tests.simulation.kernel import Kernel, Process
from tests.simulation.ledger import EDGE, ENTRY_COLUMNS, RUN_COLUMNS, Book, State
from tests.simulation.virtual import text_of
from tests.support.databases import open_database_server

if TYPE_CHECKING:
    from tests.simulation.play import World

__all__ = ["ServerGround"]

T = TypeVar("T")

#: How long a statement has before the server is asked whether it waits for a lock, in real seconds.
_PROMPT_S = 0.03

#: Whether a session waits for a lock.
_WAITS = {
    "postgresql": "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {}",
    "mariadb": "SELECT count(*) FROM information_schema.innodb_trx "
    "WHERE trx_state = 'LOCK WAIT' AND trx_mysql_thread_id = {}",
}

_CLOCK = """
CREATE SCHEMA sim;
CREATE TABLE sim.clock (at timestamptz);
INSERT INTO sim.clock VALUES ('2031-03-05 12:00:00+00');
CREATE FUNCTION sim.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT at FROM sim.clock';
CREATE FUNCTION sim.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT at FROM sim.clock';
"""


class ServerGround(Ground):
    """One database on a server, whose rows are deleted for each schedule."""

    serial = False

    def __init__(self, backend: str) -> None:
        super().__init__()
        self._backend = backend
        self.cascades_fire = backend != "mariadb"
        self._home = tempfile.TemporaryDirectory(prefix="beatstore-sim-")
        self._server = open_database_server(backend, Path(self._home.name), "sim")
        url = self._server.create_migrated() if backend == "mariadb" else self._server.create()
        self._admin = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        self._world: World | None = None
        self._at: dict[int, float] = {}
        self._threads = concurrent.futures.ThreadPoolExecutor(32)
        self._connection = self._admin.connect()
        options: dict[str, Any] = {}
        if backend == "postgresql":
            for statement in filter(str.strip, _CLOCK.split(";\n")):
                self._connection.exec_driver_sql(statement)
            options["connect_args"] = {"options": "-c search_path=public,sim,pg_catalog"}
        engine = make_engine(sa.make_url(url), poolclass=NullPool, **options)
        prepare_engine(engine)
        self._intercept(engine)
        self.open(engine, url)
        if backend == "postgresql":
            self.store.migrate()
        atexit.register(self.close)

    def fresh(self, world: World) -> Book:
        """Delete all rows, and begin to count anew."""
        self._world = world
        run = self._connection.exec_driver_sql
        if self._backend == "postgresql":
            run(f"TRUNCATE {', '.join(TABLES)} RESTART IDENTITY CASCADE")
        else:
            run("SET foreign_key_checks = 0")
            for name in TABLES:
                run(f"TRUNCATE {name}")
            run("SET foreign_key_checks = 1")
        self.time_moved()
        return _ServerBook(self._admin)

    def time_moved(self) -> None:
        """Write the time where its functions read it."""
        if self._backend == "postgresql":
            self._connection.execute(
                sa.text("UPDATE sim.clock SET at = :at"), {"at": self.virtual.now()}
            )

    def close(self) -> None:
        """Drop the database."""
        self._connection.close()
        self._server.close()
        self._home.cleanup()

    # -- what a driver does, at its points -------------------------------------------------

    def _intercept(self, engine: sa.Engine) -> None:
        dialect: Any = engine.dialect
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            setattr(dialect, name, self._statement(getattr(dialect, name)))
        commit = dialect.do_commit
        dialect.do_commit = lambda connection: self._commit(connection, commit)

        @event.listens_for(engine, "connect")
        def connected(connection: Any, record: Any) -> None:
            process, world = Kernel.current(), self._world
            if process is not None and world is not None:
                world.wires.setdefault(process.name, []).append(_Wire(connection))

    def _statement(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def stopped(cursor: Any, statement: str, *given: Any) -> Any:
            connection = cursor.connection
            if statement.startswith("SET "):
                return run(cursor, statement, *given)

            def effect() -> Any:
                self._set_time(connection)
                return run(cursor, statement, *given)

            result = self._outside(connection, "statement", statement, effect)
            if _commits(connection, statement):
                self._judge()
            return result

        return stopped

    def _commit(self, connection: Any, commit: Callable[[Any], None]) -> None:
        self._outside(connection, "commit", "commit", lambda: commit(connection))
        self._judge()

    def _judge(self) -> None:
        """Have what was committed judged; nobody's commits are not."""
        process = Kernel.current()
        if process is not None and self._world is not None:
            self._world.commit(process)

    def _outside(self, connection: Any, kind: str, what: str, effect: Callable[[], T]) -> T:
        process = Kernel.current()
        if process is None:
            return effect()
        order = process.point(kind, what)
        if order == "cut":
            _Wire(connection).cut()
            raise self._lost()
        if order == "undo":
            connection.rollback()
            raise self._undone()
        result = self._awaited(process, connection, effect)
        if order == "lost":
            if kind == "commit" or _commits(connection, what):
                self._judge()
            _Wire(connection).cut()
            raise self._lost()
        return result

    def _awaited(self, process: Process, connection: Any, effect: Callable[[], T]) -> T:
        """Do it in a thread, and stop as blocked as long as it waits for a lock."""
        running = self._threads.submit(effect)
        while True:
            try:
                result = running.result(_PROMPT_S)
            except concurrent.futures.TimeoutError:
                if self._waits(connection):
                    process.blocked = True
                    process.point("blocked", "a lock")
            else:
                process.blocked = False
                return result

    def _waits(self, connection: Any) -> bool:
        """Say whether a session waits for a lock, and is not just slow."""
        driver = _of_driver(connection)
        is_postgresql = self._backend == "postgresql"
        session = driver.info.backend_pid if is_postgresql else driver.thread_id()
        asked = _WAITS[self._backend].format(session)
        return bool(self._connection.exec_driver_sql(asked).scalar())

    def _set_time(self, connection: Any) -> None:
        if self._backend == "mariadb":
            at = self.virtual.now().timestamp()
            with connection.cursor() as cursor:
                cursor.execute(f"SET timestamp = {at:.6f}")

    def _lost(self) -> Exception:
        dbapi: Any = self.store.database.engine.dialect.loaded_dbapi
        if self._backend == "mariadb":
            error: Exception = dbapi.OperationalError(2013, "Lost connection, as the schedule says")
            return error
        error = dbapi.OperationalError("the connection is closed")
        return error

    def _undone(self) -> Exception:
        dbapi: Any = self.store.database.engine.dialect.loaded_dbapi
        if self._backend == "mariadb":
            error: Exception = dbapi.OperationalError(1213, "Deadlock, as the schedule says")
            return error
        error = dbapi.errors.SerializationFailure("made to be undone")
        return error


def _of_driver(connection: Any) -> Any:
    """Return the driver's connection; what a commit is given is SQLAlchemy's, around it."""
    return getattr(connection, "dbapi_connection", connection)


def _commits(connection: Any, statement: str) -> bool:
    """Say whether a statement that writes commits by itself; one that only reads is no commit."""
    asked = getattr(connection, "get_autocommit", None)  # PyMySQL's way to say it
    by_itself = asked() if asked is not None else getattr(connection, "autocommit", None) is True
    return by_itself and not statement.lstrip().startswith("SELECT")


class _Wire:
    """A connection that can be cut."""

    def __init__(self, connection: Any) -> None:
        self._connection = _of_driver(connection)

    def cut(self) -> None:
        """Close it: the server rolls back what is not committed."""
        force = getattr(self._connection, "_force_close", None)
        if force is not None:
            force()
        else:
            self._connection.close()


class _ServerBook(Book):
    """Reads the tables by SQLAlchemy."""

    def __init__(self, engine: sa.Engine) -> None:
        self._connection = engine.connect()
        self._statements = [
            sa.select(*(table.c[name.strip('"')] for name in names)).order_by(
                table.c[names[0]], table.c[names[1]]
            )
            for table, names in ((ENTRY, ENTRY_COLUMNS), (RUN, RUN_COLUMNS), (DEPENDENCY, EDGE))
        ]

    def read(self) -> State:
        """Read what is committed."""
        found = [
            [[_plain(value) for value in row] for row in self._connection.execute(statement)]
            for statement in self._statements
        ]
        return State.of(*found)

    def next_wake(self) -> str | None:
        """Return the earliest `wake_at` of all rows."""
        found = [
            self._connection.scalar(
                sa.select(sa.type_coerce(sa.func.min(table.c.wake_at), Instant()))
            )
            for table in (ENTRY, RUN)
        ]
        return min((text_of(at) for at in found if at is not None), default=None)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return text_of(value.astimezone(timezone.utc))
    return int(value) if isinstance(value, bool) else value
