"""The types of columns: the same value comes back, whichever database held it.

Invariants:
    * Instants come back as aware UTC datetimes with microseconds, to year 9999.
    * A value that can't be read (a row written by hand) comes back as `Unreadable`
      and never raises: one bad row must not hide the good ones beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Float,
    Integer,
    String,
    Text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import JSON, DateTime, TypeDecorator, TypeEngine

from beatstore.database.dialects import dialect_of, in_utc
from beatstore.definition.values import Typed
from beatstore.errors import InvalidEntryError

__all__ = [
    "Arguments",
    "BigId",
    "BigWhole",
    "Instant",
    "Json",
    "Name",
    "Note",
    "Number",
    "Unreadable",
    "Whole",
    "check_levels",
]


class Unreadable(str):
    """What stands in a result where a stored value could not be decoded: its text, and why."""

    reason: str

    def __new__(cls, given: str, reason: str) -> Unreadable:
        """Keep the reason beside the text."""
        made = super().__new__(cls, given)
        made.reason = reason
        return made

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        """Let it be copied and pickled."""
        return self.given, self.reason

    @property
    def given(self) -> str:
        """The text alone."""
        return str.__str__(self)


class _Read(FunctionElement[datetime]):
    """An instant as it is selected."""

    name = "read_instant"
    inherit_cache = True


class _Written(FunctionElement[datetime]):
    """An instant as it is given to a statement."""

    name = "written_instant"
    inherit_cache = True


@compiles(_Read)
def _read(element: _Read, compiler: SQLCompiler, **kw: Any) -> str:
    inner = compiler.process(*element.clauses, **kw)
    return dialect_of(compiler.dialect).select_instant(inner)


@compiles(_Written)
def _written(element: _Written, compiler: SQLCompiler, **kw: Any) -> str:
    inner = compiler.process(*element.clauses, **kw)
    return dialect_of(compiler.dialect).write_instant(inner, compiler.dialect)


class Instant(TypeDecorator[datetime]):
    """An aware UTC instant, with microseconds.

    Stored as `timestamptz` on PostgreSQL, `DATETIME(6)` in UTC on MySQL and MariaDB,
    and on SQLite as text of fixed width, `2026-01-31 09:00:00.000000`, which orders as
    time does and is what SQLite's own date functions read and write.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type for `dialect`."""
        return dialect_of(dialect).instant_type(dialect)

    # Here and not in the type of one database: SQLAlchemy adapts that type to the class of its
    # driver, which does not have these methods.
    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select it so that a driver can't read it wrong."""
        return _Read(column)

    def bind_expression(self, bindparam: BindParameter[Any]) -> ColumnElement[Any]:
        """Give it so that a driver can't write it wrong."""
        return _Written(bindparam)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Give the database an instant; a naive datetime is refused."""
        if value is None:
            return None
        return dialect_of(dialect).instant_parameter(in_utc(value), dialect)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Return what makes an aware UTC datetime of a value, or `Unreadable`."""
        return _instant


def _instant(value: Any) -> Any:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            value = value.strip('"')
            value = _utc_text(value)
        return value.astimezone(_UTC) if value.tzinfo else value.replace(tzinfo=_UTC)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        return Unreadable(str(value), f"not an instant: {error}")


def _utc_text(text: str) -> datetime:
    """Read a time or a date alone, in UTC; an offset is refused, since no column holds one."""
    # Not with "+00:00" behind it: Python takes that for the time of a date alone.
    read = datetime.fromisoformat(_complete(text))
    if read.tzinfo is not None:
        raise ValueError("it has an offset")
    return read


def _complete(text: str) -> str:
    """Put back the zeros at the end, which JSON leaves out, and Python 3.10 misses."""
    return f"{text:0<26}" if _PARTIAL and text[_SECONDS : _SECONDS + 1] == "." else text


_SECONDS = len("2026-01-31T09:00:00")
_PARTIAL = sys.version_info < (3, 11)
_UTC = timezone.utc


for _kind in (_Read, _Written):
    _kind.type = Instant()  # type: ignore[misc]


#: The audit and what code declared hold an entry's arguments too, one and two levels further in.
_SPARE_LEVELS = 2


class _TooDeepError(InvalidEntryError, DontWrapMixin):
    """JSON has more levels than the database takes."""


def _deeper(value: Any, levels: int) -> bool:
    """Say whether JSON has more than so many levels of lists and dicts."""
    if not isinstance(value, list | dict):
        return False
    items = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper(item, levels - 1) for item in items)


