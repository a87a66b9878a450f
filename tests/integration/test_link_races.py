"""Links, completions and edits at the same instant, on every database.

Never a cycle, never a downstream that is stuck, and never one that runs twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from beatstore import After, Entry, InvalidEntryError, Once, Store
from beatstore.database.tables import DEPENDENCY
from beatstore.models import EntryModel, RunModel
from beatstore.tick import cycles
from beatstore.tick.endings import SUSPECTED
from beatstore.tick.reports import Reports
from tests.support.harness.races import SELDOM, Beats, at_once, ending, fan, join, start_runs
from tests.support.marks import on_postgresql, on_servers
from tests.support.thorough import tries

pytestmark = pytest.mark.every_database

#: How often each race is run: those for a cycle, and the others.
ROUNDS = int(os.environ.get("BEATSTORE_TEST_ROUNDS", tries(10, quick=2)))
CIRCLES = 2 * ROUNDS

FAR_OFF = datetime(2500, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def worker(store: Store) -> Iterator[Reports]:
    worker = Reports(store.database, store.settings)
    yield worker
    worker.close()


# -- cycles --------------------------------------------------------------------------------


def ring(store: Store, size: int, number: int) -> list[str]:
    """Add so many entries, and return their names."""
    names = [f"{number}-{letter}" for letter in "abcde"[:size]]
    for name in names:
        store.add(name, "t", SELDOM)
    return names


def refused(found: list[Any]) -> list[str]:
    """Return what was said to those who would have closed the cycle; fail on other errors."""
    errors = [one for one in found if isinstance(one, Exception)]
    assert all(isinstance(one, InvalidEntryError) for one in errors), errors
    return [str(one) for one in errors]


def no_cycle(store: Store, names: list[str]) -> None:
    for name in names:
        entry_id = store.get(name).id
        with store.database.session() as session:
            assert cycles.cycle_through(session.execute, entry_id) is None


@pytest.mark.parametrize("size", [2, 3])
def test_a_cycle_made_by_several_at_once(store: Store, size: int) -> None:
    """Of those who link entries into a cycle at the same instant exactly one is refused."""
    for number in range(CIRCLES):
        names = ring(store, size, number)
        ups = [*names[1:], names[0]]
        links = [lambda a=a, b=b: store.link(a, b) for a, b in zip(names, ups, strict=True)]
        (words,) = refused(at_once(*links))
        assert "would create a dependency cycle" in words
        no_cycle(store, names)


@pytest.mark.parametrize("size", [2, 3])
def test_a_cycle_made_in_callers_transactions(store: Store, size: int) -> None:
    """The same holds where each links in a transaction of their own, and has read before."""

    def linked(down: str, up: str) -> Callable[[], None]:
        def call() -> None:
            with Session(store.database.engine) as session, session.begin():
                store.link(down, up, session=session)

        return call

    for number in range(CIRCLES):
        names = ring(store, size, number)
        pairs = zip(names, [*names[1:], names[0]], strict=True)
        (words,) = refused(at_once(*(linked(*pair) for pair in pairs)))
        assert "would create a dependency cycle" in words
        no_cycle(store, names)


@pytest.mark.parametrize("verb", ["change", "put"])
def test_a_cycle_made_by_edits_at_once(store: Store, verb: str) -> None:
    """Who asks for the upstreams of an entry by an edit is refused just the same."""
    for number in range(CIRCLES):
        a, b = ring(store, 2, number)
        edit = store.change if verb == "change" else partial(store.put, task="t", schedule=SELDOM)
        calls = [partial(edit, a, after=[b]), partial(edit, b, after=[a])]
        (words,) = refused(at_once(*calls))
        assert "would create a dependency cycle" in words
        no_cycle(store, [a, b])


@on_servers
def test_a_cycle_closed_with_an_old_view(store: Store) -> None:
    """A caller whose transaction shows the database as it was does not close a cycle either."""
    for number in range(max(1, CIRCLES // 10)):
        a, b = ring(store, 2, number)
        engine = store.database.engine.execution_options(isolation_level="REPEATABLE READ")
        with Session(engine) as session:
            session.execute(select(EntryModel.id)).all()
            store.link(b, a)
            with pytest.raises((InvalidEntryError, OperationalError)):
                store.link(a, b, session=session)
        no_cycle(store, [a, b])


@on_postgresql
def test_links_in_a_schema(database_url: str) -> None:
    """Tables in a schema of their own are linked there, and a cycle is refused."""
    store = Store(database_url, schema="apart")
    with store.database.engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA apart"))
    store.migrate()
    a, b = ring(store, 2, 0)
    store.link(a, b)
    with pytest.raises(InvalidEntryError, match="would create a dependency cycle"):
        store.link(b, a)
    store.close()


def test_upstreams_from_a_generator(store: Store) -> None:
    """Upstreams may be any iterable, also one that can be read only once."""
    a, b = ring(store, 2, 0)
    store.change(b, after=(name for name in [a]))
    store.put(b, "t", SELDOM, after=(name for name in [a]), grace=5)
    with store.database.session() as session:
        assert session.scalar(select(func.count()).select_from(DEPENDENCY)) == 1


# -- a link and a completion ---------------------------------------------------------------


def make_downstream(store: Store, how: str, down: str, up: str) -> Callable[[], Entry]:
    """Prepare what is missing of a downstream, and return the call that links it."""
    if how == "add":
        return lambda: store.add(down, "t", after=[up])
    if how == "schedule":
        return lambda: store.schedule("t", name=down, countdown=0, after=[up])
    store.add(down, "t", after=["base"])
    store.unlink(down, "base")
    if how == "link":
        return lambda: store.link(down, up)
    return lambda: store.change(down, after=[up])


@pytest.mark.parametrize("how", ["add", "schedule", "link", "change"])
def test_a_link_while_the_upstream_ends(store: Store, worker: Reports, how: str) -> None:
    """A downstream that is linked while its one-shot upstream ends runs, and runs once."""
    store.add("base", "t", SELDOM)
    with Beats(store) as beats:
        for number in range(ROUNDS):
            up, down = f"up-{number}", f"down-{number}"
            store.add(up, "t", Once(FAR_OFF))
            link = make_downstream(store, how, down, up)
            (run,) = start_runs(store, [up])
            found = at_once(ending(worker, run), link)
            assert not [one for one in found if isinstance(one, Exception)], found
            beats.wait_for(down, 1)
        beats.wait_until_quiet()
        assert set(beats.counts().values()) == {1}


def test_a_link_to_what_ends_again_and_again(store: Store, worker: Reports) -> None:
    """A completion that meets a link counts or is over; the next one runs the downstream."""
    store.add("base", "t", SELDOM)
    store.add("up", "t", SELDOM)
    met = 0
    with Beats(store) as beats:
        for number in range(ROUNDS):
            down = f"down-{number}"
            link = make_downstream(store, "link", down, "up")
            (run,) = start_runs(store, ["up"])
            found = at_once(ending(worker, run), link)
            assert not [one for one in found if isinstance(one, Exception)], found
            beats.wait_until_quiet()
            before = beats.sent(down)
            met += before
            (run,) = start_runs(store, ["up"])
            ending(worker, run)()
            beats.wait_for(down, before + 1)
            store.remove(down)
        beats.wait_until_quiet()
    assert 0 <= met <= ROUNDS


# -- an edit of the downstream and a completion ----------------------------------------------

EDITS: dict[str, Callable[[Store], Any]] = {
    "change": lambda store: store.change("down", grace=store.get("down").version),
    "limit": lambda store: store.change("down", max_runs=10_000 + store.get("down").version),
    "arguments": lambda store: store.change("down", args=[store.get("down").version]),
    "trigger": lambda store: store.trigger("down"),
    "rename": lambda store: store.change("down", new_name="down"),
    "link again": lambda store: store.link("down", "up"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_while_the_upstream_ends(store: Store, worker: Reports, edit: str) -> None:
    """An edit of a downstream while its upstream ends neither costs it a run nor doubles one."""
    store.add("up", "t", SELDOM)
    store.add("down", "t", after=["up"])
    each = 2 if edit == "trigger" else 1
    with Beats(store) as beats:
        for number in range(1, ROUNDS + 1):
            (run,) = start_runs(store, ["up"])
            found = at_once(ending(worker, run), lambda: EDITS[edit](store))
            assert not [one for one in found if isinstance(one, Exception)], found
            beats.wait_for("down", number * each)
        beats.wait_until_quiet()
        assert beats.sent("down") == ROUNDS * each


def test_a_pause_while_the_upstream_ends(store: Store, worker: Reports) -> None:
    """A pause that meets a completion is before it or after it, and what follows runs again."""
    store.add("up", "t", SELDOM)
    store.add("down", "t", after=["up"])
    sent = 0
    with Beats(store) as beats:
        for _ in range(ROUNDS):
            (run,) = start_runs(store, ["up"])
            found = at_once(ending(worker, run), lambda: store.pause("down"))
            assert not [one for one in found if isinstance(one, Exception)], found
            beats.wait_until_quiet()
            assert beats.sent("down") - sent in (0, 1)
            sent = beats.sent("down")
            store.resume("down")
            (run,) = start_runs(store, ["up"])
            ending(worker, run)()
            beats.wait_for("down", sent + 1)
            sent += 1


def test_a_resume_while_the_upstream_ends(store: Store, worker: Reports) -> None:
    """A resume that meets a completion is before it or after it, and the next one runs it."""
    store.add("up", "t", SELDOM)
    store.add("down", "t", after=["up"])
    sent = 0
    with Beats(store) as beats:
        for _ in range(ROUNDS):
            store.pause("down")
            (run,) = start_runs(store, ["up"])
            found = at_once(ending(worker, run), lambda: store.resume("down"))
            assert not [one for one in found if isinstance(one, Exception)], found
            beats.wait_until_quiet()
            assert beats.sent("down") - sent in (0, 1)
            sent = beats.sent("down")
            (run,) = start_runs(store, ["up"])
            ending(worker, run)()
            beats.wait_for("down", sent + 1)
            sent += 1


@pytest.mark.parametrize("which", ["down", "up"])
def test_a_removal_while_the_upstream_ends(store: Store, worker: Reports, which: str) -> None:
    """Removing either end of an edge while the upstream ends leaves no run behind, and no error."""
    with Beats(store) as beats:
        for number in range(ROUNDS):
            up, down = f"up-{number}", f"down-{number}"
            store.add(up, "t", SELDOM)
            store.add(down, "t", after=[up])
            (run,) = start_runs(store, [up])
            gone = {"up": up, "down": down}[which]
            found = at_once(ending(worker, run), lambda gone=gone: store.remove(gone))
            assert not [one for one in found if isinstance(one, Exception)], found
            assert [one.state for one in store.runs(up)] == ["succeeded"]
        beats.wait_until_quiet()
        assert set(beats.counts().values()) <= {1}


def test_one_of_two_upstreams_removed_while_the_other_ends(store: Store, worker: Reports) -> None:
    """A downstream whose one upstream ends while the other one is removed runs, once."""
    store.add("a", "t", SELDOM)
    with Beats(store) as beats:
        for number in range(ROUNDS):
            b, down = f"b-{number}", f"down-{number}"
            store.add(b, "t", SELDOM)
            store.add(down, "t", after=["a", b])
            (run,) = start_runs(store, ["a"])
            found = at_once(ending(worker, run), lambda b=b: store.remove(b))
            assert not [one for one in found if isinstance(one, Exception)], found
            beats.wait_for(down, 1)
            store.remove(down)
        beats.wait_until_quiet()


def test_a_run_given_up_too_early_and_the_same_due_time(store: Store, worker: Reports) -> None:
    """A run that is heard of after it was given up counts for its due time as well."""
    store.add("up", "t", SELDOM, max_retries=1, retry_delay=1000)
    store.add("down", "t", after=[After("up", align="same")])
    with Beats(store) as beats:
        (run,) = start_runs(store, ["up"])
        with store.database.session() as session:
            session.execute(update(RunModel).values(claimed_by=SUSPECTED))
        ending(worker, run, "lost")()
        beats.wait_until_quiet()
        assert beats.sent("down") == 0
        ending(worker, run)()
        beats.wait_for("down", 1)
    assert [one.state for one in store.runs("up")] == ["cancelled", "succeeded"]


def test_two_due_times_before_the_first_look(store: Store, worker: Reports) -> None:
    """A downstream that finds two shared due times at its first look runs for each of them."""
    store.add("up", "t", SELDOM)
    store.add("down", "t", after=[After("up", align="same")])
    runs = [run for _ in range(2) for run in start_runs(store, ["up"])]
    ending(worker, runs)()
    with Beats(store) as beats:
        beats.wait_for("down", 2)
        beats.wait_until_quiet()
    assert [one.due_at for one in store.runs("down")] == [one.due_at for one in store.runs("up")]


def test_the_runs_of_these_tests_may_start_at_the_same_instant(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that are started within one millisecond have due times of their own, in order."""
    store.add("up", "t", SELDOM)
    with store.database.session() as session:
        now = store.database.now(session)
    monkeypatch.setattr(store.database, "now", lambda session: now)
    for _ in range(3):
        start_runs(store, ["up"])
    newest_first = [one.due_at for one in store.runs("up")]
    assert newest_first == [now + timedelta(milliseconds=later) for later in (2, 1, 0)]


