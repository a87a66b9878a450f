"""How celery makes and runs the scheduler: its arguments, its banner and its service."""

from __future__ import annotations

import math
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import celery
import pytest
from celery import Celery, beat, signals
from celery.apps.beat import Beat

from beatstore import Once, Store
from beatstore.beat import scheduler as scheduler_module
from beatstore.beat.scheduler import TOGETHER_S, DBScheduler
from beatstore.clock import ManualClock
from tests.support.brokers import Broker
from tests.support.ear import Ear
from tests.support.harness.inprocess import NOWHERE, at_clock, names, new_app, running
from tests.support.harness.ticks import running_beats
from tests.support.marks import on_sqlite
from tests.support.wait import wait_until

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


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


def test_a_signal_that_is_dropped_while_beat_starts(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python drops an exception inside a destructor; beat ends at its first tick all the same."""

    def prepare(*_: object) -> None:
        # What celery's handler of SIGTERM does.
        with pytest.raises(SystemExit):
            DBScheduler(app=app, lazy=False)

    monkeypatch.setattr(scheduler_module, "prepare", prepare)
    scheduler = DBScheduler(app=app, lazy=False)
    with pytest.raises(SystemExit):
        scheduler.tick()
    scheduler.close()


def test_syncing_costs_nothing(memory_broker: Broker) -> None:
    """The calls celery makes after each sleep need no database, for nothing is in memory."""
    with running(new_app(memory_broker), lazy=True) as scheduler:
        assert scheduler.should_sync()
        scheduler._do_sync()
        assert not scheduler.should_sync()
        scheduler.sync()


@pytest.mark.parametrize("interval", [-5, math.inf, math.nan, "5"])
def test_a_longest_sleep_that_is_none_is_refused(app: Celery, interval: Any) -> None:
    """With a negative interval beat would ask the database without end, and never sleep."""
    with pytest.raises(SystemExit, match="beat_max_loop_interval: expected seconds"):
        DBScheduler(app=app, lazy=False, max_interval=interval)
    app.conf.beat_max_loop_interval = interval
    with pytest.raises(SystemExit, match="beat_max_loop_interval: expected seconds"):
        DBScheduler(app=app, lazy=False)


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
    assert min(ticks) < TOGETHER_S


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
