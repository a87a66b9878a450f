"""`Store.pause_many` and `Store.resume_many`, beside `pause` and `resume` of one entry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from beatstore import Store
from beatstore.clock import ManualClock
from beatstore.database.tables import DEPENDENCY, ENTRY
from beatstore.errors import BeatstoreError, InvalidEntryError
from beatstore.records import Entry
from beatstore.tick.queue import Queue
from tests.support.harness.ticks import tick
from tests.support.written import HOUR, NOON, sql

pytestmark = [pytest.mark.every_database, pytest.mark.by_clock]

#: The verbs, in an order that leaves something to do for each.
VERBS = ("pause", "resume", "pause", "pause", "resume")


def add_all(store: Store, prefix: str) -> list[str]:
    """Add an entry of each kind in each state; return their names."""

    def named(what: str) -> str:
        return f"{prefix}{what}"

    store.add(named("every"), "t", 60, tags=["x"])
    store.add(named("cron"), "t", "0 3 * * *", misfire="all")
    store.add(named("once"), "t", NOON + HOUR)
    store.add(named("paused"), "t", 60, paused=True)
    store.add(named("cancelled"), "t", 60)
    store.cancel(named("cancelled"))
    store.add(named("after"), "t", after=[named("every"), named("cron")])
    store.add(named("waits"), "t", 30, after=[named("paused")])
    store.add(named("broken"), "t", 60)
    return sorted(entry.name for entry in store.entries(name=f"{prefix}*"))


def rows(store: Store, prefix: str) -> list[dict[str, Any]]:
    """Return what beat knows of the entries of a prefix, without names and ids."""
    found = []
    for entry in store.entries(name=f"{prefix}*"):
        row = {name: getattr(entry, name) for name in Entry.__dataclass_fields__ if name[0] != "_"}
        found.append({**row, "id": None, "name": None, "blocked_by": None})
    return found


def edges(store: Store, prefix: str) -> list[tuple[Any, ...]]:
    """Return what the edges of a prefix have seen of their upstreams."""
    columns = (DEPENDENCY.c.consumed_seq, DEPENDENCY.c.failure_seen)
    of_prefix = DEPENDENCY.c.downstream_id == ENTRY.c.id, ENTRY.c.name.like(f"{prefix}%")
    with store.database.session() as session:
        found = session.execute(select(*columns).where(*of_prefix).order_by(ENTRY.c.name))
        return sorted(tuple(row) for row in found)


def audits(store: Store, prefix: str) -> list[str]:
    """Return the audit of the entries of a prefix, sorted."""
    found = [
        one
        for one in store.audit(limit=1000)
        if one.entry.startswith(prefix) and one.before is not None
    ]
    said = [[one.entry, one.action, one.actor, one.before, one.after] for one in found]
    return sorted(json.dumps(one, sort_keys=True).replace(prefix, "") for one in said)


def test_many_are_paused_as_one_is(store: Store, queue: Queue, clock: ManualClock) -> None:
    """Every kind in every state: the same rows, edges, audit and refusals as one by one."""
    alone, together = add_all(store, "a-"), add_all(store, "b-")
    mine = "WHERE name LIKE '%-broken'"
    sql(store, f"UPDATE beatstore_entry SET spec = 'x', wake_at = '1970-01-01' {mine}")
    tick(queue)
    sql(store, f"UPDATE beatstore_entry SET spec = '30' {mine}")
    sql(store, f"UPDATE beatstore_entry SET cursor_at = '2026-01-15' {mine}")
    for verb in VERBS:
        clock.advance(45)
        if verb == "resume":
            tick(queue)
        errors = []
        for name in alone:
            try:
                getattr(store, verb)(name)
            except BeatstoreError as error:
                errors.append((name.removeprefix("a-"), str(error).replace("'a-", "'b-")))
        report = getattr(store, f"{verb}_many")(together)
        assert [(str(one.name).removeprefix("b-"), one.error) for one in report.refused] == errors
        states = {entry.name: entry.state for entry in store.entries(name="b-*")}
        assert report.states == {
            name: state for name, state in states.items() if name[2:] not in dict(errors)
        }
        for one, other in zip(rows(store, "a-"), rows(store, "b-"), strict=True):
            assert {key: (one[key], other[key]) for key in one if one[key] != other[key]} == {}
        assert edges(store, "a-") == edges(store, "b-")
    assert audits(store, "a-") == audits(store, "b-")
    clock.advance(3600)
    sent = [claim.name for claim in tick(queue)]
    assert sorted(name[2:] for name in sent if name[0] == "a") == sorted(
        name[2:] for name in sent if name[0] == "b"
    )


def test_a_name_that_is_refused_stops_no_other(store: Store) -> None:
    """Each refused name has its place and its reason; a name given twice counts once."""
    store.add("nightly-report", "t", 60)
    given: list[Any] = ["nightly-report", "nigthly-report", 5, "nightly-report", "", "x" * 300]
    report = store.pause_many(given)
    assert report.states == {"nightly-report": "paused"}
    assert [(one.index, one.name) for one in report.refused] == [
        (1, "nigthly-report"),
        (2, None),
        (4, ""),
        (5, "x" * 300),
    ]
    assert "did you mean 'nightly-report'" in report.refused[0].error
    assert len(store.audit("nightly-report")) == 2


def test_a_name_that_no_one_could_give(store: Store) -> None:
    """An entry of plain SQL whose name has blanks around it is paused too, as by `pause`."""
    store.add("a", "t", 60)
    sql(store, "UPDATE beatstore_entry SET name = ' by hand '")
    assert store.pause_many([" by hand "]).states == {" by hand ": "paused"}
    assert store.resume(" by hand ").state == "active"


def test_what_the_caller_s_snapshot_does_not_show(store: Store) -> None:
    """An entry that was added after the caller's transaction began is paused all the same."""
    store.add("a", "t", 60)
    with Session(store.database.engine) as session:
        if store.database.engine.dialect.name == "sqlite":
            pytest.skip("SQLite has one writer at a time")
        assert len(store.entries(session=session)) == 1
        store.add("b", "t", 60)
        found = store.pause_many(["b", "a"], session=session)
        assert found.states == {"b": "paused", "a": "paused"}
        session.commit()
    assert [entry.state for entry in store.entries()] == ["paused", "paused"]