# -- two completions -------------------------------------------------------------------------


@pytest.mark.parametrize("align", ["latest", "same"])
def test_two_upstreams_at_the_same_instant(store: Store, align: str) -> None:
    """The downstream of two upstreams that end at the same instant runs, once, each time."""
    join(store, 2 * ROUNDS, align)


@pytest.mark.quick_on("postgresql")
def test_a_fan_that_beats_are_planning(store: Store) -> None:
    """An upstream that ends while beats look at all of its downstreams sets each free, once."""
    fan(store, rounds=2, width=100)


def test_two_upstreams_of_many(store: Store) -> None:
    """Many downstreams of two upstreams that end at the same instant each run once."""
    names = [f"down-{number}" for number in range(40)]
    for up in ("a", "b"):
        store.add(up, "t", SELDOM)
    for name in names:
        store.add(name, "t", after=["a", "b"])
    workers = [Reports(store.database, store.settings) for _ in range(2)]
    with Beats(store) as beats:
        for number in range(1, max(5, ROUNDS // 5) + 1):
            runs = start_runs(store, ["a", "b"])
            ends = [ending(*pair) for pair in zip(workers, runs, strict=True)]
            assert at_once(*ends) == [None, None]
            for name in names:
                beats.wait_for(name, number)
        beats.wait_until_quiet()
    for worker in workers:
        worker.close()
