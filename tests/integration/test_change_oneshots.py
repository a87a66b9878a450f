"""Edits of one-shots: what would never be due is refused, and what was due is due once more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from beatstore import Declared, Store
from beatstore.database.tables import RUN
from beatstore.errors import InvalidEntryError
from tests.support.harness.play import NOON, Play
from tests.support.marks import on_mariadb

ONE = NOON.replace(hour=13)
THREE = NOON.replace(hour=15)


def _sync(store: Store, **given: Any) -> None:
    report = store.sync([Declared("a", "tests.a", ONE, **given)], source="app")
    for reason in report.refused.values():
        raise InvalidEntryError("refused", reason, "a declaration that can be stored")


EDITS: dict[str, Callable[..., Any]] = {
    "change": lambda store, **given: store.change("a", **given),
    "put": lambda store, **given: store.put("a", "tests.a", ONE, **given),
    "sync": _sync,
}


@pytest.mark.parametrize(
    "bounds", [{"start_at": THREE}, {"end_at": NOON + timedelta(minutes=30)}], ids=["start", "end"]
)
@pytest.mark.parametrize("edit", EDITS)
def test_bounds_that_leave_out_its_time(play: Play, edit: str, bounds: dict[str, Any]) -> None:
    """No edit gives a one-shot bounds with which `add` would refuse it."""
    source = "app" if edit == "sync" else "api"
    if edit == "sync":
        _sync(play.store)
    else:
        play.add("a", ONE)
    with pytest.raises(InvalidEntryError, match="the first due time"):
        EDITS[edit](play.store, **bounds)
    with pytest.raises(InvalidEntryError, match="the first due time"):
        play.store.add("b", "t", ONE, **bounds)
    entry = play.store.get("a")
    assert (entry.start_at, entry.end_at, entry.source) == (None, None, source)
    assert play.at("13:00") == ["a"]


def test_bounds_that_have_its_time(play: Play) -> None:
    """Bounds with the due time between them are taken."""
    play.add("a", ONE)
    entry = play.store.change("a", start_at=NOON, end_at=ONE)
    assert (entry.start_at, entry.end_at) == (NOON, ONE)
    assert play.at("13:00") == ["a"]


def _load(store: Store, at: datetime) -> None:
    documents: list[Any] = list(store.export())
    for one in documents:
        if one.get("name") == "a":
            one["schedule"]["spec"] = at.isoformat()
    store.load(documents, replace=True)


MOVES: dict[str, Callable[[Store, datetime], Any]] = {
    "change": lambda store, at: store.change("a", schedule=at),
    "put": lambda store, at: store.put("a", "tests.a", at),
    "load": _load,
}


@pytest.mark.parametrize("move", MOVES)
def test_a_one_shot_that_was_sent_is_moved_back(play: Play, move: str) -> None:
    """A one-shot with the time of an earlier run again is sent once more, and once."""
    play.add("a", ONE)
    assert play.at("13:00") == ["a"]
    play.end("a")
    MOVES[move](play.store, THREE)
    play.at("13:30")
    MOVES[move](play.store, ONE)
    assert play.tick() == ["a"]
    play.end("a")
    assert play.store.get("a").state == "finished"
    assert len(play.store.runs("a")) == 2
    if move == "put":
        version = play.store.get("a").version
        MOVES[move](play.store, ONE)
        assert (play.store.get("a").version, play.tick()) == (version, [])


def test_a_one_shot_that_was_missed_is_moved_back(play: Play) -> None:
    """A record that it was missed does not keep a one-shot from being sent for that time."""
    play.add("a", ONE, misfire="skip", grace=60)
    assert play.at("14:00") == []
    play.store.change("a", schedule=THREE)
    play.at("14:01")
    play.store.change("a", schedule=ONE, misfire="coalesce")
    assert play.tick() == ["a"]
    assert [state for _, state, _ in play.history("a")] == ["missed", "sent"]


def test_what_was_recurring_becomes_a_one_shot(play: Play) -> None:
    """The times of a recurrence that were sent are taken as well."""
    play.add("a", "0 * * * *")
    assert play.at("13:00") == ["a"]
    play.clock.advance(1)
    play.store.change("a", schedule=ONE)
    assert play.tick() == ["a"]


@on_mariadb
@pytest.mark.parametrize("how", ["change", "reschedule"])
def test_a_run_that_the_snapshot_does_not_show(play: Play, how: str) -> None:
    """A time that was taken since the caller's transaction began is taken."""
    play.add("a", ONE, misfire="skip", grace=60)
    engine = create_engine(play.store.database.url)
    with Session(engine) as session, session.begin():
        session.execute(select(RUN.c.id)).all()
        assert play.at("14:00") == []
        if how == "change":
            play.store.change("a", schedule=THREE)
            play.store.change("a", schedule=ONE, misfire="all", session=session)
        else:
            play.store.change("a", misfire="all")
            assert play.store.reschedule("a", ONE, session=session) is True
    engine.dispose()
    assert play.tick() == ["a"]
