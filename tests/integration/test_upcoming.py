"""What comes next, of all entries at once, on every database."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event

from beatstore import Cron, Every, Once, Store
from beatstore.errors import InvalidEntryError
from beatstore.models import EntryModel
from beatstore.rules.due import jitter_offset
from beatstore.store import upcoming
from tests.support.harness.play import Play
from tests.support.marks import on_sqlite
from tests.support.written import DAY, HOUR, MINUTE, NOON, alter, write

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`


def said(store: Store, **asked: Any) -> list[str]:
    """Return what comes next as "name HH:MM", with the state where it is not "ahead"."""
    return [
        f"{one.name} {one.send_at:%H:%M}" + (f" {one.state}" if one.state != "ahead" else "")
        for one in store.upcoming(**asked)
    ]


def test_the_due_times_of_all_entries_are_merged(store: Store) -> None:
    """The due times of all entries are one list in the order of time, however many each has."""
    store.add("quarter", "t", Cron("*/15 * * * *"))
    store.add("twenty", "t", Every(1200, NOON))
    store.add("once", "mail", Once(NOON + 35 * MINUTE))
    expected = ["quarter 12:15", "twenty 12:20", "quarter 12:30", "once 12:35", "twenty 12:40"]
    assert said(store, limit=5) == expected
    once = store.upcoming(limit=4)[-1]
    assert (once.task, once.due_at, once.reason) == ("mail", NOON + 35 * MINUTE, None)


def test_the_list_ends_where_everything_ends(store: Store) -> None:
    """Fewer than asked come back when `end_at`, `max_runs` and one-shots are through."""
    store.add("ended", "t", 600, end_at=NOON + 20 * MINUTE)
    store.add("twice", "t", 900, max_runs=2)
    store.add("once", "t", Once(NOON + HOUR))
    expected = ["ended 12:10", "twice 12:15", "ended 12:20", "twice 12:30", "once 13:00"]
    assert said(store) == expected


def test_what_sends_nothing_is_not_in_it(store: Store) -> None:
    """Entries that are not active, and those without a schedule, have no next due time."""
    for name in ("up", "paused", "cancelled", "broken"):
        store.add(name, "t", 3600)
    store.add("after", "t", after=["up"])
    store.pause("paused")
    store.cancel("cancelled")
    alter(store, "broken", spec="no number", wake_at=NOON)
    assert said(store, limit=3) == ["up 13:00", "up 14:00", "up 15:00"]


def test_a_row_written_by_plain_sql_is_in_it(play: Play) -> None:
    """A row that no beat has looked at yet is counted from its rule, and so is an edited one."""
    store = play.store
    made = {"task": "t", "kind": "cron", "created_at": NOON - HOUR}
    write(store, EntryModel, {"name": "late", "spec": "0 14 * * *", **made})
    write(store, EntryModel, {"name": "soon", "spec": "30 12 * * *", **made})
    assert [one.next_due_at for one in store.entries()] == [None, None]
    assert said(store, limit=2) == ["soon 12:30", "late 14:00"]
    play.tick()
    assert said(store, limit=2) == ["soon 12:30", "late 14:00"]
    # Not by the trigger alone: the cache says another time now.
    alter(store, "late", spec="15 12 * * *", cursor_at=NOON)
    assert said(store, limit=2) == ["late 12:15", "soon 12:30"]


def test_what_is_due_already_comes_first(play: Play) -> None:
    """Where no beat has looked, an entry is overdue once, and then goes on from now."""
    play.add("often", 600)
    play.add("daily", "0 13 * * *")
    play.clock.set(NOON + 65 * MINUTE)
    expected = ["often 12:10 overdue", "daily 13:00 overdue", "often 13:10", "often 13:20"]
    assert said(play.store, limit=4) == expected
    assert said(play.store, start=NOON + 65 * MINUTE, limit=1) == ["often 13:10"]
    play.tick()
    assert said(play.store, limit=2) == ["often 13:10", "often 13:20"]


def test_what_waits_is_in_it_with_the_reason(play: Play) -> None:
    """An occurrence that is held back comes first, and the entry's later ones after it."""
    play.add("up", "0 15 * * *")
    play.add("down", 600, after=["up"])
    assert play.at("12:10") == []
    assert play.at("12:25") == []
    found = play.store.upcoming(limit=3)
    assert [(one.name, one.due_at, one.state) for one in found] == [
        ("down", NOON + 10 * MINUTE, "waiting"),
        ("down", NOON + 30 * MINUTE, "ahead"),
        ("down", NOON + 40 * MINUTE, "ahead"),
    ]
    assert found[0].reason is not None
    assert "'up'" in found[0].reason
    assert said(play.store, start=NOON + 2 * HOUR + 55 * MINUTE, limit=2) == [
        "up 15:00",
        "down 15:00",
    ]


