"""Fixtures of tests that run on every database.

play        stories: a store, a beat without a broker, and a clock
reports     a worker's half of its store
queue       a beat's half of `store`
scheduler   celery's beat for the fixture `app` of a test's own, at the time of `clock`
call        the command line on the database of `store`; `way` is how it is called
night       a nightly entry at 03:05, when it should have run
database    an empty database, without a store
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from celery import Celery

from beatstore import ManualClock, Store
from beatstore.beat.scheduler import DBScheduler
from beatstore.database.engine import Database
from beatstore.tick.queue import Queue
from beatstore.tick.reports import Reports
from tests.support.command import Command
from tests.support.inprocess import running
from tests.support.nights import Night
from tests.support.play import Play


@pytest.fixture
def play(migrated_url: str, clock: ManualClock) -> Iterator[Play]:
    """Return a store, and a beat without a broker, at noon."""
    play = Play(migrated_url, clock)
    yield play
    play.queue.close()
    play.store.close()


@pytest.fixture
def reports(play: Play) -> Iterator[Reports]:
    """Return a worker's half of the store."""
    reports = Reports(play.store.database, play.store.settings)
    yield reports
    reports.close()


@pytest.fixture
def queue(store: Store) -> Iterator[Queue]:
    """Return what a beat does with the store."""
    queue = Queue(store.database, store.settings, str(uuid.uuid4()))
    yield queue
    queue.close()


@pytest.fixture
def scheduler(app: Celery, clock: ManualClock) -> Iterator[DBScheduler]:
    """Return a beat of the app, which the test ticks; the clock is the manual one."""
    with running(app) as scheduler:
        scheduler.store.database.clock = clock
        yield scheduler


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
def night(migrated_url: str, clock: ManualClock) -> Iterator[Night]:
    """Return the night at 03:05; changes are made by ann."""
    store = Store(migrated_url, clock=clock, actor="ann")
    yield Night(store, clock)
    store.close()
