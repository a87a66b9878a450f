"""Celery's contract with a scheduler, kept by `DBScheduler`; all in this process.

What celery's own scheduler and its peers promise is asked here of a database: what a tick
returns, what a restart does, what `close` may cost, who may be absent.
"""

from __future__ import annotations

import logging
import math
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import celery
import pytest
from celery import Celery, beat, chain, chord, group, signals
from celery.apps.beat import Beat
from celery.exceptions import Ignore
from celery.schedules import crontab, schedule
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Connection

from beatstore import After, Cron, Every, Once, ScheduleError, Store
from beatstore.beat import scheduler as module
from beatstore.beat.scheduler import DBScheduler
from beatstore.clock import ManualClock
from beatstore.errors import UnavailableError
from beatstore.schedules.instants import EPOCH
from beatstore.tick.claims import Look
from tests.support.brokers import Broker
from tests.support.flaky import FlakyBroker
from tests.support.inprocess import NOWHERE, Ear, new_app, running
from tests.support.marks import on_mariadb, on_sqlite
from tests.support.ports import free_port
from tests.support.ticks import running_beats
from tests.support.wait import wait_until

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.fixture
def app(memory_broker: Broker, migrated_url: str) -> Celery:
    """Return an app with the task `tests.note`, and no clean-up of celery's own."""
    app = new_app(memory_broker, migrated_url, result_expires=None)

    @app.task(name="tests.note", shared=False)
    def note(*args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    return app


def at_clock(scheduler: DBScheduler, clock: ManualClock) -> DBScheduler:
    """Let a scheduler and its store read the test's clock."""
    scheduler.store.database.clock = clock
    return scheduler


@pytest.fixture
def scheduler(app: Celery, clock: ManualClock) -> Iterator[DBScheduler]:
    """Return a scheduler that stands at noon, and waits for nobody in its tick."""
    app.conf.beatstore_listen = False
    with running(app) as scheduler:
        yield at_clock(scheduler, clock)


def tick_until_idle(scheduler: DBScheduler) -> float:
    """Tick as long as celery would without sleeping, and return how long it may sleep."""
    for _ in range(1000):
        wait = scheduler.tick()
        if wait:
            return wait
    raise AssertionError("always due")


def names(messages: list[Any]) -> list[str]:
    """Return the entries that messages are of."""
    return [message.headers["beatstore_entry"] for message in messages]


# -- made by celery ------------------------------------------------------------------------


@on_sqlite
@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("max_interval", [0, None])
def test_it_is_made_as_celery_makes_it(
    app: Celery, clock: ManualClock, max_interval: int | None, *, lazy: bool
) -> None:
    """All of celery's keywords are taken; an interval of 0 or None is the default of 1 s."""
    with running(app, max_interval=max_interval, lazy=lazy) as scheduler:
        assert scheduler.max_interval == 1.0
        assert at_clock(scheduler, clock).tick() == 1.0


@on_sqlite
def test_the_interval_of_the_setting_and_of_the_caller_count(app: Celery) -> None:
    """`beat_max_loop_interval` is honoured, and `--max-interval` before it."""
    app.conf.beat_max_loop_interval = 7
    with running(app) as scheduler:
        assert scheduler.max_interval == 7
    with running(app, max_interval=3) as scheduler:
        assert scheduler.max_interval == 3
        assert scheduler.tick() <= 3


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "mysql+pymysql"])
def test_a_lazy_instance_touches_nothing(memory_broker: Broker, scheme: str) -> None:
    """The banner's instance connects to neither database nor broker, and starts no thread."""
    with Ear() as ear:
        url = f"{scheme}://user:secret@127.0.0.1:{ear.port}/db"
        broker = replace(memory_broker, url=f"amqp://guest:guest@127.0.0.1:{ear.port}//")
        threads = threading.enumerate()
        scheduler = DBScheduler(
            app=new_app(broker, url), schedule_filename="x", max_interval=None, lazy=True
        )
        assert "secret" not in scheduler.info
        assert scheduler.max_interval == 1.0
        assert dict(scheduler.schedule) == {}
        assert threading.enumerate() == threads
        scheduler.close()
        assert ear.heard == 0


def test_a_lazy_instance_makes_no_file(memory_broker: Broker, tmp_path: Path) -> None:
    """Printing the banner does not create an SQLite file."""
    scheduler = DBScheduler(
        app=new_app(memory_broker, f"sqlite:///{tmp_path}/new.db"), max_interval=None, lazy=True
    )
    assert isinstance(scheduler.info, str)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://user:secret@127.0.0.1:1/db",
        "mysql+pymysql://user:secret@127.0.0.1:1/db",
        NOWHERE,
    ],
)
def test_the_banner_needs_no_database(memory_broker: Broker, url: str) -> None:
    """Celery's banner is printed while the database is away, without its password."""
    app = new_app(memory_broker, url)
    service = beat.Service(app, scheduler_cls="beatstore:DBScheduler")
    banner = Beat(app=app, scheduler="beatstore:DBScheduler").startup_info(service)
    assert "beatstore.beat.scheduler.DBScheduler" in banner
    assert f". database -> {url.replace('secret', '***')}" in banner
    assert "maxinterval -> 1.00 second" in banner


@on_sqlite
def test_it_has_the_interface_of_a_scheduler(scheduler: DBScheduler) -> None:
    """What celery and its packages call on a scheduler can be called, in any order, again."""
    for method in ("sync", "setup_schedule", "close", "setup_schedule", "sync", "close"):
        getattr(scheduler, method)()
    assert isinstance(scheduler.info, str)
    assert isinstance(scheduler, beat.Scheduler)
    assert not hasattr(DBScheduler, "__slots__")
    assert scheduler.tick() == 1.0


def test_syncing_costs_nothing(memory_broker: Broker) -> None:
    """The calls celery makes after each sleep need no database, for nothing is in memory."""
    with running(new_app(memory_broker), lazy=True) as scheduler:
        assert scheduler.should_sync()
        scheduler._do_sync()
        assert not scheduler.should_sync()
        scheduler.sync()


