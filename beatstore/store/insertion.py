"""Insert one entry with all that belongs to it: its tags, its edges, its row of the audit.

On PostgreSQL one statement writes an entry without upstreams. Elsewhere it is a statement for
each table.

Invariants:
    * A name that is taken shows in the result, not in a failed statement: the caller's
      transaction stays usable.
    * The entry that is returned is the row that the database has made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    String,
    bindparam,
    cast,
    func,
    literal,
    select,
    true,
)
from sqlalchemy import insert as plain_insert
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from beatstore.database.columns import Instant
from beatstore.database.dialects import DatabaseDialect, dialect_of
from beatstore.database.functions import db_now
from beatstore.database.rows import Transaction
from beatstore.database.tables import AUDIT, ENTRY, TAG
from beatstore.definition import edits
from beatstore.records import Entry
from beatstore.store import audit, links

__all__ = ["DEFAULTS", "SAID", "audited", "insert", "is_at_once"]

#: The values of the columns that a new row need not set. They are given to the database: as parts
#: of a query, SQLAlchemy's inserts can lose their own defaults.
DEFAULTS: dict[str, Any] = {
    column.name: column.default.arg
    for column in ENTRY.columns
    if isinstance(column.default, ScalarElementColumnDefault)
}

#: The columns of the audit that are given as they are.
SAID = ("actor", "action", "reason")

#: Names of parameters that no column has.
_NOW, _REST, _TAGS = "new_now", "new_audit", "new_tags"


def is_at_once(given: Mapping[str, Any]) -> bool:
    """Return whether one statement writes an entry with these fields, where the database can."""
    return not given.get("after")


def insert(tx: Transaction, action: str, name: str, checked: edits.CheckedFields) -> Entry | None:
    """Insert an entry with its tags, edges and audit; None if the name is taken."""
    # Once there is a connection, its dialect knows what the server can do.
    dialect = tx.connection.dialect
    is_returned = dialect.insert_returning
    # A one-shot does not need to know the time, if the database returns what it has stored.
    now = None if is_returned and checked.columns["kind"] == "once" else tx.now()
    row = {**DEFAULTS, **edits.new_row(name, checked, now, tx.settings)}
    if now is None and tx.database.clock is not None:
        row["created_at"] = row["updated_at"] = tx.database.clock.now()
    kind = dialect_of(dialect)
    if kind.writes_in_queries and not checked.after:
        return _insert_at_once(tx, kind, action, row, checked.tags or ())
    # Refused before anything is written, since the caller may commit all the same.
    ups = links.of_new(tx, name, checked.after or ())
    made = _insert_row(tx, kind, row, is_returned)
    if made is None:
        return None
    if checked.tags:
        tags = [{"entry_id": made.id, "tag": tag} for tag in checked.tags]
        tx.execute(plain_insert(TAG).inline(), tags)
    after = links.write_new(tx, made, checked.after, ups) if checked.after else []
    audit.record(tx, action, name, None, audit.entry_columns(made, checked.tags or (), after))
    return made


def _insert_row(
    tx: Transaction, kind: DatabaseDialect, row: dict[str, Any], is_returned: bool
) -> Entry | None:
    if not is_returned:
        return tx.get(row["name"]) if tx.insert(ENTRY, row) else None
    statement = _entry_statement(kind, tuple(row))
    return next(iter(tx.all(Entry, statement, [row])), None)


def _insert_at_once(
    tx: Transaction, kind: DatabaseDialect, action: str, row: dict[str, Any], tags: tuple[str, ...]
) -> Entry | None:
    """Insert an entry, its tags and its row of the audit by one statement."""
    clock = tx.database.clock
    given = {
        **row,
        **{f"new_{name}": value for name, value in audit.author(tx).items()},
        "new_action": action,
        _REST: audited({**row, "tags": sorted(tags) or None}),
    }
    if clock is not None:
        given[_NOW] = clock.now()
    if tags:
        given[_TAGS] = list(tags)
    statement = _statement_at_once(kind, tuple(row), clock is not None, bool(tags))
    return next(iter(tx.all(Entry, statement, [given])), None)


def audited(row: Mapping[str, Any]) -> str:
    """Return the row of a new entry as the text of a JSON object, without its `{`."""
    return json.dumps(audit.shown(row), default=datetime.isoformat)[1:]


@cache
def _entry_statement(kind: DatabaseDialect, columns: tuple[str, ...]) -> Any:
    """Return an INSERT of an entry, which returns its row.

    The parameters are these columns; the rest has defaults.
    """
    values: dict[str, Any] = {name: bindparam(name, type_=ENTRY.c[name].type) for name in columns}
    for stamp in ("created_at", "updated_at"):
        values.setdefault(stamp, db_now())
    return kind.insert_ignore(ENTRY).values(values).returning(*ENTRY.columns)


@cache
def _statement_at_once(
    kind: DatabaseDialect, columns: tuple[str, ...], has_clock: bool, has_tags: bool
) -> Any:
    """Return a query that inserts into three tables, and selects the row of the entry."""
    made = _entry_statement(kind, columns).cte("made")
    now: ColumnElement[Any] = bindparam(_NOW, type_=Instant()) if has_clock else db_now()
    # The id is known only now. The text of a JSON object is that of another one without its `{`.
    after = func.concat(
        literal('{"id": '), made.c.id, literal(", "), bindparam(_REST, type_=String())
    )
    change = {
        "at": now,
        **{
            name: bindparam(f"new_{name}", type_=AUDIT.c[name].type)
            for name in ("actor", "action", "reason")
        },
        "entry": made.c.name,
        "after": cast(after, JSON),
    }
    noted = plain_insert(AUDIT).from_select(
        list(change), select(*change.values()).select_from(made), include_defaults=False
    )
    found = select(made).add_cte(noted.cte("noted"))
    if has_tags:
        tag = func.unnest(bindparam(_TAGS, type_=ARRAY(String))).table_valued("tag")
        tag = tag.render_derived()
        of_entry = select(made.c.id, tag.c.tag).select_from(made.join(tag, true()))
        tagged = plain_insert(TAG).from_select(["entry_id", "tag"], of_entry)
        found = found.add_cte(tagged.cte("tagged"))
    return found
