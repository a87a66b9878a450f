"""What `simulate` takes, from which store, and how much of it."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from beatstore import After, ConfigError, EntryNotFoundError, Settings, Store, testing
from beatstore.testing import simulate
from beatstore.tick.queue import Queue
from tests.support.cost import Cost
from tests.support.stories import MIDNIGHT, at, times

UTC = timezone.utc
DAY = timedelta(days=1)


def test_a_store_without_a_manual_clock_is_refused(store: Store) -> None:
    """Time that passes by itself can't be simulated; the error says what to write."""
    with pytest.raises(ConfigError, match=r"testing\.store\(\), or Store\(url, clock=ManualClock"):
        simulate(store, DAY)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"until": datetime(2026, 1, 16)}, "until"),
        ({"until": at("0:00", 14)}, "until"),
        ({"until": "tomorrow"}, "until"),
        ({"until": DAY, "start": at("0:00", 14)}, "start"),
        ({"until": DAY, "concurrency": 0}, "concurrency"),
        ({"until": DAY, "downtime": [(at("1:00"), datetime(2026, 1, 16))]}, "downtime"),
        ({"until": DAY, "outcome": "success"}, "outcome"),
        ({"until": DAY, "duration": -1}, "duration"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    quick: Store, given: dict[str, Any], field: str
) -> None:
    """Naive times, times that go backwards and words that are none are errors that say so."""
    quick.add("a", "a.a", "0 1 * * *")
    with pytest.raises(ConfigError) as refused:
        simulate(quick, **given)
    assert refused.value.field == field


@pytest.mark.parametrize("argument", ["outcome", "duration"])
def test_an_entry_that_is_not_there_is_refused(quick: Store, argument: str) -> None:
    """A misspelt name in a mapping would say nothing of anything."""
    quick.add("extract", "etl.extract", "0 1 * * *")
    with pytest.raises(EntryNotFoundError, match="did you mean 'extract'"):
        simulate(quick, DAY, **{argument: {"extrat": "failed"}})  # type: ignore[arg-type]


def test_a_later_start_is_a_time_without_beat(quick: Store) -> None:
    """What was due before the start is late, as if beat had been away."""
    quick.add("a", "a.a", "0 * * * *", misfire="coalesce")
    ledger = simulate(quick, timedelta(hours=1), start=at("3:30"))
    assert [(row.at, row.due_at, row.missed_count) for row in ledger] == [
        (at("3:30"), at("3:00"), 2),
        (at("4:00"), at("4:00"), 0),
    ]
    assert ledger.start == at("3:30")


def test_the_end_does_not_belong_to_it(quick: Store) -> None:
    """What is due at the very end is left to the next call, and done there."""
    quick.add("a", "a.a", "0 * * * *")
    assert len(simulate(quick, at("2:00"))) == 1
    assert len(simulate(quick, at("2:00"))) == 0
    assert times(simulate(quick, at("2:01"))) == ["02:00"]


def test_outages_that_overlap_are_one(quick: Store) -> None:
    """Beat is back when the last of them is over."""
    quick.add("a", "a.a", "0 1 * * *")
    away = [(at("1:30"), at("2:00")), (at("0:30"), at("1:40"))]
    assert [row.at for row in simulate(quick, DAY, downtime=away)] == [at("2:00")]


def test_the_defaults_are_those_that_beat_will_have() -> None:
    """Settings given to the store hold in the simulation."""
    store = testing.store(MIDNIGHT, settings=Settings(default_misfire="skip"))
    store.add("a", "a.a", "0 1 * * *")
    ledger = simulate(store, DAY, downtime=[(at("0:30"), at("2:00"))])
    store.close()
    assert ledger.states() == {"missed": 1}


def test_each_store_is_its_own_and_leaves_nothing() -> None:
    """Two stores share nothing, and the files are gone when the stores are."""
    first, second = testing.store(MIDNIGHT), testing.store()
    first.add("a", "a.a", "0 1 * * *")
    assert second.entries() == []
    paths = [Path(store.database.url.database or "") for store in (first, second)]
    assert all(path.exists() for path in paths)
    first.close()
    second.close()
    del first, second
    gc.collect()
    assert not any(path.parent.exists() for path in paths)


def test_a_store_is_the_same_for_every_thread(quick: Store) -> None:
    """An app under test may use it from threads of its own."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: quick.add(f"a{number}", "a.a", "0 1 * * *"), range(12)))
    assert len(simulate(quick, DAY)) == 12


def test_a_cycle_at_one_instant_is_an_error(quick: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would never end is told, instead of hanging."""
    monkeypatch.setattr("beatstore.testing.simulation._ROUNDS", 20)
    quick.add("a", "a.a", "0 1 * * *")
    monkeypatch.setattr(Queue, "plan", lambda queue, now: ([], 1))
    with pytest.raises(RuntimeError, match="endless loop at"):
        simulate(quick, DAY)


@pytest.mark.heavy
def test_more_runs_at_once_than_a_statement_takes() -> None:
    """Thousands that are due at the same time end together, in several transactions."""
    settings = Settings(catch_up_limit=5000)
    store = testing.store(MIDNIGHT, settings=settings)
    store.add("many", "a.many", "* * * * *", misfire="all")
    store.add("next", "a.next", after=[After("many", align="latest")])
    ledger = simulate(store, 2 * DAY, downtime=[(MIDNIGHT, MIDNIGHT + 47 * timedelta(hours=1))])
    store.close()
    assert len(ledger.of("many")) == 2879
    assert ledger.of("next").names == ["next"] * 60


@pytest.mark.heavy
def test_a_day_of_a_hundred_entries_every_quarter_of_an_hour() -> None:
    """9,500 runs through the real tables take seconds, not minutes."""
    store = testing.store(MIDNIGHT)
    with store.database.session() as session:
        for number in range(100):
            after = [f"e{number - 1}"] if number % 5 == 4 else []
            schedule = None if after else "*/15 * * * *"
            store.add(f"e{number}", "a.task", schedule, after=after, session=session)
    with Cost() as cost:
        ledger = simulate(store, DAY)
    store.close()
    assert ledger.states() == {"succeeded": 9500}
    assert cost.seconds < 20, f"{cost.seconds:.1f} s"
