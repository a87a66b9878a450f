"""`celery beat` hangs, is asked, and ends."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone

import celery
import pytest
from celery.beat import Service
from sqlalchemy import insert, make_url

from beatstore import Once, Store
from beatstore.models import EntryModel
from beatstore.tick.tick import BATCH
from tests.support.brokers import Broker
from tests.support.database_servers import PrivatePostgreSQL
from tests.support.ear import Ear
from tests.support.harness.ticks import running_beats, wait_for_beats
from tests.support.marks import on_postgresql, on_sqlite
from tests.support.project import NewProject
from tests.support.proxy import Proxy
from tests.support.wait import wait_until

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


# -- whether it hangs ------------------------------------------------------------------------


@on_postgresql
def test_a_beat_that_hangs_is_found_and_an_outage_is_none(
    redis_broker: Broker,
    migrated_url: str,
    new_project: NewProject,
    check: Callable[[], int],
) -> None:
    """The probe fails while the process stands still, and not while its database is away."""
    assert check() == 1
    url = make_url(migrated_url)
    with Proxy(url.port or 5432) as relay:
        through = url.set(host="127.0.0.1", port=relay.port)
        database = through.render_as_string(hide_password=False)
        beat = new_project(redis_broker, database).beat()
        wait_until(lambda: check() == 0, 30, beat.output)
        relay.refuse = True
        relay.cut()
        beat.wait_for_output("lost connection to the database")
        since = time.monotonic()
        wait_until(lambda: check() == 1 or time.monotonic() > since + 12, 20, "12 s of an outage")
        assert check() == 0, beat.output()
        beat.pause()
        wait_until(lambda: check() == 1, 30, "the probe to fail")
        beat.resume()
        wait_until(lambda: check() == 0, 30, "the probe to be content again")
        assert beat.terminate() == 0
    assert check() == 1


# -- ending --------------------------------------------------------------------------------


@on_postgresql
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_beat_ends_at_once(
    redis_broker: Broker,
    migrated_url: str,
    new_project: NewProject,
    store: Store,
    number: signal.Signals,
) -> None:
    """SIGTERM and SIGINT end a sleeping beat within moments, and its row says when."""
    beat = new_project(redis_broker, migrated_url).beat("--max-interval", "60")
    wait_for_beats(store)
    assert beat.terminate(10, number) == 0
    assert running_beats(store) == []
    assert not beat.failed(), beat.output()


@on_postgresql
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_a_beat_that_is_sending_ends_and_leaves_the_rest(
    broker: Broker, migrated_url: str, new_project: NewProject, store: Store
) -> None:
    """SIGTERM, twice, among thousands of messages loses none, and doubles one batch at most."""
    names = add_once(store, 3000)
    project = new_project(broker, migrated_url)
    beat = project.beat()
    wait_until(lambda: broker.count() > 200, 60, beat.output, interval=0.002)
    beat.send(signal.SIGTERM)
    assert beat.terminate() == 0
    assert running_beats(store) == []
    assert 0 < len(store.runs(state="sent", limit=3000)) < 3000
    before = time.monotonic()
    heir = project.beat()
    wait_until(lambda: len(store.runs(state="sent", limit=3000)) == 3000, 60, heir.output)
    assert time.monotonic() - before < 20, "the rest waited for claims to expire"
    assert heir.terminate() == 0
    runs = {run.entry_name: run.task_id for run in store.runs(limit=3001)}
    assert sorted(runs) == names
    ids = Counter(message.id for message in broker.drain())
    assert set(ids) == set(runs.values())
    assert ids.total() - len(ids) <= BATCH


def add_once(store: Store, count: int) -> list[str]:
    """Store one-shots that are due, as a program with SQL of its own would; return their names."""
    names = [f"once-{number:05}" for number in range(count)]
    columns = {"task": "tests.note", "kind": "once", "spec": Once(NOON).spec, "misfire": "all"}
    with store.database.session() as session:
        session.execute(insert(EntryModel), [{"name": name, **columns} for name in names])
    return names


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "mysql+pymysql"])
def test_a_beat_that_waits_for_a_silent_database_ends(
    redis_broker: Broker, new_project: NewProject, scheme: str
) -> None:
    """A database that takes connections and says nothing does not keep beat from ending."""
    with Ear() as ear:
        url = f"{scheme}://user@127.0.0.1:{ear.port}/db"
        beat = new_project(redis_broker, url).beat()
        wait_until(lambda: ear.heard, 30, beat.output)
        before = time.monotonic()
        assert beat.terminate(30) == 0
        assert time.monotonic() - before < 8


def test_a_beat_whose_database_stands_still_ends(
    private_postgresql: PrivatePostgreSQL, redis_broker: Broker, new_project: NewProject
) -> None:
    """A server that stops answering in the middle of its work does not keep beat from ending."""
    store = Store(private_postgresql.url)
    store.migrate()
    beat = new_project(redis_broker, private_postgresql.url).beat()
    wait_for_beats(store)
    store.close()
    private_postgresql.pause()
    assert beat.terminate(25) == 0


# -- remote control ------------------------------------------------------------------------


@on_sqlite
@pytest.mark.skipif(
    "remote_control" not in Service.__init__.__code__.co_varnames,
    reason=f"celery {celery.__version__} has no remote control of beat",
)
def test_beat_answers_a_ping(
    redis_broker: Broker, migrated_url: str, new_project: NewProject
) -> None:
    """`celery inspect ping` is answered by beat, while it waits and while it works."""
    project = new_project(redis_broker, migrated_url)
    beat = project.beat("--enable-remote-control", "-n", "beat@test")

    def answered() -> bool:
        with project.app() as app:
            found = app.control.inspect(destination=["beat@test"], timeout=1).ping()
        return bool(found) and found["beat@test"] == {"ok": "pong"}

    wait_until(answered, 30, beat.output)
    assert beat.terminate() == 0
