"""A transaction that the server undid is done again, whoever of ours has opened it.

Under SERIALIZABLE, on CockroachDB and YugabyteDB, and on a Galera cluster a server may refuse any
commit (40001, "restart transaction"; 1213). The tests refuse the next commits of an engine, and
undo what they would have committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import psycopg.errors
import pymysql
import pytest
from sqlalchemy.orm import Session

from beatstore import Cron, Declared, Once, Store
from beatstore.database import connection
from beatstore.database.connection import GIVE_WAY, TRIES
from beatstore.errors import UnavailableError
from beatstore.store.retention import Pruner
from beatstore.tick.beats import BeatFigures
from beatstore.tick.claims import Outcome
from beatstore.tick.queue import Queue
from beatstore.tick.reports import Reports
from tests.support.harness.ticks import plan, sent, sweep
from tests.support.marks import on_servers

pytestmark = [pytest.mark.every_database, on_servers]


class Undoing:
    """Undoes the next transactions of an engine at their commits.

    A statement that commits by itself is refused.

    Attributes:
        left: how many it will undo.
        undone: how many it has undone.
    """

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = self.undone = 0
        dialect = store.database.engine.dialect
        commit = dialect.do_commit
        is_postgresql = dialect.name == "postgresql"

        execute = dialect.do_execute

        def undo() -> None:
            self.left -= 1
            self.undone += 1
            if is_postgresql:
                raise psycopg.errors.SerializationFailure("restart transaction: retry")
            raise pymysql.err.OperationalError(1213, "Deadlock found; try restarting transaction")

        def do_commit(connection: Any) -> None:
            if self.left:
                dialect.do_rollback(connection)
                undo()
            commit(connection)

        def do_execute(cursor: Any, statement: str, *given: Any) -> None:
            if self.left and statement.startswith("WITH") and cursor.connection.autocommit:
                undo()
            execute(cursor, statement, *given)

        monkeypatch.setattr(dialect, "do_commit", do_commit)
        monkeypatch.setattr(dialect, "do_execute", do_execute)

    def next(self, times: int = 1) -> None:
        """Undo so many commits from now on."""
        self.left, self.undone = times, 0


@pytest.fixture
def undoing(store: Store, monkeypatch: pytest.MonkeyPatch) -> Undoing:
    """Hand out what undoes the transactions of the store."""
    return Undoing(store, monkeypatch)


CALLS: dict[str, Callable[[Store], object]] = {
    # With upstreams, since one statement would commit by itself.
    "add": lambda store: store.add("new", "t", Cron("0 3 * * *"), after=["above"]),
    "sync": lambda store: store.sync([Declared("d", "t", "* * * * *")], source="code"),
    "cancel": lambda store: store.cancel("there"),
    "change": lambda store: store.change("there", schedule="0 4 * * *"),
    "delete": lambda store: store.remove("there"),
    "link": lambda store: store.link("there", "above"),
    "pause": lambda store: store.pause("there"),
    "rename": lambda store: store.change("there", new_name="here"),
    "run": lambda store: store.trigger("there"),
    "now": lambda store: store.now(),
    "get": lambda store: store.get("there"),
}


@pytest.mark.parametrize("call", CALLS)
def test_calls_of_the_api(store: Store, undoing: Undoing, call: str) -> None:
    """A call of the API outside a caller's session takes effect once, though undone before."""
    store.add("above", "t", Cron("0 1 * * *"))
    store.add("there", "t", Cron("0 2 * * *"))
    audited = len(list(store.audit()))
    undoing.next(TRIES - 1)
    CALLS[call](store)
    assert undoing.undone == TRIES - 1
    assert len(list(store.audit())) - audited == (0 if call in {"now", "get"} else 1)


def test_what_is_undone_gives_way(
    store: Store, undoing: Undoing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is done again it waits, so that the other of a deadlock gets its rows first."""
    waits: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=waits.append)
    monkeypatch.setattr(connection, "time", clock)
    undoing.next(3)
    store.now()
    with closing(Reports(store.database, store.settings)) as reports:
        undoing.next(1)
        reports.heartbeat("w", "w@h", 1, [])
    assert waits == [GIVE_WAY, 2 * GIVE_WAY, 3 * GIVE_WAY, GIVE_WAY]


def test_a_server_that_undoes_everything(store: Store, undoing: Undoing) -> None:
    """After some tries it counts as an outage."""
    above = store.add("above", "t", Cron("0 1 * * *"))
    undoing.next(TRIES)
    with pytest.raises(UnavailableError):
        store.add("new", "t", Cron("0 3 * * *"), after=["above"])
    assert undoing.left == 0
    assert store.entries() == [above]


def test_a_session_of_the_caller(store: Store, undoing: Undoing) -> None:
    """In a caller's own transaction the error is the caller's, who does all of it again."""
    undoing.next()
    session = Session(store.database.engine)
    store.add("new", "t", Cron("0 3 * * *"), session=session)
    with pytest.raises(Exception, match="restart"):
        session.commit()
    session.close()
    assert store.entries() == []


def test_a_beat(store: Store, queue: Queue, undoing: Undoing) -> None:
    """All that a beat does in a tick, and between two ticks, is done again."""
    done: list[str] = []

    def again(what: str, work: Callable[[], object]) -> None:
        undoing.next(TRIES - 1)
        work()
        if undoing.undone == TRIES - 1:
            done.append(what)
        undoing.next(0)

    upkeep = queue.upkeep
    again("introduce", lambda: upkeep.introduce(host="h", pid=1, version="0", tzdata="x"))
    again("heartbeat", lambda: upkeep.heartbeat(BeatFigures(0.1, 1, 1)))
    store.add("once", "t", Once(store.now()))
    store.add("bad", "t", Once(store.now()))
    claims: list[Any] = []
    again("plan", lambda: claims.extend(plan(queue)))
    again("quarantine", lambda: queue._quarantine(store.get("bad").id, "bad"))
    again("mark", lambda: queue.mark(sent(claims[:1])))
    again("mark unsent", lambda: queue.mark([Outcome(claims[1], "claimed", "no", retry_in=0)]))
    again("sweep", lambda: sweep(queue))
    again("give up", lambda: queue._give_up(claims[1].run_id, "bad"))
    again("release", upkeep.release)
    again("wake", upkeep.wake_forgotten)
    again("zones", lambda: upkeep.replan_zones(0))
    again("prune", lambda: upkeep.prune(Pruner(store.database, store.settings), store.now()))
    again("withdraw", upkeep.withdraw)
    assert done == [
        *("introduce", "heartbeat", "plan", "quarantine", "mark", "mark unsent", "sweep"),
        *("give up", "release", "wake", "zones", "prune", "withdraw"),
    ]
    assert len(claims) == 2
    assert len(list(store.runs())) == 2
    (beat,) = store.beats()
    assert beat.stopped_at is not None


def test_a_worker(store: Store, undoing: Undoing) -> None:
    """So are a worker's heartbeat and its end."""
    reports = Reports(store.database, store.settings)
    undoing.next(TRIES - 1)
    reports.heartbeat("w1", name="celery@a", pid=1, running=[])
    assert undoing.undone == TRIES - 1
    undoing.next(TRIES - 1)
    reports.withdraw("w1")
    assert undoing.undone == TRIES - 1
    (worker,) = store.workers()
    assert worker.stopped_at is not None
    reports.close()
