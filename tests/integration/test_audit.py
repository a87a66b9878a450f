"""Who changed what, on every database: one row for each change, in its transaction."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from beatstore import After, Store
from beatstore.clock import ManualClock
from beatstore.errors import EntryExistsError, InvalidEntryError
from beatstore.models import RunModel
from beatstore.store import audit
from tests.support.written import DAY, HOUR, NOON, alter, run, write


@pytest.fixture
def store(migrated_url: str, clock: ManualClock) -> Iterator[Store]:
    """Return ann's store, whose clock is moved by hand; it stands at noon."""
    store = Store(migrated_url, clock=clock, actor="ann")
    yield store
    store.close()


def told(store: Store, name: str | None = "a") -> list[tuple[str, Any, Any]]:
    """Return all changes, the oldest first, without what never changes."""
    return [(item.action, item.before, item.after) for item in store.audit(name)][::-1]


def two(store: Store) -> None:
    """Add two entries, one upstream of the other, and a one-shot."""
    store.add("up", "t", 3600)
    store.add("a", "t", 3600, tags=["x"], after=["up"])
    store.schedule("t", at=NOON + HOUR, name="once")


NEXT_HOUR = (NOON + HOUR).isoformat()

#: A verb, and what the audit says of it: the entry, the action, before and after.
CHANGES: list[tuple[Callable[[Store], Any], str, str, Any, Any]] = [
    (lambda s: s.change("a", max_runs=5), "a", "change", {"max_runs": None}, {"max_runs": 5}),
    (lambda s: s.pause("a"), "a", "pause", {"state": "active"}, {"state": "paused"}),
    (lambda s: s.cancel("a"), "a", "cancel", {"state": "active"}, {"state": "cancelled"}),
    (lambda s: s.change("a", tags=["y"]), "a", "change", {"tags": ["x"]}, {"tags": ["y"]}),
    (lambda s: s.change("a", new_name="b"), "a", "change", {"name": "a"}, {"name": "b"}),
    (
        lambda s: s.link("a", After("once", on="done")),
        "a",
        "link",
        {"after": []},
        {"after": [{"name": "once", "on": "done"}]},
    ),
    (lambda s: s.unlink("a", "up"), "a", "unlink", {"after": [{"name": "up"}]}, {"after": []}),
    (
        lambda s: s.link("a", After("up", first_free=True)),
        "a",
        "link",
        {"after": [{"name": "up"}]},
        {"after": [{"name": "up", "first_free": True}]},
    ),
    (
        lambda s: s.reschedule("once", NOON + 2 * HOUR),
        "once",
        "reschedule",
        {"spec": NEXT_HOUR, "next_due_at": NEXT_HOUR},
        {
            "spec": (NOON + 2 * HOUR).isoformat(),
            "next_due_at": (NOON + 2 * HOUR).isoformat(),
        },
    ),
]


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_leaves_one_row(
    store: Store, change: tuple[Callable[[Store], Any], str, str, Any, Any]
) -> None:
    """It says who, when, which entry, and the columns that changed, and no others."""
    verb, entry, action, before, after = change
    two(store)
    had = len(store.audit())
    verb(store.by("bob"))
    [made, *rest] = store.audit()
    assert len(rest) == had
    assert (made.actor, made.at, made.entry, made.action) == ("bob", NOON, entry, action)
    assert (made.before, made.after) == (before, after)


@pytest.mark.parametrize(
    "verb",
    [
        lambda s: s.put("a", "t", 3600, tags=["x"], after=["up"]),
        lambda s: s.change("a", max_runs=None),
        lambda s: s.change("a", tags=["x"], new_name="a"),
        lambda s: s.resume("a"),
        lambda s: s.link("a", "up"),
        lambda s: s.reschedule("once", NOON + HOUR),
        lambda s: s.prune(),
        lambda s: s.runs("a"),
    ],
)
def test_what_changes_nothing_leaves_no_row(store: Store, verb: Callable[[Store], Any]) -> None:
    """Saying again what is so already is no change, and neither is asking."""
    two(store)
    had = len(store.audit())
    verb(store)
    assert len(store.audit()) == had


