"""Beat killed, ended or frozen at each point between looking and marking."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from datetime import timedelta

import pytest

from beatstore.beat.batches import BATCH_ERRORS
from tests.fault.conftest import NewScene
from tests.support.brokers import Broker
from tests.support.harness.scene import Scene
from tests.support.traps import APP, POINTS, Trap

#: How many entries are claimed at once, and how many there are.
BATCH, COUNT = 20, 50

#: The message at which `message` catches a beat.
NTH = 7

#: A claim expires after so many seconds. A beat sends during three quarters of that, so half
#: of it is longer than a busy machine takes to commit a claim and write a hundred messages.
TTL = 6

#: Longer than two beats take to start, and shorter than a default claim lives.
AT_ONCE = 15

#: An app under a monitor that takes its time for each message: a hundred take five seconds.
SLOW = """
import functools
import time

from celery.beat import Scheduler
from tests.support.app import app

send = Scheduler.apply_entry


@functools.wraps(send)
def apply_entry(*args, **kwargs):
    time.sleep(0.05)
    return send(*args, **kwargs)


Scheduler.apply_entry = apply_entry
"""


@dataclass(frozen=True)
class Left:
    """What a beat that was killed leaves behind: rows, and from how many messages to how many."""

    claimed: int
    sent: int
    least: int
    most: int


#: On Redis, by the settings of `beatstore_send`. Where it has pipelines, the messages of a batch
#: leave together: on the step `push` as one command, of which a half does nothing.
KILLED = {
    "planned": Left(0, 0, 0, 0),
    "claimed": Left(BATCH, 0, 0, 0),
    "message": Left(BATCH, 0, 0, NTH),
    "writing": Left(BATCH, 0, 0, BATCH - 1),
    "settling": Left(BATCH, 0, BATCH, BATCH),
    "settled": Left(BATCH, 0, BATCH, BATCH),
    "marked": Left(0, BATCH, BATCH, BATCH),
}
SEND = ("auto", "hooks")


def left_by(point: str, backend: str) -> Left:
    """Return what a beat leaves behind that is killed at this point."""
    at_once = backend == "postgresql" and point == "settled"  # the mark commits by itself
    return KILLED["marked" if at_once else point]


def trap(scene: Scene, point: str, number: signal.Signals) -> Trap:
    if point == "writing" and not BATCH_ERRORS:
        pytest.skip("this version of kombu has no pipelines")
    nth = NTH if point == "message" else 1
    return Trap(point, number, scene.project.directory / "caught", nth)


@pytest.mark.parametrize("send", SEND)
@pytest.mark.parametrize("point", POINTS)
def test_killed(
    point: str,
    send: str,
    new_scene: NewScene,
    redis_broker: Broker,
    migrated_url: str,
    *,
    backend: str,
) -> None:
    """Wherever beat is killed, it leaves what the table says, and the next beat completes it."""
    scene = new_scene(redis_broker, migrated_url, claim_ttl=TTL, batch_size=BATCH, send=send)
    names = scene.add_once(COUNT, scene.now())
    beat = scene.start_beat(app=APP, env=trap(scene, point, signal.SIGKILL).env)
    assert beat.wait(60) == -signal.SIGKILL, beat.output()
    states, arrived, left = scene.states(), scene.mailbox.count(), left_by(point, backend)
    assert (states["claimed"], states["sent"]) == (left.claimed, left.sent)
    assert left.least <= arrived <= left.most
    if point == "writing":
        assert bool(arrived) == (send == "hooks")
    scene.beat()
    scene.wait_all_sent()
    account = scene.account()
    # What had arrived under a claim comes again, and nothing else does.
    doubled = arrived if left.claimed else 0
    account.exactly_once(names, doubled)
    assert account.doubled == doubled


@pytest.mark.parametrize("send", SEND)
@pytest.mark.parametrize("point", POINTS)
def test_ended(
    point: str, send: str, new_scene: NewScene, redis_broker: Broker, migrated_url: str
) -> None:
    """Wherever SIGTERM meets beat, what was sent is marked, and the rest is free at once."""
    scene = new_scene(redis_broker, migrated_url, batch_size=BATCH, send=send)
    names = scene.add_once(COUNT, scene.now())
    beat = scene.start_beat(app=APP, env=trap(scene, point, signal.SIGTERM).env)
    assert beat.wait(60) == 0, beat.output()
    assert not beat.failed(), beat.output()
    arrived, marked = scene.mailbox.count(), scene.states()["sent"]
    # Half-written, it can't be known what arrived: that much may come again.
    unknown = arrived if point == "writing" else 0
    assert marked == arrived - unknown
    assert scene.beats() == {}
    scene.beat()
    scene.wait_all_sent(AT_ONCE)
    scene.account().exactly_once(names, doubled=unknown)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("broker", ["rabbitmq", "filesystem"], indirect=True)
@pytest.mark.parametrize("point", ["message", "settling"])
def test_killed_where_messages_leave_one_by_one(
    point: str, new_scene: NewScene, broker: Broker, migrated_url: str
) -> None:
    """Without pipelines too, only the messages that left before the kill come again."""
    scene = new_scene(broker, migrated_url, claim_ttl=TTL, batch_size=BATCH)
    names = scene.add_once(COUNT, scene.now())
    beat = scene.start_beat(app=APP, env=trap(scene, point, signal.SIGKILL).env)
    assert beat.wait(60) == -signal.SIGKILL, beat.output()
    arrived = scene.mailbox.count()
    assert 0 < arrived <= (NTH if point == "message" else BATCH)
    scene.beat()
    scene.wait_all_sent()
    scene.account().exactly_once(names, doubled=arrived)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("broker", ["rabbitmq", "filesystem"], indirect=True)
@pytest.mark.parametrize("point", ["message", "settling"])
def test_ended_where_messages_leave_one_by_one(
    point: str, new_scene: NewScene, broker: Broker, migrated_url: str
) -> None:
    """Without pipelines too, SIGTERM doubles at most the one message it falls into."""
    scene = new_scene(broker, migrated_url, batch_size=BATCH)
    names = scene.add_once(COUNT, scene.now())
    beat = scene.start_beat(app=APP, env=trap(scene, point, signal.SIGTERM).env)
    assert beat.wait(60) == 0, beat.output()
    arrived, marked = scene.mailbox.count(), scene.states()["sent"]
    assert arrived - marked <= (point == "message")
    scene.beat()
    scene.wait_all_sent(AT_ONCE)
    scene.account().exactly_once(names, doubled=arrived - marked)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_killed_while_making_up_for_much(
    new_scene: NewScene, redis_broker: Broker, migrated_url: str
) -> None:
    """However much one look claims, no more than 500 messages are ever unmarked."""
    scene = new_scene(redis_broker, migrated_url, claim_ttl=TTL)
    since = scene.now() - timedelta(seconds=100)
    seconds = {"kind": "cron", "spec": "* * * * * *", "misfire": "all", "end_at": scene.now()}
    scene.insert({"name": f"e{n}", "created_at": since, **seconds} for n in range(7))
    beat = scene.start_beat(app=APP, env=trap(scene, "settling", signal.SIGKILL).env)
    assert beat.wait(60) == -signal.SIGKILL, beat.output()
    assert scene.states() == {"claimed": 700}
    assert scene.mailbox.count() == 500
    scene.beat()
    scene.wait_all_sent()
    account = scene.account()
    account.consistent(500)
    assert (len(account.runs), account.doubled) == (700, 500)


@pytest.mark.parametrize(
    ("point", "doubled"), [("claimed", 0), ("message", 0), ("settling", BATCH)]
)
def test_frozen(
    point: str, doubled: int, new_scene: NewScene, redis_broker: Broker, migrated_url: str
) -> None:
    """A beat that stood still while its claim ran out sends no more, and overwrites nothing."""
    scene = new_scene(redis_broker, migrated_url, claim_ttl=TTL, batch_size=BATCH)
    names = scene.add_once(COUNT, scene.now())
    set_trap = trap(scene, point, signal.SIGSTOP)
    frozen = scene.start_beat(app=APP, env=set_trap.env)
    set_trap.wait(frozen)
    heir = scene.beat()
    scene.wait_all_sent()
    before, arrived = scene.runs(), scene.mailbox.count()
    assert heir.terminate() == 0
    frozen.resume()
    # That this is sent says that the frozen beat has finished what it was at.
    names += scene.add_once(1, scene.now())
    scene.wait_all_sent()
    assert frozen.running
    account = scene.account()
    account.exactly_once(names, doubled)
    assert account.runs[:COUNT] == before
    assert (account.doubled, len(account.mails)) == (doubled, arrived + 1)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_batch_takes_longer_than_a_claim_lives(
    new_scene: NewScene, redis_broker: Broker, migrated_url: str
) -> None:
    """Where hooks are slow, beat sends as much of a batch as its claim allows, and goes on."""
    scene = new_scene(redis_broker, migrated_url, claim_ttl=3)
    (scene.project.directory / "slow.py").write_text(SLOW)
    names = scene.add_once(100, scene.now())
    beat = scene.start_beat(app="slow")
    scene.wait_all_sent()
    assert beat.terminate() == 0
    scene.account().exactly_once(names)


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"], indirect=True)
@pytest.mark.parametrize("point", ["planned", "settled"])
def test_frozen_in_a_transaction(
    point: str, new_scene: NewScene, redis_broker: Broker, migrated_url: str
) -> None:
    """A beat that stands still with rows locked holds up those rows alone, and only meanwhile."""
    # Shorter than a beat takes to start: the other one finds these claims expired, and locked.
    scene = new_scene(redis_broker, migrated_url, claim_ttl=2, batch_size=BATCH)
    names = scene.add_once(COUNT, scene.now())
    set_trap = trap(scene, point, signal.SIGSTOP)
    frozen = scene.start_beat(app=APP, env=set_trap.env)
    set_trap.wait(frozen)
    arrived = scene.mailbox.count()
    scene.beat()
    scene.wait_for_messages(arrived + COUNT - BATCH, 10)
    frozen.resume()
    scene.wait_all_sent()
    assert frozen.running
    scene.account().exactly_once(names)
