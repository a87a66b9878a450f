"""How many round trips to the server a call of the API takes, counted between the two."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import make_url, select, text, update
from sqlalchemy.orm import Session

import beatstore
from beatstore import Once, Store
from beatstore.config import Settings
from beatstore.database import connection as kept_connection
from beatstore.database import drivers
from beatstore.database.tables import RUN
from beatstore.errors import UnavailableError
from beatstore.models import RunModel
from beatstore.store.shared import store_of
from beatstore.tick.claims import Outcome
from beatstore.tick.queue import Queue
from beatstore.tick.reports import Origin, Report, Reports
from beatstore.worker.tracker import OwnReports
from tests.support.marks import on_servers
from tests.support.proxy import Proxy
from tests.support.wait import wait_until
from tests.support.written import run, write

pytestmark = [pytest.mark.every_database, on_servers]

PORTS = {"postgresql": 5432, "mariadb": 3306}

FAR = datetime(2525, 11, 11, 9, 30, tzinfo=timezone.utc)

#: Keeps names apart.
NUMBERS = count()

#: Ends the sessions of others in this database, as a server does with what is idle.
END_OTHERS = {
    "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "mariadb": "SELECT id FROM information_schema.processlist "
    "WHERE db = DATABASE() AND id <> CONNECTION_ID()",
}


@pytest.fixture
def proxy(migrated_url: str, backend: str) -> Iterator[Proxy]:
    """Stand between the test and its server, and count."""
    with Proxy(make_url(migrated_url).port or PORTS[backend]) as proxy:
        yield proxy


@pytest.fixture
def far(migrated_url: str, proxy: Proxy) -> Iterator[Store]:
    """Return a store behind the proxy, with a connection in its pool."""
    store = Store(make_url(migrated_url).set(host="127.0.0.1", port=proxy.port))
    store.entries()
    yield store
    store.close()


@contextmanager
def at_most(proxy: Proxy, trips: int) -> Iterator[None]:
    """Fail if what is done inside takes more round trips."""
    before = proxy.trips
    yield
    assert proxy.trips - before <= trips


def test_a_connection_in_use_is_not_pinged(far: Store, proxy: Proxy) -> None:
    """A call that follows another begins with its own statement, not with a ping."""
    far.entries()
    with at_most(proxy, 3):  # begin, select, roll back
        far.entries()


def test_an_idle_connection_is_pinged(
    far: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that nobody has used for a while is pinged: a network may have dropped it."""
    before = proxy.trips
    far.entries()
    in_use = proxy.trips - before
    monkeypatch.setattr(drivers, "RECENT", 0.0)
    far.entries()
    assert proxy.trips - before == 2 * in_use + 1


