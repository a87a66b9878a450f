"""The last runs of many entries, in one statement.

The ids of the newest runs of each entry are found by the unique index, in its order, and the rows
are joined to them. A database without LATERAL gets a UNION with a part for each entry, for which
PostgreSQL's planner would take long. A window function would read all runs of the entries.

Each function joins the open transaction it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import BigInteger, Select, Subquery, bindparam, column, select, text, true

from beatstore.database.dialects import dialect_of
from beatstore.database.rows import Transaction
from beatstore.database.tables import ENTRY, RUN
from beatstore.definition import fields
from beatstore.errors import InvalidEntryError
from beatstore.records import Run

__all__ = ["last_runs"]

#: How many entries one statement asks about; SQLite takes 500 parts of a UNION.
_ENTRIES = 400

_MOST = 1000


def last_runs(tx: Transaction, names: Iterable[str], limit: int) -> dict[str, tuple[Run, ...]]:
    """Return the last runs of each entry; see `Store.last_runs`."""
    limit = fields.whole("limit", limit, least=1, most=_MOST)
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidEntryError("names", names, "the names of entries, in a list")
    found: dict[str, list[Run]] = {fields.sought("names", name): [] for name in names}
    asked, seen = list(found), set[int]()
    for at in range(0, len(asked), _ENTRIES):
        for row in tx.execute(_newest(tx, asked[at : at + _ENTRIES], limit)):
            columns: Any = row[:-1]  # in the order of a run's fields
            # MySQL ignores spaces at the end of a name, and finds an entry by several.
            if row[-1] in found and row.id not in seen:
                seen.add(row.id)
                found[row[-1]].append(Run(*columns))
    return {name: tuple(runs) for name, runs in found.items()}


def _newest(tx: Transaction, names: Sequence[str], limit: int) -> Select[Any]:
    """Return a query for the newest runs of entries, each with its entry's name now."""
    has_lateral = dialect_of(tx.dialect).has_lateral
    ids = _by_lateral(names, limit) if has_lateral else _by_union(tx, names, limit)
    found = select(RUN, ENTRY.c.name).select_from(ids).join(RUN, RUN.c.id == ids.c.id)
    found = found.join(ENTRY, ENTRY.c.id == RUN.c.entry_id)
    return found.order_by(RUN.c.due_at.desc(), RUN.c.attempt.desc())


def _by_lateral(names: Sequence[str], limit: int) -> Subquery:
    of_entry = select(RUN.c.id).where(RUN.c.entry_id == ENTRY.c.id).correlate(ENTRY)
    newest = of_entry.order_by(RUN.c.due_at.desc(), RUN.c.attempt.desc()).limit(limit).lateral()
    found = select(newest.c.id).select_from(ENTRY).join(newest, true())
    return found.where(ENTRY.c.name.in_(names)).subquery("ids")


def _by_union(tx: Transaction, names: Sequence[str], limit: int) -> Subquery:
    # As text: SQLAlchemy takes longer to build and compile the parts than databases to execute.
    quote = tx.dialect.identifier_preparer.quote
    at = f"{quote(tx.database.schema)}." if tx.database.schema else ""
    # A part is limited inside, or SQLite refuses it.
    part = (
        f"SELECT id FROM (SELECT id FROM {at}{RUN.name} WHERE entry_id = "
        f"(SELECT id FROM {at}{ENTRY.name} WHERE name = :name{{0}}) "
        f"ORDER BY due_at DESC, attempt DESC LIMIT {limit}) AS newest{{0}}"
    )
    given: list[Any] = [bindparam(f"name{number}", name) for number, name in enumerate(names)]
    parts = " UNION ALL ".join(part.format(number) for number in range(len(names)))
    return text(parts).bindparams(*given).columns(column("id", BigInteger)).subquery("ids")
