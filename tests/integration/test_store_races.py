"""Callers at the same time, on every database: one row, one winner, and both know it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from threading import Barrier, BrokenBarrierError
from typing import Any, TypeVar

import pytest
from sqlalchemy import URL, Engine
from sqlalchemy.orm import Session

from beatstore import Store
from beatstore.database import engine, transaction
from beatstore.database.connection import Attempt
from beatstore.database.rows import Transaction
from beatstore.errors import EntryExistsError, UnavailableError
from beatstore.tick.claims import Outcome
from beatstore.tick.queue import Queue
from tests.support.harness.races import at_once
from tests.support.marks import on_servers, on_sqlite

pytestmark = pytest.mark.every_database

T = TypeVar("T")

UTC = timezone.utc
PAST = datetime(2026, 1, 1, tzinfo=UTC)


def test_two_puts_of_one_name_make_one_row(store: Store) -> None:
    """However many threads put() a new name at once, there is one entry and no error."""
    for attempt in range(10):
        name = f"a{attempt}"
        calls = [lambda n=n, name=name: store.put(name, "t", 60, args=[n]) for n in range(4)]
        found = at_once(*calls)
        assert not [item for item in found if isinstance(item, Exception)]
        assert len({item.id for item in found}) == 1  # type: ignore[union-attr]
        assert store.get(name).version == 4
    assert len(store.entries()) == 10


def test_two_adds_of_one_name_have_one_winner(store: Store) -> None:
    """One add() makes the entry, and the others learn that it is there."""
    for attempt in range(10):
        found = at_once(*[lambda name=f"a{attempt}": store.add(name, "t", 60)] * 3)
        errors = [item for item in found if isinstance(item, Exception)]
        assert [type(error) for error in errors] == [EntryExistsError] * 2


def test_the_first_use_by_two_threads_makes_one_engine(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither leaves connections behind in a pool of its own, nor meets one not yet prepared."""
    both, make = Barrier(2), engine.make_engine
    made: list[Any] = []

    def made_slowly(url: URL, **options: Any) -> Engine:
        made.append(options)
        with suppress(BrokenBarrierError):  # that the other thread does not come is right
            both.wait(0.2)
        return make(url, **options)

    monkeypatch.setattr(engine, "make_engine", made_slowly)
    store = Store(database_url)
    first, second = at_once(store.now, store.now)
    store.close()
    assert (type(first), type(second), len(made)) == (datetime, datetime, 1)


def test_edits_at_once_are_all_kept(store: Store) -> None:
    """Edits of different fields do not undo each other, and each is counted."""
    store.add("a", "t", 60)
    found = at_once(
        lambda: store.change("a", description="x"),
        lambda: store.change("a", grace=5),
        lambda: store.change("a", args=[1]),
        lambda: store.change("a", tags=["x", "y"]),
    )
    assert not [item for item in found if isinstance(item, Exception)]
    entry = store.get("a")
    assert (entry.description, entry.grace_s, entry.args, entry.version) == ("x", 5.0, [1], 5)
    assert store.get("a").tags == ("x", "y")


def test_triggers_at_once_are_runs_of_their_own(store: Store) -> None:
    """Each trigger() is one run, and each is counted."""
    store.add("a", "t", 60)
    found = at_once(*[lambda: store.trigger("a")] * 4)
    assert not [item for item in found if isinstance(item, Exception)]
    assert len({run.due_at for run in store.runs("a")}) == 4
    assert store.get("a").run_count == 4


@pytest.mark.parametrize("too_late", ["cancel", "reschedule"])
def test_cancel_and_claim_have_one_winner(store: Store, too_late: str) -> None:
    """Either the call is in time and nothing is sent, or it says False and the run is."""
    queue = Queue(store.database, store.settings, str(uuid.uuid4()))
    later = datetime(2500, 1, 1, tzinfo=UTC)
    won: list[bool] = []
    for attempt in range(12):
        name = f"a{attempt}"
        store.schedule("t", at=PAST, name=name)
        act = {
            "cancel": lambda name=name: store.cancel(name),
            "reschedule": lambda name=name: store.reschedule(name, later),
        }[too_late]
        claimed, in_time = at_once(lambda: queue.plan(queue.look().now)[0], act)
        assert not isinstance(claimed, Exception), claimed
        assert not isinstance(in_time, Exception), in_time
        # A row that was locked is skipped by the beat, and looked at again.
        claims = [*claimed, *queue.plan(queue.look().now)[0]]  # type: ignore[misc]
        assert [claim.name for claim in claims] == ([] if in_time else [name])
        queue.mark([Outcome(claim, "sent") for claim in claims])
        won.append(bool(in_time))
    assert len(won) == 12
    queue.close()


