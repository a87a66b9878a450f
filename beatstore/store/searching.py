"""Search the entries for a condition that has no index, some hundred at a time.

A search ends when it has found what was asked for, or when its time is up: then it says at which
name it stopped, and the next page goes on from there. It reads a few hundred entries first, and
from how long that took follows how many it reads next.

Each function joins the open transaction it is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, case, select
from sqlalchemy.sql import ColumnElement

from beatstore.database.dialects import dialect_of
from beatstore.database.rows import Transaction
from beatstore.database.tables import ENTRY
from beatstore.store.conditions import FAILING, WAITING
from beatstore.store.sync import merge, stored
from beatstore.store.sync.entry import edited
from beatstore.types import EntryOnly, Page

__all__ = ["SEARCHED", "search"]

#: For how many seconds a search goes on. It reads one page of entries at least.
_BUDGET = 0.05

#: How many entries a page has at most.
_MOST = 20_000


@dataclass(frozen=True, slots=True)
class _Search:
    """How to search for one condition.

    Attributes:
        page: how many entries the first statement reads.
        pages: how many times entries are read at most.
        columns: what it reads of each, besides its name.
        chosen: yields the names of those that fulfil the condition, in the order of the rows.
    """

    page: int
    pages: int
    columns: Sequence[ColumnElement[Any]]
    chosen: Callable[[Transaction, Sequence[Row[Any]]], Iterator[str]]


def _by(condition: ColumnElement[bool], page: int) -> _Search:
    def chosen(tx: Transaction, rows: Sequence[Row[Any]]) -> Iterator[str]:
        return (row.name for row in rows if row.fits)

    return _Search(page, 3, [case((condition, 1)).label("fits")], chosen)


def _edited(tx: Transaction, rows: Sequence[Row[Any]]) -> Iterator[str]:
    declared = [row for row in rows if row.declared is not None]
    related = stored.related(tx, [row.id for row in declared])
    return (row.name for row in declared if edited(row, related))


#: What `edited` compares.
_COMPARED = ("id", "state", "declared", *merge.COLUMNS)

#: The conditions that are searched for.
SEARCHED: Mapping[EntryOnly, _Search] = {
    "failing": _by(FAILING, 500),
    "waiting": _by(WAITING, 1000),
    "edited": _Search(200, 2, [ENTRY.c[name] for name in _COMPARED], _edited),
}


def search(
    tx: Transaction, names: Select[Any], only: EntryOnly, limit: int, *, apart: bool
) -> Page[str]:
    """Return the names of a page of entries that fulfil a condition.

    Args:
        tx: the open transaction.
        names: a query for the names of entries in their order, with conditions of its own.
        only: one of `SEARCHED`.
        limit: the maximum number of names.
        apart: whether a page of names is chosen before anything else is read of these entries. A
            database may compute the condition for all that have a tag, or read all rows for a
            pattern of names, before it has a page.
    """
    how = SEARCHED[only]
    rest = names
    found: list[str] = []
    size, began = how.page, time.monotonic()
    for left in reversed(range(how.pages)):
        page_began = time.monotonic()
        rows = _read(tx, rest.limit(size), how.columns, apart=apart)
        found += how.chosen(tx, rows)
        if len(found) > limit:
            return Page(found[:limit], more=True, after=found[limit - 1])
        if len(rows) < size:
            return Page(found)
        after = rows[-1].name
        now = time.monotonic()
        if not left or now - began >= _BUDGET:
            return Page(found, more=True, after=after)
        rest = rest.where(ENTRY.c.name > after)
        in_time = (began + _BUDGET - now) / max(now - page_began, 1e-6) * size
        size = min(_MOST, max(how.page, int(in_time)))
    raise AssertionError("unreachable")


def _read(
    tx: Transaction, names: Select[Any], columns: Sequence[ColumnElement[Any]], *, apart: bool
) -> Sequence[Row[Any]]:
    """Return the names of a page of entries, with columns."""
    if not apart:
        return tx.execute(names.add_columns(*columns)).all()
    page = names.subquery("page")
    found = select(ENTRY.c.name, *columns).join_from(page, ENTRY, page.c.name == ENTRY.c.name)
    return tx.execute(dialect_of(tx.dialect).joined_in_order(found).order_by(ENTRY.c.name)).all()
