"""The clock set forward and back, and the nights in which it changes by law.

Nothing here waits for time to pass: the clock is moved by hand, beat's half of the tick is
called at each of its positions, and in the end every occurrence must be accounted for: by
a run of its own, folded into a later run, or in the count of a `missed` row.
"""

from __future__ import annotations

import os
import random
import uuid
from collections import Counter
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
from beatstore.tick.claims import Claim, Outcome
from beatstore.tick.queue import Queue
from tests.fault.conftest import NewScene
from tests.support.brokers import Broker
from tests.support.faked import APP, Offset
from tests.support.harness.scene import Scene
from tests.support.wait import wait_until

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`

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
                swept = self.queue.sweep(look.now)
                claims, found = swept.claims, swept.count
            if look.entry_wake_at is not None and look.entry_wake_at <= look.now:
                planned, count = self.queue.plan(look.now)
                claims, found = claims + planned, found + count
            if not found:
                return
            self.sent += claims
            self.queue.mark([Outcome(claim, "sent") for claim in claims])


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
    seed = int(os.environ.get("BEATSTORE_FAULT_SEED", "0")) or random.randrange(1, 10**6)
    print(f"BEATSTORE_FAULT_SEED={seed}")
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
        first = start + MINUTE
        store.add(name, "t", Every(420), start_at=first, misfire=misfire, grace=GRACE)
        rules[name] = lambda end, first=first: list(walk(first, end + STEP, 7 * MINUTE))
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
    folded = 0
    for name, rule in rules.items():
        runs = store.runs(name, limit=1000)
        folded += sum(run.missed_count for run in runs)
        dues = rule(max(path))
        found = [due for run in runs for due in accounted(run, dues)]
        assert sorted(found) == dues, name
        assert {run.state for run in runs} <= {"sent", "missed"}
        assert {run.due_at for run in runs if run.state == "sent"} == {
            due for other, due in sent if other == name
        }
    # The ways are rough enough to make misfires, and the plain one is not.
    assert (folded > 0) == (way in ("forward", "to_and_fro")) or way in ("back", "at_random")


def wait_for_tick(scene: Scene, since: datetime) -> None:
    """Wait until the ticker was sent for an occurrence at `since` or later."""

    def seen() -> bool:
        return bool(scene.store.runs("ticker", state="sent", since=since))

    wait_until(seen, 30, lambda: scene.project.processes[-1].output()[-4000:])


def send_now(scene: Scene) -> None:
    """See a one-shot sent that is due now: a tick has begun, and ended, under this clock."""
    [name] = scene.add_once(1, scene.now())
    wait_until(lambda: scene.store.runs(name, state="sent"), 10)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_real_beat_under_a_clock_that_jumps(
    new_scene: NewScene, redis_broker: Broker, migrated_url: str, tmp_path: Path
) -> None:
    """The machine's clock jumps an hour forward, back and forward under a running beat."""
    # A process's clock is the database's here: SQLite runs in the process.
    offset = Offset(tmp_path)
    scene = new_scene(redis_broker, migrated_url)
    beat = scene.start_beat(app=APP, env=offset.env)
    scene.wait_for_beats([beat])
    start, tick = scene.now(), timedelta(seconds=4)
    for name, misfire in (("ticker", "coalesce"), ("skipping", "skip")):
        scene.store.add(name, "tests.note", tick, start_at=start, misfire=misfire, grace=20)
    scene.store.add("half", "tests.note", Once(start + HOUR / 2))
    scene.store.add("later", "tests.note", Once(start + 2 * HOUR))
    wait_for_tick(scene, start)
    offset.set(3600)
    wait_for_tick(scene, start + HOUR)
    assert [run.state for run in scene.store.runs("half")] == ["sent"]
    offset.set(0)
    send_now(scene)
    before = scene.account().dues("ticker")
    for _ in range(3):
        send_now(scene)
    assert scene.account().dues("ticker") == before
    offset.set(3600)
    wait_for_tick(scene, before[-1] + tick)
    assert beat.terminate() == 0
    account = scene.account()
    assert Counter(mail.run_id for mail in account.mails) == Counter(
        run.id for run in account.runs if run.state == "sent"
    )
    assert {run.state for run in account.runs} == {"sent", "missed"}
    assert scene.store.get("later").state == "active"
    for name in ("ticker", "skipping"):
        runs = scene.store.runs(name, limit=1000)
        last = max(run.due_at for run in runs)
        dues = list(walk(start, last + STEP, tick))
        found = sorted(due for run in runs for due in accounted(run, dues))
        assert found[0] - start <= tick
        assert {later - sooner for sooner, later in pairwise(found)} == {tick}
        assert sum(run.missed_count for run in runs) > 800
