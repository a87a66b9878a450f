"""Beat killed, ended or frozen at each point between looking and marking."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fault.conftest import NewScene
from tests.support.brokers import Broker
from tests.support.scene import Scene
from tests.support.traps import APP, POINTS, Trap

BATCH = 20
COUNT = 50


@dataclass(frozen=True)
class Found:
    """What a beat that died at a point has left behind."""

    claimed: int
    sent: int
    least: int
    most: int

#: After a kill at each point, with Redis: rows claimed and sent, and messages.
KILLED = {
    "planned": Found(0, 0, 0, 0),
    "claimed": Found(BATCH, 0, 0, 0),
    "message": Found(BATCH, 0, 0, 7),
    "writing": Found(BATCH, 0, 1, BATCH - 1),
    "settling": Found(BATCH, 0, BATCH, BATCH),
    "settled": Found(BATCH, 0, BATCH, BATCH),
    "marked": Found(0, BATCH, BATCH, BATCH),
}


def trap(scene: Scene, point: str, number: signal.Signals) -> Trap:
    return Trap(point, number, scene.project.directory / "caught", 7 if point == "message" else 1)


@pytest.mark.parametrize("point", POINTS)
def test_kill(point: str, new_scene: NewScene, redis_broker: Broker, migrated_url: str) -> None:
    """Wherever beat is killed, what it left is as documented, and the next beat completes it."""
    scene = new_scene(redis_broker, migrated_url, claim_ttl=2, batch_size=BATCH)
    names = scene.add_once(COUNT, scene.now())
    set_trap = trap(scene, point, signal.SIGKILL)
    beat = scene.start_beat(app=APP, env=set_trap.env)
    assert beat.wait(60) == -signal.SIGKILL, beat.output()
    states, left, found = scene.states(), scene.mailbox.count(), KILLED[point]
    assert (states["claimed"], states["sent"]) == (found.claimed, found.sent)
    assert found.least <= left <= found.most
    scene.beat()
    scene.wait_all_sent()
    account = scene.account()
    account.exactly_once(names, doubled=left if found.claimed else 0)
    print(f"killed {point}: {left} messages left, {account.doubled} doubled")


@pytest.mark.parametrize("point", POINTS)
def test_terminate(
    point: str, new_scene: NewScene, redis_broker: Broker, migrated_url: str
) -> None:
    """SIGTERM anywhere ends beat in order: what was sent is marked, and the rest is free at once."""
    scene = new_scene(redis_broker, migrated_url, batch_size=BATCH)
    names = scene.add_once(COUNT, scene.now())
    set_trap = trap(scene, point, signal.SIGTERM)
    beat = scene.start_beat(app=APP, env=set_trap.env)
    assert beat.wait(60) == 0, beat.output()
    states, left = scene.states(), scene.mailbox.count()
    print(f"ended {point}: {dict(states)}, {left} messages")
    if point != "writing":
        assert states["sent"] == left
    assert scene.beats() == {}
    scene.beat()
    scene.wait_all_sent(10)
    account = scene.account()
    print(f"ended {point}: {account.doubled} doubled")
    account.exactly_once(names, doubled=left if point == "writing" else 0)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("broker", ["rabbitmq", "filesystem"], indirect=True)
@pytest.mark.parametrize("point", ["message", "settling"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_brokers_without_pipelines(
    point: str, number: signal.Signals, new_scene: NewScene, broker: Broker, migrated_url: str
) -> None:
    """Where messages leave one by one, those that left before a kill are all that is doubled."""
    scene = new_scene(broker, migrated_url, claim_ttl=2 if number == signal.SIGKILL else 30, batch_size=BATCH)
    names = scene.add_once(COUNT, scene.now())
    set_trap = trap(scene, point, number)
    beat = scene.start_beat(app=APP, env=set_trap.env)
    beat.wait(60)
    states, left = scene.states(), scene.mailbox.count()
    print(f"{number.name} {point}: {dict(states)}, {left} messages")
    scene.beat()
    scene.wait_all_sent(10)
    account = scene.account()
    print(f"ended {point}: {account.doubled} doubled")
    account.exactly_once(names, doubled=left)