@pytest.mark.parametrize("verb", ["add", "put", "schedule"])
def test_what_is_added_is_kept_whole(store: Store, verb: str) -> None:
    """All columns that say something, with tags and upstreams; instants as text."""
    store.add("up", "t", 3600)
    if verb == "schedule":
        store.schedule("t", at=NOON + HOUR, name="a", tags=["y", "x"])
    else:
        edges = [After("up", timeout=60), "up2"]
        store.add("up2", "t", 3600)
        getattr(store, verb)("a", "t", 3600, args=[1], tags=["y", "x"], after=edges)
    [(action, before, after)] = told(store)
    assert (action, before) == (verb, None)
    assert after["tags"] == ["x", "y"]
    assert after["next_due_at"] == NEXT_HOUR
    assert (after["task"], after["state"], after["name"]) == ("t", "active", "a")
    assert after["id"] == store.get("a").id
    assert not {"wake_at", "version", "error", "description"} & after.keys()
    if verb != "schedule":
        assert after["args"] == [1]
        assert after["after"] == [{"name": "up", "timeout": 60.0}, {"name": "up2"}]


def test_a_put_that_changes_is_told_as_an_edit(store: Store) -> None:
    """Only what differs, with what it was."""
    store.put("a", "t", 3600)
    store.put("a", "t", 3600, description="new", paused=True)
    assert told(store)[1:] == [
        (
            "put",
            {"description": None, "state": "active"},
            {"description": "new", "state": "paused"},
        )
    ]


def test_what_is_removed_is_kept_whole(store: Store) -> None:
    """It could be made again out of its row."""
    two(store)
    store.remove("a")
    [_, (action, before, after)] = told(store)
    assert (action, after) == ("remove", None)
    assert (before["kind"], before["spec"][:4]) == ("every", "3600")
    assert (before["tags"], before["after"]) == (["x"], [{"name": "up"}])


def test_runs_asked_for_by_hand_are_told(store: Store) -> None:
    """Which run a trigger or a rerun made."""
    entry = store.add("a", "t", 3600)
    made = store.trigger("a")
    write(store, RunModel, run(entry, NOON - HOUR, state="failed"))
    failed = store.runs("a", state="failed")[0]
    again = store.rerun(failed)
    assert told(store)[1:] == [
        ("trigger", None, {"run_id": made.id, "due_at": made.due_at.isoformat()}),
        (
            "rerun",
            None,
            {"run_id": again.id, "due_at": (NOON - HOUR).isoformat(), "attempt": 2},
        ),
    ]


def test_a_mended_entry_is_told(store: Store) -> None:
    """What it was broken by stays on record when it is put back into service."""
    store.add("a", "t", 3600)
    alter(store, "a", state="broken", error="spec: nonsense", wake_at=None)
    store.resume("a")
    [_, (action, before, after)] = told(store)
    assert action == "resume"
    assert (before["state"], before["error"]) == ("broken", "spec: nonsense")
    assert (after["state"], after["error"]) == ("active", None)


def test_a_clearing_is_told_with_its_counts(store: Store) -> None:
    """One row, about no entry, however many were deleted; beat's own clearing leaves none."""
    write(store, RunModel, run(7, NOON - 60 * DAY), run(8, NOON - 60 * DAY))
    store.prune(DAY)
    assert told(store, None) == [
        ("prune", None, {"before": (NOON - DAY).isoformat(), "entries": 0, "runs": 2})
    ]
    assert store.audit()[0].entry == ""


