"""The clock set forward and back, and the nights in which it changes by law.

Nothing here waits for time to pass: the clock is moved by hand, beat's half of the tick is
called at each of its positions, and in the end every occurrence must be accounted for: by
a run of its own, folded into a later run, or in the count of a `missed` row.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from beatstore import Every, Once, Run, Store
from beatstore.clock import ManualClock
from beatstore.store.claims import Claim, Outcome
from beatstore.store.queue import Queue
from tests.fault.conftest import NewScene
from tests.support.absent import absent
from tests.support.brokers import Broker
from tests.support.scene import Scene
from tests.support.wait import wait_until

UTC = timezone.utc
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
STEP = timedelta(microseconds=1)

#: The instants at which clocks change, by zone and direction, in 2026.
CHANGES = {
    ("Europe/Berlin", "forward"): datetime(2026, 3, 29, 1, tzinfo=UTC),
    ("Europe/Berlin", "back"): datetime(2026, 10, 25, 1, tzinfo=UTC),
    ("America/New_York", "forward"): datetime(2026, 3, 8, 7, tzinfo=UTC),
    ("America/New_York", "back"): datetime(2026, 11, 1, 6, tzinfo=UTC),
}

#: A test begins so long before the change, and ends so long after it.
BEFORE, AFTER = 4 * HOUR, 5 * HOUR

#: Seconds late that are no misfire. Beat looks every 5 minutes here, and a step of the
#: clock is an hour.
GRACE = 900

Minutes = frozenset[int]


@dataclass(frozen=True)
class Wall:
    """A cron expression, and what it means, in a form that needs no cron to read.

    `cadence` is for those that follow the clock, because they begin with a star.
    """

    expression: str
    hours: frozenset[int]
    minutes: frozenset[int]
    cadence: bool

    def dues(self, zone: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
        """Return what is due after `start` and not after `end`, by trying every minute."""
        found = set()
        at = start.replace(second=0, microsecond=0) - 3 * HOUR
        seen: set[datetime] = set()
        wall = at.astimezone(zone).replace(tzinfo=None)
        while at <= end:
            now = at.astimezone(zone).replace(tzinfo=None)
            if now != wall:
                # A gap, or a fold: what the gap swallowed is due now.
                while wall < now:
                    if self._matches(wall) and not self.cadence:
                        found.add(at)
                    wall += MINUTE
                wall = now
            if self._matches(now) and (self.cadence or now not in seen):
                found.add(at)
            seen.add(now)
            at, wall = at + MINUTE, wall + MINUTE
        return sorted(due for due in found if start < due <= end)

    def _matches(self, wall: datetime) -> bool:
        return wall.hour in self.hours and wall.minute in self.minutes


ALL = frozenset(range(24))
CRONS = (
    Wall("30 2 * * *", frozenset({2}), frozenset({30}), False),
    Wall("30 1 * * *", frozenset({1}), frozenset({30}), False),
    Wall("0 3 * * *", frozenset({3}), frozenset({0}), False),
    Wall("10,50 1-3 * * *", frozenset({1, 2, 3}), frozenset({10, 50}), False),
    Wall("0 * * * *", ALL, frozenset({0}), True),
    Wall("*/15 * * * *", ALL, frozenset({0, 15, 30, 45}), True),
    Wall("* 2 * * *", frozenset({2}), frozenset(range(60)), True),
)


class Bench:
    """A beat without a broker: what it would send is remembered."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.clock = clock
        self.queue = Queue(store.database, store.settings, str(uuid.uuid4()))
        self.sent: list[Claim] = []

    def tick(self) -> None:
        """Send all that is due, as the scheduler does."""
        while True:
            look = self.queue.look()
            claims: list[Claim] = []
            found = 0
            if look.run_wake_at is not None and look.run_wake_at <= look.now:
                claims, found = self.queue.sweep(look.now)
            if look.entry_wake_at is not None and look.entry_wake_at <= look.now:
                planned, count = self.queue.plan(look.now)
                claims, found = claims + planned, found + count
            if not found:
                return
            self.sent += claims
            self.queue.settle([Outcome(claim, "sent") for claim in claims])


Path_ = Sequence[datetime]


def walk(start: datetime, end: datetime, by: timedelta) -> Iterator[datetime]:
    """Yield the positions of a clock that nobody touches."""
    at = start
    while at < end:
        yield at
        at += by


def plain(change: datetime) -> Iterator[datetime]:
    yield from walk(change - BEFORE, change + AFTER, 5 * MINUTE)


