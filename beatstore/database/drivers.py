"""Everything that differs between drivers: connecting, time limits, what a session needs.

    connect_defaults    arguments with which to connect
    prepare_engine      what is done with each new connection of an engine of our own
    prepare_connection  the same, of psycopg, with a connection of an engine of the user's
    ping_idle           ask only those connections of a pool that may be gone
    Listener            the early wake-up on PostgreSQL

Invariants:
    * A server that is silent is waited for 30 s: frozen, or behind a network that drops
      everything. TCP alone would not notice while the other side's kernel answers.
    * Through a connection pooler nothing is prepared and nobody listens: the next
      statement may go to another session of the server.
"""

from __future__ import annotations

import importlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from sqlalchemy import URL, event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

from beatstore.database.dialects import CHANNEL, dialect_of, execute
from beatstore.database.faults import is_soft_time_limit, read_only
from beatstore.errors import PoolerError

__all__ = [
    "ANSWER",
    "RECENT",
    "Listener",
    "connect_defaults",
    "ping_idle",
    "prepare_connection",
    "prepare_engine",
    "prepare_nothing",
    "unlimit_answers",
]

#: How long a server may be silent, and how long to wait for a connection, in seconds.
ANSWER, _CONNECT = 30.0, 10

#: For how many seconds after its last use a pooled connection is not asked whether it is alive.
RECENT = 5.0

#: Where the record of a pooled connection holds when it was last given back.
_RETURNED = "beatstore_returned"

#: The drivers that stand on libpq.
_LIBPQ = ("psycopg", "psycopg2")

#: The options of most entries, and the arguments of many, which need no parser.
_EMPTY: Mapping[bytes, Any] = {b"{}": dict, b"[]": list}


# -- connecting --------------------------------------------------------------------------


def connect_defaults(url: URL, given: Mapping[str, Any], program: str) -> dict[str, Any]:
    """Return `connect_args` by which the server's settings and silences do no harm.

    What the user says counts, in the URL or beside it, and is left out here.

    Args:
        url: of the database, with the driver.
        given: the user's own `connect_args`.
        program: what the server is told that connects, where the driver can say so.
    """
    given = {**url.query, **given}
    defaults = _limits(url.get_dialect().driver) | _named(url.get_dialect().driver, program)
    if "application_name" in str(given.get("options")):  # options=-c application_name=…
        defaults.pop("fallback_application_name", None)
    return {key: value for key, value in defaults.items() if key not in given}


def _named(driver: str, program: str) -> dict[str, Any]:
    if driver in _LIBPQ:
        # The fallback is what libpq takes where PGAPPNAME says nothing either.
        return {"fallback_application_name": program}
    if driver == "pg8000":
        return {"application_name": program}
    if driver == "pymysql":
        return {"program_name": program}
    if driver == "mysqlconnector":
        return {"conn_attrs": {"program_name": program}}
    return {}


def _limits(driver: str) -> dict[str, Any]:
    """Return the character set, and the limits: seconds, milliseconds in tcp_user_timeout."""
    if driver in _LIBPQ:
        given: dict[str, Any] = {
            "client_encoding": "utf8",
            "connect_timeout": _CONNECT,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        }
        return given | ({"connection_factory": _watched_psycopg2()} if driver == "psycopg2" else {})
    if driver == "pg8000":
        return {"timeout": ANSWER}
    limits = {"read_timeout": int(ANSWER), "write_timeout": int(ANSWER)}
    if driver == "mysqlconnector":
        known = importlib.import_module("mysql.connector.constants").DEFAULT_CONFIGURATION
        limits = limits if limits.keys() <= known.keys() else {}
        return {"connection_timeout": _CONNECT, **limits}
    if driver == "mysqldb":
        return {"connect_timeout": _CONNECT, "charset": "utf8mb4", **limits}
    if driver in ("pymysql", "mariadbconnector"):
        return {"connect_timeout": _CONNECT, **limits}
    return {}


def prepare_engine(engine: Engine) -> None:
    """Make an engine of our own fit for its server; one handed in by the user is left alone."""
    set_up, dbapi = dialect_of(engine.dialect).set_up, engine.dialect.loaded_dbapi
    # Before SQLAlchemy itself looks at what the session's settings are.
    _on_connect(engine, lambda connection: set_up(connection, dbapi), first=True)
    event.listen(engine, "handle_error", _leave)
    if engine.dialect.driver == "psycopg":
        _on_connect(engine, prepare_connection, first=True)
        _on_connect(engine, read_leniently)


