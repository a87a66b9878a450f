"""Eight users of the API, a beat and two workers, all behind PgBouncer in transaction mode.

A short while by default; `BEATSTORE_TEST_POOLED_S=600` is ten minutes. The sessions of the server
are fewer than those who use them, so each transaction may get another one.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from sqlalchemy import create_engine

from beatstore import Every, Store
from tests.support.absent import Unavailable, absent
from tests.support.brokers import Broker
from tests.support.harness.stage import Stage
from tests.support.harness.steady import Steady, reckon
from tests.support.marks import on_postgresql
from tests.support.pooler import PrivatePgBouncer
from tests.support.processes import Process
from tests.support.project import NewProject
from tests.support.wait import wait_until

#: How long the users are at work, in seconds.
SECONDS = float(os.environ.get("BEATSTORE_TEST_POOLED_S", "15"))

USERS, SESSIONS = 8, 5

#: How many entries a user has at most.
ENTRIES = 4

#: Their tasks, which take any arguments.
TASKS = ("tests.note", "tests.fail")

#: What no process says while nothing is wrong.
TROUBLE = ("could not report", "lost connection", "the tick failed", "dropped")


@pytest.fixture(params=[False, True], ids=["unprepared", "prepared"])
def pooler(request: pytest.FixtureRequest, migrated_url: str) -> Iterator[PrivatePgBouncer]:
    """Hand out a pooler before the test's database, which may prepare for its clients."""
    settings = ["max_prepared_statements = 200"] if request.param else []
    try:
        pooler = PrivatePgBouncer(migrated_url, SESSIONS, *settings)
    except Unavailable as reason:
        absent("pgbouncer", reason)
    with pooler:
        if request.param and pooler.version < (1, 21):
            pytest.skip("this PgBouncer does not prepare statements for its clients; 1.21 does")
        pooler.start()
        yield pooler


class User(threading.Thread):
    """Somebody who does one thing after another to entries of their own, until told to stop.

    What is done is written down: a call that raised, and each run that was triggered.
    """

    def __init__(self, number: int, store: Store, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.number, self.store = number, store
        self._stop_at = stop
        self._random = random.Random(number)
        self._made = 0
        #: The names of the entries that are there, and whether each is paused.
        self.paused: dict[str, bool] = {}
        self.triggered: list[int] = []
        self.calls: Counter[str] = Counter()
        self.errors: list[BaseException] = []

    def run(self) -> None:
        """Act, with a moment's thought before each act."""
        while not self._stop_at.wait(self._random.uniform(0.01, 0.08)):
            act = self._random.choice(self._possible())
            self.calls[act.__name__.strip("_")] += 1
            try:
                act()
            except Exception as error:  # noqa: BLE001  (any error reaches a user)
                self.errors.append(error)

    def _possible(self) -> list[Callable[[], None]]:
        acts = [self._add] if len(self.paused) < ENTRIES else [self._remove]
        if self.paused:
            acts += [self._edit, self._pause, self._resume, self._trigger, self._trigger]
        return acts

    def _any(self) -> str:
        return self._random.choice(list(self.paused))

    def _add(self) -> None:
        name = f"user-{self.number}-{self._made}"
        self._made += 1
        task = self._random.choice(TASKS)
        self.store.add(name, task, Every(2), args=[self._made], tags=[f"user-{self.number}"])
        self.paused[name] = False

    def _edit(self) -> None:
        name, number = self._any(), self._random.random()
        edited = self.store.change(name, kwargs={"number": number}, schedule=Every(3))
        assert edited.kwargs == self.store.get(name).kwargs == {"number": number}

    def _pause(self) -> None:
        name = self._any()
        assert self.store.pause(name).state == "paused"
        self.paused[name] = True

    def _resume(self) -> None:
        name = self._any()
        assert self.store.resume(name).state == "active"
        self.paused[name] = False

    def _trigger(self) -> None:
        self.triggered.append(self.store.trigger(self._any()).id)

    def _remove(self) -> None:
        name = self._any()
        self.store.remove(name)
        del self.paused[name]
        found = self.store.entries(tag=f"user-{self.number}")
        assert {entry.name: entry.state == "paused" for entry in found} == self.paused


def quiet(process: Process) -> bool:
    return not any(trouble in process.output() for trouble in TROUBLE)


@on_postgresql
@pytest.mark.timeout(SECONDS + 240)
def test_users_behind_a_pooler(
    pooler: PrivatePgBouncer,
    redis_broker: Broker,
    new_project: NewProject,
    migrated_url: str,
    request: pytest.FixtureRequest,
) -> None:
    """No error reaches a user, no outcome is lost, and every run is accounted for once."""
    project = new_project(
        redis_broker, pooler.url, {"beatstore_heartbeat": 1}, "tests.support.tracked_app"
    )
    # Where the pooler prepares, the users' own engine does so from the first statement on.
    engine = create_engine(
        pooler.url, connect_args={"prepare_threshold": 0} if pooler.prepares else {}
    )
    store = Store(engine) if pooler.prepares else Store(pooler.url)
    with closing(Stage(project, migrated_url)) as stage, closing(store):
        steady = Steady(stage)
        beat = stage.beat()
        workers = [stage.start_worker() for _ in range(2)]
        for worker in workers:
            worker.wait_for_output(" ready.", 60)
        steady.begin()
        stop = threading.Event()
        users = [User(number, store, stop) for number in range(USERS)]
        over = time.monotonic() + SECONDS
        for user in users:
            user.start()
        wait_until(lambda: time.monotonic() >= over, SECONDS + 1, interval=0.25)
        stop.set()
        for user in users:
            user.join(60)
        calls = sum((user.calls for user in users), Counter[str]())
        assert [error for user in users for error in user.errors] == []
        steady.stop_all()
        states = reckon(stage, [run_id for user in users for run_id in user.triggered])
        assert steady.seconds() >= SECONDS - 1
        print(
            f"{request.node.name}: {SECONDS:g} s, {calls.total()} calls {dict(calls)}, "
            f"no error, {states.total()} runs {dict(states)}"
        )
        assert all(quiet(process) for process in (beat, *workers)), stage.tell()
    engine.dispose()
