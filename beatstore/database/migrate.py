"""The revision of the tables: read whenever beat starts, changed only on request.

Invariants:
    * One process at a time changes the tables; others wait, and find the work done. Where the
      server's lock does nothing, they fail at what the first one has made, and try again.
    * A table is made or dropped by `upgrade` and `downgrade` and by nothing else.
    * Alembic is imported when a table must change, so asking costs beat's start nothing.

On failure: SQLite and PostgreSQL undo everything, the revision included. MySQL commits
each statement by itself; there, running `upgrade` again goes on where it broke off.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Dialect, column, inspect, select, table, text
from sqlalchemy.exc import ArgumentError, ProgrammingError, SAWarning
from sqlalchemy.schema import CreateSchema

from beatstore.database import triggers
from beatstore.database.dialects import dialect_of
from beatstore.database.drivers import unlimit_answers
from beatstore.database.engine import Database
from beatstore.database.faults import codes, rolled_back, unavailable
from beatstore.database.models import REVISION, VERSION_TABLE
from beatstore.errors import ConfigError, SchemaError

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["check", "downgrade", "locked", "revision_of", "session_sql", "upgrade"]

logger = logging.getLogger(__name__)

#: How many seconds an upgrade waits for another process whose work it found in its way.
_PAUSES_S = (0.5, 1.0, 2.0, 4.0)

#: What is to be made is there already: PostgreSQL, then MySQL and MariaDB.
_THERE: set[object] = {
    *("23505", "42P07", "42710", "42723", "42P06", "42701"),
    *(1007, 1050, 1060, 1061, 1062, 1091, 1359, 1826),
}

# Alembic keeps the running environment in module globals.
_alembic = threading.Lock()


def revision_of(database: Database) -> str | None:
    """Return the revision of the tables in `database`, or None where there are none.

    Opens a connection of its own. What the driver raises when the database does not
    answer is let through.

    Raises:
        ConfigError: the driver does not take what the URL or the engine's options say, or they
            name no database.
    """
    versions = table(VERSION_TABLE, column("version_num"), schema=database.schema)
    with _connected(database) as connection:
        if not (database.schema or connection.dialect.default_schema_name):
            raise _refusal(database, "a URL that names a database, or beatstore_schema")
        if not inspect(connection).has_table(VERSION_TABLE, schema=database.schema):
            return None
        found: str | None = connection.scalar(select(versions.c.version_num))
        return found


def _connected(database: Database) -> Connection:
    try:
        return database.engine.connect()
    except ConfigError:
        raise
    except (TypeError, ValueError, AttributeError, ArgumentError, ProgrammingError) as error:
        if codes(error):  # of the server
            raise
        said = str(getattr(error, "orig", error)).partition("\n")[0]
        expected = (
            f"a URL and engine_options that its driver takes ({type(error).__name__}: {said})"
        )
        raise _refusal(database, expected) from error


def _refusal(database: Database, expected: str) -> ConfigError:
    return ConfigError("url", database.safe_url, expected, database.kind.example_url)


def check(database: Database) -> None:
    """Refuse to go on unless the tables are exactly those this version works with.

    Raises:
        SchemaError: one line, saying what was found, what is needed and what to run.
    """
    found = revision_of(database)
    if found != REVISION:
        raise SchemaError(_mismatch(database, found))
    with database.engine.connect() as connection:
        dead = triggers.orphaned(connection, database.schema)
    if dead:
        names = ", ".join(trigger.name for trigger in dead)
        accounts = ", ".join(
            sorted({trigger.definer or "its name is not shown" for trigger in dead})
        )
        raise SchemaError(
            f"{database.where}: the triggers {names} belong to an account that is gone "
            f"({accounts}), and the server refuses what would fire them: {database.to_migrate}"
        )
    if not database.notify and _notifies_wrongly(database):
        logger.warning(
            "beatstore_notify is False, but the triggers of %s still notify: %s",
            database.where,
            database.to_migrate,
        )


def upgrade(database: Database) -> None:
    """Bring the tables to this version's revision, making what is missing.

    Safe to call from any number of processes and threads at once. Runs in a transaction
    of its own, and does nothing where there is nothing to do. On MySQL and MariaDB it makes
    triggers anew that belong to another account, unless that is known to exist.

    Raises:
        SchemaError: the tables belong to a newer beatstore, or another process has kept
            MySQL's lock for ten minutes.
        ConfigError: a schema was asked for, and the database is SQLite.
    """
    for pause in (*_PAUSES_S, None):
        found = revision_of(database)
        if found == REVISION:
            _repair(database)
            return
        if _unknown(found):
            raise SchemaError(_mismatch(database, found))
        try:
            _upgrade(database)
        except Exception as error:
            if pause is None or not _overtaken(database, error, found):
                raise
            logger.info("another process migrates %s too, trying again", database.where)
            time.sleep(pause)
        else:
            return


def _upgrade(database: Database) -> None:
    from alembic import command  # noqa: PLC0415  (see the module's docstring)

    with _alembic, _quiet(), locked(database) as connection:
        command.upgrade(_config(connection, database.schema), "head")
        triggers.repair(connection, database.schema)
        _set_notifying(connection, database)


def _overtaken(database: Database, error: Exception, found: str | None) -> bool:
    """Say whether an upgrade failed because another process does the same.

    That is so only where the lock does nothing: some servers and poolers have the function, and
    no lock behind it. There whoever comes second fails at what exists already, at the revision
    that it does not find any more, or at a conflict; and it can go on from what the first made.
    """
    if codes(error) & _THERE or rolled_back(error):
        return True
    return not unavailable(error) and revision_of(database) != found


@contextmanager
def _quiet() -> Iterator[None]:
    """Let SQLAlchemy say nothing of what OceanBase adds when it describes its tables.

    Called with the lock of this process, as it changes the filters of all threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unknown schema content", SAWarning)
        yield


