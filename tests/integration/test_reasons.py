"""Why a change was made: noted in the audit, and told where the change is told."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from beatstore import Declared, Store
from beatstore.clock import ManualClock
from beatstore.errors import InvalidEntryError
from beatstore.models import RunModel
from tests.support.command import Command
from tests.support.written import DAY, HOUR, NOON, run, write

WHY = "new disks; ask Ärzte-IT 🩺"

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
def store(migrated_url: str, clock: ManualClock) -> Iterator[Store]:
    """Return ann's store, whose clock is moved by hand, with an entry and its upstream."""
    store = Store(migrated_url, clock=clock, actor="ann")
    store.add("up", "t", 3600)
    store.add("a", "t", 3600, after=["up"])
    yield store
    store.close()


@pytest.fixture
def call(migrated_url: str, store: Store) -> Command:
    """Return the command line on the same database."""
    return Command(migrated_url)


def ran(store: Store, state: str) -> int:
    """Write a run in a state, and return its id."""
    write(store, RunModel, run(store.get("a"), NOON - HOUR, state=state))
    return store.runs("a")[0].id


#: A change of each kind.
CHANGES: dict[str, Callable[[Store], Any]] = {
    "add": lambda s: s.add("b", "t", 60),
    "put": lambda s: s.put("a", "t", 60),
    "change": lambda s: s.change("a", max_runs=5),
    "pause": lambda s: s.pause("a"),
    "cancel": lambda s: s.cancel("a"),
    "remove": lambda s: s.remove("a"),
    "trigger": lambda s: s.trigger("a"),
    "rerun": lambda s: s.rerun(ran(s, "failed")),
    "end": lambda s: s.end(ran(s, "sent"), "failed"),
    "schedule": lambda s: s.schedule("t", at=NOON + HOUR),
    "unlink": lambda s: s.unlink("a", "up"),
    "sync": lambda s: s.sync([Declared("c", "t", 60)], source="code"),
    "prune": lambda s: (write(s, RunModel, run(7, NOON - 60 * DAY)), s.prune(DAY)),
}


@pytest.mark.parametrize("action", CHANGES)
def test_every_change_has_the_reason_of_its_store(store: Store, action: str) -> None:
    """The copy that `by` returns notes the reason, and the store that it was made of none."""
    CHANGES[action](store.by("bob", WHY))
    newest, *older = store.audit()
    assert (newest.action, newest.actor, newest.reason) == (action, "bob", WHY)
    assert {one.reason for one in older} == {None}


def test_a_reason_is_for_one_copy_of_the_store(store: Store) -> None:
    """The next `by` names another person, and so no reason unless it is given one."""
    store.by("bob", WHY).by("eve").pause("a")
    assert (store.audit()[0].actor, store.audit()[0].reason) == ("eve", None)
    assert repr(store.by("bob", WHY)) == repr(store)


@pytest.mark.parametrize("blank", ["", "  ", "\n", None])
def test_a_blank_reason_is_none(store: Store, blank: str | None) -> None:
    """A form whose field was left empty notes nothing."""
    store.by("bob", blank).pause("a")
    assert store.audit()[0].reason is None


@pytest.mark.parametrize("wrong", ["x" * 1001, "a\0b", "half \ud800", 7, ["x"]])
def test_a_reason_that_cannot_be_stored_is_refused(store: Store, wrong: Any) -> None:
    """`by` refuses it, before anything is changed."""
    with pytest.raises(InvalidEntryError, match=r"^reason: .*at most 1000 characters"):
        store.by("bob", wrong)


def test_the_longest_reason_is_kept_whole(store: Store) -> None:
    """A thousand characters of any kind, and lines stay lines."""
    longest = "🩺\n" * 500
    store.by("bob", longest).pause("a")
    assert store.audit()[0].reason == longest


def test_the_reason_of_an_end_is_its_own(store: Store) -> None:
    """What `end` is told counts for its run and for the audit, before the store's reason."""
    made = store.by("bob", WHY).end(ran(store, "sent"), "failed", reason="purged")
    assert made.reason == "ended by hand: purged"
    assert (store.audit()[0].action, store.audit()[0].reason) == ("end", "purged")


