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
    event,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import Dialect, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import JSON, DateTime, TypeDecorator, TypeEngine

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
    "read_leniently",
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
@compiles(_Written)
def _as_it_is(element: FunctionElement[Any], compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(*element.clauses, **kw)


@compiles(_Read, "postgresql")
def _pg_read(element: _Read, compiler: SQLCompiler, **kw: Any) -> str:
    # As JSON, which no setting of a session changes. An instant itself is written in the
    # session's zone and DateStyle; not every driver asks for the style, and in zones east of
    # UTC the end of year 9999 is no year that Python has.
    inner = compiler.process(*element.clauses, **kw)
    return f"CAST(to_json(timezone('UTC', {inner})) AS TEXT)"


@compiles(_Written, "postgresql")
def _pg_written(element: _Written, compiler: SQLCompiler, **kw: Any) -> str:
    inner = compiler.process(*element.clauses, **kw)
    if compiler.dialect.driver != "asyncpg":
        return inner
    # As text: asyncpg makes `infinity` of Python's last instant.
    return f"CAST(CAST({inner} AS TEXT) AS TIMESTAMP WITH TIME ZONE)"


class _Uncast(postgresql.TIMESTAMP):
    """A `timestamptz` that SQLAlchemy does not make one of asyncpg's, which takes no text."""

    def adapt(self, cls: Any, **kw: Any) -> Any:
        """Stay what it is."""
        return _Uncast(timezone=True)


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
        if dialect.name == "postgresql":
            if dialect.driver == "asyncpg":
                return _Uncast(timezone=True)
            return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(String(26))

    # Here and not in the type of PostgreSQL: SQLAlchemy asks this type, for all databases at
    # once, whether there is such an expression, and remembers the answer.
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
        if value.tzinfo is None:
            raise ValueError(
                f"expected an aware datetime, got {value!r}; write it with tzinfo=timezone.utc"
            )
        utc = value.astimezone(timezone.utc)
        if dialect.name == "postgresql":
            return utc.isoformat() if dialect.driver == "asyncpg" else utc
        naive = utc.replace(tzinfo=None)
        if dialect.name in ("mysql", "mariadb"):
            return naive
        return naive.isoformat(sep=" ", timespec="microseconds")

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Return what makes an aware UTC datetime of a value, or `Unreadable`."""
        return _instant


def _instant(value: Any) -> Any:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            value = value.strip('"')
            return datetime.fromisoformat(f"{_complete(value)}+00:00")
        return value.astimezone(_UTC) if value.tzinfo else value.replace(tzinfo=_UTC)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        return Unreadable(str(value), f"not an instant: {error}")


def _complete(text: str) -> str:
    """Put back the zeros at the end, which JSON leaves out, and Python 3.10 misses."""
    return f"{text:0<26}" if _PARTIAL and len(text) > _SECONDS else text


_SECONDS = len("2026-01-31T09:00:00")
_PARTIAL = sys.version_info < (3, 11)
_UTC = timezone.utc


for _kind in (_Read, _Written):
    _kind.type = Instant()  # type: ignore[misc]


class TooDeepError(InvalidEntryError, DontWrapMixin):
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

    #: How many levels MariaDB's check of a JSON column takes; MySQL's takes 100.
    levels = 31

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Refuse what MariaDB would refuse with an error that looks like an outage."""
        check_levels("args, kwargs or options", value, dialect, self.levels)
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


def check_levels(field: str, value: Any, dialect: Dialect, levels: int = Json.levels - 2) -> None:
    """Refuse JSON that is too deep for the database; the default is for an entry's arguments.

    Raises:
        TooDeepError: it has more levels of lists and dicts.
    """
    if value and getattr(dialect, "is_mariadb", False) and _deeper(value, levels):
        raise TooDeepError(
            field,
            "more levels",
            f"JSON of at most {levels} levels, which is what MariaDB holds",
            "fewer lists, dicts and signatures within each other",
        )


class Arguments(Json):
    """Arguments of a task: JSON, in which values of other types are `Typed`."""

    cache_ok = True

    #: The audit and what code declared hold the same, one and two levels further in.
    levels = Json.levels - 2

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


def read_leniently(engine: Engine) -> None:
    """Let an engine of our own read JSON without end, which psycopg refuses.

    psycopg decodes by itself, and one value that it can't would hide a page of rows. It comes
    as text instead, which the types of the columns find unreadable.
    """
    if engine.dialect.driver != "psycopg":
        return

    def on_connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        adapters: Any = connection.adapters
        oid = adapters.types["json"].oid
        adapters.register_loader(oid, _lenient(adapters.get_loader(oid, 0)))

    event.listen(engine, "connect", on_connect)


def _lenient(kind: Any) -> Any:
    """Return a loader for psycopg that gives the text where its own, `kind`, fails."""

    class Lenient:
        format = kind.format

        def __init__(self, oid: int, context: Any = None) -> None:
            self._load = kind(oid, context).load

        def load(self, data: Any) -> Any:
            try:
                return self._load(data)
            except Exception:  # noqa: BLE001  (its own errors, and RecursionError)
                return bytes(data).decode(errors="replace")

    return Lenient
