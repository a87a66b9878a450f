"""A caller's transaction that began before another's edit writes on what is there by now.

MySQL's and MariaDB's default shows a transaction the database as it was when it first read, and
only rows that are locked as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from beatstore import After, Declared, Store
from beatstore.database.tables import DEPENDENCY, ENTRY
from tests.support.marks import on_servers

pytestmark = [pytest.mark.every_database, on_servers]


@pytest.fixture
def store(engine: Engine) -> Store:
    """Return a store on the caller's engine: `down` waits for `up`, and not for `other`."""
    store = Store(engine)
    store.add("up", "t", 60)
    store.add("other", "t", 60)
    store.add("down", "t", "0 2 * * *", after=["up"], tags=["a"])
    return store


@contextmanager
def begun_before(store: Store, engine: Engine, theirs: Callable[[Store], Any]) -> Iterator[Session]:
    """Begin the caller's transaction, let another edit, and go on."""
    another = Store(store.database.url)
    with Session(engine) as session, session.begin():
        session.execute(select(ENTRY.c.id)).all()
        theirs(another)
        yield session
    another.close()


def ups(store: Store) -> list[str]:
    """Return the names of the upstreams of `down`."""
    return [one.name for one in store.get("down").after]


def test_tags_and_upstreams_are_replaced(store: Store, engine: Engine) -> None:
    """An edit sets what it says, and is not mixed with what another has set meanwhile."""

    def theirs(another: Store) -> None:
        another.change("down", tags=["theirs"], after=["other"])

    with begun_before(store, engine, theirs) as session:
        store.change("down", tags=["b"], after=["up"], session=session)
    assert (store.get("down").tags, ups(store)) == (("b",), ["up"])
    change = store.audit("down")[0]
    assert change.before["tags"] == ["theirs"]
    assert change.before["after"] == [{"name": "other"}]


@pytest.mark.parametrize("new", [False, True])
def test_upstreams_are_taken_away(store: Store, engine: Engine, new: bool) -> None:
    """Without upstreams an entry has none, also none that another has just added."""

    def theirs(another: Store) -> None:
        if new:
            another.add("new", "t", 60)
        another.link("down", "new" if new else "other")

    with begun_before(store, engine, theirs) as session:
        store.change("down", after=[], session=session)
    assert ups(store) == []


def test_an_upstream_that_was_just_added_is_unlinked(store: Store, engine: Engine) -> None:
    """An upstream that another has added meanwhile is one."""
    with begun_before(store, engine, lambda another: another.link("down", "other")) as session:
        store.unlink("down", "other", session=session)
    assert ups(store) == ["up"]


def test_a_link_to_what_was_unlinked(store: Store, engine: Engine) -> None:
    """An upstream that another has taken away meanwhile is added again."""
    with begun_before(store, engine, lambda another: another.unlink("down", "up")) as session:
        entry = store.link("down", After("up", align="latest"), session=session)
        assert entry.version == 3
    assert ups(store) == ["up"]


def test_a_put_compares_with_what_is_there(store: Store, engine: Engine) -> None:
    """A put of what an entry was writes it, if another has edited it meanwhile."""

    def theirs(another: Store) -> None:
        another.change("down", schedule="0 5 * * *", tags=["z"], after=["other"])

    with begun_before(store, engine, theirs) as session:
        store.put("down", "t", "0 2 * * *", after=["up"], tags=["a"], session=session)
    assert (store.get("down").spec, store.get("down").tags) == ("0 2 * * *", ("a",))
    assert ups(store) == ["up"]


@pytest.mark.parametrize("after", [["up"], []])
def test_a_put_of_what_is_gone(store: Store, engine: Engine, after: list[str]) -> None:
    """A put of an entry that another has removed meanwhile adds it."""

    def remove(another: Store) -> None:
        another.remove("down")

    with begun_before(store, engine, remove) as session:
        made = store.put("down", "t", "0 2 * * *", after=after, tags=["a"], session=session)
    assert store.get("down").id == made.id
    assert ups(store) == after


def test_what_is_unchanged_is_returned_as_it_is(store: Store, engine: Engine) -> None:
    """An edit that changes nothing returns the entry with what another has changed."""

    def edit(another: Store) -> Any:
        return another.change("down", max_retries=3)

    with begun_before(store, engine, edit) as session:
        entry = store.change("down", max_retries=3, session=session)
        assert (entry.max_retries, entry.version) == (3, 2)
        assert store.link("down", After("up", align="latest"), session=session).version == 2


def test_what_upstreams_did_is_discarded(store: Store, engine: Engine) -> None:
    """Resuming runs nothing by itself, also not for what was reported meanwhile."""
    store.add("below", "t", after=["up"])
    store.pause("below")

    def theirs(another: Store) -> None:
        counted = {"success_seq": ENTRY.c.success_seq + 1, "done_seq": ENTRY.c.done_seq + 1}
        with another.database.engine.begin() as connection:
            connection.execute(update(ENTRY).where(ENTRY.c.name == "up").values(counted))

    with begun_before(store, engine, theirs) as session:
        store.resume("below", session=session)
    with engine.connect() as connection:
        edge = DEPENDENCY.c.downstream_id == store.get("below").id
        assert connection.scalar(select(DEPENDENCY.c.consumed_seq).where(edge)) == 1


def test_a_removal_is_audited_as_it_was(store: Store, engine: Engine) -> None:
    """The audit of a removal has the tags and upstreams of the moment."""

    def theirs(another: Store) -> None:
        another.change("down", tags=["theirs"], after=["other"])

    with begun_before(store, engine, theirs) as session:
        store.remove("down", session=session)
    was = store.audit("down")[0].before
    assert (was["tags"], was["after"]) == (["theirs"], [{"name": "other"}])


def test_a_sync_keeps_an_edit_of_meanwhile(store: Store, engine: Engine) -> None:
    """A sync in the caller's transaction sees the tags and upstreams that a user has just set."""

    def declared(tag: str, up: str) -> list[Declared]:
        return [Declared("code", "t", "0 2 * * *", tags=[tag], after=[up])]

    store.sync(declared("a", "up"), source="app")

    def theirs(another: Store) -> None:
        another.change("code", tags=["mine"], after=["up", "other"])

    with begun_before(store, engine, theirs) as session:
        report = store.sync(declared("b", "other"), source="app", session=session)
        assert report.kept == {"code": ("after", "tags")}
    entry = store.get("code")
    assert (entry.tags, [one.name for one in entry.after]) == (("mine",), ["other", "up"])
