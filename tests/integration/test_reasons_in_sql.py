"""The reasons of runs are told apart in SQL as they are in Python, on every database."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import ColumnElement, select

from beatstore import Store
from beatstore.database.functions import begins_with
from beatstore.database.tables import RUN
from beatstore.models import RunModel
from beatstore.rules.reasons import NOTES, OVERLAP, WAITED, reworded
from beatstore.store.conditions import SIMPLY_DUE
from beatstore.tick.endings import NO_RETRY, reworded_reason
from tests.support.written import HOUR, MINUTE, NOON, run, write

pytestmark = [pytest.mark.every_database, pytest.mark.by_clock]

#: Ours, and texts that differ from them only in case, or in what LIKE takes for any character.
REASONS = [
    *NOTES,
    f"{NOTES[-1]}; ended by hand",
    f"{WAITED} 5 min",
    f"{OVERLAP} the run before",
    "TriggeredTooOften: no",
    "Triggered: rerun of attempt 1",
    "WaitedTooLong: no",
    "Overlap: the run before",
    "trigger%",
    "_riggered",
    "trig",
    "",
    " triggered",
]


@pytest.fixture
def written(store: Store) -> list[Any]:
    """Return the runs with these reasons, which are second attempts that were sent."""
    entry = store.add("a", "t", 60)
    runs = (
        run(entry, NOON - HOUR + at * MINUTE, reason=reason, attempt=2, state="failed")
        for at, reason in enumerate(REASONS)
    )
    write(store, RunModel, *runs)
    return sorted(store.runs("a"), key=lambda one: one.due_at)


def asked(store: Store, what: ColumnElement[Any]) -> list[Any]:
    """Return what the database answers for each run."""
    with store.database.session() as session:
        return list(session.scalars(select(what).order_by(RUN.c.due_at)))


def test_a_text_begins_with_words_exactly(store: Store, written: list[Any]) -> None:
    """Case counts, and no character stands for others."""
    assert [one.reason for one in written] == REASONS
    for words in (*NOTES, WAITED, OVERLAP):
        found = [bool(one) for one in asked(store, begins_with(RUN.c.reason, words))]
        assert found == [reason.startswith(words) for reason in REASONS], words


def test_a_new_reason_keeps_the_same_note(store: Store, written: list[Any]) -> None:
    """What is no note of ours makes no run one that a user has triggered."""
    found = asked(store, reworded_reason("no worker"))
    assert found == [reworded(reason, "no worker") for reason in REASONS]
    retries = [not one for one in asked(store, NO_RETRY)]
    assert retries == [not reason.startswith("triggered: rerun") for reason in REASONS]


def test_a_reason_of_another_does_not_hide_how_late_a_run_was(store: Store) -> None:
    """Only the tick's own word for a wait does."""
    entry = store.add("a", "t", 3600)
    reasons = ["WaitedTooLong: no", "Triggered too often", f"{WAITED} 5 min", "triggered"]
    runs = (
        run(entry, NOON - at * MINUTE, reason=why, sent_at=NOON) for at, why in enumerate(reasons)
    )
    write(store, RunModel, *runs)
    with store.database.session() as session:
        found = session.scalars(select(RUN.c.reason).where(SIMPLY_DUE).order_by(RUN.c.reason))
        assert sorted(found) == ["Triggered too often", "WaitedTooLong: no"]
