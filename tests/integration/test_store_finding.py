"""Entries are listed, found by a similar name, and previewed, on every database."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import insert

from beatstore import Store
from beatstore.clock import ManualClock
from beatstore.errors import EntryNotFoundError, InvalidEntryError
from beatstore.models import EntryModel
from beatstore.tick.queue import Queue
from tests.support.harness.ticks import tick

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("wrong", "start"),
    [("report-05000", "report-0"), ("Report-0500", "report-0"), ("zebr", "zebra"), ("zzz", None)],
)
def test_a_similar_name_is_found_among_many(store: Store, wrong: str, start: str | None) -> None:
    """A suggestion comes from the names beside the wrong one, where one is like it."""
    with store.database.engine.begin() as connection:
        names = [*(f"report-{number:04}" for number in range(1000)), "zebra"]
        rows = [{"name": name, "task": "t", "kind": "every", "spec": "60"} for name in names]
        connection.execute(insert(EntryModel), rows)
    with pytest.raises(EntryNotFoundError) as caught:
        store.get(wrong)
    nearest = caught.value.nearest
    assert nearest == start if nearest is None else nearest.startswith(start or "?")


def test_entries_are_listed_by_name_and_page_by_page(store: Store) -> None:
    """Pages follow each other by the last name, in one order, without gap or repetition."""
    names = [f"n{number:02}" for number in range(25)]
    for name in reversed(names):
        store.add(name, "t", 60)
    found: list[str] = []
    while page := store.entries(limit=10, after=found[-1] if found else None):
        assert len(page) <= 10
        found += [entry.name for entry in page]
    assert found == names
    for limit in (0, -1, None, "10"):
        with pytest.raises(InvalidEntryError, match="limit"):
            store.entries(limit=limit)  # type: ignore[arg-type]


def test_entries_are_listed_by_tag_state_source_and_name(store: Store) -> None:
    """Each filter narrows the list, and several narrow it together."""
    store.add("a", "t", 60, tags=["x"])
    store.add("b", "t", 60, tags=["x", "y"], source="sync")
    store.add("c", "t", 60, paused=True)

    def names(**chosen: Any) -> list[str]:
        return [entry.name for entry in store.entries(**chosen)]

    assert names(tag="x") == ["a", "b"]
    assert names(tag="x", source="sync") == ["b"]
    assert names(state="paused") == ["c"]
    assert names(tag="z") == []
    assert names(name="[ab]") == []
    with pytest.raises(InvalidEntryError, match="one of active, paused"):
        store.entries(state="pending")


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("a*", ["a%b", "a[b]", "a_b", "axb"]),
        ("a?b", ["a%b", "a_b", "axb"]),
        ("*_*", ["a_b"]),
        ("a%b", ["a%b"]),
        ("a[b]", ["a[b]"]),
        ("A*", ["Axb"]),
        ("*!*", ["!"]),
        ("*", ["!", "Axb", "a%b", "a[b]", "a_b", "axb"]),
    ],
)
def test_a_pattern_of_names_means_the_same_everywhere(
    store: Store, pattern: str, matching: list[str]
) -> None:
    """`*` and `?` are the only wildcards, case counts, and each database agrees."""
    for name in ("a_b", "a%b", "axb", "Axb", "a[b]", "!"):
        store.add(name, "t", 60)
    assert sorted(entry.name for entry in store.entries(name=pattern)) == matching


def test_previews_are_in_the_entrys_own_zone(store: Store) -> None:
    """A preview shows wall-clock time across a clock change, from now or from a given start."""
    store.add("a", "t", "0 9 * * *", timezone="Europe/Berlin")
    assert [str(at) for at in store.preview("a", 2)] == [
        "2026-01-16 09:00:00+01:00",
        "2026-01-17 09:00:00+01:00",
    ]
    start = datetime(2026, 3, 28, 9, tzinfo=ZoneInfo("Europe/Berlin"))
    assert [str(at) for at in store.preview("a", 2, start)] == [
        "2026-03-28 09:00:00+01:00",
        "2026-03-29 09:00:00+02:00",
    ]


def test_a_preview_honours_the_limits(store: Store, queue: Queue, clock: ManualClock) -> None:
    """start_at, end_at and the runs left bound a preview; jitter is not in it."""
    limits = {
        "start_at": NOON + timedelta(minutes=5),
        "end_at": NOON + timedelta(minutes=8),
        "jitter": 30,
    }
    store.add("a", "t", "* * * * *", **limits)
    assert [at.minute for at in store.preview("a", 9)] == [5, 6, 7, 8]
    store.change("a", max_runs=3)
    assert [at.minute for at in store.preview("a", 9)] == [5, 6, 7]
    clock.set(NOON + timedelta(minutes=5, seconds=30))
    assert len(tick(queue)) == 1
    assert [at.minute for at in store.preview("a", 9)] == [6, 7]
    store.pause("a")
    assert [at.minute for at in store.preview("a", 9)] == [6, 7]
    store.cancel("a")
    assert store.preview("a", 9) == []
    assert store.preview("a", 0) == []