def test_a_wait_with_an_end_is_in_it_once(play: Play) -> None:
    """An entry that waits for so long and no longer is not read twice."""
    from beatstore import After

    play.add("up", "0 15 * * *")
    play.add("down", "10 12 * * *", after=[After("up", timeout=3600)])
    play.at("12:11")
    assert said(play.store, limit=3) == ["down 12:10 waiting", "up 15:00", "down 12:10"]


def test_the_window_and_the_filters(store: Store) -> None:
    """`start` counts, `until` does not; a tag and a pattern of names keep to some entries."""
    store.add("etl.a", "t", 3600, tags=["etl"])
    store.add("etl.b", "t", 5400, tags=["etl"])
    store.add("web", "t", 1800)
    window = {"start": NOON + HOUR, "until": NOON + 3 * HOUR}
    assert said(store, tag="etl", **window) == ["etl.a 13:00", "etl.b 13:30", "etl.a 14:00"]
    assert said(store, name="etl.?", limit=1) == ["etl.a 13:00"]
    assert said(store, name="web", start=NOON + 5 * DAY, limit=1) == ["web 12:00"]
    assert said(store, until=NOON + 30 * MINUTE) == []


def test_runs_between_now_and_the_start_use_up_what_is_left(store: Store) -> None:
    """Of three runs, two are over by the time the window begins."""
    store.add("thrice", "t", 600, max_runs=3)
    assert said(store, start=NOON + 25 * MINUTE) == ["thrice 12:30"]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"start": datetime(2026, 1, 15)}, "start"),
        ({"until": "tomorrow"}, "until"),
        ({"start": NOON, "until": NOON}, "until"),
        ({"limit": 0}, "limit"),
        ({"limit": 10_001}, "limit"),
    ],
)
@on_sqlite
def test_what_can_not_be_asked(store: Store, asked: dict[str, Any], field: str) -> None:
    """A window must be one, and a limit within bounds."""
    with pytest.raises(InvalidEntryError) as caught:
        store.upcoming(**asked)
    assert caught.value.field == field


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_the_previews_say(
    store: Store, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Read in pages of three, it is the merged previews of all entries, each with its jitter."""
    monkeypatch.setattr(upcoming, "_PAGE", 3)
    rng = random.Random(seed)
    for number in range(20):
        schedule = rng.choice(
            [
                Every(rng.randrange(60, 90_000), NOON - rng.randrange(90_000) * MINUTE / 60),
                Cron(f"{rng.randrange(60)} {rng.choice(['*', rng.randrange(24)])} * * *"),
                Once(NOON + rng.randrange(1, 5000) * MINUTE),
            ]
        )
        store.add(
            f"e{number}",
            "t",
            schedule,
            jitter=rng.choice([0, 0, 7200]),
            max_runs=rng.choice([None, 3]),
            end_at=rng.choice([None, NOON + 10 * DAY]),
            paused=rng.random() < 0.2,
            overlap=rng.choice(["allow", "wait"]),
        )
    expected = []
    for entry in store.entries(state="active"):
        offset = jitter_offset(entry.id, entry.jitter_s)
        due = store.preview(entry.name, 200)
        expected += [(at + offset, entry.id, entry.name, at) for at in due]
    expected.sort()
    found = [(one.send_at, one.name, one.due_at) for one in store.upcoming(limit=100)]
    assert found == [(send_at, name, at) for send_at, _, name, at in expected[:100]]
    start, until = NOON + 6 * HOUR, NOON + 30 * HOUR
    within = [name for at, _, name, _ in expected if start <= at < until]
    assert [one.name for one in store.upcoming(start=start, until=until, limit=5000)] == within


def test_the_work_grows_with_the_limit(store: Store) -> None:
    """Of thousands of entries, those due first are read, and no others."""
    made = {"task": "t", "kind": "every", "created_at": NOON - HOUR}
    rows = [
        {
            **made,
            "name": f"e{number}",
            "spec": "864000",
            "wake_at": NOON + 10 * DAY - HOUR + timedelta(seconds=number),
            "created_at": NOON - HOUR + timedelta(seconds=number),
        }
        for number in range(3000)
    ]
    write(store, EntryModel, *rows)
    read = 0

    def count(*args: Any) -> None:
        nonlocal read
        read += 1

    engine = store.database.engine
    event.listen(engine, "after_cursor_execute", count)
    found = store.upcoming(limit=10, until=NOON + timedelta(days=100_000))
    event.remove(engine, "after_cursor_execute", count)
    assert [one.name for one in found] == [f"e{number}" for number in range(10)]
    assert read <= 4  # two looks for what waits, one page, perhaps the clock
