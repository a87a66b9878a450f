"""Connections to SQLite that stop before each statement, and can be cut there.

What is above them is real: SQLAlchemy, its driver, and all of beatstore. A wait for a lock is
a stop too, since nobody else could run and release it.

SQLite's own connections below them are used again, also by the next schedule: to open one, to
read the schema and to prepare the statements would take a sixth of all time.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.simulation.kernel import Kernel, Process
from tests.simulation.virtual import Virtual

__all__ = ["UndoneError", "Wire", "Wires"]

T = TypeVar("T")

#: How long SQLite waits for a lock, in seconds of the schedule.
PATIENCE = 30.0

#: What SQLAlchemy takes for a lost connection, in the words of the driver.
_CLOSED = "Cannot operate on a closed database."

#: What each connection is set to when it is opened, and keeps.
_KEPT = ("foreign_keys", "journal_mode")

_ENDS = ("COMMIT", "ROLLBACK")


class UndoneError(sqlite3.OperationalError):
    """The database has undone the transaction, as servers do to end a deadlock."""

    sqlstate = "40001"


class Wire:
    """A connection of one process, until it is closed or cut."""

    def __init__(self, wires: Wires, below: _Below) -> None:
        self._wires, self._below = wires, below
        self._broken = False
        self._seen = below.total_changes
        self._cursors: weakref.WeakSet[_Cursor] = weakref.WeakSet()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    @property
    def isolation_level(self) -> Any:
        """SQLite's own."""
        return self._below.isolation_level

    @isolation_level.setter
    def isolation_level(self, level: Any) -> None:
        if level != self._below.isolation_level:
            self._below.isolation_level = level

    def cursor(self) -> _Cursor:
        """Return a cursor whose statements stop."""
        cursor = self._below.cursor(_Cursor)
        cursor.wire = self
        self._cursors.add(cursor)
        return cursor

    def create_function(self, name: str, *given: Any, **options: Any) -> None:
        """Add a function, once: SQLite prepares all statements anew after that."""
        self._below.once(name, lambda: self._below.create_function(name, *given, **options))

    def commit(self) -> None:
        """Commit, if there is something to commit."""
        if self._below.in_transaction:
            self.outside("commit", "commit", self._below.commit)

    def rollback(self) -> None:
        """Roll back; the effect is that of a lost connection, so nothing stops here."""
        if not self._broken:
            self._below.rollback()

    def outside(self, kind: str, what: str, effect: Callable[[], T]) -> T:
        """Stop, and then do it, or break, as the schedule says."""
        process = Kernel.current()
        if process is None or kind == "rollback":
            if self._broken:
                raise sqlite3.ProgrammingError(_CLOSED)
            return effect()
        virtual = self._wires.virtual
        waits_until = virtual.monotonic + PATIENCE
        while True:
            order = process.point(kind, what)
            if self._broken:
                raise sqlite3.ProgrammingError(_CLOSED)
            if order == "cut":
                self.cut()
                raise sqlite3.ProgrammingError(_CLOSED)
            if order == "undo":
                raise UndoneError("made to be undone")
            try:
                result = effect()
            except sqlite3.OperationalError as error:
                locked = "locked" in str(error) and virtual.monotonic < waits_until
                if not locked or self._below.in_transaction:
                    raise
                process.blocked = True
                continue
            process.blocked = False
            self._note(process)
            if order == "lost":
                self.cut()
                raise sqlite3.ProgrammingError(_CLOSED)
            return result

    def cut(self) -> None:
        """Break it: the database rolls back what is not committed."""
        if not self._broken:
            self._broken = True
            for cursor in list(self._cursors):
                cursor.close()
            self._below.rollback()
            self._wires.give_back(self._below)

    def close(self) -> None:
        """Close it."""
        self.cut()

    def _note(self, process: Process) -> None:
        below = self._below
        if not below.in_transaction and below.total_changes != self._seen:
            self._seen = below.total_changes
            self._wires.committed(process)


class _Below(sqlite3.Connection):
    """SQLite's own connection.

    Attributes:
        done: what was done on it once and for all.
    """

    done: set[str]

    def once(self, what: str, do: Callable[[], object]) -> None:
        """Do something unless it has been done."""
        if what not in self.done:
            self.done.add(what)
            do()


class _Cursor(sqlite3.Cursor):
    wire: Wire
    connection: _Below

    def execute(self, sql: str, *given: Any) -> Any:
        word = sql.lstrip()[:8].upper()
        run = super().execute
        if word.startswith("PRAGMA"):
            if "busy_timeout" in sql:
                return None
            if any(setting in sql for setting in _KEPT):
                self.connection.once(sql, lambda: run(sql, *given))
                return None
            return run(sql, *given)
        kind = "statement"
        if word.startswith(_ENDS):
            kind = word.split()[0].lower()
        elif word.startswith("BEGIN"):
            kind = "begin"
        return self.wire.outside(kind, sql, lambda: run(sql, *given))

    def executemany(self, sql: str, given: Any) -> Any:
        rows, run = list(given), super().executemany
        return self.wire.outside("statement", sql, lambda: run(sql, rows))


class Wires:
    """All connections to one file.

    Attributes:
        virtual: the clocks.
        committed: called after a transaction of a process has changed something.
    """

    def __init__(self, path: Path, virtual: Virtual, committed: Callable[[Process], None]) -> None:
        self.virtual, self.committed = virtual, committed
        self._path = path
        self._free: list[_Below] = []

    def connect(self) -> Wire:
        """Open a connection."""
        below = self._free.pop() if self._free else self._open()
        below.isolation_level = "DEFERRED"
        return Wire(self, below)

    def give_back(self, below: _Below) -> None:
        """Keep a connection that nobody uses any more."""
        self._free.append(below)

    def _open(self) -> _Below:
        below = sqlite3.connect(
            self._path, timeout=0, check_same_thread=False, factory=_Below, cached_statements=512
        )
        below.done = set()
        below.create_function("strftime", -1, self.virtual.strftime)
        return below
