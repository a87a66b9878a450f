"""Servers stopped, killed and cut off while beat is at work; beat stays up and loses nothing."""

from __future__ import annotations

import time
from datetime import timedelta

import pymysql
import pytest

from tests.fault.conftest import NewScene
from tests.support.brokers import Broker
from tests.support.databases import migrate
from tests.support.harness.scene import Account, Scene
from tests.support.processes import Process
from tests.support.servers import PrivateServer
from tests.support.wait import wait_until

COUNT, BATCH, TTL = 1000, 100, 5

#: What beat logs when a server is away, and when it is back.
OUTAGE = {
    "database": "lost connection to the database, retrying: ",
    "broker": "the broker is unavailable, retrying: ",
}
RECOVERY = {
    "database": "connected to the database again after ",
    "broker": "the broker is available again after ",
}

#: Seconds that a server is away, and within which beat sends again after its return.
AWAY, RESUMED = 5.0, 5.0

SECOND = timedelta(seconds=1)


def stay_away() -> None:
    over = time.monotonic() + AWAY
    wait_until(lambda: time.monotonic() >= over, AWAY + 1)


def take_away(server: PrivateServer, how: str, beat: Process, what: str) -> None:
    """End a server, and see that beat knows and has waited for a while."""
    end = {"stopped": server.stop, "killed": server.kill9}[how]
    end()
    beat.wait_for_output(OUTAGE[what])
    stay_away()


def bring_back(server: PrivateServer, scene: Scene) -> float:
    """Start a server again, and return after how many seconds beat sends."""
    server.start()
    started = time.monotonic()
    scene.wait_for_messages(scene.mailbox.count() + 1, RESUMED)
    return time.monotonic() - started


def finish(scene: Scene, beat: Process, what: str) -> None:
    """Wait until all is sent, and see that it was one outage and one process."""
    wait_for_the_ticker(scene, beat)
    scene.wait_all_sent()
    assert beat.running
    assert set(scene.beats()) == {beat.pid}
    log = beat.output()
    assert log.count(OUTAGE[what]) == 1, log
    assert log.count(RECOVERY[what]) == 1, log
    assert [
        line for line in log.splitlines() if "ERROR" in line and ", retrying: " not in line
    ] == []
    assert "Traceback" not in log, log


def wait_for_the_ticker(scene: Scene, beat: Process) -> None:
    """See a run of the ticker sent that is due after now, and then pause it."""
    now = scene.now()
    wait_until(lambda: scene.store.runs("ticker", state="sent", since=now), 20, beat.output)
    scene.store.pause("ticker")


def report(what: str, scene: Scene, resumed: float) -> Account:
    account = scene.account()
    print(
        f"{what}: sends {resumed:.1f} s after its return, "
        f"{len(account.lost)} lost, {account.doubled} doubled"
    )
    return account


def no_second_is_missing(account: Account) -> None:
    ticks = account.dues("ticker")
    assert ticks == [ticks[0] + n * SECOND for n in range(len(ticks))]


def database_on(server: PrivateServer) -> str:
    """Make a database with beatstore's tables, and return its URL."""
    url = server.url
    if server.name == "mariadb":
        with pymysql.connect(host="127.0.0.1", port=server.port, user="root") as connection:
            connection.cursor().execute("CREATE DATABASE beatstore")
        url = f"{server.url}beatstore?ssl_disabled=1"
    migrate(url)
    return url


