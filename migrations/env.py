"""Run the revisions: for `Store.migrate()`, and for the `alembic` command in a checkout.

`beatstore.database.migrate` hands a connection in, with the lock, the transaction and the
schema settled. The command line names a database instead, and gets the same connection;
with `--sql` it gets a script.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import MigrationScript
from alembic.util import CommandError
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    DefaultClause,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    make_url,
)
from sqlalchemy.dialects.mysql import DOUBLE

from beatstore.database import migration_types
from beatstore.database.columns import BigId, Instant, Json
from beatstore.database.engine import Database
from beatstore.database.functions import clock_default
from beatstore.database.migrate import locked, session_sql
from beatstore.database.models import VERSION_TABLE, Base
from beatstore.errors import BeatstoreError

config = context.config


def run() -> None:
    """Run what was asked for, on the connection given, as a script, or on a URL."""
    given: Connection | None = config.attributes.get("connection")
    if given is not None:
        migrate(given, config.attributes["schema"])
        return
    url, schema = asked_for("url"), asked_for("schema")
    if url is None:
        raise CommandError(
            "which database? Set BEATSTORE_URL, or write "
            "`alembic -x url=postgresql+psycopg://user@host/database upgrade head`"
        )
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        if context.is_offline_mode():
            write_script(url, schema)
            return
        with locked(Database(url, schema=schema)) as connection:
            migrate(connection, schema)
    except BeatstoreError as error:
        raise CommandError(str(error)) from error


def asked_for(word: str) -> str | None:
    """Read `-x word=…`, or else the environment's `BEATSTORE_WORD`."""
    given = context.get_x_argument(as_dictionary=True).get(word)
    return given or os.environ.get(f"BEATSTORE_{word.upper()}") or None


def migrate(connection: Connection, schema: str | None) -> None:
    """Run the revisions on `connection`, inside its transaction."""
    context.configure(connection=connection, **options(schema))
    context.run_migrations()
    if not context.get_context().get_current_heads():
        # Alembic keeps its table, empty, after the last downgrade.
        Table(VERSION_TABLE, MetaData(), schema=schema).drop(connection, checkfirst=True)


def write_script(url: str, schema: str | None) -> None:
    """Print the SQL of the revisions, for a database that is not asked anything."""
    context.configure(url=url, literal_binds=True, **options(schema))
    with context.begin_transaction():
        for statement in session_sql(make_url(url).get_dialect()(), schema):
            context.execute(statement)
        context.run_migrations()


def options(schema: str | None) -> dict[str, Any]:
    """Say how revisions are run and compared, the same for every way of running them."""
    return {
        "target_metadata": Base.metadata,
        "version_table": VERSION_TABLE,
        "version_table_schema": schema,
        "compare_type": types_differ,
        "compare_server_default": defaults_differ,
        "include_name": is_ours,
        "render_item": render_item,
        "render_as_batch": True,
        "process_revision_directives": number,
    }


def is_ours(name: str | None, kind: str, parents: Mapping[Any, Any]) -> bool:
    """Keep the user's own tables, and Alembic's, out of autogenerate."""
    if kind != "table" or name is None:
        return True
    return name.startswith("beatstore_") and name != VERSION_TABLE


def types_differ(
    ours: object, found: Column[Any], wanted: Column[Any], found_type: object, wanted_type: object
) -> bool | None:
    """Know MySQL's DOUBLE for the Float(53) that it is; None leaves the rest to Alembic."""
    return False if isinstance(found_type, DOUBLE) and isinstance(wanted_type, Float) else None


def defaults_differ(
    ours: object,
    found: object,
    wanted: Column[Any],
    found_sql: str | None,
    _: object,
    sql: str | None,
) -> bool | None:
    """Compare what databases write in their own way; None leaves the rest to Alembic."""
    if found_sql and sql and (isinstance(wanted.type, (Json, Boolean)) or is_clock(wanted)):
        return bare(found_sql) != bare(sql)
    return None


def bare(default: str) -> str:
    """Reduce a default like `('[]')`, `'[]'::json` or `false` to what it says."""
    return re.sub(r"::\w+$", "", default).strip("()'").lower().replace("false", "0")


def is_clock(item: object) -> bool:
    """Say whether a column, or a column's default, is the database's clock."""
    default = item.server_default if isinstance(item, Column) else item
    return isinstance(default, DefaultClause) and isinstance(default.arg, clock_default)


def render_item(kind: str, item: object, autogen: AutogenContext) -> str | Literal[False]:
    """Write a revision in the types that are frozen for revisions, not in those of the models."""
    if kind == "server_default" and is_clock(item):
        return taken(autogen, "now()")
    written = frozen(item) if kind == "type" else None
    if written is None:
        return False
    return written if written.startswith("sa.") else taken(autogen, written)


def frozen(item: object) -> str | None:
    """Return how a revision writes the type of a model's column; None leaves it to Alembic."""
    if isinstance(item, Json):
        return "Json"
    if isinstance(item, Instant):
        return "Instant"
    if item is BigId:
        return "BigId"
    # Without their variants, which the models alone need, to refuse what SQLite lets through.
    if type(item) is String:
        return f"Name({item.length})"
    if type(item) is Float:
        return f"sa.Float({item.precision})"
    return f"sa.{type(item).__name__}" if type(item) in (Text, Integer, BigInteger) else None


def taken(autogen: AutogenContext, written: str) -> str:
    """Have the revision import what is `written`, a type or function of `migration_types`."""
    name = written.partition("(")[0]
    autogen.imports.add(f"from {migration_types.__name__} import {name}")
    return written


def number(migration: object, revision: object, directives: list[MigrationScript]) -> None:
    """Number revisions 0001, 0002, …, by which `check` tells older ones from newer."""
    script = directives[0]
    upgrade = script.upgrade_ops
    if getattr(config.cmd_opts, "autogenerate", False) and upgrade and upgrade.is_empty():
        directives.clear()
        context.config.print_stdout("The models are what the revisions make: nothing to do.")
        return
    latest = context.script.get_current_head()
    script.rev_id = f"{int(latest or 0) + 1:04d}"


run()