@pytest.fixture
def seen(store: Store) -> Iterator[list[str]]:
    """Collect the statements of the store."""
    found: list[str] = []

    def note(*said: Any) -> None:
        found.append(said[2])

    event.listen(store.database.engine, "before_cursor_execute", note)
    yield found
    event.remove(store.database.engine, "before_cursor_execute", note)


def test_a_thousand_take_a_handful_of_statements(store: Store, seen: list[str]) -> None:
    """They are read, locked, written and recorded together; the clock is read once."""
    names = list(store.schedule_many([("t", NOON + HOUR)] * 1000).names)
    for verb in (store.pause_many, store.resume_many):
        seen.clear()
        assert len(verb(names).states) == 1000
        assert len([one for one in seen if one.split()[0] in ("SELECT", "UPDATE", "INSERT")]) <= 8


def test_many_unknown_names_cost_little(store: Store, seen: list[str]) -> None:
    """One like it is looked for of the first few; the others are only not there."""
    store.add("name-0001", "t", 60)
    report = store.pause_many(f"name-{number:04}" for number in range(2, 502))
    assert len(report.refused) == 500
    assert "did you mean 'name-0001'" in report.refused[0].error
    assert report.refused[-1].error == "no entry is named 'name-0501'"
    assert len(seen) < 100


def test_pages_are_transactions(store: Store) -> None:
    """With `page`, what was done before an error stays; without it, all of it is undone."""

    def broken_off() -> Iterator[str]:
        yield from ("a", "b", "c")
        raise RuntimeError

    for name in "abc":
        store.add(name, "t", 60)
    with pytest.raises(RuntimeError):
        store.pause_many(broken_off())
    assert not store.entries(state="paused")
    with pytest.raises(RuntimeError):
        store.pause_many(broken_off(), page=1)
    assert [entry.name for entry in store.entries(state="paused")] == ["a", "b", "c"]


def test_the_caller_s_transaction_decides(store: Store) -> None:
    """A rollback undoes all of it, the audit too."""
    store.add("a", "t", 60)
    with Session(store.database.engine) as session:
        assert store.pause_many(["a"], session=session).states == {"a": "paused"}
        session.rollback()
    assert store.get("a").state == "active"
    assert [one.action for one in store.audit("a")] == ["add"]


@pytest.mark.parametrize("given", [None, 5, "text", {"a": 1}])
def test_what_is_no_iterable(store: Store, given: Any) -> None:
    """A name alone would be taken for a list of letters."""
    for method in (store.pause_many, store.resume_many):
        with pytest.raises(InvalidEntryError, match="an iterable"):
            method(given)


def test_what_is_due_during_the_pause_is_not_run(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """Beats look at the resumed entries at once, and send what is due from then on."""
    for name in "ab":
        store.add(name, "t", 60, misfire="all")
    store.pause_many("ab"[at] for at in (0, 1))
    clock.advance(600)
    assert tick(queue) == []
    store.resume_many(["b", "a"])
    assert tick(queue) == []
    clock.advance(60)
    due = NOON + timedelta(seconds=660)
    assert {(claim.name, claim.due_at) for claim in tick(queue)} == {("a", due), ("b", due)}