# -- explained -----------------------------------------------------------------------------


def test_a_pause_is_explained_with_its_reason(store: Store, clock: ManualClock) -> None:
    """By `explain` of the entry, of what waits for it, and of an occurrence within the pause."""
    store.add("down", "t", after=["up"])
    store.by("bob", f"{WHY}\nsecond line").pause("up")
    clock.advance(2 * 3600)
    found = store.explain("up")
    assert (found.by, found.reason) == ("bob", f"{WHY}\nsecond line")
    so = f"paused since 12:00:00, by bob: '{WHY}'"
    assert found.sentences[0] == f"'up' is {so}. It sends nothing until store.resume('up')."
    [waits] = [said for said in store.explain("down").sentences if "must succeed" in said]
    assert waits.endswith(f": it is {so}.")
    store.by("ann", "disks are in").resume("up")
    then = str(store.explain("up", NOON + HOUR))
    assert f"it was paused then, since 12:00:00, by bob: '{WHY}'." in then


def test_a_change_without_a_reason_is_explained_as_before(store: Store) -> None:
    """Who did it is the end of the sentence."""
    store.by("bob").pause("up")
    found = store.explain("up")
    assert (found.by, found.reason) == ("bob", None)
    assert found.sentences[0].startswith("'up' is paused since 12:00:00, by bob. It ")


def test_a_removed_entry_is_explained_with_the_reason(store: Store) -> None:
    """The audit is all that is left of it."""
    store.by("bob", WHY).remove("a")
    found = store.explain("a")
    assert (found.state, found.by, found.reason) == ("removed", "bob", WHY)
    assert found.sentences == [f"'a' was removed at 12:00:00, by bob: '{WHY}'."]


# -- on the command line -------------------------------------------------------------------

#: A call of each verb that notes a reason.
CALLS: dict[str, list[str]] = {
    "pause": ["a"],
    "resume": ["off"],
    "trigger": ["a"],
    "cancel": ["a", "--yes"],
    "remove": ["a", "--yes"],
    "change": ["a", "--max-runs", "5"],
    "add": ["b", "t", "@daily"],
    "schedule": ["t", "--in", "1h"],
    "rerun": ["1"],
    "end": ["2", "--as", "failed"],
}


@on_sqlite
@pytest.mark.parametrize("verb", CALLS)
def test_verbs_note_a_reason(call: Command, store: Store, verb: str) -> None:
    """`--reason` is in the audit, under the name of the user of the operating system."""
    store.add("off", "t", 60, paused=True)
    entry = store.get("a")
    failed, sent = run(entry, NOON - HOUR, state="failed"), run(entry, NOON, state="sent")
    write(store, RunModel, failed, sent)
    done = call(verb, *CALLS[verb], "--reason", WHY)
    assert done.code == 0, done.err
    newest = store.audit()[0]
    assert (newest.action, newest.reason, newest.actor) == (verb, WHY, getpass.getuser())


@on_sqlite
def test_a_reason_that_is_too_long_stops_the_verb(call: Command, store: Store) -> None:
    """Nothing is changed, and one line says why."""
    done = call("pause", "a", "--reason", "x" * 1001)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("beatstore: reason: expected text of at most 1000 characters")
    assert store.get("a").state == "active"


@on_sqlite
def test_audit_and_why_show_the_reason(call: Command, store: Store) -> None:
    """In words for people, and as a field of its own in JSON."""
    store.by("bob", "new disks").pause("a")
    store.by("bob", "to test it").trigger("a")
    trigger, pause, *_ = call("audit", "a").lines[1:]
    assert pause.endswith("state active → paused; reason: new disks")
    assert trigger.endswith("reason: to test it")
    assert [row["reason"] for row in call("audit", "a", "--json").json] == [
        *("to test it", "new disks", None)
    ]
    assert "by bob: 'new disks'" in call("why", "a").out
    assert call("why", "a", "--json").json["reason"] == "new disks"