def test_a_change_and_its_row_are_one_transaction(store: Store) -> None:
    """A rollback of the caller's undoes both; a refused change leaves no row."""
    store.add("a", "t", 3600)
    with Session(store.database.engine) as session:
        store.pause("a", session=session)
        assert [item.action for item in store.audit(session=session)] == ["pause", "add"]
        session.rollback()
    with pytest.raises(EntryExistsError):
        store.add("a", "t", 3600)
    assert [item.action for item in store.audit()] == ["add"]


def test_the_newest_changes_come_first_and_page_by_page(store: Store, clock: ManualClock) -> None:
    """Of one entry, or of all."""
    for name in ("a", "b"):
        store.add(name, "t", 3600)
    for number in range(1, 6):
        clock.advance(60)
        store.change("a", max_runs=number)
    assert [item.after["max_runs"] for item in store.audit("a", limit=3)] == [5, 4, 3]
    page = store.audit("a", limit=3)
    assert [item.action for item in store.audit("a", before_id=page[-1].id)] == [
        *("change", "change", "add")
    ]
    assert [item.entry for item in store.audit()] == ["a"] * 5 + ["b", "a"]
    assert store.audit("a")[0].at == NOON + timedelta(minutes=5)
    assert store.audit("nobody") == []


def test_the_actor_is_given_or_the_user_of_the_system(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the constructor, by `by`, or by the process; a uid where it has no name."""
    store = Store(migrated_url)
    store.add("a", "t", 3600)
    other = store.by("ann")
    assert other.database is store.database
    other.pause("a")
    store.resume("a")
    audit.os_user.cache_clear()
    monkeypatch.setattr(getpass, "getuser", lambda: (_ for _ in ()).throw(OSError("no name")))
    store.pause("a")
    audit.os_user.cache_clear()
    monkeypatch.undo()
    actors = [item.actor for item in store.audit("a")][::-1]
    assert actors == [getpass.getuser(), "ann", getpass.getuser(), f"uid {os.getuid()}"]
    store.close()
    for wrong in ("", "x" * 256, 7):
        with pytest.raises(InvalidEntryError, match="actor"):
            Store(migrated_url, actor=wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidEntryError, match="actor"):
            store.by(wrong)  # type: ignore[arg-type]


def test_a_one_shot_costs_one_statement_more(store: Store, backend: str) -> None:
    """The audit of `schedule()` in a caller's session is one insert, or part of the entry's."""
    seen: list[str] = []
    event.listen(store.database.engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    with Session(store.database.engine) as session:
        store.schedule("t", at=NOON + HOUR, session=session)
        session.commit()
    words = [statement.split()[0] for statement in seen]
    assert words == (["WITH"] if backend == "postgresql" else ["INSERT", "INSERT"])


def test_no_address_of_the_database_is_told(store: Store) -> None:
    """A row holds the entry's columns and nothing of where it is stored."""
    two(store)
    store.change("a", max_runs=5)
    said = str([(item.before, item.after) for item in store.audit()])
    assert str(store.database.url.database) not in said


def test_pages_after_the_clock_was_set_back(store: Store, clock: ManualClock) -> None:
    """Each change of an entry is on one page, also if a later one has an earlier time."""
    store.add("a", "t", 60)
    clock.set(NOON - HOUR)
    for text in "123":
        store.change("a", description=text)
    clock.set(NOON)
    store.change("a", description="4")
    found: list[int] = []
    while True:
        page = store.audit("a", limit=2, before_id=found[-1] if found else None)
        found += [item.id for item in page]
        if not page.more:
            break
    assert found == [item.id for item in store.audit("a")]
    assert len(found) == 5


@pytest.mark.parametrize("before_id", [2**63, 10**30, -1, "x"])
def test_what_is_no_id(store: Store, before_id: Any) -> None:
    """A page before what can't be an id is refused by the name of the argument."""
    store.add("a", "t", 60)
    for call in (store.runs, store.audit):
        for name in (None, "a"):
            with pytest.raises(InvalidEntryError, match="before_id"):
                call(name, before_id=before_id)
    assert store.runs(before_id=2**63 - 1) == []
