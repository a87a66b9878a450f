"""Databases and brokers for benchmarks, and entries in bulk.

The servers are those the tests find or start; each benchmark gets a database, a Redis
database or a virtual host of its own, which is gone afterwards.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from beatstore.database.engine import Database
from beatstore.models import EntryModel, RunModel
from tests.support.brokers import Broker, BrokerSource, open_broker
from tests.support.databases import DatabaseServer, migrate, open_database_server

__all__ = ["Places", "analyze", "fill", "insert_due", "optimize", "reset", "server_of"]

_ENTRY: Any = EntryModel.__table__
_RUN: Any = RunModel.__table__


class Places:
    """The servers of one run of the benchmarks; each is looked for once.

    Attributes:
        quick: whether small figures will do.
        directory: for files and logs; removed at the end.
    """

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self._stack = ExitStack()
        made = tempfile.TemporaryDirectory(prefix="beatstore-bench-")
        self.directory = Path(self._stack.enter_context(made))
        self._servers: dict[str, DatabaseServer] = {}
        self._sources: dict[str, BrokerSource] = {}

    def __enter__(self) -> Places:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def database(self, kind: str, *, empty: bool = False) -> Iterator[str]:
        """Make a database with beatstore's tables, or without any, and yield its URL.

        Raises:
            Unavailable: there is no such server.
        """
        if kind not in self._servers:
            server = open_database_server(kind, self.directory, "bench")
            self._servers[kind] = server
            self._stack.callback(server.close)
        server = self._servers[kind]
        url = server.create()
        try:
            if not empty:
                migrate(url)
            if kind == "postgresql":
                # Test databases don't wait for the disk; a user's do.
                _run(url, f'ALTER DATABASE "{sa.make_url(url).database}" RESET synchronous_commit')
            yield url
        finally:
            server.drop(url)

    @contextmanager
    def broker(self, kind: str) -> Iterator[Broker]:
        """Yield a broker with a queue of our own.

        Raises:
            Unavailable: there is no such server.
        """
        if kind not in self._sources:
            source = open_broker(kind, self.directory)
            self._sources[kind] = source
            self._stack.callback(source.close)
        source = self._sources[kind]
        broker = source.broker()
        try:
            yield broker
        finally:
            source.clean(broker)


def fill(url: str, count: int) -> None:
    """Store `count` entries by one statement: a third each cron, once and every, none due.

    They are due from tomorrow on, for as long as a year.
    """
    database = Database(url)
    digit: Any = sa.union_all(*(sa.select(sa.literal_column(str(n)).label("d")) for n in range(10)))
    digits = [digit.subquery(f"d{power}") for power in range(len(str(count - 1)))]
    number = sum((each.c.d * 10**power for power, each in enumerate(digits)), sa.literal(0))
    crossed: Any = digits[0]
    for each in digits[1:]:
        crossed = crossed.join(each, sa.true())
    n = sa.select(number.label("n")).select_from(crossed).subquery("numbers").c.n
    text = sa.cast(n, sa.String(20))
    wake_at = _in_a_year(database.engine.dialect.name, n)
    minute, hour = sa.cast(n % 60, sa.String(20)), sa.cast(n % 24, sa.String(20))
    rows = sa.select(
        sa.literal("far-") + text,
        sa.literal("bench.work"),
        sa.case((n % 3 == 0, "cron"), (n % 3 == 1, "once"), else_="every"),
        sa.case(
            (n % 3 == 0, minute + " " + hour + " 29 2 *"),
            (n % 3 == 1, "2999-01-01T00:00:00+00:00"),
            else_="86400",
        ),
        sa.case((n % 3 == 0, "Europe/Berlin")),
        wake_at,
        wake_at,
        wake_at,
    ).where(n < count)
    columns = ["name", "task", "kind", "spec", "timezone", "wake_at", "next_due_at", "created_at"]
    statement = sa.insert(_ENTRY).from_select(columns, rows, include_defaults=False)
    with database.engine.begin() as connection:
        connection.execute(statement)
    database.dispose()
    optimize(url)


def _in_a_year(dialect: str, n: Any) -> Any:
    """Return an instant from tomorrow to a year from now, the n-th of a million."""
    sql = {
        "postgresql": "clock_timestamp() + interval '1 day' + ({n} % 1000000) * interval '31 s'",
        "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now', (86400 + {n} % 1000000 * 31)"
        " || ' seconds')",
    }.get(dialect, "UTC_TIMESTAMP(6) + INTERVAL (86400 + {n} % 1000000 * 31) SECOND")
    return sa.literal_column(sql.format(n=n.compile()))


def insert_due(url: str, rows: Sequence[Mapping[str, Any]], **same: Any) -> None:
    """Store entries by plain INSERT; `same` are the columns in which they do not differ."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.insert(_ENTRY), [{**same, **row} for row in rows])
    engine.dispose()


def reset(url: str) -> None:
    """Remove what `insert_due` stored, and all runs."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.delete(_ENTRY).where(~_ENTRY.c.name.startswith("far-")))
        connection.execute(sa.delete(_RUN))
    engine.dispose()
    optimize(url)


def optimize(url: str) -> None:
    """Leave no dead rows to the next measurement, and give the planner its figures."""
    kind = sa.make_url(url).get_backend_name()
    tables = ("beatstore_entry", "beatstore_run", "beatstore_dependency")
    for table in tables:
        if kind == "postgresql":
            _run(url, f"VACUUM (ANALYZE) {table}")
        elif kind == "sqlite":
            _run(url, f"ANALYZE {table}")
        else:
            _run(url, f"ANALYZE TABLE {table}")


def analyze(url: str) -> None:
    """Give the planner its figures of all tables, whosever they are."""
    kind = sa.make_url(url).get_backend_name()
    if kind in ("postgresql", "sqlite"):
        _run(url, "VACUUM (ANALYZE)" if kind == "postgresql" else "ANALYZE")
        return
    engine = sa.create_engine(url)
    for table in sa.inspect(engine).get_table_names():
        _run(url, f"ANALYZE TABLE {table}")
    engine.dispose()


def server_of(url: str) -> str:
    """Describe a database server, and whether its commits wait for the disk."""
    asked = {
        "postgresql": (
            "SELECT 'PostgreSQL ' || split_part(current_setting('server_version'), ' ', 1)"
            " || ', fsync ' || current_setting('fsync')"
            " || ', synchronous_commit ' || current_setting('synchronous_commit')"
        ),
        "sqlite": "SELECT 'SQLite ' || sqlite_version()",
    }
    kind = sa.make_url(url).get_backend_name()
    default = "SELECT CONCAT(@@version, ', flush ', @@innodb_flush_log_at_trx_commit)"
    return str(_run(url, asked.get(kind, default)))


def _run(url: str, statement: str) -> Any:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        result = connection.exec_driver_sql(statement)
        value = result.scalar() if result.returns_rows else None
    engine.dispose()
    return value