def test_a_wrong_setting_is_refused_in_one_line(memory_broker: Broker) -> None:
    """An unknown setting ends beat before anything is tried, with the nearest name."""
    app = new_app(memory_broker, beatstore_batchsize=5)
    with pytest.raises(SystemExit) as ended:
        DBScheduler(app=app, lazy=False)
    line = str(ended.value.code)
    assert line.startswith("beatstore: beatstore_batchsize")
    assert "beatstore_batch_size" in line
    assert "\n" not in line
    # The banner's instance only tells it: the log, where a daemon can say it, is not open yet.
    assert line.removeprefix("beatstore: ") in DBScheduler(app=app, lazy=True).info


# -- the schedule, and what celery would write into it -------------------------------------


@on_sqlite
def test_the_schedule_is_an_empty_mapping(scheduler: DBScheduler) -> None:
    """What reads or iterates `schedule` finds a mapping; the entries are in the database."""
    scheduler.store.add("a", "tests.note", Every(10))
    tick_until_idle(scheduler)
    assert dict(scheduler.schedule) == {}
    assert list(scheduler.schedule.items()) == []
    assert "a" not in scheduler.schedule


@on_sqlite
@pytest.mark.parametrize(
    ("given", "kind", "spec"),
    [
        (crontab(minute="30", hour="4"), "cron", "30 4 * * *"),
        (schedule(90), "every", "90"),
        (timedelta(minutes=2), "every", "120"),
        (15, "every", "15"),
    ],
)
def test_add_stores_the_entry(scheduler: DBScheduler, given: Any, kind: str, spec: str) -> None:
    """`scheduler.add`, as extensions call it, writes a row, and updates it the next time."""
    made = scheduler.add(name="x", task="tests.note", schedule=given, args=(1,))
    assert isinstance(made, beat.ScheduleEntry)
    options = {"queue": "q"}
    scheduler.add(name="x", task="tests.note", schedule=given, kwargs={"k": 2}, options=options)
    (entry,) = scheduler.store.entries()
    assert (entry.name, entry.task, entry.kind) == ("x", "tests.note", kind)
    assert entry.spec.split(" from ")[0] == spec
    assert (entry.args, entry.kwargs, entry.options) == ([], {"k": 2}, {"queue": "q"})


@on_sqlite
def test_add_raises_what_it_can_not_store(scheduler: DBScheduler) -> None:
    """An entry that can't be stored is an error, not something that is lost at the next start."""

    class Own(crontab):
        def is_due(self, last_run_at):
            return super().is_due(last_run_at)

    with pytest.raises(ScheduleError):
        scheduler.add(name="x", task="tests.note", schedule=Own(0, 4))
    assert scheduler.store.entries() == []


def test_add_raises_without_a_database(memory_broker: Broker) -> None:
    """With the database away, `add` says so."""
    with (
        running(new_app(memory_broker), lazy=True) as scheduler,
        pytest.raises(UnavailableError),
    ):
        scheduler.add(name="x", task="tests.note", schedule=30)


@on_sqlite
def test_starting_leaves_the_entries_of_others_alone(app: Celery) -> None:
    """Rows that are not of this app's code survive every start as they are."""
    app.conf.beat_schedule = {"conf": {"task": "tests.note", "schedule": 30}}
    store = Store.from_app(app)
    for name, source in (("a", "api"), ("celery.something", "celery"), ("c", "their-sync")):
        store.add(name, "tests.note", "0 4 * * *", source=source)
    before = {entry.name: entry.version for entry in store.entries()}
    for _ in range(2):
        with running(app) as scheduler:
            scheduler.setup_schedule()
            tick_until_idle(scheduler)
    after = {entry.name: entry.version for entry in store.entries()}
    assert after == {**before, "conf": 1}
    store.close()


@on_sqlite
@pytest.mark.parametrize(
    ("settings", "stored"),
    [
        ({}, True),
        ({"result_backend": "file:///tmp"}, True),
        ({"result_expires": None}, False),
        ({"result_expires": 0}, False),
        ({"result_backend": "cache+memory://"}, False),
        ({"result_backend": "redis://127.0.0.1:1/0"}, False),
    ],
)
def test_the_cleanup_is_stored_where_celery_would_schedule_it(
    memory_broker: Broker, migrated_url: str, settings: dict[str, Any], *, stored: bool
) -> None:
    """`celery.backend_cleanup` is an entry where results expire and nobody else removes them."""
    app = new_app(memory_broker, migrated_url, **settings)
    with running(app) as scheduler:
        data: dict[str, Any] = {}
        base = beat.Scheduler(app, schedule=data, lazy=True)
        base.install_default_entries(data)
        found = scheduler.store.entries()
        assert [entry.name for entry in found] == sorted(data)
        assert bool(found) is stored
        for entry in found:
            assert (entry.task, entry.spec) == ("celery.backend_cleanup", "0 4 * * *")
            assert entry.options == {"expires": 12 * 3600}
            assert entry.source == "beat_schedule"


@on_sqlite
def test_an_edited_cleanup_is_left_alone(memory_broker: Broker, migrated_url: str) -> None:
    """Whoever moves or pauses the clean-up finds it so after the next start."""
    app = new_app(memory_broker, migrated_url)
    name = "celery.backend_cleanup"
    with running(app) as scheduler:
        scheduler.store.change(name, schedule="30 5 * * *", options={"queue": "slow"})
        scheduler.store.pause(name)
    with running(app) as scheduler:
        entry = scheduler.store.get(name)
    assert (entry.spec, entry.options, entry.state) == ("30 5 * * *", {"queue": "slow"}, "paused")