def test_put_and_remove_at_once_end_in_one_state(store: Store) -> None:
    """An entry put and removed at the same time is there or not there, without an error."""
    for attempt in range(8):
        name = f"a{attempt}"
        store.add(name, "t", 60)
        found = at_once(
            lambda name=name: store.put(name, "t", 30), lambda name=name: store.remove(name)
        )
        assert not [item for item in found if isinstance(item, Exception)], found


@on_servers
def test_a_name_taken_in_an_open_transaction_is_waited_for(store: Store) -> None:
    """A name added but not committed blocks the same name; after a rollback it is free."""
    with ThreadPoolExecutor(1) as pool, Session(store.database.engine) as session:
        store.add("a", "t", 60, session=session)
        other = pool.submit(store.add, "a", "u", 60)
        with pytest.raises(FutureTimeoutError):
            other.result(timeout=0.3)
        session.rollback()
        assert other.result(timeout=30).task == "u"


@on_servers
def test_a_rename_that_loses_leaves_the_transaction_usable(store: Store) -> None:
    """A new name taken by another transaction at the same time is refused, and no more."""
    store.add("a", "t", 60)
    engine = store.database.engine
    with ThreadPoolExecutor(1) as pool, Session(engine) as mine, Session(engine) as theirs:
        store.add("b", "t", 60, session=mine)
        store.add("c", "t", 60, session=theirs)
        renamed = pool.submit(store.change, "a", new_name="c", session=mine)
        with pytest.raises(FutureTimeoutError):
            renamed.result(timeout=0.3)
        theirs.commit()
        with pytest.raises(EntryExistsError):
            renamed.result(timeout=30)
        mine.commit()
    assert [entry.name for entry in store.entries()] == ["a", "b", "c"]


@on_sqlite
def test_a_writer_on_sqlite_waits_for_the_other(store: Store) -> None:
    """A caller's open transaction delays other writers, and makes none of them fail."""
    store.add("a", "t", 60)
    with ThreadPoolExecutor(2) as pool, Session(store.database.engine) as session:
        store.change("a", description="x", session=session)
        others = [
            pool.submit(store.change, "a", grace=timedelta(seconds=5)),
            pool.submit(store.put, "b", "t", 60),
        ]
        with pytest.raises(FutureTimeoutError):
            others[0].result(timeout=0.3)
        session.commit()
        assert [other.result(timeout=30).name for other in others] == ["a", "b"]
    assert (store.get("a").description, store.get("a").grace_s) == ("x", 5.0)


@on_servers
def test_a_deadlock_is_tried_again(store: Store) -> None:
    """The transaction that the database ends to break a deadlock is done once more.

    Once, or more often: the one that is done again may take its first row before the other has
    woken up, and then each waits for the other as before.
    """
    for name in ("a", "b"):
        store.add(name, "t", 60)
    both_hold_one = Barrier(2)
    tries: list[str] = []

    def lock_both(first: str, second: str) -> Callable[[Session], str]:
        def work(session: Session) -> str:
            tx = Transaction(session, store.database, store.settings)
            tx.get(first, lock=True)
            tries.append(first)
            if tries.count(first) == 1:
                both_hold_one.wait(30)
            return tx.get(second, lock=True).name

        return work

    found = at_once(
        lambda: transaction.write(store.database, None, lock_both("a", "b")),
        lambda: transaction.write(store.database, None, lock_both("b", "a")),
    )
    assert found == ["b", "a"]
    assert len(tries) > 2


#: Calls with tags that can be read only once.
TAGGED: dict[str, Callable[[Store], Any]] = {
    "add": lambda store: store.add("new", "t", 60, tags=iter(["x"])),
    "put": lambda store: store.put("old", "t", 60, tags=iter(["x"])),
    "change": lambda store: store.change("old", tags=iter(["x"])),
    "schedule": lambda store: store.schedule("t", at=PAST, tags=iter(["x"])),
    "schedule_many": lambda store: store.schedule_many([("t", PAST)], tags=iter(["x"])),
}


@pytest.mark.parametrize("call", TAGGED)
def test_tags_of_a_transaction_that_is_done_again(
    store: Store, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tags from an iterator are there too when the first try has read them."""
    store.add("old", "t", 60)
    tries = 0

    def twice(work: Callable[[Session], T]) -> Callable[[Session], T]:
        def done(session: Session) -> T:
            nonlocal tries
            tries += 1
            found = work(session)
            if tries == 1:
                raise UnavailableError("undone, to break a deadlock")
            return found

        return done

    write = transaction.write
    monkeypatch.setattr(Attempt, "repeatable", lambda *_: True)
    monkeypatch.setattr(
        transaction,
        "write",
        lambda database, given, work, at_once: write(database, given, twice(work)),
    )
    TAGGED[call](store)
    assert tries == 2
    assert len(store.entries(tag="x")) == 1
