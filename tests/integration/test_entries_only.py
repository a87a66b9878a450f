"""Lists of the entries that somebody should look at, on every database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from beatstore import Declared, InvalidEntryError, Store
from beatstore.clock import ManualClock
from beatstore.models import RunModel
from beatstore.store import searching
from beatstore.types import EntryOnly
from tests.support.written import MINUTE, NOON, alter, run, write

pytestmark = [pytest.mark.every_database, pytest.mark.by_clock]

#: The states of the runs of an entry, the newest first, and whether it is failing.
OUTCOMES = {
    "never ran": ((), False),
    "fails": (("failed", "succeeded"), True),
    "lost": (("lost", "succeeded"), True),
    "runs again": (("started", "failed", "succeeded"), True),
    "retries": (("claimed", "failed"), True),
    "cancelled its retry": (("cancelled", "failed"), True),
    "missed one since": (("missed", "skipped", "failed"), True),
    "recovered": (("succeeded", "failed", "lost"), False),
    "unreported": (("sent", "sent"), False),
}


def test_failing(store: Store) -> None:
    """An entry fails whose newest run with an outcome did, whatever came after it."""
    for name, (states, _) in OUTCOMES.items():
        entry = store.add(name, "t", 3600)
        rows = [run(entry, NOON - age * MINUTE, state=state) for age, state in enumerate(states, 1)]
        write(store, RunModel, *rows)
    expected = sorted(name for name, (_, fails) in OUTCOMES.items() if fails)
    assert store.names(only="failing") == expected
    assert [entry.name for entry in store.entries(only="failing")] == expected


def test_a_later_attempt_decides(store: Store) -> None:
    """Of the attempts of one due time the last counts."""
    for name, last in (("good", "succeeded"), ("bad", "failed")):
        entry = store.add(name, "t", 3600)
        first = "failed" if last == "succeeded" else "succeeded"
        write(store, RunModel, run(entry, NOON, attempt=1, state=first))
        write(store, RunModel, run(entry, NOON, attempt=2, state=last))
    assert store.names(only="failing") == ["bad"]


def test_overdue_and_waiting(store: Store, clock: ManualClock) -> None:
    """They are those that the status counts."""
    for name in ("ahead", "due", "paused", "waits", "waits, paused"):
        store.add(name, "t", 3600, paused="paused" in name)
        alter(store, name, wake_at=None if "pause" in name else NOON + MINUTE)
    alter(store, "due", wake_at=NOON)
    for name in ("waits", "waits, paused"):
        alter(store, name, pending_since=NOON - MINUTE, wake_at=None)
    assert store.names(only="overdue") == ["due"]
    assert store.names(only="waiting") == ["waits"]
    clock.advance(60)
    assert store.names(only="overdue") == ["ahead", "due"]
    status = store.status()
    assert (status.overdue, status.waiting) == (2, 1)


def test_edited(store: Store) -> None:
    """They are those that differ from what their code declares."""
    store.add("by hand", "t", 60)
    declared = [
        Declared(name, "t", 60, tags=["a"]) for name in ("as it was", "field", "tag", "state")
    ]
    store.sync(declared, source="code")
    store.change("field", jitter=5)
    store.change("tag", tags=["b"])
    store.pause("state")
    assert store.names(only="edited") == ["field", "state", "tag"]
    found = store.entries(only="edited", include="edited")
    assert [entry.edited for entry in found] == [("jitter",), ("state",), ("tags",)]


@pytest.fixture
def many(store: Store) -> list[str]:
    """Make nine entries, of which every other one fails, waits, is overdue and edited."""
    names = [f"e{number}" for number in range(9)]
    store.sync([Declared(name, "t", 3600) for name in names], source="code")
    for entry in store.entries():
        alter(store, entry.name, wake_at=NOON + MINUTE)
        if int(entry.name[1:]) % 2:
            write(store, RunModel, run(entry, NOON, state="failed"))
            alter(store, entry.name, pending_since=NOON, wake_at=NOON, description="edited")
    return names[1::2]


@pytest.mark.parametrize("only", ["failing", "waiting", "overdue", "edited"])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_pages(store: Store, many: list[str], only: EntryOnly, limit: int) -> None:
    """Pages of any size hold each entry once, in order."""
    assert pages(store, only, limit) == many


@pytest.mark.parametrize("only", ["failing", "waiting", "edited"])
def test_a_search_ends_early(
    store: Store, many: list[str], only: EntryOnly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search whose time is up says where to go on, and nothing is lost or doubled by that."""
    monkeypatch.setattr(searching, "_BUDGET", -1)
    monkeypatch.setitem(searching.SEARCHED, only, small(searching.SEARCHED[only]))
    first = store.names(only=only)
    assert (first, first.more, first.after) == (["e1"], True, "e1")
    assert pages(store, only, 100) == many
    assert pages(store, only, 1) == many


def small(how: Any) -> Any:
    """Return a search that reads two entries at a time."""
    return replace(how, page=2)


def pages(store: Store, only: EntryOnly, limit: int) -> list[str]:
    """Return the names of all pages, read as a caller would."""
    return list(read(store, only, limit))


def read(store: Store, only: EntryOnly, limit: int) -> Iterator[str]:
    after = None
    while True:
        page = store.entries(only=only, limit=limit, after=after)
        assert len(page) <= limit
        yield from (entry.name for entry in page)
        if not page.more:
            assert page.after is None
            return
        after = page.after


def test_other_filters_hold_too(store: Store, many: list[str]) -> None:
    """`only` narrows what the other filters leave."""
    store.change("e3", tags=["a"])
    store.change("e4", tags=["a"])
    assert store.names(only="failing", tag="a") == ["e3"]
    assert store.names(only="waiting", name="e[15]") == []
    assert store.names(only="edited", name="?3", state="active", source="code") == ["e3"]


def test_another_word_is_refused(store: Store) -> None:
    """A misspelt word is refused, and the nearest one is named."""
    other: Any = "failed"
    with pytest.raises(InvalidEntryError, match="only: expected one of failing, overdue"):
        store.entries(only=other)