def _repair(database: Database) -> None:
    """Make triggers anew that are not as they should be; nothing is locked where all are."""
    dialect = dialect_of(database.engine.dialect)
    if dialect.triggers_have_definers or _notifies_wrongly(database):
        with locked(database) as connection:
            triggers.repair(connection, database.schema)
            _set_notifying(connection, database)


def _notifies_wrongly(database: Database) -> bool:
    """Say whether the triggers do other than the setting says."""
    with database.engine.connect() as connection:
        dialect = dialect_of(connection.dialect)
        return bool(dialect.notifying_sql(connection, database.schema, database.notify))


def _set_notifying(connection: Connection, database: Database) -> None:
    dialect = dialect_of(connection.dialect)
    driver = connection.execution_options(no_parameters=True)
    for statement in dialect.notifying_sql(connection, database.schema, database.notify):
        driver.exec_driver_sql(statement)


def downgrade(database: Database, revision: str = "base") -> None:
    """Take the tables back to `revision`; by default drop them with all their rows.

    Everything beatstore made goes, and nothing else; a schema it made stays. Runs in a
    transaction of its own.
    """
    from alembic import command  # noqa: PLC0415  (see the module's docstring)

    with _alembic, _quiet(), locked(database) as connection:
        command.downgrade(_config(connection, database.schema), revision)


@contextmanager
def locked(database: Database) -> Iterator[Connection]:
    """Open the transaction in which tables are changed, once nobody else is in it.

    On the connection, names without a schema mean the schema of `database`, which is
    made if it is missing.
    """
    dialect = dialect_of(database.engine.dialect)
    prelude = session_sql(database.engine.dialect, database.schema)
    with database.engine.connect() as connection:
        connection.execution_options(isolation_level=dialect.claim_isolation)
        if dialect.is_server:
            # On MySQL neither the lock nor USE ends with the transaction, so the session must:
            # detached from its pool, the connection is closed below. To change a large table
            # may take long.
            connection.detach()
            unlimit_answers(connection.connection.dbapi_connection)
        try:
            with dialect.begin_claim(connection):
                dialect.wait_for_migrations(connection, database.schema)
                _ensure_schema(connection, database.schema)
                for statement in prelude:
                    connection.execute(text(statement))
                yield connection
        finally:
            dialect.end_migrations(connection, database.schema)


def session_sql(dialect: Dialect, schema: str | None) -> list[str]:
    """Return the SQL that readies a session for revisions: its zone, what names mean.

    Raises:
        ConfigError: a schema was asked for, and the database is SQLite.
    """
    database = dialect_of(dialect)
    database.check_schema(schema)
    return database.session_sql(dialect.identifier_preparer.quote(schema) if schema else None)


def _ensure_schema(connection: Connection, schema: str | None) -> None:
    # CREATE SCHEMA IF NOT EXISTS would ask for the right to create even where it exists.
    if schema and schema not in inspect(connection).get_schema_names():
        connection.execute(CreateSchema(schema))


def _config(connection: Connection, schema: str | None) -> Config:
    from alembic.config import Config  # noqa: PLC0415  (see the module's docstring)

    config = Config(attributes={"connection": connection, "schema": schema})
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    return config


def _scripts() -> Path:
    """Find the revisions: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def _unknown(found: str | None) -> bool:
    """Say whether `found` is a revision that came after this version. They are numbered."""
    return found is not None and not (found.isdecimal() and int(found) <= int(REVISION))


def _mismatch(database: Database, found: str | None) -> str:
    if _unknown(found):
        return (
            f"{database.where}: these tables are of revision {found}, newer than this beatstore "
            f"knows ({REVISION}): upgrade beatstore"
        )
    what = f"beatstore's tables are of revision {found}" if found else "no beatstore tables here"
    return (
        f"{database.where}: {what}, and this version needs revision {REVISION}: "
        f"{database.to_migrate}"
    )
