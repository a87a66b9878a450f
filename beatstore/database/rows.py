"""One open transaction: its statements, and rows as the values that the API returns.

Invariants:
    * Only Core statements: a caller's pending objects are not flushed, and objects they
      hold are not refreshed behind their back.
    * What is returned is a value (see `beatstore.records`): it never reads the database
      again, and can't be written back.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias, TypeVar, cast

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Executable,
    Select,
    Table,
    bindparam,
    false,
    select,
    text,
    update,
)
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from beatstore.config import Settings
from beatstore.database.dialects import dialect_of
from beatstore.database.engine import Database
from beatstore.database.models import EntryModel
from beatstore.database.tables import ENTRY
from beatstore.database.transaction import ReadingSession
from beatstore.definition import fields
from beatstore.errors import EntryNotFoundError
from beatstore.records import Audit, Entry, EntryExtras, Run

__all__ = [
    "Transaction",
]


T = TypeVar("T", Entry, Run, Audit)
K = TypeVar("K")

#: How far ahead of its time a row is announced to the beats of PostgreSQL.
_SOON = timedelta(seconds=1)

#: How many names on either side of a misspelt one are compared with it.
_NEIGHBOURS = 100

#: The entry of a name. Built once, since every call of the API executes one of them.
_IS_NAMED = ENTRY.c.name == bindparam("sought")
_NAMED = select(ENTRY).where(_IS_NAMED)
_LOCK_NAMED = _NAMED.with_for_update()
_TOUCH_NAMED = update(ENTRY).where(_IS_NAMED).values(version=ENTRY.c.version)

#: The parameters of a statement: of one execution, or of one for each row.
Given: TypeAlias = "Mapping[str, Any] | Sequence[Mapping[str, Any]]"


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open transaction, ours or the caller's, and what a statement in it needs.

    `actor` is who the changes made in it are put down to, and `reason` why they were made; see
    `beatstore.store.audit`. `joined` says that it is the caller's: whether an error undoes what
    was done before it is up to them.
    """

    session: Session
    database: Database
    settings: Settings
    actor: str = ""
    reason: str | None = None
    joined: bool = False

    @property
    def connection(self) -> Connection:
        """The connection that our statements go to; it is opened if there is none yet."""
        return self.session.connection(bind_arguments={"mapper": EntryModel})

    @property
    def dialect(self) -> Dialect:
        """The dialect of the connection that our statements go to."""
        return self.session.get_bind(EntryModel).dialect

    def execute(self, statement: Executable, given: Given | None = None) -> CursorResult[Any]:
        """Execute a statement on our tables, wherever they are, with these parameters."""
        # SQLAlchemy 2.1 would flush for a Core statement too, 2.0 would not. The mapper says
        # which database is meant in a session that is bound to several.
        with self.session.no_autoflush:
            result = self.session.execute(
                statement,
                given,
                execution_options=self.database.options,
                bind_arguments={"mapper": EntryModel},
            )
        return cast("CursorResult[Any]", result)

    def now(self) -> datetime:
        """Return what the database's clock, or the injected one, says."""

        def read() -> datetime:
            at = self.execute(select(self.database.now_sql())).scalar_one()
            assert isinstance(at, datetime)
            return at

        return self.known(("now",), read)

    def stamp(self) -> dict[str, ColumnElement[Any]]:
        """Return the columns by which a row of an entry says that somebody has edited it."""
        return {"version": ENTRY.c.version + 1, "updated_at": self.database.now_sql()}

    def known(self, key: tuple[str, ...], read: Callable[[], K]) -> K:
        """Return `read()`; in `Store.reading`, which sees one state, what it returned before."""
        if not isinstance(self.session, ReadingSession):
            return read()
        known = self.session.known
        if key not in known:
            known[key] = read()
        return cast("K", known[key])

    def plan_anew(self) -> None:
        """Force custom plans, made for the tables as they are, until the transaction ends."""
        force = dialect_of(self.dialect).force_custom_plans
        if force is not None:
            self.execute(text(force))

    @property
    def reads_snapshot(self) -> bool:
        """Whether a plain query shows the past, and only one that locks shows what is there now.

        Our own transactions read what is committed. In a caller's, MySQL is asked.
        """
        if not self.joined:
            return False
        connection = self.connection
        return dialect_of(connection.dialect).reads_snapshot(connection)

    def current(self, query: Select[Any]) -> Select[Any]:
        """Return a query that reads what is there now; it locks the rows if it has to."""
        return query.with_for_update(read=True) if self.reads_snapshot else query

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what is done inside if it raises; the transaction stays usable."""
        # The connection's savepoint: the session's would flush what the caller has pending.
        connection = self.connection
        if not dialect_of(connection.dialect).locks_rows:
            # Python's sqlite3 begins a transaction at the first write. A savepoint before that
            # would be the transaction, and releasing it would commit.
            self.execute(update(ENTRY).where(false()).values(version=ENTRY.c.version))
        savepoint = connection.begin_nested()
        try:
            yield
        except BaseException:
            # A deadlock has undone the savepoint too; the caller is told of the deadlock.
            with suppress(SQLAlchemyError):
                savepoint.rollback()
            raise
        savepoint.commit()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Do all that is done inside or, if it raises, nothing.

        This costs a savepoint in the caller's transaction only: in our own, an error undoes
        everything.
        """
        if not self.joined:
            yield
            return
        with self.savepoint():
            yield

    def insert(self, table: Table, row: dict[str, Any]) -> bool:
        """Insert a row unless its key exists; say whether it was inserted.

        A key that exists raises nothing: on PostgreSQL an error would end the caller's
        transaction.
        """
        statement = dialect_of(self.dialect).insert_counted(table).values(row)
        return self.execute(statement).rowcount == 1

    def all(
        self,
        kind: type[T],
        statement: Executable,
        given: Given | None = None,
    ) -> list[T]:
        """Return the rows of a statement that selects all columns of the table of `kind`.

        Args:
            kind: what to make of each row.
            statement: a query, or one that writes and returns rows.
            given: the parameters of the statement.
        """
        # The fields of a value are the columns, in their order.
        make: Callable[..., T] = kind
        more = (EntryExtras(self.settings.default_timezone),) if kind is Entry else ()
        return [make(*row, *more) for row in self.execute(statement, given)]

    def find(self, name: str, *, lock: bool = False) -> Entry | None:
        """Return the entry of that name, or None.

        Args:
            name: compared exactly.
            lock: keep others from writing the row until the transaction ends.
        """
        if not fields.storable(name):
            return None
        this = {"sought": name}

        def read(statement: Executable) -> Entry | None:
            found = self.all(Entry, statement, this)
            return next((one for one in found if one.name == name), None)  # MySQL ignores spaces

        if not lock:
            return self.known(("entry", name), lambda: read(_NAMED))
        if dialect_of(self.dialect).locks_rows:
            return read(_LOCK_NAMED)
        # The first write locks. If that came after reading, another's commit in between would make
        # this transaction fail, instead of one waiting.
        self.execute(_TOUCH_NAMED, this)
        return read(_NAMED)

    def get(self, name: str, *, lock: bool = False) -> Entry:
        """Return the entry of that name.

        Raises:
            EntryNotFoundError: there is none.
        """
        entry = self.find(name, lock=lock)
        if entry is None:
            raise self.missing(name)
        return entry

    def missing(self, name: str) -> EntryNotFoundError:
        """Return the error for a name that is not there, with the most similar one that is.

        It looks at the neighbours of the name and of its beginnings in the index, not
        at all names.
        """
        if not fields.storable(name):
            return EntryNotFoundError(name)
        near: set[str] = set()
        for start in {name, name[: len(name) // 2], name[:1]}:
            for side, order in (
                (ENTRY.c.name >= start, ENTRY.c.name.asc()),
                (ENTRY.c.name < start, ENTRY.c.name.desc()),
            ):
                names = select(ENTRY.c.name).where(side).order_by(order).limit(_NEIGHBOURS)
                near.update(self.execute(names).scalars())
        by_lower = {found.lower(): found for found in sorted(near, reverse=True)}
        closest = difflib.get_close_matches(name.lower(), by_lower, n=1)
        return EntryNotFoundError(name, by_lower[closest[0]] if closest else None)

    def notify(self, wake_at: datetime | None) -> None:
        """Wake PostgreSQL's beats at commit, if a row with this `wake_at` is due about now.

        For updates: inserted rows are announced by a trigger of the database.
        """
        notification = self.database.notification
        if wake_at is None or notification is None:
            return
        self.execute(notification.where(self.database.now_sql() >= wake_at - _SOON))