def forward(change: datetime) -> Iterator[datetime]:
    """An hour forward, half an hour before the change: the change itself is jumped over."""
    yield from walk(change - BEFORE, change - HOUR / 2, 5 * MINUTE)
    yield from walk(change + HOUR / 2, change + AFTER, 5 * MINUTE)


def back(change: datetime) -> Iterator[datetime]:
    """An hour back, half an hour after the change: the change comes twice."""
    yield from walk(change - BEFORE, change + HOUR / 2, 5 * MINUTE)
    yield from walk(change - HOUR / 2, change + AFTER, 5 * MINUTE)


def to_and_fro(change: datetime) -> Iterator[datetime]:
    """An hour forward and soon back again, and the other way round."""
    yield from walk(change - BEFORE, change - 2 * HOUR, 5 * MINUTE)
    yield from walk(change - HOUR, change - HOUR + 10 * MINUTE, 5 * MINUTE)
    yield from walk(change - 2 * HOUR, change + HOUR, 5 * MINUTE)
    yield from walk(change, change + 10 * MINUTE, 5 * MINUTE)
    yield from walk(change + HOUR, change + AFTER, 5 * MINUTE)


def at_random(change: datetime) -> Iterator[datetime]:
    """Any steps, up to an hour in either direction, as long as time gets on."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    at = change - BEFORE
    while at < change + AFTER:
        yield at
        at += timedelta(seconds=rng.choice([1, 60, 240, 240, 240, 600, 3600, -3600, -60]))
    yield change + AFTER


WAYS: dict[str, Callable[[datetime], Iterator[datetime]]] = {
    way.__name__: way for way in (plain, forward, back, to_and_fro, at_random)
}


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock; tests set it."""
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def store(migrated_url: str, clock: ManualClock) -> Iterator[Store]:
    """Return a store whose clock is moved by hand."""
    store = Store(migrated_url, clock=clock)
    yield store
    store.close()


def add_all(store: Store, zone: str, change: datetime, start: datetime) -> dict[str, Any]:
    """Add every rule under every policy; return what tells each one's occurrences, by name."""
    rules: dict[str, Any] = {}
    tz = ZoneInfo(zone)
    for misfire in ("skip", "coalesce", "all"):
        for cron in CRONS:
            name = f"{misfire} {cron.expression}"
            given = {"timezone": zone, "misfire": misfire, "grace": GRACE}
            store.add(name, "t", cron.expression, **given)
            rules[name] = lambda end, cron=cron: cron.dues(tz, start, end)
        name = f"{misfire} every"
        store.add(name, "t", Every(420), start_at=start, misfire=misfire, grace=GRACE)
        rules[name] = lambda end: [
            at for n in range(1000) if (at := start + n * timedelta(seconds=420)) <= end
        ]
        for number in range(-3, 9):
            at = change + number * HOUR / 2 + MINUTE
            name = f"{misfire} once {number}"
            store.add(name, "t", Once(at), misfire=misfire, grace=GRACE)
            rules[name] = lambda end, at=at: [at] if at <= end else []
    return rules


def accounted(run: Run, dues: Sequence[datetime]) -> list[datetime]:
    """Return the occurrences that a run stands for, and see that it counts them right."""
    if run.first_missed_at is None:
        return [run.due_at]
    covered = [due for due in dues if run.first_missed_at <= due <= run.due_at]
    assert len(covered) == run.missed_count + (run.state == "sent"), run
    return covered


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("zone", "direction"), CHANGES)
def test_every_occurrence_is_accounted_for(
    zone: str, direction: str, way: str, store: Store, clock: ManualClock
) -> None:
    """Whatever the clock does in the night of a change, no occurrence is lost or doubled."""
    change = CHANGES[zone, direction]
    path = list(WAYS[way](change))
    clock.set(path[0])
    rules = add_all(store, zone, change, path[0])
    bench = Bench(store, clock)
    for at in path:
        clock.set(at)
        bench.tick()
    bench.queue.close()
    sent = [(claim.name, claim.due_at) for claim in bench.sent]
    assert len(sent) == len(set(sent)), "sent twice"
    for name, rule in rules.items():
        runs = store.runs(name, limit=1000)
        dues = rule(max(path))
        found = [due for run in runs for due in accounted(run, dues)]
        assert sorted(found) == dues, name
        assert {run.state for run in runs} <= {"sent", "missed"}
        assert {run.due_at for run in runs if run.state == "sent"} == {
            due for other, due in sent if other == name
        }