@on_sqlite
def test_a_cleanup_that_is_not_allowed_does_not_stop_beat(
    memory_broker: Broker, migrated_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where `beatstore_allowed_tasks` leaves it out, beat starts, and says so once."""
    app = new_app(memory_broker, migrated_url, beatstore_allowed_tasks=["proj.*"])
    with running(app) as scheduler:
        assert scheduler.store.entries() == []
        assert scheduler.tick() == 1.0
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert "celery.backend_cleanup" in record.getMessage()


# -- what a tick returns -------------------------------------------------------------------


@on_sqlite
@pytest.mark.parametrize("max_interval", [1, 300])
@pytest.mark.parametrize(
    "wake_in",
    [
        None,
        timedelta(microseconds=1),
        timedelta(milliseconds=300),
        timedelta(days=1),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC) - NOON,
        timedelta(0),
        timedelta(seconds=-1),
        EPOCH - NOON,
    ],
)
def test_a_tick_returns_seconds_that_celery_can_sleep(
    app: Celery,
    monkeypatch: pytest.MonkeyPatch,
    wake_in: timedelta | None,
    max_interval: int,
) -> None:
    """Whatever the rows say, a tick returns a number from 0 to the interval, never more."""
    at = None if wake_in is None else NOON + wake_in
    with running(app, max_interval=max_interval) as scheduler:
        for look in (Look(NOON, at, None), Look(NOON, None, at), Look(NOON, at, at)):
            monkeypatch.setattr(scheduler.queue, "look", lambda look=look: look)
            wait = scheduler.tick()
            assert type(wait) in (int, float)
            assert math.isfinite(wait)
            assert 0 <= wait <= max_interval
            if wake_in and wake_in > timedelta(0):
                assert wait == min(wake_in.total_seconds(), max_interval)


def test_a_due_entry_is_sent_and_the_next_tick_follows_at_once(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """A tick that sent something returns 0: there may be more."""
    scheduler.store.add("a", "tests.note", Once(NOON + timedelta(seconds=1)), args=[1])
    scheduler.tick()
    assert memory_broker.drain() == []
    clock.advance(1)
    assert scheduler.tick() == 0
    (message,) = memory_broker.drain()
    (run,) = scheduler.store.runs()
    assert (message.id, message.task, message.args) == (run.task_id, "tests.note", [1])
    assert (run.state, run.sent_at) == ("sent", clock.now())
    assert scheduler.tick() == 1.0
    assert memory_broker.drain() == []


def test_a_pending_entry_is_slept_for(scheduler: DBScheduler, clock: ManualClock) -> None:
    """A tick returns the time left to the earliest entry, to the microsecond."""
    for name, after in (("b", 0.75), ("a", 0.123456), ("c", 900.0)):
        scheduler.store.add(name, "tests.note", Once(NOON + timedelta(seconds=after)))
    assert tick_until_idle(scheduler) == 0.123456
    clock.advance(0.1)
    assert scheduler.tick() == 0.023456
    clock.advance(0.023456)
    assert scheduler.tick() == 0
    assert tick_until_idle(scheduler) == pytest.approx(0.626544, abs=1e-9)


def test_a_new_schedule_is_seen_at_the_next_tick(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """An edit needs no restart: the same name with another schedule is due by the new one."""
    scheduler.store.add("a", "tests.note", Once(NOON + timedelta(hours=1)))
    assert tick_until_idle(scheduler) == 1.0
    scheduler.store.change("a", schedule=Once(NOON + timedelta(seconds=0.5)))
    assert tick_until_idle(scheduler) == 0.5
    clock.advance(0.5)
    tick_until_idle(scheduler)
    assert len(memory_broker.drain()) == 1


def test_a_schedule_without_more_occurrences_is_not_asked_again(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """An entry that is finished makes no tick short, and is kept for people to see."""
    scheduler.store.add("a", "tests.note", Every(0.5), max_runs=2)
    for _ in range(5):
        clock.advance(0.5)
        tick_until_idle(scheduler)
    assert scheduler.tick() == 1.0
    assert scheduler.store.get("a").state == "finished"
    assert len(memory_broker.drain()) == 2


def test_one_tick_drains_in_batches(app: Celery, memory_broker: Broker, clock: ManualClock) -> None:
    """However much is due, a tick takes one batch and returns, so that beat stays reachable."""
    app.conf.update(beatstore_batch_size=10, beatstore_listen=False)
    with running(app) as scheduler:
        at_clock(scheduler, clock)
        for n in range(25):
            scheduler.store.add(f"e{n:02}", "tests.note", Once(NOON))
        waits = [scheduler.tick() for _ in range(4)]
        assert waits == [0, 0, 0, 1.0]
    assert len(memory_broker.drain()) == 25


def test_entries_due_together_are_all_sent_in_order(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """Several entries due at one instant are all sent, the first stored first."""
    order = ["m", "a", "z", "k"]
    for name in order:
        scheduler.store.add(name, "tests.note", Cron("* * * * *"))
    tick_until_idle(scheduler)
    clock.advance(60)
    tick_until_idle(scheduler)
    assert names(memory_broker.drain()) == order


@on_sqlite
def test_an_unexpected_error_ends_neither_beat_nor_its_patience(
    scheduler: DBScheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong in a tick is logged, and tried again after the interval."""
    with monkeypatch.context() as patch:
        patch.setattr(scheduler.queue, "look", lambda: 1 / 0)
        assert scheduler.tick() == 1.0
    assert "ZeroDivisionError" in caplog.text
    scheduler.store.add("a", "tests.note", Once(NOON))
    assert scheduler.tick() == 0


def test_without_listening_and_with_it_the_interval_is_kept(
    app: Celery, backend: str, memory_broker: Broker
) -> None:
    """Where PostgreSQL wakes beat, a tick still returns within a second or so."""
    with running(app, max_interval=300) as scheduler:
        scheduler.store.add("a", "tests.note", Once(datetime.now(UTC) + timedelta(hours=1)))
        tick_until_idle_or_listening(scheduler)
        timer = threading.Timer(0.2, lambda: scheduler.store.add("b", "tests.note", Once(NOON)))
        timer.start()
        wait = scheduler.tick()
        timer.join()
        assert wait == (0 if backend == "postgresql" else 300)
        tick_until_idle_or_listening(scheduler)
        assert names(memory_broker.drain()) == ["b"]


def tick_until_idle_or_listening(scheduler: DBScheduler) -> None:
    """Tick until everything that is due has been looked at."""
    while True:
        look = scheduler.queue.look()
        due = [
            at for at in (look.entry_wake_at, look.run_wake_at) if at is not None and at <= look.now
        ]
        if not due:
            return
        scheduler.tick()


# -- what is sent --------------------------------------------------------------------------


def test_a_message_that_can_not_be_made_is_a_failed_run(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """A send that fails for good is on the run, the tick goes on, and so does the entry."""

    @scheduler.app.task(name="tests.two", shared=False)
    def two(x: int, y: int) -> None:
        """Take exactly two arguments."""

    scheduler.store.add("bad", "tests.two", Cron("* * * * *"), args=[1])
    scheduler.store.add("good", "tests.note", Cron("* * * * *"))
    tick_until_idle(scheduler)
    for _ in range(2):
        clock.advance(60)
        tick_until_idle(scheduler)
    assert names(memory_broker.drain()) == ["good", "good"]
    runs = scheduler.store.runs("bad")
    assert [run.state for run in runs] == ["failed", "failed"]
    assert all("TypeError" in str(run.reason) and run.finished_at for run in runs)
    assert scheduler.store.get("bad").state == "active"


def test_a_send_that_fails_for_now_is_tried_again_in_five_seconds(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """An error nobody foresaw is told on the run, which is tried again, with the same id."""
    failures = [RuntimeError("odd"), RuntimeError("odd")]

    class Odd(scheduler.app.Task):  # type: ignore[name-defined,misc]
        def apply_async(self, *args, **kwargs):
            if failures:
                raise failures.pop()
            return super().apply_async(*args, **kwargs)

    @scheduler.app.task(name="tests.odd", base=Odd, shared=False)
    def odd() -> None:
        """Do nothing."""

    scheduler.store.add("a", "tests.odd", Once(NOON))
    tick_until_idle(scheduler)
    (run,) = scheduler.store.runs()
    assert run.state == "claimed"
    assert run.reason == "sending failed, last with RuntimeError: odd"
    assert run.wake_at == NOON + timedelta(seconds=5)
    clock.advance(4.9)
    tick_until_idle(scheduler)
    assert len(failures) == 1
    for _ in range(2):  # the second distance is twice the first
        clock.advance(10)
        tick_until_idle(scheduler)
    (message,) = memory_broker.drain()
    (run,) = scheduler.store.runs()
    assert (run.state, run.task_id) == ("sent", message.id)


def test_after_a_restart_what_was_missed_runs_once(
    app: Celery, memory_broker: Broker, clock: ManualClock
) -> None:
    """Each entry that was due while beat was down is sent once, and then beat sleeps on."""
    app.conf.beatstore_listen = False
    with running(app) as scheduler:
        at_clock(scheduler, clock)
        for n in range(5):
            scheduler.store.add(f"e{n}", "tests.note", Cron("* * * * *"))
        tick_until_idle(scheduler)
    clock.advance(3630)
    with running(app) as scheduler:
        assert tick_until_idle(at_clock(scheduler, clock)) == 1.0
        messages = memory_broker.drain()
        assert names(messages) == [f"e{n}" for n in range(5)]
        assert {message.headers["beatstore_missed_count"] for message in messages} == {59}
        clock.advance(29.5)
        assert tick_until_idle(scheduler) == 0.5
        assert memory_broker.drain() == []


def test_a_restart_sends_nothing_again(
    app: Celery, memory_broker: Broker, clock: ManualClock
) -> None:
    """What ran is in the database, so a new beat, also one whose clock went back, knows it."""
    app.conf.beatstore_listen = False
    for step in (0, 60, 0, -3600, 3600):
        clock.advance(step)
        with running(app) as scheduler:
            at_clock(scheduler, clock).store.put("a", "tests.note", Cron("* * * * *"))
            tick_until_idle(scheduler)
    assert len(memory_broker.drain()) == 1


def test_a_paused_entry_holds_up_nobody(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """An entry that is paused, removed or not yet started leaves the others on time."""
    for name in ("paused", "removed", "good"):
        scheduler.store.add(name, "tests.note", Cron("* * * * *"))
    scheduler.store.add(
        "later", "tests.note", Cron("* * * * *"), start_at=NOON + timedelta(minutes=5)
    )
    tick_until_idle(scheduler)
    scheduler.store.pause("paused")
    scheduler.store.remove("removed")
    clock.advance(60)
    tick_until_idle(scheduler)
    assert names(memory_broker.drain()) == ["good"]
    scheduler.store.resume("paused")
    tick_until_idle(scheduler)
    assert memory_broker.drain() == []
    clock.advance(60)
    tick_until_idle(scheduler)
    assert sorted(names(memory_broker.drain())) == ["good", "paused"]


def test_rows_deleted_by_plain_sql_are_seen_without_a_nudge(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock, migrated_url: str
) -> None:
    """A bulk DELETE, which tells nobody, counts at the next tick."""
    for n in range(3):
        scheduler.store.add(f"e{n}", "tests.note", Cron("* * * * *"))
    tick_until_idle(scheduler)
    engine = create_engine(migrated_url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM beatstore_entry WHERE name <> 'e1'"))
    engine.dispose()
    clock.advance(60)
    tick_until_idle(scheduler)
    assert names(memory_broker.drain()) == ["e1"]


def test_an_edit_during_the_send_survives(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """Marking a run as sent writes nothing over an edit that was made meanwhile."""
    scheduler.store.add("a", "tests.note", Cron("* * * * *"))
    tick_until_idle(scheduler)
    clock.advance(60)

    def on_publish(**_: Any) -> None:
        scheduler.store.change("a", args=[2], description="edited")

    signals.before_task_publish.connect(on_publish)
    try:
        scheduler.tick()
    finally:
        signals.before_task_publish.disconnect(on_publish)
    clock.advance(60)
    tick_until_idle(scheduler)
    assert [message.args for message in memory_broker.drain()] == [[], [2]]
    assert scheduler.store.get("a").description == "edited"


def test_the_zone_of_the_app_is_not_the_zone_of_the_entry(
    app: Celery, memory_broker: Broker, clock: ManualClock
) -> None:
    """An entry is due by its own zone, whatever `timezone` and `enable_utc` the app has."""
    app.conf.update(timezone="America/Lima", enable_utc=False, beatstore_listen=False)
    with running(app) as scheduler:
        at_clock(scheduler, clock)
        for zone in ("Asia/Tokyo", "Europe/Berlin", None):
            scheduler.store.add(f"{zone}", "tests.note", Cron("0 22 * * *", zone))
        due = {entry.name: entry.next_due_at for entry in scheduler.store.entries()}
    assert due == {
        "Asia/Tokyo": datetime(2026, 1, 15, 13, tzinfo=UTC),
        "Europe/Berlin": datetime(2026, 1, 15, 21, tzinfo=UTC),
        "None": datetime(2026, 1, 16, 3, tzinfo=UTC),
    }


def test_hooks_leave_the_row_alone(
    scheduler: DBScheduler, memory_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever monitoring writes into an entry's options stays out of the database."""
    original = beat.Scheduler.apply_entry

    def apply_entry(self, entry, producer=None):
        headers = entry.options.pop("headers", {})
        headers["monitor"] = "x"
        headers["deep"]["n"] = 2
        entry.options.update(headers=headers, priority=9)
        entry.args[0].append(2)
        entry.kwargs["added"] = True
        return original(self, entry, producer=producer)

    monkeypatch.setattr(beat.Scheduler, "apply_entry", apply_entry)
    options = {"headers": {"deep": {"n": 1}}}
    scheduler.store.add("a", "tests.note", Once(NOON), args=[[1]], options=options)
    tick_until_idle(scheduler)
    (message,) = memory_broker.drain()
    assert (message.headers["monitor"], message.headers["deep"]) == ("x", {"n": 2})
    entry = scheduler.store.get("a")
    assert (entry.args, entry.kwargs, entry.options) == ([[1]], {}, options)


def test_entries_of_celery_can_still_be_applied(
    scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """Code that hands celery's own entry to `apply_async` gets celery's own behaviour."""
    entry = beat.ScheduleEntry(
        name="x", task="tests.note", schedule=schedule(30), args=(1,), app=scheduler.app
    )
    result = scheduler.apply_async(entry, producer=scheduler.producer, advance=False)
    (message,) = memory_broker.drain()
    assert (message.id, message.args) == (result.id, [1])


# -- who may be absent ---------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "mysql+pymysql"])
def test_no_server_is_waited_for(
    memory_broker: Broker, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A database server that does not answer at start is logged once, and asked again."""
    url = f"{scheme}://user:secret@127.0.0.1:{free_port()}/db"
    with running(new_app(memory_broker, url), max_interval=2) as scheduler:
        waits = [scheduler.tick() for _ in range(6)]
    assert all(0 < wait <= 2 for wait in waits)
    assert waits == sorted(waits)
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert "lost connection to the database" in record.getMessage()
    assert "secret" not in caplog.text


def test_a_database_that_comes_later_is_used(
    memory_broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Beat may start before its database: when that is there, it is migrated and read."""
    folder = tmp_path / "later"
    app = new_app(memory_broker, f"sqlite:///{folder}/beatstore.db", result_expires=None)
    with running(app) as scheduler:
        assert 0 < scheduler.tick() <= 1
        folder.mkdir()
        assert scheduler.tick() == 1.0
        scheduler.store.add("a", "tests.note", Once(NOON))
        assert scheduler.tick() == 0
        assert len(memory_broker.drain()) == 1
    assert caplog.text.count("connected to the database again") == 1


@on_sqlite
def test_a_database_that_goes_and_returns_costs_nothing(
    scheduler: DBScheduler,
    memory_broker: Broker,
    migrated_url: str,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An outage is survived: a tick says when to look again, and nothing is lost by it."""
    scheduler.store.add("a", "tests.note", Cron("* * * * *"))
    tick_until_idle(scheduler)
    path = Path(migrated_url.removeprefix("sqlite:///"))
    scheduler.queue.close()
    scheduler.store.close()
    gone = path.rename(path.with_suffix(".gone"))
    path.mkdir()
    clock.advance(60)
    waits = [scheduler.tick() for _ in range(8)]
    assert all(0 < wait <= 1 for wait in waits)
    path.rmdir()
    gone.rename(path)
    tick_until_idle(scheduler)
    assert names(memory_broker.drain()) == ["a"]
    levels = [one.levelname for one in caplog.records if one.levelno >= logging.WARNING]
    assert levels == ["ERROR", "WARNING"]


@on_sqlite
def test_a_broker_that_goes_and_returns_costs_nothing(
    app: Celery,
    memory_broker: Broker,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While the broker is away beat claims nothing new, and sends all when it is back, once."""
    flaky = FlakyBroker()
    app.conf.update(flaky.settings)
    app.conf.beatstore_listen = False
    with running(app) as scheduler:
        at_clock(scheduler, clock)
        scheduler.store.add("a", "tests.note", Once(NOON))
        scheduler.store.add("b", "tests.note", Once(NOON + timedelta(seconds=10)))
        flaky.down = True
        waits = [scheduler.tick() for _ in range(3)]
        assert all(0 < wait <= 1 for wait in waits)
        clock.advance(60)
        waits = [scheduler.tick() for _ in range(3)]
        assert all(0 <= wait <= 1 for wait in waits)
        assert [run.entry_name for run in scheduler.store.runs()] == ["a"]
        assert [run.state for run in scheduler.store.runs()] == ["claimed"]
        flaky.down = False
        wait_until(lambda: (scheduler.tick(), memory_broker.count() == 2)[1], 10, "two messages")
        tick_until_idle(scheduler)
        assert {run.state for run in scheduler.store.runs()} == {"sent"}
    assert sorted(names(memory_broker.drain())) == ["a", "b"]
    levels = [one.levelname for one in caplog.records if one.levelno >= logging.WARNING]
    assert levels == ["ERROR", "WARNING"]


def test_what_was_sent_is_not_sent_again_when_it_could_not_be_marked(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """A database that goes away between send and mark is told later, however much later."""
    scheduler.store.add("a", "tests.note", Once(NOON))
    with pytest.MonkeyPatch.context() as patch:

        def away(*_: Any) -> None:
            raise UnavailableError("the database is away")

        patch.setattr(scheduler.queue, "settle", away)
        assert 0 < scheduler.tick() <= 1
        clock.advance(3600)
        assert 0 < scheduler.tick() <= 1
    assert tick_until_idle(scheduler) == 1.0
    assert len(memory_broker.drain()) == 1
    assert [run.state for run in scheduler.store.runs()] == ["sent"]


@on_mariadb
def test_a_lock_on_the_tables_is_an_outage(
    app: Celery, memory_broker: Broker, migrated_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the driver gives up waiting for somebody's lock, beat tries again later."""
    app.conf.beatstore_engine_options = {"connect_args": {"read_timeout": 0.3}}
    engine = create_engine(migrated_url)
    with running(app) as scheduler, engine.connect() as other:
        scheduler.store.add("a", "tests.note", Once(NOON))
        other.execute(text("LOCK TABLES beatstore_entry WRITE, beatstore_run WRITE"))
        assert 0 < scheduler.tick() <= 1
        assert "lost connection to the database" in caplog.text
        other.execute(text("UNLOCK TABLES"))
        tick_until_idle(scheduler)
    engine.dispose()
    assert names(memory_broker.drain()) == ["a"]


@on_sqlite
def test_a_full_disk_is_an_outage(
    scheduler: DBScheduler,
    memory_broker: Broker,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A database without room for a row is waited for, said once, and nothing is lost."""
    engine, most = scheduler.store.database.engine, [2**30]

    @event.listens_for(engine, "begin")
    def limit(connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {most[0]}")

    for number in range(300):
        scheduler.store.add(f"entry-{number}", "tests.note", Once(NOON + timedelta(seconds=10)))
    with engine.connect() as connection:
        most[0] = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    clock.advance(10)
    assert [scheduler.tick() > 0 for _ in range(5)] == [True] * 5
    assert memory_broker.drain() == []
    most[0] = 2**30
    tick_until_idle(scheduler)
    assert len(set(names(memory_broker.drain()))) == 300
    levels = [one.levelname for one in caplog.records if one.levelno >= logging.WARNING]
    assert levels == ["ERROR", "WARNING"]


def test_a_send_that_never_works_ends(
    scheduler: DBScheduler, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried ten times, further apart each time, and fails with the reason; once told."""

    class Odd(celery.Task):
        def apply_async(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("its lock server is away")

    @scheduler.app.task(name="tests.odd", base=Odd, shared=False)
    def odd() -> None:
        """Do nothing."""

    scheduler.store.add("often", "tests.odd", Every(10), misfire="coalesce", grace=1)
    for _ in range(60):
        scheduler.tick()
        scheduler.tick()
        clock.advance(60)
    runs = scheduler.store.runs("often")
    failed = [run for run in runs if run.state == "failed"]
    assert "sending failed 10 times, last with RuntimeError" in str(failed[-1].reason)
    assert len(runs) < 20, "one row at each look, which is as rare as the tries"
    sending = [one for one in caplog.records if one.name == "beatstore.beat.sender"]
    levels = [one.levelname for one in sending if one.levelno >= logging.WARNING]
    assert levels == ["WARNING", "ERROR"]
    waiting = next(run for run in runs if run.state == "claimed")
    said = "\n".join(scheduler.store.explain("often", at=waiting.due_at).sentences)
    assert "its lock server is away" in said


def test_a_beat_s_own_row_comes_back(scheduler: DBScheduler) -> None:
    """Where somebody deletes the row of a living beat, its next heartbeat writes it again."""
    scheduler.tick()
    with scheduler.store.database.engine.begin() as connection:
        connection.execute(text("DELETE FROM beatstore_beat"))
    assert scheduler.store.status().beats == []
    scheduler.housekeeping._heartbeat_due = 0.0
    scheduler.tick()
    assert len(scheduler.store.status().beats) == 1


# -- tasks that run in beat's own process --------------------------------------------------


@pytest.fixture
def eager(scheduler: DBScheduler) -> DBScheduler:
    """Return the same scheduler, of an app whose tasks run where they are called."""
    app = scheduler.app
    app.conf.task_always_eager = True

    @app.task(name="tests.fail", shared=False)
    def fail(*args: Any) -> None:
        """Fail as a broker that is away does, which must not be taken for one."""
        raise ConnectionError("eager error")

    @app.task(name="tests.ignore", shared=False)
    def ignore() -> None:
        """Have no outcome."""
        raise Ignore

    return scheduler


@pytest.mark.parametrize("propagates", [True, False])
def test_the_outcome_of_an_eager_task_is_known_at_once(
    eager: DBScheduler, memory_broker: Broker, clock: ManualClock, *, propagates: bool
) -> None:
    """With `task_always_eager` a run ends as it is sent; retries and downstreams follow."""
    eager.app.conf.task_eager_propagates = propagates
    store = eager.store
    store.add("good", "tests.note", Once(NOON))
    store.add("bad", "tests.fail", Once(NOON), max_retries=1, retry_delay=5)
    store.add("after good", "tests.note", after=["good"])
    store.add("after bad", "tests.note", after=[After("bad", on="failure")])
    for _ in range(20):
        eager.tick()
        clock.advance(1)
    found = {(run.entry_name, run.attempt): run.state for run in store.runs()}
    assert found == {
        ("good", 1): "succeeded",
        ("bad", 1): "failed",
        ("bad", 2): "failed",
        ("after good", 1): "succeeded",
        ("after bad", 1): "succeeded",
    }
    first = store.runs("bad")[-1]
    assert first.error == "ConnectionError: eager error"
    assert "in fail" in str(first.traceback)
    assert first.sent_at is not None
    assert memory_broker.drain() == []


EAGER_CANVASES = [
    (lambda note, fail: chain(note.si(1), note.si(2)), "succeeded"),
    (lambda note, fail: chain(note.si(1), fail.si()), "failed"),
    (lambda note, fail: chain(fail.si(), note.si(1)), "failed"),
    (lambda note, fail: group(note.si(1), note.si(2)), "succeeded"),
    (lambda note, fail: group(note.si(1), fail.si()), "failed"),
    (lambda note, fail: chord([note.si(1), note.si(2)], note.si(3)), "succeeded"),
    (lambda note, fail: chord([note.si(1), fail.si()], note.si(3)), "failed"),
    (lambda note, fail: chain(note.si(1), group(note.si(2), fail.si())), "failed"),
    (lambda note, fail: note.map([1, 2]), "succeeded"),
]


@on_sqlite
@pytest.mark.parametrize("case", EAGER_CANVASES)
def test_the_outcome_of_an_eager_canvas_is_known_at_once(
    eager: DBScheduler, case: tuple[Callable[[Any, Any], Any], str]
) -> None:
    """A canvas that runs in beat succeeds if all of it does, and fails with its first error."""
    tasks = eager.app.tasks
    eager.store.add("canvas", case[0](tasks["tests.note"], tasks["tests.fail"]), Once(NOON))
    tick_until_idle(eager)
    (run,) = eager.store.runs()
    assert run.state == case[1]
    assert ("eager error" in str(run.error)) is (case[1] == "failed")


@on_sqlite
def test_an_eager_task_without_an_outcome_is_cancelled(eager: DBScheduler) -> None:
    """A task that ignores itself ends its run, as it does at a worker."""
    eager.store.add("a", "tests.ignore", Once(NOON))
    tick_until_idle(eager)
    assert [run.state for run in eager.store.runs()] == ["cancelled"]


# -- close, at any moment ------------------------------------------------------------------


@on_sqlite
def test_close_gives_everything_back(scheduler: DBScheduler, memory_broker: Broker) -> None:
    """After `close` no connection is held, and beat's row says that it was stopped; twice, too."""
    scheduler.store.add("a", "tests.note", Once(NOON))
    scheduler.tick()
    assert len(scheduler.store.status().beats) == 1
    for _ in range(3):
        scheduler.close()
        assert "producer" not in vars(scheduler)
        assert "connection" not in vars(scheduler)
    assert running_beats(scheduler.store) == []
    assert scheduler.store.database.engine.pool.checkedout() == 0


@on_sqlite
def test_a_closed_scheduler_opens_again(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """As in celery's own, what is needed after `close` is simply made again."""
    scheduler.close()
    scheduler.store.add("a", "tests.note", Once(NOON))
    assert scheduler.tick() == 0
    assert len(memory_broker.drain()) == 1


@pytest.mark.parametrize("url", ["postgresql+psycopg://u@127.0.0.1:1/x", NOWHERE])
def test_close_is_quick_while_the_database_is_away(memory_broker: Broker, url: str) -> None:
    """Nothing is waited for at the end of a beat that had no database."""
    with running(new_app(memory_broker, url)) as scheduler:
        scheduler.tick()
        scheduler.close()
        scheduler.close()


class Handler:
    """Celery's signal handler, raised at one point of a tick: close, then SystemExit."""

    def __init__(self, scheduler: DBScheduler) -> None:
        self.scheduler = scheduler

    def __call__(self, *_: object, **__: object) -> None:
        self.scheduler.close()
        raise SystemExit


def at_publish(number: int) -> Callable[[DBScheduler, pytest.MonkeyPatch], None]:
    """Send the signal just before the `number`-th message is published."""

    def arrange(scheduler: DBScheduler, patch: pytest.MonkeyPatch) -> None:
        publish, count = module.publish, [0]

        def publish_or_end(*args: Any) -> Any:
            count[0] += 1
            return Handler(scheduler)() if count[0] == number else publish(*args)

        patch.setattr(module, "publish", publish_or_end)

    return arrange


def at_call(method: str, *, after: bool) -> Callable[[DBScheduler, pytest.MonkeyPatch], None]:
    """Send the signal just before or after a call of the queue."""

    def arrange(scheduler: DBScheduler, patch: pytest.MonkeyPatch) -> None:
        original = getattr(scheduler.queue, method)
        ended = [False]

        def call(*args: Any, **kwargs: Any) -> Any:
            if ended[0]:
                return original(*args, **kwargs)
            ended[0] = True
            if after:
                original(*args, **kwargs)
            return Handler(scheduler)()

        patch.setattr(scheduler.queue, method, call)

    return arrange


MOMENTS = {
    "before look": at_call("look", after=False),
    "after look": at_call("look", after=True),
    "before plan": at_call("plan", after=False),
    "after plan": at_call("plan", after=True),
    "first message": at_publish(1),
    "fourth message": at_publish(4),
    "last message": at_publish(7),
    "before settle": at_call("settle", after=False),
    "after settle": at_call("settle", after=True),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_in_the_middle_of_a_tick_loses_and_doubles_nothing(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock, moment: str
) -> None:
    """SIGTERM closes beat inside a tick; the next beat sends, at once, just what is left."""
    for n in range(7):
        scheduler.store.add(f"e{n}", "tests.note", Once(NOON))
    with pytest.MonkeyPatch.context() as patch:
        MOMENTS[moment](scheduler, patch)
        with pytest.raises(SystemExit):
            scheduler.tick()
    scheduler.close()
    assert running_beats(scheduler.store) == []
    with running(scheduler.app) as heir:
        tick_until_idle(at_clock(heir, clock))
        runs = heir.store.runs()
    assert {run.state for run in runs} == {"sent"}
    messages = memory_broker.drain()
    assert sorted(names(messages)) == [f"e{n}" for n in range(7)]
    assert {message.id for message in messages} == {run.task_id for run in runs}


@on_sqlite
def test_close_in_the_middle_of_a_tick_leaves_it_its_claims(
    scheduler: DBScheduler, memory_broker: Broker, migrated_url: str
) -> None:
    """What the tick is about to send is not handed to other beats while it may still do so."""
    scheduler.store.add("a", "tests.note", Once(NOON))
    seen: list[Any] = []

    def on_publish(**_: Any) -> None:
        scheduler.close()
        other = Store(migrated_url)
        seen.extend((run.state, run.wake_at) for run in other.runs())
        seen.append(len(running_beats(other)))
        other.close()

    signals.before_task_publish.connect(on_publish)
    try:
        scheduler.tick()
    finally:
        signals.before_task_publish.disconnect(on_publish)
    ttl = timedelta(seconds=scheduler.store.settings.claim_ttl)
    assert seen == [("claimed", NOON + ttl), 1]
    assert len(memory_broker.drain()) == 1


@on_sqlite
def test_a_beat_ends_though_the_signals_exception_was_dropped(
    scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """Closed in the middle of a tick, it sends no other batch, whatever became of SystemExit."""
    for number in range(250):
        scheduler.store.add(f"a-{number}", "tests.note", Once(NOON))
    signals.before_task_publish.connect(lambda **_: scheduler.close(), weak=False, dispatch_uid="x")
    try:
        with pytest.raises(SystemExit):
            scheduler.tick()
        with pytest.raises(SystemExit):
            scheduler.tick()
    finally:
        signals.before_task_publish.disconnect(dispatch_uid="x")
    assert len(memory_broker.drain()) == 100


# -- under celery's service ----------------------------------------------------------------


@pytest.fixture
def service(app: Celery) -> beat.Service:
    """Return celery's service around our scheduler, ticking quickly and without remote control."""
    app.conf.beatstore_listen = False
    arguments = {"scheduler_cls": "beatstore:DBScheduler", "max_interval": 0.05}
    try:
        return beat.Service(app, remote_control=False, **arguments)
    except TypeError:  # celery 5.6 has no remote control of beat
        return beat.Service(app, **arguments)


def serve(service: beat.Service, *, until: Callable[[], object]) -> None:
    """Run a service in a thread until something has become true, and stop it."""
    thread = threading.Thread(target=service.start, daemon=True)
    thread.start()
    try:
        wait_until(until, 20, "the service to do its work")
    finally:
        service.stop(wait=True)
        thread.join(20)
    assert not thread.is_alive()


def test_the_service_sends_and_stops(
    service: beat.Service, memory_broker: Broker, store: Store, migrated_url: str
) -> None:
    """Celery's loop around the scheduler sends what is due, and `stop` ends it cleanly."""
    store.add("a", "tests.note", Once(NOON))
    serve(service, until=memory_broker.count)
    assert names(memory_broker.drain()) == ["a"]
    assert running_beats(store) == []
    assert "producer" not in vars(service.scheduler)


def test_a_broken_receiver_of_beat_init_changes_nothing(
    service: beat.Service, memory_broker: Broker, store: Store
) -> None:
    """Beat does its work whatever other packages do, or break, when it starts."""
    seen: list[Any] = []

    def on_init(sender: beat.Service, **_: Any) -> None:
        seen.extend([sender.scheduler.max_interval, *sender.scheduler.schedule.items()])
        raise RuntimeError("a monitor that does not work")

    store.add("a", "tests.note", Once(NOON))
    signals.beat_init.connect(on_init)
    try:
        serve(service, until=memory_broker.count)
    finally:
        signals.beat_init.disconnect(on_init)
    assert seen == [0.05]


@on_sqlite
def test_a_tick_replaced_on_the_instance_is_called(
    service: beat.Service, memory_broker: Broker, store: Store
) -> None:
    """A health check that puts its own `tick` on the scheduler is called, and calls ours."""
    ticks: list[float] = []
    original = service.scheduler.tick

    def tick(*args: Any, **kwargs: Any) -> float:
        ticks.append(original(*args, **kwargs))
        return ticks[-1]

    service.scheduler.tick = tick
    store.add("a", "tests.note", Once(NOON))
    serve(service, until=memory_broker.count)
    assert 0 in ticks


@on_sqlite
@pytest.mark.skipif(
    celery.VERSION < (5, 7), reason="celery 5.6 pickles its service without the app"
)
def test_the_service_can_be_pickled(service: beat.Service) -> None:
    """`worker -B` hands the service to a process that is spawned, before a scheduler is made."""
    copy = pickle.loads(pickle.dumps(service))
    assert copy.scheduler_cls == "beatstore:DBScheduler"
    assert copy.max_interval == 0.05


@on_sqlite
def test_embedded_in_a_thread(app: Celery, memory_broker: Broker, store: Store) -> None:
    """`worker -B` with threads makes the service in one thread and runs it in another."""
    store.add("a", "tests.note", Once(NOON))
    embedded = beat.EmbeddedService(app, thread=True, scheduler_cls="beatstore:DBScheduler")
    embedded.start()
    try:
        wait_until(memory_broker.count, 20, "a message")
    finally:
        embedded.stop()
        embedded.join(20)
    assert names(memory_broker.drain()) == ["a"]
    assert embedded.service.scheduler.max_interval == 1
    assert running_beats(store) == []