def _leave(context: ExceptionContext) -> None:
    """Take a server that takes no writes for one that is gone, and a broken session for lost.

    After a failover the server may still be there, and only new connections find the one that has
    taken over. So the pool keeps none that is older than this.
    """
    if read_only(context.original_exception):
        context.is_disconnect = True
    elif is_soft_time_limit(context.original_exception):
        context.is_disconnect, context.invalidate_pool_on_disconnect = True, False


def ping_idle(engine: Engine) -> None:
    """Ping a pooled connection before it is used, unless it was in use a moment ago.

    A ping is a round trip. It is saved where the connection was given back a few seconds ago and
    its server has said nothing since: what ends a connection says so, and its socket shows that.
    """
    dialect = engine.dialect

    def give_back(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info[_RETURNED] = time.monotonic()

    def take(connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        returned = record.info.get(_RETURNED)  # None: it is new
        if returned is None or (time.monotonic() - returned < RECENT and _is_silent(connection)):
            return
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            if not dialect.is_disconnect(error, connection, None):
                raise
            # The pool opens a new one, and no other that is as old is used.
            raise InvalidatePoolError from error

    event.listen(engine, "checkin", give_back)  # codespell:ignore
    event.listen(engine, "checkout", take)


def _is_silent(connection: Any) -> bool:
    """Say whether nothing has come from the server; False where the driver shows no socket."""
    # Of psycopg and psycopg2, of PyMySQL, of pg8000.
    places = (connection, *(getattr(connection, name, None) for name in ("_sock", "_usock")))
    try:
        return next((not _can_be_read(one) for one in places if hasattr(one, "fileno")), False)
    except Exception:  # noqa: BLE001  (it is closed: the ping tells)
        return False


def _can_be_read(socket: Any) -> bool:
    if not hasattr(select, "poll"):
        return bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()  # which takes numbers above 1023, too
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def _on_connect(engine: Engine, do: Callable[[Any], object], *, first: bool = False) -> None:
    def on_connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        do(connection)

    event.listen(engine, "connect", on_connect, insert=first)


def read_leniently(connection: Any) -> None:
    """Let a connection of psycopg read JSON without end, which psycopg itself refuses.

    It decodes JSON by itself, and one value that it can't would hide a page of rows. Such a
    value comes as text instead, which the types of the columns find unreadable.
    """
    adapters = connection.adapters
    oid = adapters.types["json"].oid
    adapters.register_loader(oid, _lenient(adapters.get_loader(oid, 0)))


def _lenient(kind: Any) -> Any:
    """Return a loader for psycopg that gives the text where its own, `kind`, fails."""

    class Lenient:
        format = kind.format

        def __init__(self, oid: int, context: Any = None) -> None:
            self._load = kind(oid, context).load

        def load(self, data: Any) -> Any:
            if (make := _EMPTY.get(bytes(data))) is not None:
                return make()
            try:
                return self._load(data)
            except Exception:  # noqa: BLE001  (its own errors, and RecursionError)
                return bytes(data).decode(errors="replace")

    return Lenient


def prepare_connection(connection: Any) -> None:
    """Make a connection of psycopg fit for what stands between it and the server.

    Others are left alone, and so is one that has been here before.
    """
    kind: Any = type(connection)
    if kind.__module__.partition(".")[0] != "psycopg" or hasattr(connection, "answer_s"):
        return
    connection.__class__ = _limited(kind)
    connection.answer_s = ANSWER
    if connection.prepare_threshold is not None and _is_pooled(connection):
        prepare_nothing(connection)


def _is_pooled(connection: Any) -> bool:
    """Say whether a pooler answers for the server: it gives out session numbers of its own.

    Statements prepared through it would be found missing, or be those of other clients.
    """
    before, connection.autocommit = connection.autocommit, True
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
        cursor.close()
    finally:
        connection.autocommit = before
    return bool(pid != connection.info.backend_pid)


def prepare_nothing(connection: Any, *_: object) -> None:
    """Let psycopg prepare no statements on this connection; others prepare none by name."""
    if hasattr(connection, "prepare_threshold"):
        connection.prepare_threshold = None


# -- how long an answer may take -----------------------------------------------------------


def unlimit_answers(connection: Any) -> None:
    """Let this connection wait as long as it takes, for statements that work on whole tables."""
    if hasattr(connection, "answer_s"):
        connection.answer_s = float("inf")
    elif hasattr(connection, "_read_timeout"):  # PyMySQL
        connection._read_timeout = None
    elif hasattr(connection, "_usock"):  # pg8000
        connection._usock.settimeout(None)


@cache
def _limited(kind: Any) -> Any:
    """Return a class of psycopg connections that give up on a silent server."""
    failed = importlib.import_module("psycopg").OperationalError

    class Limited(kind):  # type: ignore[misc]
        answer_s: float

        def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
            return super().wait(self._within(gen), *args, **kwargs)

        def _within(self, gen: Any) -> Generator[Any, Any, Any]:
            """Do as `gen`, which is told about every 0.1 s that nothing is ready."""
            silent_since = None
            try:
                wanted = next(gen)
                while True:
                    ready = yield wanted
                    if ready:
                        silent_since = None
                    elif silent_since is None:
                        silent_since = time.monotonic()
                    elif time.monotonic() - silent_since > self.answer_s:
                        self.close()
                        raise failed(f"the server has not answered for {self.answer_s:g} s")
                    wanted = gen.send(ready)
            except StopIteration as end:
                return end.value

    return Limited


class _Watch:
    """A thread that cuts connections which have waited too long, under drivers that can't."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start with nothing, in a child too: its parent's connections are the parent's."""
        self._lock = threading.Lock()
        self._until: dict[int, float] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def over(self, connection: Any) -> Iterator[None]:
        """Cut the connection if what is done here takes longer than it may."""
        fd = connection.fileno()
        with self._lock:
            self._until[fd] = time.monotonic() + connection.answer_s
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._until.pop(fd, None)

    def _run(self) -> None:
        while True:
            time.sleep(1.0)
            with self._lock:
                now = time.monotonic()
                for fd in [fd for fd, until in self._until.items() if until < now]:
                    del self._until[fd]
                    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as its:
                        its.shutdown(socket.SHUT_RDWR)


_watch = _Watch()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_watch.forget)


@cache
def _watched_psycopg2() -> Any:
    """Return a class of psycopg2 connections that are cut when the server is silent."""
    extensions = importlib.import_module("psycopg2.extensions")

    class Cursor(extensions.cursor):  # type: ignore[misc, name-defined]
        def execute(self, *args: Any) -> None:
            with _watch.over(self.connection):
                super().execute(*args)

        def executemany(self, *args: Any) -> None:
            with _watch.over(self.connection):
                super().executemany(*args)

    class Connection(extensions.connection):  # type: ignore[misc, name-defined]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.answer_s = ANSWER
            self.cursor_factory = Cursor

        def commit(self) -> None:
            with _watch.over(self):
                super().commit()

        def rollback(self) -> None:
            with _watch.over(self):
                super().rollback()

    return Connection


# -- the early wake-up ---------------------------------------------------------------------


class Listener:
    """A connection of its own on which PostgreSQL says that something is due.

    It is outside the engine's pool. Never needed for correctness: a beat looks at least once
    per `max_interval` anyway.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    @classmethod
    def open(cls, engine: Engine) -> Listener | None:
        """Start listening, or return None where the database or driver can't.

        Raises:
            PoolerError: a pooler stands in between.
            Exception: what the driver raises.
        """
        if engine.dialect.driver not in _LIBPQ:
            return None
        # Another pool with the same settings and events, which is left with nothing.
        connection = engine.pool.recreate().connect()
        connection.detach()
        driver: Any = connection.dbapi_connection
        try:
            driver.rollback()
            driver.autocommit = True
            if not _is_pooled(driver):
                execute(driver, f"LISTEN {CHANNEL}")
                return cls(driver)
        except BaseException:
            driver.close()
            raise
        driver.close()
        raise PoolerError

    def wait(self, seconds: float) -> bool:
        """Sleep until a notification arrives, `seconds` at most; say whether one did.

        Raises:
            OSError, or an error of the driver's, when the connection is lost.
        """
        if self._pending():
            return True
        ready, _, _ = select.select([self._driver.fileno()], [], [], seconds)
        return bool(ready) and self._pending()

    def close(self) -> None:
        """Close the connection."""
        self._driver.close()

    def _pending(self) -> bool:
        """Read what has arrived, and forget it."""
        if hasattr(self._driver, "notifies") and callable(self._driver.notifies):
            return any(True for _ in self._driver.notifies(timeout=0))
        self._driver.poll()
        arrived = bool(self._driver.notifies)
        self._driver.notifies.clear()
        return arrived
