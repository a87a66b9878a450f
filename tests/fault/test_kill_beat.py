"""Beat killed with -9 at random moments while a thousand occurrences are due.

Three kills on each database, or as many as `BEATSTORE_FAULT_ROUNDS` says. The seed is
printed; `BEATSTORE_FAULT_SEED` repeats a run.
"""

from __future__ import annotations

import os
import random
import time
from datetime import datetime, timedelta

import pytest

from tests.fault.conftest import NewScene
from tests.support.brokers import Broker
from tests.support.harness.scene import Scene
from tests.support.processes import Process
from tests.support.wait import wait_until

ROUNDS = int(os.environ.get("BEATSTORE_FAULT_ROUNDS", "3"))
SEED = int(os.environ.get("BEATSTORE_FAULT_SEED", "0")) or random.randrange(1, 10**6)

#: How many one-shots are due at once, and how many beat claims at a time.
COUNT, BATCH = 1000, 100

#: A claim expires after so many seconds.
TTL = 2

#: How far ahead of their time the one-shots are added, in seconds.
AHEAD = 1.5

SECOND = timedelta(seconds=1)


def add_round(scene: Scene) -> datetime:
    """Add the one-shots of a round, and return when they are due."""
    at = scene.now() + timedelta(seconds=AHEAD)
    scene.add_once(COUNT, at)
    return at


def wait_for_rounds(scene: Scene, count: int) -> None:
    """Wait until the one-shots of so many rounds are sent."""

    def sent() -> bool:
        return scene.sent("once-%") == count * COUNT

    wait_until(sent, 60, lambda: str(scene.states()), interval=0.05)


def kill_at_random(scene: Scene, beat: Process, moment: float, rounds: int) -> Process:
    """Kill `beat` so long after its work came due, see another do it, and return that one."""
    at = add_round(scene)
    end = time.monotonic() + (at - scene.now()).total_seconds() + moment
    wait_until(lambda: time.monotonic() >= end, AHEAD + moment + 5, interval=0.0005)
    beat.kill9()
    states, arrived = scene.states(), scene.mailbox.count()
    heir = scene.start_beat()
    wait_for_rounds(scene, rounds)
    print(f"killed {moment:.3f} s after due: {arrived} messages, {dict(states)}")
    return heir


@pytest.mark.timeout(120 + 30 * ROUNDS)
def test_kill(new_scene: NewScene, redis_broker: Broker, migrated_url: str) -> None:
    """After each kill every occurrence has one row and its message, and few have it twice."""
    print(f"BEATSTORE_FAULT_SEED={SEED}, {ROUNDS} rounds of {COUNT}")
    rng = random.Random(SEED)
    scene = new_scene(redis_broker, migrated_url, claim_ttl=TTL, batch_size=BATCH)
    scene.store.add("ticker", "tests.note", "* * * * * *", misfire="all")
    beat = scene.beat()
    # Once in peace, to learn how long the sending takes.
    at = add_round(scene)
    wait_for_rounds(scene, 1)
    within = (scene.now() - at).total_seconds()
    print(f"{COUNT} are sent within {within:.2f} s")
    for number in range(ROUNDS):
        beat = kill_at_random(scene, beat, rng.uniform(0, within), number + 2)
    scene.store.pause("ticker")
    scene.wait_all_sent()
    account = scene.account()
    occurrences = {(run.entry_id, run.due_at) for run in account.runs}
    print(
        f"{len(occurrences)} occurrences, {ROUNDS} kills: {len(account.lost)} lost, "
        f"{len(account.runs) - len(occurrences)} second rows, {account.doubled} messages doubled"
    )
    names = [f"once-{number:05}" for number in range(COUNT * (ROUNDS + 1))]
    account.exactly_once(names, ROUNDS * BATCH)
    assert max(account.copies.values()) <= 1 + ROUNDS
    ticks = account.dues("ticker")
    assert ticks == [ticks[0] + n * SECOND for n in range(len(ticks))], "a second is missing"
