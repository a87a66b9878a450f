"""Policies that meet in one entry: what each leaves to the other."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from beatstore import After, Store, testing
from beatstore.rules.due import jitter_offset
from beatstore.testing import simulate

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
#: Beat is away from half past twelve until ten past four.
AWAY = [(NOON + 0.5 * HOUR, NOON + timedelta(hours=4, minutes=10))]


@pytest.fixture
def quick() -> Iterator[Store]:
    """Hand out a store of the kind that users' tests have, at noon."""
    store = testing.store(NOON)
    yield store
    store.close()


def told(store: Store, name: str = "e") -> list[tuple[int, str, int]]:
    """Return the runs of an entry, oldest first: hour after noon, state, missed."""
    runs = reversed(store.runs(name))
    return [((run.due_at - NOON) // HOUR, run.state, run.missed_count) for run in runs]


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ("allow", [(hour, "succeeded", 0) for hour in (1, 2, 3, 4, 5)]),
        ("wait", [(4, "succeeded", 3), (5, "succeeded", 0)]),
        ("skip", [(1, "succeeded", 0), (4, "skipped", 3), (5, "succeeded", 0)]),
    ],
)
def test_all_makes_up_for_each_only_where_runs_may_overlap(
    quick: Store, overlap: str, expected: list[Any]
) -> None:
    """What is due together overlaps: `wait` folds it into one run, `skip` runs the first."""
    quick.add("e", "t.e", "0 * * * *", misfire="all", overlap=overlap)
    simulate(quick, timedelta(hours=5, minutes=30), downtime=AWAY)
    assert told(quick) == expected


def test_all_with_an_upstream_is_one_run(quick: Store) -> None:
    """One completion of the upstream lets one run through, however many are made up for."""
    quick.add("up", "t.up", "30 * * * *")
    quick.add("e", "t.e", "0 * * * *", misfire="all", after=["up"])
    simulate(quick, timedelta(hours=5, minutes=20), downtime=AWAY)
    assert told(quick) == [(4, "succeeded", 3), (5, "succeeded", 0)]


def test_the_timeout_of_a_wait_begins_after_the_jitter(quick: Store) -> None:
    """An edge's timeout counts from when the entry would have been sent, jitter included."""
    quick.add("up", "t.up", "30 15 * * *")
    entry = quick.add("e", "t.e", "0 13 * * *", after=[After("up", timeout=60)], jitter=3600)
    simulate(quick, timedelta(hours=3))
    [run] = quick.runs("e")
    assert (run.state, run.due_at) == ("skipped", NOON + HOUR)
    late = jitter_offset(entry.id, 3600) + timedelta(seconds=60)
    assert run.finished_at is not None
    assert timedelta(0) <= run.finished_at - (NOON + HOUR + late) <= SECOND


def test_without_a_clock_start_at_is_when_it_may_run_first(quick: Store) -> None:
    """What the upstreams did before `start_at` counts as one completion then, as in any wait."""
    start_at = NOON + 2.5 * HOUR
    quick.add("up", "t.up", "0 * * * *")
    quick.add("e", "t.e", after=[After("up", align="latest")], start_at=start_at)
    simulate(quick, timedelta(hours=3, minutes=30))
    assert quick.runs("e")[-1].due_at == start_at
    assert told(quick) == [(2, "succeeded", 0), (3, "succeeded", 0)]


def test_without_a_clock_end_at_ends_it(quick: Store) -> None:
    """No completion after `end_at` starts a run, and the entry is finished."""
    quick.add("up", "t.up", "0 * * * *")
    quick.add("e", "t.e", after=[After("up", align="latest")], end_at=NOON + 2.5 * HOUR)
    simulate(quick, timedelta(hours=4))
    assert told(quick) == [(1, "succeeded", 0), (2, "succeeded", 0)]
    assert quick.get("e").state == "finished"


def test_without_a_clock_free_edges_alone_run_at_once(quick: Store) -> None:
    """Where every edge lets the first run go free, it goes when the entry is made, or starts."""
    quick.add("up", "t.up", "0 * * * *")
    free = After("up", first_free=True, align="latest")
    quick.add("e", "t.e", after=[free])
    quick.add("later", "t.e", after=[free], start_at=NOON + 1.5 * HOUR)
    simulate(quick, timedelta(hours=2, minutes=30))
    assert [hour for hour, *_ in told(quick)] == [0, 1, 2]
    assert [run.due_at for run in quick.runs("later")][-1] == NOON + 1.5 * HOUR


def test_an_entry_after_itself_runs_on_and_on(quick: Store) -> None:
    """With an edge to itself alone an entry runs again whenever it has ended, to `max_runs`."""
    quick.add("e", "t.e", after=[After("e", first_free=True)], max_runs=4)
    simulate(quick, 3 * HOUR, duration=1800)
    due = [run.due_at for run in reversed(quick.runs("e"))]
    assert due == [NOON + number * timedelta(minutes=30) for number in range(4)]
    assert quick.get("e").state == "finished"