class Json(TypeDecorator[Any]):
    """A JSON document; text that is not JSON is read as `Unreadable`."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    #: How many levels are kept free, for a document that holds this one.
    spare_levels = 0

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Refuse what the database would refuse with an error that looks like an outage."""
        check_levels("args, kwargs or options", value, dialect, self.spare_levels)
        return value

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        """Wrap the driver's decoding, so that a bad document does not raise."""
        inner = super().result_processor(dialect, coltype)
        if inner is None:
            return None

        def decode(value: Any) -> Any:
            try:
                return inner(value)
            except (TypeError, ValueError, RecursionError) as error:
                return Unreadable(str(value), f"not JSON: {error}")

        return decode

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """Keep JSON's own operators."""
        return self.impl_instance.coerce_compared_value(op, value)


def check_levels(field: str, value: Any, dialect: Dialect, spare: int = _SPARE_LEVELS) -> None:
    """Refuse JSON that is too deep for the database.

    Args:
        field: for the error.
        value: the JSON.
        dialect: of the database.
        spare: how many levels to keep free; by default, as for an entry's arguments.

    Raises:
        _TooDeepError: it has more levels of lists and dicts.
    """
    if not value or (database := dialect_of(dialect)).json_levels is None:
        return
    levels = database.json_levels - spare
    if _deeper(value, levels):
        raise _TooDeepError(
            field,
            "more levels",
            f"JSON of at most {levels} levels, which is what {database.label} holds",
            "fewer lists, dicts and signatures within each other",
        )


class Arguments(Json):
    """Arguments of a task: JSON, in which values of other types are `Typed`."""

    cache_ok = True

    spare_levels = _SPARE_LEVELS

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Mark the values when they are read."""
        inner = super().result_processor(dialect, coltype)

        def read(value: Any) -> Any:
            found = value if inner is None else inner(value)
            try:
                return _marked(found, _MOST_LEVELS) if found else found
            except _TooManyLevelsError:
                # A driver may have decoded it: then it is too deep for `str` as well.
                given = value if isinstance(value, str) else "…"
                return Unreadable(given, f"more than {_MOST_LEVELS} levels of JSON")

        return read


#: How many levels of JSON are read from a row, written by plain SQL. More could be too many
#: for Python's stack where a message is made.
_MOST_LEVELS = 100


class _TooManyLevelsError(Exception):
    pass


def _marked(value: Any, levels: int) -> Any:
    if levels == 0:
        raise _TooManyLevelsError
    if isinstance(value, list):
        return [
            _marked(item, levels - 1) if isinstance(item, (dict, list)) else item for item in value
        ]
    if not isinstance(value, dict):
        return value
    found = {
        key: _marked(item, levels - 1) if isinstance(item, (dict, list)) else item
        for key, item in value.items()
    }
    typed = Typed.KEYS[0] in found and found.keys() == {*Typed.KEYS}
    return Typed(found) if typed else found


class _Checked(TypeEngine[Any]):
    """A column of SQLite, which holds values of any type, whatever was declared."""

    kinds: tuple[type, ...]

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        kinds, what = {*self.kinds, type(None)}, self.kinds[-1].__name__

        def check(value: Any) -> Any:
            return value if type(value) in kinds else Unreadable(str(value), f"not of type {what}")

        return check


def _checked(kind: type[TypeEngine[Any]], *kinds: type) -> Any:
    """Return a type of SQLite's columns that hold nothing but `kinds`."""
    return type(f"_SQLite{kind.__name__}", (_Checked, kind), {"kinds": kinds})


_SQLiteString = _checked(String, str)


def Name(length: int) -> String:  # noqa: N802  (reads as a type in a column list)
    """Return a text type that compares byte by byte on every database."""
    return (
        String(length)
        .with_variant(
            mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
        )
        .with_variant(_SQLiteString(length), "sqlite")
    )


#: Primary keys. SQLite numbers rows by itself only for INTEGER.
BigId = BigInteger().with_variant(Integer, "sqlite")

#: The other types of columns.
Note = Text().with_variant(_checked(Text, str)(), "sqlite")
Whole = Integer().with_variant(_checked(Integer, int)(), "sqlite")
BigWhole = BigInteger().with_variant(_checked(BigInteger, int)(), "sqlite")
Number = Float(53).with_variant(_checked(Float, int, float)(53), "sqlite")
