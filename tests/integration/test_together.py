"""Several questions in one statement: each gets what its query alone returns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from beatstore import After, Every, Once, Store
from beatstore.database.columns import Unreadable
from beatstore.database.rows import Transaction
from beatstore.database.tables import AUDIT, DEPENDENCY, ENTRY, RUN, TAG
from beatstore.database.together import Question, ask

pytestmark = pytest.mark.every_database

FAR = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc)


def rows(given: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return rows as tuples, in an order of their own."""
    return sorted((tuple(row) for row in given), key=repr)


def asked(store: Store, queries: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Return the rows of queries that were asked together, and of each alone."""
    with store.reading() as session:
        tx = Transaction(session, store.database, store.settings)
        questions = [Question(query, rows) for query in queries]
        ask(tx, questions)
        return [one.answer for one in questions], [rows(tx.execute(one).all()) for one in queries]


def test_rows_are_those_of_each_query_alone(store: Store) -> None:
    """All types of columns, instants to year 9999, NULLs, texts, counts, orders and limits."""
    store.add("far", "t.x", Once(FAR), args=[1, {"a": [None]}], tags=["one", "two"], jitter=1.5)
    store.add("every", "t.ü", Every(60), after=[After("far", timeout=60)], description="x" * 9000)
    store.trigger("every")
    together, alone = asked(
        store,
        [
            sa.select(sa.func.count().label("many"), sa.func.max(RUN.c.due_at).label("last")),
            sa.select(ENTRY).order_by(ENTRY.c.name.desc()).limit(1),
            sa.select(RUN),
            sa.select(AUDIT),
            sa.select(TAG.c.tag, DEPENDENCY).select_from(sa.join(TAG, DEPENDENCY, sa.true())),
            sa.select(ENTRY).where(ENTRY.c.name == "nobody"),
            sa.select(ENTRY.c.id, ENTRY.c.wake_at, sa.literal("x", sa.String()).label("text")),
        ],
    )
    assert together == alone
    assert [len(part) for part in together] == [1, 1, 1, 3, 2, 0, 2]


def test_one_question_and_none(store: Store) -> None:
    """One question is its query; without any there is no statement."""
    store.add("a", "t.x", Every(60))
    together, alone = asked(store, [sa.select(ENTRY.c.name)])
    assert together == alone == [[("a",)]]
    assert asked(store, []) == ([], [])


def test_names_of_columns(store: Store) -> None:
    """A row has an attribute for each column, also if its place has another type's name."""
    store.add("a", "t.x", Every(60))
    first = Question(sa.select(ENTRY.c.name, ENTRY.c.task), lambda found: found[0].task)
    second = Question(sa.select(ENTRY.c.task.label("on")), lambda found: found[0].on)
    with store.reading() as session:
        ask(Transaction(session, store.database, store.settings), [first, second])
    assert (first.answer, second.answer) == ("t.x", "t.x")


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_cells_that_cannot_be_read(store: Store) -> None:
    """A cell written by hand is as unreadable as in a query of its own."""
    store.add("a", "t.x", Every(60))
    bad = {"end_at": "soon", "max_runs": "many", "jitter_s": "some", "kwargs": "{"}
    texts = ", ".join(f"{column} = '{value}'" for column, value in bad.items())
    with store.database.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE beatstore_entry SET {texts}")
    columns = [ENTRY.c[column] for column in bad]
    together, alone = asked(store, [sa.select(sa.func.count().label("n")), sa.select(*columns)])
    assert together == alone
    assert [type(cell) for cell in together[1][0]] == [Unreadable] * len(bad)