#: A call, and how many round trips it takes: to PostgreSQL, and to MariaDB,
#: with the COMMIT there, and a ROLLBACK that SQLAlchemy's pool adds.
CALLS: dict[str, tuple[Callable[[Store], Any], int, int]] = {
    "schedule": (lambda store: store.schedule("t", at=FAR), 1, 4),
    "schedule, in a while": (lambda store: store.schedule("t", countdown=9), 2, 5),
    "schedule, named and tagged": (
        lambda store: store.schedule("t", at=FAR, name=f"n{next(NUMBERS)}", tags=["a", "b"]),
        *(1, 5),
    ),
    "add": (lambda store: store.add(f"n{next(NUMBERS)}", "t", 60), 2, 5),
    "add, tagged": (
        lambda store: store.add(f"n{next(NUMBERS)}", "t", "0 2 * * *", tags=["a", "b"]),
        *(2, 6),
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_writing(far: Store, proxy: Proxy, backend: str, call: str) -> None:
    """One statement writes an entry, its tags and its audit; a recurrence asks for the time."""
    write, *trips = CALLS[call]
    write(far)
    with at_most(proxy, trips[backend == "mariadb"]):
        write(far)


def test_task_schedule(migrated_url: str, proxy: Proxy, backend: str) -> None:
    """A task that is stored for later takes as many round trips as an entry."""
    url = make_url(migrated_url).set(host="127.0.0.1", port=proxy.port)
    app = Celery("far", broker="memory://", set_as_current=False)
    app.conf.beatstore_url = url.render_as_string(hide_password=False)
    app.conf.result_backend = None

    @app.task(base=beatstore.Task, name="t", shared=False)
    def task() -> None:
        """Do nothing."""

    task.schedule(eta=FAR)
    with at_most(proxy, 1 if backend == "postgresql" else 4):
        task.schedule(eta=FAR)
    with at_most(proxy, 2 if backend == "postgresql" else 5):
        task.schedule(countdown=60)
    store_of(app).close()
    app.close()


def test_a_caller_s_session(far: Store, proxy: Proxy, backend: str) -> None:
    """In a caller's transaction, a one-shot takes one round trip on PostgreSQL, and two else."""
    with Session(far.database.engine) as session:
        far.schedule("t", at=FAR, session=session)
        with at_most(proxy, 1 if backend == "postgresql" else 2):
            far.schedule("t", at=FAR, session=session)


def test_an_answer_that_is_lost(far: Store, proxy: Proxy, store: Store, backend: str) -> None:
    """If the answer to what writes is lost, that is an outage, and nothing is written twice."""
    if backend != "postgresql":
        pytest.skip("it waits for the answer to a COMMIT, not to what writes")
    proxy.hold()
    with ThreadPoolExecutor() as pool:
        made = pool.submit(far.schedule, "t", at=FAR)
        wait_until(store.entries)
        proxy.cut()
        proxy.release()
        with pytest.raises(UnavailableError):
            made.result()
    assert len(store.entries()) == 1


def test_a_connection_that_was_closed_at_once(far: Store, store: Store, backend: str) -> None:
    """A connection that the server has closed since its last use is replaced without a word."""
    far.add("a", "t", 60)
    with store.database.engine.connect() as connection:
        found = connection.execute(text(END_OTHERS[backend])).scalars().all()
        for session in found if backend == "mariadb" else ():
            connection.execute(text(f"KILL CONNECTION {session}"))
    assert found
    assert far.add("b", "t", 60).id
    assert far.get("a")


# -- the start-once guard -------------------------------------------------------------------


@pytest.fixture
def guard(far: Store) -> Iterator[Reports]:
    """Return what a worker asks, on a connection that it has just used."""
    reports = Reports(far.database, far.settings)
    assert reports.start(started(Origin(0, "")), again=False) is None
    yield reports
    reports.close()


def started(run: Origin) -> Report:
    """Return a report of now."""
    return Report(run, "started", time.monotonic(), "celery@there")


def sent_run(store: Store) -> Origin:
    """Store a run that was sent."""
    entry = store.add(f"n{next(NUMBERS)}", "t", 60)
    write(store, RunModel, run(entry, FAR, state="sent", sent_at=FAR))
    [made] = store.runs(entry.name)
    return Origin(made.id, made.task_id)


def test_a_guarded_start(guard: Reports, proxy: Proxy, store: Store, backend: str) -> None:
    """One statement marks a run as started; a second message of it is refused as ever."""
    mine, other = sent_run(store), sent_run(store)
    with at_most(proxy, 1 if backend == "postgresql" else 5):
        assert guard.start(started(mine), again=False) is None
    assert [store.run(one.run_id).run.state for one in (mine, other)] == ["started", "sent"]
    assert guard.start(started(mine), again=False) is not None
    assert guard.start(started(mine), again=True) is None


def test_a_guarded_start_whose_answer_is_lost(
    guard: Reports, proxy: Proxy, store: Store, backend: str
) -> None:
    """That is an outage: asked again, the guard would take the run's own start for another's."""
    if backend != "postgresql":
        pytest.skip("its start is a transaction")
    mine = sent_run(store)
    proxy.hold()
    with ThreadPoolExecutor() as pool:
        made = pool.submit(guard.start, started(mine), again=False)
        wait_until(lambda: store.run(mine.run_id).run.state == "started")
        proxy.cut()
        proxy.release()
        with pytest.raises(UnavailableError):
            made.result()
    assert guard.start(started(sent_run(store)), again=False) is None


def test_the_guard_refuses(guard: Reports, proxy: Proxy, store: Store) -> None:
    """To refuse a start takes no more round trips than the pages say, also if it connects first."""
    mine = sent_run(store)
    assert guard.start(started(mine), again=False) is None
    assert guard.start(started(mine), again=False) is not None
    with at_most(proxy, 7):
        assert guard.start(started(mine), again=False) is not None
    guard.close()
    with at_most(proxy, 16):
        assert guard.start(started(mine), again=False) is not None


def test_the_first_question_of_a_process(proxy: Proxy, store: Store, migrated_url: str) -> None:
    """It takes more, since the driver asks the server what it is."""
    mine = sent_run(store)
    url = make_url(migrated_url).set(host="127.0.0.1", port=proxy.port)
    reports = OwnReports(Settings(url=url.render_as_string(hide_password=False)))
    with at_most(proxy, 20):
        assert reports.start(started(mine), again=False) is None
    reports.close()
    with at_most(proxy, 16):
        assert reports.start(started(mine), again=False) is not None
    reports.close()


def test_a_guard_that_was_not_asked_for_long(
    guard: Reports, proxy: Proxy, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that may be gone by now gets a transaction, which is done again on a new one."""
    mine = sent_run(store)
    monkeypatch.setattr(kept_connection, "RECENT", 0.0)
    proxy.cut()
    assert guard.start(started(mine), again=False) is None
    assert store.run(mine.run_id).run.state == "started"


# -- a tick --------------------------------------------------------------------------------


@pytest.fixture
def claimed(far: Store, store: Store) -> Iterator[tuple[Queue, list[Outcome]]]:
    """Return a beat's queue on a connection in use, and what it has sent: two runs."""
    for name in ("a", "b"):
        store.add(name, "t", Once(datetime.now(timezone.utc)))
    queue = Queue(far.database, far.settings, "a-beat")
    claims, _ = queue.plan(queue.look().now + timedelta(seconds=1))
    yield queue, [Outcome(claim, "sent") for claim in claims]
    queue.close()


def states(store: Store) -> list[tuple[str, bool]]:
    """Return the state of each run, and whether it was sent."""
    return [(run.state, run.sent_at is not None) for run in store.runs()]


def test_a_tick(
    claimed: tuple[Queue, list[Outcome]], proxy: Proxy, store: Store, backend: str
) -> None:
    """A look is one statement, and so is the mark of what was sent, where the server has one."""
    queue, outcomes = claimed
    store.add("c", "t", Once(datetime.now(timezone.utc)))
    with at_most(proxy, {"postgresql": 1, "mariadb": 2}[backend]):
        now = queue.look().now
    with at_most(proxy, {"postgresql": 6, "mariadb": 7}[backend]):
        assert len(queue.plan(now + timedelta(seconds=1))[0]) == 1
    with at_most(proxy, {"postgresql": 1, "mariadb": 4}[backend]):
        assert queue.mark(outcomes) == []
    assert states(store) == [("claimed", False), ("sent", True), ("sent", True)]


def test_a_mark_of_a_run_that_is_locked(claimed: tuple[Queue, list[Outcome]], store: Store) -> None:
    """The other is marked, and the one that another transaction has locked is returned."""
    queue, outcomes = claimed
    locked = outcomes[0].claim.run_id
    with store.database.engine.connect() as connection:
        connection.execute(select(RUN.c.id).where(RUN.c.id == locked).with_for_update())
        assert queue.mark(outcomes) == outcomes[:1]
        assert sorted(states(store)) == [("claimed", False), ("sent", True)]
    assert queue.mark(outcomes) == []
    assert states(store) == [("sent", True)] * 2


def test_a_mark_of_what_another_beat_has_claimed(
    claimed: tuple[Queue, list[Outcome]], store: Store
) -> None:
    """Nothing is written to the run of another beat, and nobody waits for it."""
    queue, outcomes = claimed
    with store.database.engine.begin() as connection:
        connection.execute(
            update(RUN).where(RUN.c.id == outcomes[1].claim.run_id).values(claimed_by="another")
        )
    assert queue.mark(outcomes) == []
    assert sorted(states(store)) == [("claimed", False), ("sent", True)]


def test_a_mark_whose_answer_is_lost(
    claimed: tuple[Queue, list[Outcome]], proxy: Proxy, store: Store, backend: str
) -> None:
    """That is an outage, and the same outcomes are written again without harm."""
    if backend != "postgresql":
        pytest.skip("its mark is a transaction")
    queue, outcomes = claimed
    proxy.hold()
    with ThreadPoolExecutor() as pool:
        made = pool.submit(queue.mark, outcomes)
        wait_until(lambda: states(store) == [("sent", True)] * 2)
        proxy.cut()
        proxy.release()
        with pytest.raises(UnavailableError):
            made.result()
    before = store.runs()
    assert queue.mark(outcomes) == []
    assert store.runs() == before