@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_database(
    name: str, how: str, new_scene: NewScene, redis_broker: Broker, request: pytest.FixtureRequest
) -> None:
    """A database that goes away under way loses nothing, doubles nothing, and beat goes on."""
    server: PrivateServer = request.getfixturevalue(f"private_{name}")
    scene = new_scene(redis_broker, database_on(server), claim_ttl=TTL, batch_size=BATCH)
    scene.store.add("ticker", "tests.note", "* * * * * *", misfire="all")
    beat = scene.beat()
    names = scene.add_once(COUNT, scene.now() + SECOND)
    scene.wait_for_messages(COUNT // 5)
    take_away(server, how, beat, "database")
    resumed = bring_back(server, scene)
    finish(scene, beat, "database")
    account = report(f"{name} {how}", scene, resumed)
    account.exactly_once(names)
    no_second_is_missing(account)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", ["redis", "rabbitmq"])
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_broker(
    name: str, how: str, new_scene: NewScene, migrated_url: str, request: pytest.FixtureRequest
) -> None:
    """A broker that goes away under way loses nothing; on its return the misfire rule is asked."""
    server: PrivateServer = request.getfixturevalue(f"private_{name}")
    # Both keep what they have answered for, so all messages can be counted in the end.
    scene = new_scene(Broker(name, server.url), migrated_url, claim_ttl=TTL, batch_size=BATCH)
    beat = scene.beat()
    scene.store.add("ticker", "tests.note", "* * * * * *", misfire="coalesce", grace=2)
    names = scene.add_once(COUNT, scene.now() + SECOND)
    scene.wait_for_messages(COUNT // 5)
    take_away(server, how, beat, "broker")
    until = scene.now()
    resumed = bring_back(server, scene)
    finish(scene, beat, "broker")
    account = report(f"{name} {how}", scene, resumed)
    account.exactly_once(names, BATCH)
    ticks = [run for run in account.runs if run.entry_name == "ticker"]
    # The outage is one run. A busy machine may be late before it and after it, too.
    [late] = [run for run in ticks if (run.first_missed_at or run.due_at) <= until <= run.due_at]
    assert late.due_at - late.first_missed_at == late.missed_count * SECOND
    assert until - late.first_missed_at >= (AWAY - 1) * SECOND
    covered = sum(1 + run.missed_count for run in ticks)
    assert ticks[-1].due_at - ticks[0].due_at == (covered - 1) * SECOND, "a second is missing"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", ["postgresql", "mariadb", "redis"])
def test_frozen(
    name: str,
    new_scene: NewScene,
    redis_broker: Broker,
    migrated_url: str,
    request: pytest.FixtureRequest,
) -> None:
    """A server that stands still, with its connections open, is waited for."""
    server: PrivateServer = request.getfixturevalue(f"private_{name}")
    if name == "redis":
        scene = new_scene(Broker(name, server.url), migrated_url, claim_ttl=TTL)
    else:
        scene = new_scene(redis_broker, database_on(server), claim_ttl=TTL)
    scene.store.add("ticker", "tests.note", "* * * * * *", misfire="all")
    beat = scene.beat()
    names = scene.add_once(COUNT, scene.now() + SECOND)
    scene.wait_for_messages(COUNT // 5)
    server.pause()
    stay_away()
    server.resume()
    resumed = time.monotonic()
    scene.wait_for_messages(scene.mailbox.count() + 1, RESUMED)
    resumed = time.monotonic() - resumed
    wait_for_the_ticker(scene, beat)
    scene.wait_all_sent()
    account = report(f"{name} frozen", scene, resumed)
    account.exactly_once(names)
    no_second_is_missing(account)
    assert beat.running
    assert "ERROR" not in beat.output()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("what", ["database", "broker"])
def test_away_at_the_start(
    what: str,
    new_scene: NewScene,
    redis_broker: Broker,
    migrated_url: str,
    request: pytest.FixtureRequest,
) -> None:
    """A beat that starts before its database or its broker waits for it."""
    name = {"database": "postgresql", "broker": "redis"}[what]
    server: PrivateServer = request.getfixturevalue(f"private_{name}")
    if what == "broker":
        scene = new_scene(Broker(name, server.url), migrated_url)
    else:
        scene = new_scene(redis_broker, database_on(server))
    names = scene.add_once(1, scene.now())
    server.stop()
    beat = scene.start_beat()
    beat.wait_for_output(OUTAGE[what])
    server.start()
    scene.wait_for_messages(1, RESUMED)
    scene.wait_all_sent()
    scene.account().exactly_once(names)
    assert beat.running
    assert beat.output().count(OUTAGE[what]) == beat.output().count(RECOVERY[what]) == 1
