"""Rows of plain SQL that no beat would look at are named, with the statement that mends them."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from tests.support.harness.play import Play
from tests.support.written import HOUR, NOON

pytestmark = pytest.mark.every_database


def write(play: Play, statement: str, **values: Any) -> None:
    """Execute a statement of plain SQL."""
    with play.store.database.engine.begin() as connection:
        connection.execute(text(statement), values)


def warned(play: Play) -> str:
    """Return the only warning, which `check` has too."""
    [said] = play.store.status().warnings
    assert play.store.health().warnings == (said,)
    return said


def statement_in(said: str) -> str:
    """Return the statement that a warning says to write."""
    return said.split("`")[1]


@pytest.mark.parametrize("state", ["active", "activ"])
def test_an_entry_that_was_inserted_asleep(play: Play, state: str) -> None:
    """With `wake_at` NULL no beat processes it, also if its state is none; it is named."""
    write(
        play,
        "INSERT INTO beatstore_entry (name, task, kind, spec, state, wake_at) "
        "VALUES ('a', 't', 'cron', '0 * * * *', :state, NULL)",
        state=state,
    )
    assert play.tick() == []
    said = warned(play)
    assert said in play.store.explain("a").sentences
    if state == "active":
        assert said.startswith("'a' is active, but no beat will ever process it, because its ")
        play.store.pause("a")
        play.store.resume("a")
    else:
        assert said.startswith("'a' has the state 'activ', which does not exist, and no beat will ")
        write(play, statement_in(said))
    play.tick()
    assert play.store.get("a").next_due_at is not None
    assert play.store.status().warnings == []


@pytest.mark.parametrize("state", ["claimed", "claimd"])
def test_a_run_that_was_inserted_asleep(play: Play, state: str) -> None:
    """With `wake_at` NULL no beat sends it, also if its state is none; it is named."""
    play.add("a", HOUR)
    play.tick()
    write(
        play,
        "INSERT INTO beatstore_run (entry_id, entry_name, due_at, task_id, state, reason) "
        "SELECT id, name, created_at, 'x', :state, 'triggered' FROM beatstore_entry",
        state=state,
    )
    assert play.tick() == []
    said = warned(play)
    assert said.startswith("Run 1 of 'a', due ")
    does_not_exist = "" if state == "claimed" else "has the state 'claimd', which does not exist, "
    assert does_not_exist in said
    play.clock.set(NOON + HOUR / 2)
    write(play, statement_in(said))
    assert play.tick() == ["a"]
    assert play.store.status().warnings == []
