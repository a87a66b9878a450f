"""A failover of PostgreSQL under beats, workers and a user; all name both servers in their URL.

The standby is synchronous: what was committed is there, and no more than that is promised.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from beatstore import Store
from beatstore.errors import UnavailableError
from tests.support.absent import Unavailable, absent
from tests.support.brokers import Broker
from tests.support.database_servers import PrivatePostgreSQL, PrivateStandby
from tests.support.databases import migrate
from tests.support.harness.stage import Stage
from tests.support.harness.steady import Steady, reckon
from tests.support.processes import Process
from tests.support.project import NewProject
from tests.support.wait import wait_until

APP = "tests.support.tracked_app"

#: Runs that the user must get through before and after what happens.
SOME = 10


@pytest.fixture
def standby(private_postgresql: PrivatePostgreSQL) -> Iterator[PrivateStandby]:
    """Hand out a hot standby of the test's own server, which has beatstore's tables."""
    migrate(private_postgresql.url)
    with PrivateStandby(private_postgresql) as standby:
        try:
            standby.start()
        except Unavailable as reason:
            absent("postgresql", reason)
        yield standby


class User(threading.Thread):
    """Somebody who triggers an entry again and again, through outages too.

    Attributes:
        triggered: the ids of the runs that the store has returned, so that are committed.
        refused: how many calls said that the database is unreachable.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(daemon=True)
        self._store, self._stop_at = store, threading.Event()
        self.triggered: list[int] = []
        self.refused = 0
        self.errors: list[BaseException] = []

    def run(self) -> None:
        """Trigger, until told to stop."""
        while not self._stop_at.wait(0.05):
            try:
                self.triggered.append(self._store.trigger("asked").id)
            except UnavailableError:
                self.refused += 1
            except Exception as error:  # noqa: BLE001  (any other reaches a user)
                self.errors.append(error)

    def stop(self) -> None:
        """Let it end."""
        self._stop_at.set()
        self.join(60)

    def wait_for_more(self, timeout: float) -> None:
        """Wait until some more runs were triggered."""
        wanted = len(self.triggered) + SOME
        wait_until(lambda: len(self.triggered) >= wanted, timeout, lambda: str(self.errors))


def read_only(server: PrivatePostgreSQL, mode: str) -> None:
    """Switch what transactions are by default; connections stay open."""
    server.execute(f"ALTER SYSTEM SET default_transaction_read_only = {mode}")
    server.execute("SELECT pg_reload_conf()")


def url_of(*servers: PrivatePostgreSQL) -> str:
    hosts = "&".join(f"host=127.0.0.1:{server.port}" for server in servers)
    return f"postgresql+psycopg://postgres@/postgres?{hosts}&target_session_attrs=read-write"


def said_once(beats: list[Process]) -> None:
    """See that each beat speaks of one outage, and of its end."""
    for beat in beats:
        assert beat.running
        assert beat.output().count("lost connection to the database, retrying: ") == 1
        assert beat.output().count("connected to the database again after ") == 1
        assert "Traceback" not in beat.output(), beat.output()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["killed", "replaced", "read-only"])
def test_failover(
    how: str, standby: PrivateStandby, redis_broker: Broker, new_project: NewProject
) -> None:
    """Nothing committed is lost or doubled, and all go on by themselves.

    The primary is killed and its standby promoted; or it stays, read-only, beside the promoted
    one; or it is read-only for a while.
    """
    primary = standby.primary
    url = url_of(primary, standby)
    project = new_project(redis_broker, url, None, APP)
    with closing(Stage(project, url)) as stage, closing(Store(url)) as store:
        steady = Steady(stage)
        stage.store.add("asked", "tests.note", "0 0 1 1 *")
        go = stage.file("go")
        stage.store.add("long", "tests.hold", "0 0 1 1 *", args=[str(go)])
        beats = [stage.beat() for _ in range(2)]
        workers = [stage.worker("prefork", "--concurrency", "2") for _ in range(2)]
        steady.begin()
        held = stage.store.trigger("long").id
        stage.wait_for(held, "started")
        user = User(store)
        user.start()
        user.wait_for_more(60)
        if how == "killed":
            primary.kill9()
        else:
            read_only(primary, "on")
        for beat in beats:
            beat.wait_for_output("lost connection to the database", 60)
        go.touch()
        wait_until(lambda: any("could not report" in one.output() for one in workers), 60)
        wait_until(lambda: user.refused > 0, 60)
        if how == "read-only":
            read_only(primary, "off")
        else:
            standby.promote()
        user.wait_for_more(60)
        for beat in beats:
            beat.wait_for_output("connected to the database again", 60)
        user.wait_for_more(60)
        user.stop()
        steady.stop_all()
        states = reckon(stage, [held, *user.triggered])
        assert stage.run(held).state == "succeeded"
        seconds = steady.seconds()
        print(
            f"{how}: {states.total()} runs {dict(states)} in {seconds} s, {len(user.triggered)} "
            f"triggered, {user.refused} calls refused"
        )
        assert user.errors == []
        said_once(beats)
