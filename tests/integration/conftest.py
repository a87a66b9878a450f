"""Fixtures of tests that run on every database.

play        stories: a store, a beat without a broker, and a clock
reports     a worker's half of its store, and `other_reports` another worker's
queue       a beat's half of `store`, and `make_queue` makes those of more beats
call        the command line on the database of `store`; `way` is how it is called
module      makes modules of `app` that declare entries
night       a nightly entry at 03:05, when it should have run
quick       a store of the kind that users' tests have, at midnight
new_store   makes stores on empty databases of any kind
reporting_worker   lets a worker be on record in the play
database    an empty database, without a store
engine      the caller's engine, on a database with our tables
"""

from __future__ import annotations

import sys
import types
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import Engine, create_engine

from beatstore import Declared, ManualClock, Store, testing
from beatstore.config import Settings
from beatstore.database.engine import Database
from beatstore.models import WorkerModel
from beatstore.tick.queue import Queue
from beatstore.tick.reports import Reports
from tests.support.command import Command
from tests.support.harness.play import Play
from tests.support.harness.ticks import MakeQueue
from tests.support.nights import Night
from tests.support.stories import MIDNIGHT
from tests.support.written import DAY, NOON, write

NewStore = Callable[..., Store]


@pytest.fixture
def play(migrated_url: str, clock: ManualClock) -> Iterator[Play]:
    """Return a store, and a beat without a broker, at noon."""
    play = Play(migrated_url, clock)
    yield play
    play.close()


@pytest.fixture
def reports(play: Play) -> Iterator[Reports]:
    """Return a worker's half of the store."""
    reports = Reports(play.store.database, play.store.settings)
    yield reports
    reports.close()


@pytest.fixture
def way() -> str:
    """Call the command line without an app, unless the test is for both ways."""
    return "url"


@pytest.fixture
def call(migrated_url: str, way: str) -> Command:
    """Hand out the command line on the same database as `store`."""
    return Command(migrated_url, way)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Return an empty database."""
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture
def engine(migrated_url: str) -> Iterator[Engine]:
    """Return the caller's engine, with its server's default isolation level."""
    engine = create_engine(migrated_url)
    yield engine
    engine.dispose()


@pytest.fixture
def night(migrated_url: str, clock: ManualClock) -> Iterator[Night]:
    """Return the night at 03:05; changes are made by ann."""
    store = Store(migrated_url, clock=clock, actor="ann")
    yield Night(store, clock)
    store.close()


@pytest.fixture
def make_queue(store: Store) -> Iterator[MakeQueue]:
    """Return a function that makes the queue of one more beat."""
    queues: list[Queue] = []

    def make(**settings: Any) -> Queue:
        queue = Queue(store.database, Settings(**settings), str(uuid.uuid4()))
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        queue.close()


@pytest.fixture
def other_reports(play: Play) -> Iterator[Reports]:
    """Return another worker's half of the store."""
    reports = Reports(play.store.database, play.store.settings)
    yield reports
    reports.close()


@pytest.fixture
def queue(make_queue: MakeQueue) -> Queue:
    """Return the queue of a beat with default settings."""
    return make_queue()


@pytest.fixture
def reporting_worker(play: Play) -> None:
    """Let a worker be on record that reports outcomes."""
    row = {
        "id": "1",
        "name": "celery@a",
        "pid": 1,
        "version": "0",
        "heartbeat_at": NOON + 365 * DAY,
    }
    write(play.store, WorkerModel, row)


@pytest.fixture
def quick() -> Iterator[Store]:
    """Hand out a store of the kind that users' tests have, at midnight."""
    store = testing.store(MIDNIGHT)
    yield store
    store.close()


@pytest.fixture
def new_store(_database_servers: Any, clock: ManualClock) -> Iterator[NewStore]:
    """Return a function that makes a store on an empty database of a kind."""
    made: list[tuple[Any, str, Store]] = []

    def new(kind: str) -> Store:
        server = _database_servers.get(kind)
        url = server.create_migrated()
        made.append((server, url, Store(url, clock=clock)))
        return made[-1][2]

    yield new
    for server, url, store in made:
        store.close()
        server.drop(url)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, app: Celery) -> Callable[..., types.ModuleType]:
    """Return a function that makes a module of the app with a list of entries."""

    def make(name: str, *entries: Declared) -> types.ModuleType:
        made = types.ModuleType(name)
        vars(made).update(app=app, SCHEDULES=list(entries))
        monkeypatch.setitem(sys.modules, name, made)
        return made

    return make
