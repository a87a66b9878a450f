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
from tests.support.processes import Process
from tests.support.scene import Scene
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


def sent_since(scene: Scene, before: int) -> bool:
    """Say whether the one-shots added last are sent; `before` is the id of the last row before."""
    runs = [run for run in scene.runs() if run.id > before and run.entry_name != "ticker"]
    return len(runs) == COUNT and all(run.state == "sent" for run in runs)


def round_of(scene: Scene, at: datetime) -> int:
    """Add the one-shots of a round, due at `at`, and return the id of the last row before."""
    before = max((run.id for run in scene.runs()), default=0)
    scene.add_once(COUNT, at)
    assert scene.now() < at, "it takes too long to add them"
    return before


def wait_for_round(scene: Scene, before: int) -> None:
    wait_until(lambda: sent_since(scene, before), 60, lambda: str(scene.states()), interval=0.05)


def kill_at_random(scene: Scene, beat: Process, within: float, rng: random.Random) -> Process:
    """Kill `beat` at a random moment, see another send everything, and return that one."""
    at = scene.now() + timedelta(seconds=AHEAD)
    before = round_of(scene, at)
    moment = AHEAD + rng.uniform(0, within)
    clock = time.monotonic() - (scene.now() - at).total_seconds() - AHEAD
    wait_until(lambda: time.monotonic() >= clock + moment, moment + 5, interval=0.0005)
    beat.kill9()
    states, arrived = scene.states(), scene.mailbox.count()
    heir = scene.start_beat()
    wait_for_round(scene, before)
    print(f"killed {moment - AHEAD:.3f} s after due: {arrived} messages, {dict(states)}")
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
    at = scene.now() + timedelta(seconds=AHEAD)
    before = round_of(scene, at)
    wait_for_round(scene, before)
    within = (max(run.sent_at for run in scene.runs()) - at).total_seconds()
    print(f"{COUNT} are sent within {within:.2f} s")
    for _ in range(ROUNDS):
        beat = kill_at_random(scene, beat, within, rng)
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
