"""Ask several questions of the database in one statement.

Each question is a query of its own, with its own order and limit. They become the parts of one
UNION ALL, in which columns of one type share a place; so what many small queries ask takes one
journey to the server.

Invariants:
    * A question gets the rows that its query alone would return. Their order is not promised:
      where it matters, `read` sorts them.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    ColumnElement,
    Select,
    cast,
    literal_column,
    null,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from beatstore.database.dialects import dialect_of
from beatstore.database.rows import Transaction

__all__ = ["Question", "ask"]

A = TypeVar("A")


class Question(Generic[A]):
    """A query, and what its rows say.

    Args:
        query: what is selected; its columns have names.
        read: makes the answer of the rows, in any order; each row has an attribute for each
            column.

    Attributes:
        answer: what `read` made of the rows; there is none before `ask`.
    """

    answer: A

    def __init__(self, query: Select[Any], read: Callable[[Sequence[Any]], A]) -> None:
        self.query = query
        self.read = read


def ask(tx: Transaction, questions: Iterable[Question[Any]]) -> None:
    """Answer all questions by one statement; none, if there are none."""
    asked = list(questions)
    if len(asked) == 1:
        asked[0].answer = asked[0].read(tx.execute(asked[0].query).all())
    if len(asked) < 2:  # noqa: PLR2004  (one has been answered)
        return
    parts = [one.query.subquery(f"part{number}") for number, one in enumerate(asked)]
    places = _Places(tx.dialect)
    taken = [places.of(part.c) for part in parts]
    selects = []
    for number, (part, at) in enumerate(zip(parts, taken, strict=True)):
        there = dict(zip(at, part.c, strict=True))
        cells = [
            there[place].label(f"c{place}") if place in there else empty.label(f"c{place}")
            for place, empty in enumerate(places.empty)
        ]
        selects.append(select(literal_column(str(number)).label("part"), *cells))
        selects[-1] = selects[-1].select_from(part)
    found: list[list[Any]] = [[] for _ in asked]
    kinds = [_row(tuple(column.key for column in part.c)) for part in parts]
    for row in tx.execute(union_all(*selects)):
        number = row[0]
        found[number].append(kinds[number](*(row[place + 1] for place in taken[number])))
    for question, rows in zip(asked, found, strict=True):
        question.answer = question.read(rows)


class _Places:
    """The columns of the whole statement: as many of each type as the part with the most has."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._by_type: dict[object, list[int]] = {}
        #: What stands in each place where a part has no column for it.
        self.empty: list[Any] = []

    def of(self, columns: Iterable[ColumnElement[Any]]) -> list[int]:
        """Return the places of the columns of one part."""
        found: list[int] = []
        for column in columns:
            # What a driver returns depends on the database's own variant of the type as well.
            key = (type(column.type), type(column.type.dialect_impl(self._dialect)))
            known = self._by_type.setdefault(key, [])
            place = next((one for one in known if one not in found), len(self.empty))
            if place == len(self.empty):
                known.append(place)
                self.empty.append(self._nothing(column.type))
            found.append(place)
        return found

    def _nothing(self, kind: TypeEngine[Any]) -> ColumnElement[Any]:
        untyped = dialect_of(self._dialect).unites_untyped_nulls
        return type_coerce(null(), kind) if untyped else cast(null(), kind)


@lru_cache(maxsize=500)
def _row(names: tuple[str, ...]) -> Any:
    """Return a class of rows with these names; as with SQLAlchemy's, they are tuples, too."""
    return namedtuple("Row", names)
