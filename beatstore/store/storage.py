"""What a database holds of beatstore: revision, sizes, triggers.

Each function joins the open transaction it is given.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import column, select, table

from beatstore.database.dialects import TableSize, dialect_of
from beatstore.database.models import VERSION_TABLE, Base, EntryModel
from beatstore.database.rows import Transaction

__all__ = ["Storage", "TableSize", "storage"]


@dataclass(frozen=True, slots=True)
class Storage:
    """What a database holds of beatstore.

    Attributes:
        database: what kind of database it is: "PostgreSQL", "MySQL", "MariaDB" or "SQLite".
        version: the version of the server, or of the library.
        revision: the revision of the tables; None: not known.
        size: the bytes of beatstore's tables with their indexes; of SQLite, of the whole file.
        tables: how large each table is, by name.
        retention: for how many seconds old runs are kept.
        triggers: the names of beatstore's triggers that are there, sorted.
        missing_triggers: those that should be there and are not. Without them, what plain SQL
            changes in a row counts late or not at all.
    """

    database: str
    version: str
    revision: str | None
    size: int | None
    tables: tuple[TableSize, ...]
    retention: float
    triggers: tuple[str, ...]
    missing_triggers: tuple[str, ...]


def storage(tx: Transaction) -> Storage:
    """Return what the database holds; see `Store.storage`."""
    connection = tx.session.connection(bind_arguments={"mapper": EntryModel})
    kind, schema = dialect_of(connection.dialect), tx.database.schema
    versions = table(VERSION_TABLE, column("version_num"), schema=schema)
    revision = tx.execute(select(versions.c.version_num)).scalar()
    names = [*Base.metadata.tables, VERSION_TABLE]
    tables = kind.table_sizes(connection, schema, names)
    triggers = kind.trigger_names(connection, schema)
    return Storage(
        database=kind.label,
        version=".".join(map(str, connection.dialect.server_version_info or ())),
        revision=revision,
        size=kind.size(connection, tables),
        tables=tuple(tables),
        retention=tx.settings.retention,
        triggers=tuple(triggers),
        missing_triggers=tuple(sorted(kind.triggers - set(triggers))),
    )
