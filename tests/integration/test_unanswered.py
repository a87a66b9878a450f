"""Statements that are not answered: the server is silent, or the task is out of time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import URL, Connection, make_url, text

from beatstore import Store
from beatstore.database import connection as kept_connection
from beatstore.database import drivers
from beatstore.database.connection import KeptConnection
from beatstore.errors import UnavailableError
from tests.support.marks import on_servers
from tests.support.proxy import Proxy
from tests.support.servers import PrivateServer

pytestmark = pytest.mark.every_database

PORTS = {"postgresql": 5432, "mariadb": 3306}

DRIVERS = ["psycopg", "psycopg2", "pg8000", "pymysql", "mysqlconnector"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers be silent for a second, and connections take two."""
    monkeypatch.setattr(drivers, "ANSWER", 1.0)
    monkeypatch.setattr(drivers, "_CONNECT", 2)
    monkeypatch.setattr(kept_connection, "PROMPT", 0.5)


def one(connection: Connection) -> int | None:
    """Ask for something."""
    return connection.scalar(text("SELECT 1"))


def by_driver(url: str, backend: str, driver: str) -> URL:
    """Return the URL of a database by another of its drivers, or skip the test."""
    if (backend == "postgresql") != driver.startswith(("psycopg", "pg")):
        pytest.skip(f"{driver} is no driver of {backend}")
    pytest.importorskip({"mysqlconnector": "mysql.connector"}.get(driver, driver))
    made = make_url(url)
    return made.set(drivername=f"{made.get_backend_name()}+{driver}", query={})


@on_servers
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_soft_time_limit_spoils_no_connection(
    migrated_url: str, backend: str, driver: str
) -> None:
    """The answer that a task did not wait for is never read as that to a later statement."""

    def end(*_: object) -> None:
        raise SoftTimeLimitExceeded

    slow = {"postgresql": "SELECT pg_sleep(1.5), 'slow'", "mariadb": "SELECT SLEEP(1.5), 'slow'"}
    with closing(Store(by_driver(migrated_url, backend, driver))) as store:
        store.add("a", "t", 60)
        before = signal.signal(signal.SIGVTALRM, end)
        pid = os.getpid()
        waker = threading.Timer(0.5, lambda: os.kill(pid, signal.SIGVTALRM))
        waker.start()
        try:
            with store.database.engine.connect() as link, pytest.raises(SoftTimeLimitExceeded):
                link.execute(text(slow[backend])).all()
        finally:
            waker.join()
            signal.signal(signal.SIGVTALRM, before)
        for _ in range(3):
            assert (store.get("a").task, store.names()) == ("t", ["a"])


def check_given_up(
    store: Store, fall_silent: Callable[[], None], go_on: Callable[[], None]
) -> None:
    """Fail unless an answer that never comes is an outage after a limit, and none afterwards."""
    kept = KeptConnection(store.database)
    kept.claiming_again(one)
    fall_silent()
    began = time.monotonic()
    with pytest.raises(UnavailableError):
        kept.claiming_again(one)
    assert time.monotonic() - began < 20
    go_on()
    assert kept.claiming_again(one)
    kept.drop(orderly=True)
    store.close()


@on_servers
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_peer_that_falls_silent(migrated_url: str, backend: str, driver: str) -> None:
    """An answer that never comes is an outage after a limit, though the peer's kernel lives."""
    url = by_driver(migrated_url, backend, driver)
    with Proxy(url.port or PORTS[backend]) as proxy:
        store = Store(url.set(host="127.0.0.1", port=proxy.port))
        check_given_up(store, proxy.hold, proxy.release)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
def test_a_server_that_stands_still(name: str, request: pytest.FixtureRequest) -> None:
    """A server that stands still is an outage after a limit, and none when it goes on."""
    server: PrivateServer = request.getfixturevalue(f"private_{name}")
    check_given_up(Store(server.url), server.pause, server.resume)
