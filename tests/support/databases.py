"""Databases for tests: each test gets one that is new, and gone after it.

PostgreSQL and MariaDB are looked for at `BEATSTORE_TEST_POSTGRESQL_URL` and
`BEATSTORE_TEST_MYSQL_URL`, then on their default ports; PostgreSQL is started from a
wheel where there is none. Migrations run once per session: what a test gets is a copy,
or what another test gave back, emptied.
"""

from __future__ import annotations

import itertools
import re
import secrets
import shutil
import socket
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
import pymysql
from sqlalchemy import URL, make_url

from tests.support.absent import Unavailable, given_url
from tests.support.database_servers import PrivatePostgreSQL

__all__ = ["BACKENDS", "DatabaseServer", "found_here", "migrate", "open_database_server"]

#: The databases that every test with a `backend` runs on.
BACKENDS = ("sqlite", "postgresql", "mariadb")

#: The table that holds the revision; its row stays when a database is emptied.
VERSION_TABLE = "beatstore_version"

#: Where MariaDB is looked for. The driver reads all certificates of the machine for each
#: connection, in 30 ms.
_MARIADB_HERE = "mysql://root@127.0.0.1:3306/?ssl_disabled=1"

#: How the names of all test databases begin; the time they were made at follows.
_OURS = "beatstore_test_"


def migrate(url: str) -> None:
    """Make beatstore's tables, as `Store.migrate` does."""
    # Here, so that tests without a database need nothing of it.
    from beatstore.database.engine import Database
    from beatstore.database.migrate import upgrade

    database = Database(url)
    upgrade(database)
    database.dispose()


