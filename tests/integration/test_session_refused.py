"""A call that is refused in the caller's transaction: nothing of it is there when they commit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from beatstore import After, Declared, Store
from beatstore.database.tables import AUDIT, DEPENDENCY, ENTRY, TAG
from beatstore.errors import (
    DependencyCycleError,
    EntryExistsError,
    EntryNotFoundError,
    InvalidEntryError,
)
from tests.support.marks import on_mariadb

pytestmark = pytest.mark.every_database

PASSED = datetime(2020, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def store(engine: Engine) -> Store:
    """Return a store on the caller's engine: `down` waits for `up`, and `below` for `down`."""
    store = Store(engine)
    store.add("up", "t", 60)
    store.add("down", "t", "0 2 * * *", after=["up"], tags=["etl"])
    store.add("below", "t", 60, after=["down"])
    return store


def rows(engine: Engine) -> list[Any]:
    """Return all rows that a change of an entry writes."""
    with engine.connect() as connection:
        return [connection.execute(select(one)).all() for one in (ENTRY, TAG, DEPENDENCY, AUDIT)]


def nested(levels: int) -> list[Any]:
    """Return so many lists within each other."""
    found: list[Any] = []
    for _ in range(levels - 1):
        found = [found]
    return found


def refuse(engine: Engine, error: type[Exception], call: Callable[[Session], Any]) -> None:
    """Fail unless a call is refused, and leaves nothing behind in a transaction that goes on."""
    before = rows(engine)
    with Session(engine) as session, session.begin(), pytest.raises(error):
        call(session)
    assert rows(engine) == before


ADDS: dict[str, tuple[type[Exception], Callable[[Store, Session], Any]]] = {
    "add, missing": (
        EntryNotFoundError,
        lambda store, session: store.add(
            "new", "t", 60, after=["up", "missing"], tags=["a"], session=session
        ),
    ),
    "add, itself": (
        InvalidEntryError,
        lambda store, session: store.add("new", "t", 60, after=["new"], session=session),
    ),
    "put, missing": (
        EntryNotFoundError,
        lambda store, session: store.put("new", "t", 60, after=["missing"], session=session),
    ),
    "put, itself": (
        InvalidEntryError,
        lambda store, session: store.put("new", "t", after=["new"], session=session),
    ),
    "schedule, missing": (
        EntryNotFoundError,
        lambda store, session: store.schedule("t", after=["missing"], session=session),
    ),
    "schedule, named": (
        EntryNotFoundError,
        lambda store, session: store.schedule(
            "t", name="new", countdown=5, after=["missing"], session=session
        ),
    ),
}


@pytest.mark.parametrize("what", ADDS)
def test_what_is_not_added(store: Store, engine: Engine, what: str) -> None:
    """An entry whose upstream is refused is not added, nor are its tags."""
    error, add = ADDS[what]
    refuse(engine, error, lambda session: add(store, session))


CHANGES: dict[str, tuple[type[Exception], dict[str, Any]]] = {
    "missing": (EntryNotFoundError, {"after": ["missing"]}),
    "missing, with others": (EntryNotFoundError, {"after": ["missing"], "new_name": "other"}),
    "missing, and one that stays": (EntryNotFoundError, {"after": ["up", "missing"]}),
    "cycle": (DependencyCycleError, {"after": ["below"]}),
    "cycle, with others": (DependencyCycleError, {"after": ["below"], "new_name": "other"}),
    "itself": (InvalidEntryError, {"after": [After("down")]}),
    "never due": (InvalidEntryError, {"end_at": PASSED, "schedule": "0 3 * * *"}),
    "never due, renamed": (
        InvalidEntryError,
        {"end_at": PASSED, "schedule": "0 3 * * *", "new_name": "other"},
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_not_changed(store: Store, engine: Engine, what: str) -> None:
    """An edit that is refused changes neither the name, nor tags, nor upstreams."""
    error, given = CHANGES[what]
    given = {"tags": ["new"], "description": "new", **given}
    refuse(engine, error, lambda session: store.change("down", session=session, **given))


@pytest.mark.parametrize("after", ["missing", "below", "down"])
def test_what_is_not_put(store: Store, engine: Engine, after: str) -> None:
    """A put of an entry that exists is as whole as a change."""
    refuse(
        engine,
        (EntryNotFoundError if after == "missing" else InvalidEntryError),
        lambda session: store.put("down", "t2", 60, after=[after], tags=["b"], session=session),
    )


@on_mariadb
@pytest.mark.parametrize("new_name", ["down", "other"])
def test_json_that_is_too_deep(store: Store, engine: Engine, new_name: str) -> None:
    """Arguments that only this database refuses leave nothing behind either."""
    given: dict[str, Any] = {"args": nested(40), "tags": ["new"], "after": [], "new_name": new_name}
    refuse(
        engine,
        InvalidEntryError,
        lambda session: store.change("down", session=session, **given),
    )


def test_a_name_that_is_taken(store: Store, engine: Engine) -> None:
    """A change to a name that is taken changes nothing else."""
    refuse(
        engine,
        EntryExistsError,
        lambda session: store.change(
            "down", new_name="up", tags=["b"], after=[], description="d", session=session
        ),
    )


def test_the_transaction_goes_on(store: Store, engine: Engine) -> None:
    """What the caller did before the refusal, and does after it, is committed."""
    with Session(engine) as session, session.begin():
        store.add("before", "t", 60, session=session)
        with pytest.raises(InvalidEntryError):
            store.change(
                "before", new_name="other", start_at=PASSED, end_at=PASSED, session=session
            )
        with pytest.raises(EntryNotFoundError):
            store.change("before", new_name="other", after=["missing"], session=session)
        store.add("later", "t", 60, after=["before"], session=session)
    assert set(store.names()) == {"up", "down", "below", "before", "later"}


@pytest.mark.parametrize("first", [False, True], ids=["alone", "after a write"])
def test_many_with_upstreams_are_rolled_back(store: Store, engine: Engine, first: bool) -> None:
    """Entries with upstreams, of which each has a savepoint, are the caller's to roll back."""
    before = rows(engine)
    with Session(engine) as session:
        if first:
            store.add("first", "t", 60, session=session)
        one, two = Declared("a", "t", after=["up"]), Declared("b", "t", after=["missing"])
        made = store.add_many([one, two], session=session)
        assert (made.names, [one.name for one in made.refused]) == (("a",), ["b"])
        shots = store.schedule_many([("t", 60), ("t", 90)], after=["up"], session=session)
        assert len(shots.names) == 2
        store.change("down", new_name="renamed", session=session)
        session.rollback()
    assert rows(engine) == before
