"""Connections cut under a beat, between its ticks and in the middle of one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest
import redis
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError

from tests.fault.conftest import NewScene
from tests.support.brokers import Broker
from tests.support.harness.scene import Scene
from tests.support.processes import Process
from tests.support.proxy import Proxy
from tests.support.traps import APP, Trap
from tests.support.wait import wait_until

BATCH, COUNT, NTH = 20, 50, 7

#: Within so many seconds beat sends again; a claim lives for 30.
RESUMED = 5

CUT = {
    "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "mariadb": "SELECT id FROM information_schema.processlist"
    " WHERE db = DATABASE() AND id <> CONNECTION_ID()",
}

on_servers = pytest.mark.parametrize("backend", ["postgresql", "mariadb"], indirect=True)
on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


def cut_database(scene: Scene, backend: str) -> None:
    """End all connections to the test's database but the one that says so."""
    with scene.store.database.session() as session:
        ended = session.execute(text(CUT[backend])).all()
        assert ended
        for (number,) in ended if backend == "mariadb" else ():
            with suppress(OperationalError):  # it may have ended by itself
                session.execute(text(f"KILL CONNECTION {number}"))


def cut_redis(broker: Broker) -> None:
    """End all connections to the test's database but the one that says so."""
    with redis.Redis.from_url(broker.url) as client:
        own, database = client.client_id(), urlsplit(broker.url).path.strip("/")
        theirs = [
            one["id"]
            for one in client.client_list()
            if one["db"] == database and one["id"] != str(own)
        ]
        assert theirs
        for number in theirs:
            client.client_kill_filter(_id=number)


@contextmanager
def relayed(broker: Broker) -> Iterator[tuple[Broker, Proxy]]:
    """Yield the same broker and queue as they are reached through a relay, and that relay."""
    parts = urlsplit(broker.url)
    with Proxy(parts.port or {"redis": 6379, "amqp": 5672}[parts.scheme]) as proxy:
        login = parts.netloc.rpartition("@")[0]
        place = f"{login}@127.0.0.1:{proxy.port}" if login else f"127.0.0.1:{proxy.port}"
        yield Broker(broker.name, parts._replace(netloc=place).geturl(), broker.queue), proxy


def catch(scene: Scene, point: str, nth: int = 1) -> Process:
    """Start a beat, and freeze it at a point of its first working tick."""
    set_trap = Trap(point, signal.SIGSTOP, scene.project.directory / "caught", nth)
    beat = scene.start_beat(app=APP, env=set_trap.env)
    set_trap.wait(beat)
    return beat


def all_well(scene: Scene, beat: Process, names: list[str], doubled: int = 0) -> None:
    """See everything sent, by that same process, and no outage without an end."""
    scene.wait_all_sent(2 * RESUMED)
    assert beat.running
    scene.account().exactly_once(names, doubled)
    log = beat.output()
    assert log.count(", retrying: ") == log.count(" again after ") <= 1, log
    assert "Traceback" not in log, log


@on_servers
def test_database_between_ticks(
    new_scene: NewScene, redis_broker: Broker, migrated_url: str, backend: str
) -> None:
    """A beat whose connections the database has ended goes on with new ones, within seconds."""
    scene = new_scene(redis_broker, migrated_url)
    beat = scene.beat()
    names = scene.add_once(1, scene.now())
    scene.wait_all_sent()
    for _ in range(3):
        cut_database(scene, backend)
        names += scene.add_once(1, scene.now())
        scene.wait_for_messages(len(names), RESUMED)
    scene.wait_all_sent()
    scene.account().exactly_once(names)
    assert beat.running
    assert beat.output().count(", retrying: ") == beat.output().count(" again after ")


@on_servers
@pytest.mark.parametrize("point", ["planned", "claimed", "settling", "settled"])
def test_database_in_a_tick(
    point: str, new_scene: NewScene, redis_broker: Broker, migrated_url: str, backend: str
) -> None:
    """Cut at any point of a tick, nothing is lost, and nothing doubled since beat remembers."""
    scene = new_scene(redis_broker, migrated_url, batch_size=BATCH)
    names = scene.add_once(COUNT, scene.now())
    beat = catch(scene, point)
    cut_database(scene, backend)
    beat.resume()
    all_well(scene, beat, names)


@on_servers
@pytest.mark.parametrize(("point", "state"), [("planned", "claimed"), ("settled", "sent")])
def test_a_commit_without_an_answer(
    point: str, state: str, new_scene: NewScene, redis_broker: Broker, migrated_url: str
) -> None:
    """Where the database commits and the answer is lost, the rows tell the next tick, at once."""
    url = make_url(migrated_url)
    with Proxy(url.port or 0) as proxy:
        relayed_url = url.set(host="127.0.0.1", port=proxy.port)
        scene = new_scene(
            redis_broker,
            migrated_url,
            beat_url=relayed_url.render_as_string(hide_password=False),
            batch_size=BATCH,
        )
        names = scene.add_once(COUNT, scene.now())
        beat = catch(scene, point)
        proxy.hold()
        beat.resume()
        wait_until(lambda: scene.states()[state] == BATCH, 10, beat.output)
        proxy.cut()
        proxy.release()
        all_well(scene, beat, names)


@on_sqlite
def test_redis_between_ticks(new_scene: NewScene, redis_broker: Broker, migrated_url: str) -> None:
    """A beat whose connections Redis has ended sends on new ones."""
    scene = new_scene(redis_broker, migrated_url)
    beat = scene.beat()
    names = scene.add_once(1, scene.now())
    scene.wait_all_sent()
    for _ in range(3):
        cut_redis(redis_broker)
        names += scene.add_once(1, scene.now())
        scene.wait_for_messages(len(names), RESUMED)
    all_well(scene, beat, names)


@on_sqlite
def test_redis_in_a_batch(new_scene: NewScene, redis_broker: Broker, migrated_url: str) -> None:
    """A batch whose connection Redis ends before it is written is written on a new one."""
    scene = new_scene(redis_broker, migrated_url, batch_size=BATCH)
    names = scene.add_once(COUNT, scene.now())
    beat = catch(scene, "message", NTH)
    arrived = scene.mailbox.count()
    cut_redis(redis_broker)
    beat.resume()
    all_well(scene, beat, names, arrived)


@on_sqlite
def test_rabbitmq_between_ticks(
    new_scene: NewScene, rabbitmq_broker: Broker, migrated_url: str
) -> None:
    """A beat whose connection to RabbitMQ was cut sends on a new one, and doubles nothing."""
    with relayed(rabbitmq_broker) as (through, proxy):
        scene = new_scene(rabbitmq_broker, migrated_url, beat_broker=through)
        beat = scene.beat()
        names = scene.add_once(1, scene.now())
        scene.wait_all_sent()
        for _ in range(3):
            proxy.cut()
            names += scene.add_once(1, scene.now())
            scene.wait_for_messages(len(names), RESUMED)
        all_well(scene, beat, names)


@on_sqlite
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_a_batch_without_an_answer(new_scene: NewScene, broker: Broker, migrated_url: str) -> None:
    """Messages that arrived and were never confirmed come again, with the same task ids."""
    with relayed(broker) as (through, proxy):
        scene = new_scene(broker, migrated_url, beat_broker=through, batch_size=BATCH)
        names = scene.add_once(COUNT, scene.now())
        beat = catch(scene, "message", NTH)
        proxy.hold()
        beat.resume()
        scene.wait_for_messages(BATCH, 10)
        proxy.cut()
        proxy.release()
        all_well(scene, beat, names, BATCH)
