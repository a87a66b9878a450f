"""Connections to SQLite that stop before each statement, and can be cut there.

What is above them is real: SQLAlchemy, its driver, and all of beatstore. A wait for a lock is
a stop too, since nobody else could run and release it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.simulation.kernel import Kernel, Process
from tests.simulation.virtual import Virtual

__all__ = ["UndoneError", "Wire", "connect"]

T = TypeVar("T")

#: How long SQLite waits for a lock, in seconds of the schedule.
PATIENCE = 30.0

#: What SQLAlchemy takes for a lost connection, in the words of the driver.
_CLOSED = "Cannot operate on a closed database."

_ENDS = ("COMMIT", "ROLLBACK")


class UndoneError(sqlite3.OperationalError):
    """The database has undone the transaction, as servers do to end a deadlock."""

    sqlstate = "40001"


class Wire(sqlite3.Connection):
    """A connection of one process.

    Attributes:
        process: whose it is; None for that of nobody, which never stops.
        committed: called after a transaction of the process has changed something.
    """

    process: Process | None = None
    committed: Callable[[Process], None]
    virtual: Virtual
    _broken = False
    _seen = 0

    def cursor(self, factory: Any = None) -> Any:
        """Return a cursor whose statements stop."""
        return super().cursor(_Cursor if factory is None else factory)

    def commit(self) -> None:
        """Commit, if there is something to commit."""
        if self.in_transaction:
            self.outside("commit", "commit", super().commit)

    def rollback(self) -> None:
        """Roll back; the effect is that of a lost connection, so nothing stops here."""
        if not self._broken:
            super().rollback()

    def outside(self, kind: str, what: str, effect: Callable[[], T]) -> T:
        """Stop, and then do it, or break, as the schedule says."""
        process = Kernel.current()
        if process is None or kind == "rollback":
            if self._broken:
                raise sqlite3.ProgrammingError(_CLOSED)
            return effect()
        waits_until = self.virtual.monotonic + PATIENCE
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
                locked = "locked" in str(error) and self.virtual.monotonic < waits_until
                if not locked or self.in_transaction:
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
            super().rollback()

    def close(self) -> None:
        """Close it."""
        self._broken = True
        super().close()

    def _note(self, process: Process) -> None:
        if not self.in_transaction and self.total_changes != self._seen:
            self._seen = self.total_changes
            self.committed(process)


class _Cursor(sqlite3.Cursor):
    connection: Wire

    def execute(self, sql: str, *given: Any) -> Any:
        word = sql.lstrip()[:8].upper()
        if word.startswith("PRAGMA"):
            return None if "busy_timeout" in sql else super().execute(sql, *given)
        kind = "statement"
        if word.startswith(_ENDS):
            kind = word.split()[0].lower()
        elif word.startswith("BEGIN"):
            kind = "begin"
        run = super().execute
        return self.connection.outside(kind, sql, lambda: run(sql, *given))

    def executemany(self, sql: str, given: Any) -> Any:
        rows, run = list(given), super().executemany
        return self.connection.outside("statement", sql, lambda: run(sql, rows))


def connect(
    path: Path, virtual: Virtual, committed: Callable[[Process], None], **options: Any
) -> Wire:
    """Open a connection for the process that runs."""
    wire: Wire = sqlite3.connect(
        path, timeout=0, check_same_thread=False, factory=Wire, cached_statements=512, **options
    )
    wire.virtual, wire.committed, wire.process = virtual, committed, Kernel.current()
    wire.create_function("strftime", -1, virtual.strftime)
    return wire
