"""How many rows a database reads for a call: the same however long the history, or not.

    read = rows_read(store, lambda session: store.health(session=session))

The number is what the server says of itself: MariaDB counts the rows that it has read,
PostgreSQL's executed plan says how many rows each step read and left out. SQLite counts the
instructions that it executes, of which a row takes some ten. So numbers of one database can be
compared, and those of two can't.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from beatstore import Store

__all__ = ["rows_read"]

_COUNTED = "SHOW SESSION STATUS LIKE 'Handler_read%%'"

#: How many of SQLite's instructions are counted as one row.
_INSTRUCTIONS = 10


def rows_read(store: Store, call: Callable[[Session], object]) -> int:
    """Return how many rows the database reads for a call.

    Args:
        store: whose database.
        call: reads with the session that it is given.
    """
    with Session(store.database.engine) as session:
        call(session)  # what is done once, such as the first look at a table
        name = store.database.engine.dialect.name
        return {"sqlite": _by_sqlite, "postgresql": _by_postgresql}.get(name, _by_mysql)(
            session, call
        )


def _by_sqlite(session: Session, call: Callable[[Session], object]) -> int:
    driver: Any = session.connection().connection.dbapi_connection
    counted = 0

    def count() -> bool:
        nonlocal counted
        counted += 1
        return False

    driver.set_progress_handler(count, _INSTRUCTIONS)
    try:
        call(session)
    finally:
        driver.set_progress_handler(None, 0)
    return counted


def _by_mysql(session: Session, call: Callable[[Session], object]) -> int:
    def read() -> int:
        found = session.connection().exec_driver_sql(_COUNTED)
        return sum(int(row[1]) for row in found)

    before = read()
    call(session)
    return read() - before


def _by_postgresql(session: Session, call: Callable[[Session], object]) -> int:
    executed: list[tuple[str, Any]] = []

    def note(*said: Any) -> None:
        executed.append((said[2], said[3]))

    connection = session.connection()
    event.listen(connection, "before_cursor_execute", note)
    try:
        call(session)
    finally:
        event.remove(connection, "before_cursor_execute", note)
    asked = (
        connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {one}", given)
        for one, given in executed
        if one.lstrip("(").startswith(("SELECT", "WITH"))
    )
    return sum(sum(_rows(plan.scalar_one()[0]["Plan"])) for plan in asked)


def _rows(node: dict[str, Any]) -> Iterator[int]:
    if "Relation Name" in node:
        each = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        yield round(each * node["Actual Loops"])
    for part in node.get("Plans", ()):
        yield from _rows(part)
