"""Four beats over ten thousand occurrences of one instant; two of them killed half-way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.fault.conftest import NewScene
from tests.support.brokers import Broker
from tests.support.harness.scene import Scene
from tests.support.processes import Process
from tests.support.wait import wait_until

COUNT, BEATS, BATCH = 10_000, 4, 100

#: How far ahead of their time the entries are added, in seconds: all beats wake up for it.
AHEAD = 4

#: Within so many seconds after a claim expired, another beat has sent it.
SLACK = 3


def mixture(at: datetime) -> Iterator[dict[str, Any]]:
    """Yield entries that are all due at `at`, and at no other time of this test."""
    minute = f"{at.minute} {at.hour} {at.day} {at.month} * {at.second}"
    kinds = (
        {"kind": "once", "spec": at.isoformat()},
        {"kind": "every", "spec": "86400", "start_at": at},
        {"kind": "cron", "spec": minute, "timezone": "UTC"},
    )
    for number in range(COUNT):
        kind = kinds[number % len(kinds)]
        yield (
            {"name": f"{kind['kind']}-{number:05}", "start_at": None, "timezone": None}
            | kind
            | {
                "wake_at": at,
                "created_at": at - timedelta(hours=1),
            }
        )


def set_out(scene: Scene) -> tuple[list[Process], list[str], datetime]:
    """Start the beats and add the entries; return the names too, and when they are due."""
    beats = [scene.start_beat() for _ in range(BEATS)]
    scene.wait_for_beats(beats)
    at = (scene.now() + timedelta(seconds=AHEAD)).replace(microsecond=0)
    entries = list(mixture(at))
    scene.insert(entries)
    return beats, [entry["name"] for entry in entries], at


def wait_for_all(scene: Scene) -> None:
    def done() -> bool:
        return scene.states()["sent"] == COUNT

    wait_until(done, 150, lambda: str(scene.states()), interval=0.25)


@pytest.mark.timeout(240)
def test_four_beats(new_scene: NewScene, redis_broker: Broker, migrated_url: str) -> None:
    """Four beats share 10,000 occurrences: each gets one row and one message."""
    scene = new_scene(redis_broker, migrated_url)
    beats, names, at = set_out(scene)
    wait_for_all(scene)
    account = scene.account()
    took = (max(run.sent_at for run in account.runs) - at).total_seconds()
    shares = Counter(run.claimed_by for run in account.runs)
    print(f"{COUNT} sent in {took:.1f} s, shares {sorted(shares.values())}")
    account.exactly_once(names)
    assert len(account.mails) == COUNT
    assert all(beat.running for beat in beats)


@pytest.mark.timeout(240)
def test_two_of_four_killed(new_scene: NewScene, redis_broker: Broker, migrated_url: str) -> None:
    """When two of four beats are killed half-way, the others take over what they had claimed."""
    ttl = 5
    scene = new_scene(redis_broker, migrated_url, claim_ttl=ttl, batch_size=BATCH)
    beats, names, _ = set_out(scene)
    ids = scene.beats()
    victims = beats[:2]
    scene.wait_for_messages(COUNT * 4 // 10)
    for victim in victims:
        wait_until(lambda victim=victim: ids[victim.pid] in scene.claimants(), interval=0.001)
        victim.kill9()
    killed_at = scene.now()
    dead = {ids[victim.pid] for victim in victims}
    orphans = {run.id for run in scene.runs() if run.state == "claimed" and run.claimed_by in dead}
    wait_for_all(scene)
    account = scene.account()
    account.exactly_once(names, len(victims) * BATCH)
    heirs = [run for run in account.runs if run.id in orphans]
    assert not dead & {run.claimed_by for run in heirs}
    taken_over = max((run.sent_at - killed_at).total_seconds() for run in heirs) if heirs else 0.0
    print(f"{len(heirs)} taken over within {taken_over:.1f} s, {account.doubled} messages doubled")
    assert taken_over <= ttl + SLACK
    assert all(beat.running for beat in beats[2:])