class DatabaseServer(ABC):
    """One kind of database for a whole session.

    Args:
        directory: for files.
        worker: tells the processes of one parallel run apart.
    """

    name: str

    def __init__(self, directory: Path, worker: str) -> None:
        self.directory = directory
        self._prefix = f"{_OURS}{int(time.time()):08x}_{secrets.token_hex(3)}_{worker}"
        self._numbers = itertools.count(1)
        self._migrated: set[str] = set()
        self._spare: list[str] = []

    def create(self) -> str:
        """Make an empty database, and return its URL."""
        return self._make(f"{self._prefix}_{next(self._numbers)}")

    def create_migrated(self) -> str:
        """Return the URL of a database with beatstore's tables and no rows."""
        if self._spare:
            return self._spare.pop()
        url = self._copy(self._template)
        self._migrated.add(url)
        return url

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected to it.

        Making and dropping tables takes a server ten times as long as deleting rows, so
        a migrated database that a test has left with the same tables is used again.
        """
        self._disconnect(_database(url))
        if url in self._migrated and self._emptied(url):
            self._spare.append(url)
        else:
            self._remove(_database(url))

    def close(self) -> None:
        """Remove what is left, also by a run that was killed long ago; end what was started."""
        for name in self._names():
            if name.startswith(self._prefix) or _is_old(name):
                self._remove(name)

    @cached_property
    def _template(self) -> str:
        url = self.create()
        migrate(url)
        return url

    @abstractmethod
    def _make(self, name: str) -> str: ...

    @abstractmethod
    def _copy(self, template: str) -> str: ...

    def _disconnect(self, name: str) -> None:  # noqa: B027  (SQLite has nobody to send away)
        """End the connections of a test that did not close its own."""

    def _emptied(self, url: str) -> bool:
        """Delete all rows and reset the counters; False if the tables are not as they were."""
        return False

    @abstractmethod
    def _remove(self, name: str) -> None: ...

    @abstractmethod
    def _names(self) -> list[str]: ...


class _SQLite(DatabaseServer):
    name = "sqlite"

    def _make(self, name: str) -> str:
        return f"sqlite:///{self.directory / name}.db"

    def _copy(self, template: str) -> str:
        url = self.create()
        shutil.copyfile(_database(template), _database(url))
        return url

    def _remove(self, name: str) -> None:
        for end in ("", "-wal", "-shm", "-journal"):
            Path(f"{name}{end}").unlink(missing_ok=True)

    def _names(self) -> list[str]:
        return []  # pytest removes the directory


class _PostgreSQL(DatabaseServer):
    name = "postgresql"

    #: Changes with any statement that makes, alters or drops something in a database.
    _SHAPE = """
        SELECT max(age) || ' ' || count(*) FROM (
            SELECT xmin::text::bigint AS age FROM pg_class
            UNION ALL SELECT xmin::text::bigint FROM pg_attribute
            UNION ALL SELECT xmin::text::bigint FROM pg_constraint
            UNION ALL SELECT xmin::text::bigint FROM pg_proc
            UNION ALL SELECT xmin::text::bigint FROM pg_trigger
        ) AS catalog
    """

    def __init__(self, directory: Path, worker: str) -> None:
        super().__init__(directory, worker)
        self._own: PrivatePostgreSQL | None = None
        self._url = self._find()

    def _find(self) -> URL:
        given = given_url("POSTGRESQL")
        if given != "":
            url = make_url(given or "postgresql://postgres@127.0.0.1:5432/postgres")
            url = url.set(drivername="postgresql+psycopg")
            try:
                with _pg(url) as connection:
                    may = "SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = user"
                    if connection.execute(may).fetchone() == (True,):
                        return url
                error: object = "the user may not create databases"
            except psycopg.OperationalError as refused:
                error = refused
            if given:
                raise RuntimeError(f"BEATSTORE_TEST_POSTGRESQL_URL: {error}")
        self._own = PrivatePostgreSQL("synchronous_commit=off", "max_connections=200")
        self._own.start()
        return make_url(self._own.url)

    @cached_property
    def _admin(self) -> psycopg.Connection:
        """A connection for the whole session: the first query of a new one takes long."""
        return _pg(self._url)

    def _make(self, name: str, template: str = "template0") -> str:
        self._admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        # The server's own disk may be slow, and no test cuts its power.
        self._admin.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
        return self._url.set(database=name).render_as_string(hide_password=False)

    def _copy(self, template: str) -> str:
        return self._make(f"{self._prefix}_{next(self._numbers)}", _database(template))

    @cached_property
    def _shape(self) -> tuple[object, list[str]]:
        """What `_SHAPE` says of a database as it should be, and the tables to be emptied."""
        with _pg(make_url(self._template)) as connection:
            tables = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> %s",
                (VERSION_TABLE,),
            ).fetchall()
            return connection.execute(self._SHAPE).fetchone(), [table for (table,) in tables]

    def _disconnect(self, name: str) -> None:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        self._admin.execute(ended, (name,))

    def _emptied(self, url: str) -> bool:
        shape, tables = self._shape
        with _pg(make_url(url)) as connection:
            if connection.execute(self._SHAPE).fetchone() != shape:
                return False
            connection.execute(";".join(f'DELETE FROM "{table}"' for table in tables))
            connection.execute(
                "SELECT setval(format('%I.%I', schemaname, sequencename), start_value, false)"
                " FROM pg_sequences"
            )
        return True

    def _remove(self, name: str) -> None:
        self._admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _names(self) -> list[str]:
        return [name for (name,) in self._admin.execute("SELECT datname FROM pg_database")]

    def close(self) -> None:
        if self._own is None:
            super().close()
        self._admin.close()
        if self._own is not None:
            self._own.close()


def _pg(url: URL) -> psycopg.Connection:
    return psycopg.connect(
        url.set(drivername="postgresql").render_as_string(hide_password=False),
        autocommit=True,
        connect_timeout=3,
    )


class _MariaDB(DatabaseServer):
    name = "mariadb"

    def __init__(self, directory: Path, worker: str) -> None:
        super().__init__(directory, worker)
        given = given_url("MYSQL")
        if given == "":
            raise Unavailable("BEATSTORE_TEST_MYSQL_URL=none")
        self._url = make_url(given or _MARIADB_HERE)
        self._url = self._url.set(drivername="mysql+pymysql")
        try:
            self._sql(None, "SELECT 1")
        except pymysql.OperationalError as error:
            if given:
                raise RuntimeError(f"BEATSTORE_TEST_MYSQL_URL: {error}") from error
            raise Unavailable(f"nothing answers on port 3306 ({error})") from error

    def _make(self, name: str) -> str:
        self._sql(None, f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return self._url.set(database=name).render_as_string(hide_password=False)

    def _copy(self, template: str) -> str:
        """Make the same tables, foreign keys, rows and triggers; there is no shorter way."""
        tables, triggers = self._shape
        rows = (f"INSERT INTO `{t}` SELECT * FROM `{_database(template)}`.`{t}`" for t in tables)
        url = self.create()
        self._sql(url, "SET foreign_key_checks = 0", *tables.values(), *rows, *triggers.values())
        return url

    @cached_property
    def _shape(self) -> tuple[dict[str, str], dict[str, str]]:
        return self._shape_of(self._template)

    def _shape_of(self, url: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return what would make the tables and triggers of a database, by name."""
        tables, triggers = self._sql(url, "SHOW TABLES", "SHOW TRIGGERS")
        made = self._sql(
            url,
            *(f"SHOW CREATE TABLE `{row[0]}`" for row in tables),
            *(f"SHOW CREATE TRIGGER `{row[0]}`" for row in triggers),
        )
        return (
            # Where the numbering stands is no part of the shape, and no more is the database,
            # which OceanBase names in foreign keys.
            {
                row[0]: re.sub(rf" AUTO_INCREMENT=\d+|`{_database(url)}`\.", "", row[1])
                for [row] in made[: len(tables)]
            },
            {row[0]: row[2] for [row] in made[len(tables) :]},
        )

    def _disconnect(self, name: str) -> None:
        [rows] = self._sql(
            None, f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"
        )
        for row in rows:
            with suppress(pymysql.OperationalError):  # it may have ended by itself
                self._sql(None, f"KILL {row[0]}")

    def _emptied(self, url: str) -> bool:
        if self._shape_of(url) != self._shape:
            return False
        tables = [table for table in self._shape[0] if table != VERSION_TABLE]
        counted = "SELECT table_name FROM information_schema.tables WHERE auto_increment > 1"
        [rows] = self._sql(url, f"{counted} AND table_schema = DATABASE()")
        # In one transaction, as each waits for the server's disk.
        self._sql(
            url,
            "SET foreign_key_checks = 0",
            "BEGIN",
            *(f"DELETE FROM `{table}`" for table in tables),
            "COMMIT",
            *(f"ALTER TABLE `{row[0]}` AUTO_INCREMENT = 1" for row in rows),
        )
        return True

    def _remove(self, name: str) -> None:
        self._sql(None, f"DROP DATABASE IF EXISTS {name}")

    def _names(self) -> list[str]:
        [rows] = self._sql(None, "SHOW DATABASES")
        return [row[0] for row in rows]

    def _sql(self, url: str | None, *statements: str) -> list[list[tuple[Any, ...]]]:
        """Run statements on one connection, and return the rows of each."""
        connection = pymysql.connect(
            host=self._url.host,
            port=self._url.port or 3306,
            user=self._url.username,
            password=self._url.password or "",
            database=_database(url) if url else None,
            ssl_disabled="ssl_disabled" in self._url.query,
            autocommit=True,
            connect_timeout=3,
        )
        with connection, connection.cursor() as cursor:
            found = []
            for statement in statements:
                cursor.execute(statement)
                found.append(list(cursor.fetchall()))
            return found


def found_here() -> tuple[str, ...]:
    """Return the databases that tests can be spread over on this machine.

    SQLite and PostgreSQL come as wheels. A MariaDB that is named, or listens on its port,
    is counted without a question, as this is asked before any test begins.
    """
    given = given_url("MYSQL")
    if given is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", 3306), timeout=2):
            given = _MARIADB_HERE
    return BACKENDS if given else BACKENDS[:2]


def _is_old(name: str) -> bool:
    """Say whether a name is that of a test database of a run of another day."""
    made = re.match(rf"{_OURS}([0-9a-f]{{8}})_", name)
    return made is not None and time.time() - int(made[1], 16) > 86400


def _database(url: str) -> str:
    return make_url(url).database or ""


def open_database_server(name: str, directory: Path, worker: str) -> DatabaseServer:
    """Find a database server, or start one, for the whole session.

    Args:
        name: one of `BACKENDS`.
        directory: where SQLite's files go.
        worker: tells the processes of one parallel run apart.

    Raises:
        Unavailable: there is none, and none could be started.
    """
    kinds: dict[str, type[DatabaseServer]] = {
        "sqlite": _SQLite,
        "postgresql": _PostgreSQL,
        "mariadb": _MariaDB,
    }
    return kinds[name](directory, worker)
