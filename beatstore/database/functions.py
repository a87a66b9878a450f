"""SQL functions that every database has, under names of its own."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, ColumnElement, Text, and_, bindparam, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from beatstore.database.columns import Instant
from beatstore.database.dialects import dialect_of

__all__ = [
    "NOW",
    "begins_with",
    "clock_default",
    "db_now",
    "fenced",
    "is_instant",
    "is_word",
    "micros_between",
]


class db_now(FunctionElement[datetime]):  # noqa: N801  (an SQL function, named like one)
    """The database's time at the beginning of a statement, as an `Instant`."""

    type = Instant()
    inherit_cache = True
    name = "db_now"


@compiles(db_now)
def _now(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    return dialect_of(compiler.dialect).now()


#: The time in a statement that is compiled once: `Database.given_now` gives its parameter.
NOW = func.coalesce(bindparam("now", type_=Instant()), db_now(), type_=Instant())


def is_word(column: ColumnElement[str], word: str) -> ColumnElement[bool]:
    """Return the condition that a column holds a word, exactly.

    MySQL ignores spaces at the end, unless something follows them.
    """
    same = column == word  # which an index finds
    return and_(same, column.concat("|") == f"{word}|") if word.endswith(" ") else same


def begins_with(column: ColumnElement[Any], words: str) -> ColumnElement[bool]:
    """Return the condition that a text begins with words, as `str.startswith` compares them.

    SQLite's LIKE takes upper and lower case for equal.
    """
    return func.substr(column, 1, len(words), type_=Text()) == words


def fenced(instant: ColumnElement[datetime]) -> ColumnElement[datetime]:
    """Return an instant as a query of its own, whose value PostgreSQL's planner does not know.

    For the first rows of an index up to an instant. The planner estimates from the table's
    statistics how many rows there are. They may be older than a burst, and say that there are few;
    then it reads and sorts all of them to return the first.
    """
    return select(instant).scalar_subquery()


class clock_default(FunctionElement[datetime]):  # noqa: N801  (an SQL function, named like one)
    """The database's time, as the default of a column."""

    type = Instant()
    inherit_cache = True
    name = "clock_default"


@compiles(clock_default)
def _clock_default(element: clock_default, compiler: SQLCompiler, **kw: Any) -> str:
    return dialect_of(compiler.dialect).clock_default()


class micros_between(FunctionElement[int]):  # noqa: N801  (an SQL function, named like one)
    """The microseconds from the first of two instants to the second; NULL where one is none."""

    type = BigInteger()
    inherit_cache = True
    name = "micros_between"


@compiles(micros_between)
def _micros_between(element: micros_between, compiler: SQLCompiler, **kw: Any) -> str:
    begin, end = (compiler.process(one, **kw) for one in element.clauses)
    return dialect_of(compiler.dialect).micros_between(begin, end)


class is_instant(FunctionElement[bool]):  # noqa: N801  (an SQL function, named like one)
    """Whether a cell holds an instant: it is not NULL, and no other text written by hand."""

    type = Boolean()
    inherit_cache = True
    name = "is_instant"


@compiles(is_instant)
def _is_instant(element: is_instant, compiler: SQLCompiler, **kw: Any) -> str:
    [column] = (compiler.process(one, **kw) for one in element.clauses)
    return dialect_of(compiler.dialect).is_instant(column)
