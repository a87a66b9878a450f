"""Fixtures. What they hand out is described in `tests.support`.

    backend           "sqlite", "postgresql" or "mariadb": the test runs on each
    database_url      an empty database of that backend, gone after the test
    migrated_url      the same with beatstore's tables
    proxy             a relay to that database, where it is PostgreSQL
    store             a `beatstore.Store` on it; where the test is `by_clock`, at the time of
                      `clock`; where it is `of_app`, the one that the tasks of `app` use
    clock             a manual clock
    broker            "redis", "rabbitmq" or "filesystem": the test runs on each
    redis_broker, rabbitmq_broker, filesystem_broker, memory_broker   one of them
    app               an app of this process with the task `tests.note`, on the memory broker
    scheduler         celery's beat for `app`, at the time of `clock`; the test ticks it
    pauses            the waits between two tries to reach a broker, which are left out
    new_project       starts real beats and workers
    private_postgresql, private_mariadb, private_redis, private_rabbitmq
                      servers of the test's own, to stop and kill

The marks of `tests.support.marks`, such as `on_postgresql`, keep a test to some backends, and
`--backends` and `--brokers` a whole run.

`make test` leaves out what is marked `thorough`; see `tests.support.thorough` for the marks
`every_database`, `any_database`, `quick_on`, `by_turns` and `heavy`.
"""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import weakref
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pytest
from celery import _state
from celery import signals as celery_signals
from celery.app import builtins
from celery.utils.dispatch import Signal
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from sqlalchemy import Engine, event, make_url

from beatstore import appconf
from tests.support.absent import Unavailable, absent
from tests.support.broker_servers import PrivateRabbitMQ, PrivateRedis
from tests.support.brokers import BROKERS, Broker, BrokerSource, open_broker
from tests.support.compiled import share
from tests.support.database_servers import PrivateMariaDB, PrivatePostgreSQL
from tests.support.databases import BACKENDS, DatabaseServer, found_here, open_database_server
from tests.support.project import NewProject, Project
from tests.support.proxy import Proxy
from tests.support.servers import PrivateServer
from tests.support.thorough import (
    THOROUGH,
    leave_for_thorough,
    leave_repeats,
    params_of,
    skip_if_time_is_over,
    tries,
)

if TYPE_CHECKING:
    from celery import Celery

    from beatstore import Store
    from beatstore.beat.scheduler import DBScheduler
    from beatstore.clock import ManualClock

T = TypeVar("T")
S = TypeVar("S", bound=PrivateServer)

_HERE = Path(__file__).parent

_SIGNALS = [one for one in vars(celery_signals).values() if isinstance(one, Signal)]

#: What makes celery's own tasks, such as `celery.chain`, in each app.
_BUILTIN = {getattr(builtins, name) for name in vars(builtins) if name.startswith("add_")}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that narrow a run."""
    group = parser.getgroup("beatstore")
    group.addoption("--backends", default=",".join(BACKENDS), help="databases, comma separated")
    group.addoption("--brokers", default=",".join(BROKERS), help="brokers, comma separated")


def pytest_configure() -> None:
    """End in order on SIGTERM too, so that what was started or made does not stay behind."""
    main = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() == main:
            raise KeyboardInterrupt
        os._exit(128 + number)  # a child that was forked inherits the handler

    signal.signal(signal.SIGTERM, end)
    # How long something takes is the machine's affair here; other tests look at what things cost.
    unhurried = hypothesis_settings(
        max_examples=tries(100), deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    hypothesis_settings.register_profile("beatstore", unhurried)
    hypothesis_settings.load_profile("beatstore")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their directory and turn, and leave out what the options leave out."""
    wanted = {name: config.getoption(f"--{name}s").split(",") for name in ("backend", "broker")}
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        directory = item.path.relative_to(_HERE).parts[0]
        if directory in ("e2e", "fault"):
            item.add_marker(directory)
        params = params_of(item)
        fits = all(params[name] in wanted[name] for name in wanted if name in params)
        (kept if fits else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
    if THOROUGH:
        leave_repeats(items)
        leave_for_thorough(items, found_here(), "later")
    else:
        leave_for_thorough(items, found_here())


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what there is no time for."""
    skip_if_time_is_over(item)


def pytest_collection_finish() -> None:
    """Let the garbage collector leave alone what lives to the end: a tenth of the run's time."""
    gc.collect()
    gc.freeze()


class _Found(Generic[T]):
    """What was found or started in this session; each thing is looked for once."""

    def __init__(self, look_for: Callable[[str], T]) -> None:
        self._look_for = look_for
        self._found: dict[str, T | Unavailable] = {}

    def get(self, name: str) -> T:
        """Return it, or skip the test."""
        if name not in self._found:
            try:
                self._found[name] = self._look_for(name)
            except Unavailable as reason:
                self._found[name] = reason
        found = self._found[name]
        if isinstance(found, Unavailable):
            absent(name, found)
        return found

    def all(self) -> list[T]:
        """Return all that were found."""
        return [found for found in self._found.values() if not isinstance(found, Unavailable)]


@pytest.fixture(scope="session", autouse=True)
def _run_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the pulses of the beats of tests, which may be killed, out of the user's own place."""
    os.environ["BEATSTORE_RUN_DIR"] = str(tmp_path_factory.mktemp("pulses"))


@pytest.fixture(scope="session")
def _database_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Found[DatabaseServer]]:
    directory = tmp_path_factory.mktemp("databases")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    found = _Found(lambda name: open_database_server(name, directory, worker))
    yield found
    for server in found.all():
        server.close()


@pytest.fixture(scope="session")
def _broker_sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Found[BrokerSource]]:
    directory = tmp_path_factory.mktemp("brokers")
    found = _Found(lambda name: open_broker(name, directory))
    yield found
    for source in found.all():
        source.close()


@pytest.fixture(autouse=True)
def _own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the apps that a test makes no tasks that other tests have declared for all apps."""
    monkeypatch.setattr(_state, "_on_app_finalizers", {*_BUILTIN})


@pytest.fixture(autouse=True)
def _own_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare the settings of a test's stores with its own apps: those of others may live on."""
    monkeypatch.setattr(appconf, "_apps", weakref.WeakSet())


@pytest.fixture(autouse=True)
def _own_receivers() -> Iterator[None]:
    """Disconnect from celery's signals what a test has connected: a weak one may live on."""
    before = {one: [*one.receivers] for one in _SIGNALS}
    yield
    for one, receivers in before.items():
        if one.receivers != receivers:
            one.receivers[:] = receivers
            vars(one)["sender_receivers_cache"].clear()


@pytest.fixture(scope="session", autouse=True)
def _hurried() -> Iterator[None]:
    """Let SQLite not wait for the disk: no test cuts the machine's power."""

    def hurry(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", hurry)
    yield
    event.remove(Engine, "connect", hurry)


@pytest.fixture(scope="session", autouse=True)
def _compiled_once() -> Iterator[None]:
    """Compile a statement once for all tests of this process."""
    with pytest.MonkeyPatch.context() as patch:
        share(patch)
        yield


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Name the database that the test runs on."""
    return str(request.param)


@pytest.fixture
def database_server(backend: str, _database_servers: _Found[DatabaseServer]) -> DatabaseServer:
    """Hand out the server, for tests that need several databases."""
    return _database_servers.get(backend)


@pytest.fixture
def database_url(database_server: DatabaseServer) -> Iterator[str]:
    """Hand out an empty database."""
    url = database_server.create()
    yield url
    database_server.drop(url)


@pytest.fixture
def migrated_url(database_server: DatabaseServer) -> Iterator[str]:
    """Hand out a database with beatstore's tables and no rows."""
    url = database_server.create_migrated()
    yield url
    database_server.drop(url)


@pytest.fixture
def store(request: pytest.FixtureRequest, migrated_url: str) -> Iterator[Store]:
    """Hand out a store on a new database."""
    from beatstore import Store
    from beatstore.store.shared import store_of

    if request.node.get_closest_marker("of_app") is not None:
        yield store_of(request.getfixturevalue("app"))
        return
    by_clock = request.node.get_closest_marker("by_clock") is not None
    store = Store(migrated_url, clock=request.getfixturevalue("clock") if by_clock else None)
    yield store
    store.close()


@pytest.fixture
def proxy(migrated_url: str) -> Iterator[Proxy]:
    """Hand out a relay to the PostgreSQL of `migrated_url`, which can be cut and be silent."""
    with Proxy(make_url(migrated_url).port or 5432) as proxy:
        yield proxy


@pytest.fixture
def clock() -> ManualClock:
    """Hand out a clock that stands at noon of a quiet day, UTC."""
    from beatstore.clock import ManualClock

    return ManualClock(datetime(2026, 1, 15, 12, tzinfo=timezone.utc))


def _new_broker(sources: _Found[BrokerSource], name: str) -> Iterator[Broker]:
    source = sources.get(name)
    broker = source.broker()
    yield broker
    source.clean(broker)


@pytest.fixture(params=BROKERS)
def broker(
    request: pytest.FixtureRequest, _broker_sources: _Found[BrokerSource]
) -> Iterator[Broker]:
    """Hand out a broker of each kind that real processes can talk over."""
    yield from _new_broker(_broker_sources, request.param)


@pytest.fixture
def redis_broker(_broker_sources: _Found[BrokerSource]) -> Iterator[Broker]:
    """Hand out an empty Redis or Valkey database."""
    yield from _new_broker(_broker_sources, "redis")


@pytest.fixture
def rabbitmq_broker(_broker_sources: _Found[BrokerSource]) -> Iterator[Broker]:
    """Hand out RabbitMQ, with a queue of the test's own."""
    yield from _new_broker(_broker_sources, "rabbitmq")


@pytest.fixture
def filesystem_broker(_broker_sources: _Found[BrokerSource]) -> Iterator[Broker]:
    """Hand out a directory that messages lie in."""
    yield from _new_broker(_broker_sources, "filesystem")


@pytest.fixture
def memory_broker(_broker_sources: _Found[BrokerSource]) -> Iterator[Broker]:
    """Hand out a broker for apps of this process."""
    yield from _new_broker(_broker_sources, "memory")


@pytest.fixture
def app(memory_broker: Broker, migrated_url: str) -> Iterator[Celery]:
    """Hand out an app with the task `tests.note`, and no clean-up of celery's own."""
    from tests.support.harness.inprocess import note_app

    app = note_app(memory_broker, migrated_url, result_expires=None)
    yield app
    app.close()


@pytest.fixture
def scheduler(app: Celery, clock: ManualClock) -> Iterator[DBScheduler]:
    """Hand out a beat of `app` at the time of `clock`, which waits for nobody in its tick."""
    from tests.support.harness.inprocess import at_clock, running

    app.conf.beatstore_listen = False
    with running(app) as scheduler:
        yield at_clock(scheduler, clock)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Hand out the seconds for which kombu wanted to wait between two tries; it waits for none."""
    wanted: list[float] = []
    monkeypatch.setattr("kombu.utils.functional.sleep", wanted.append)
    return wanted


@pytest.fixture
def new_project(tmp_path: Path) -> Iterator[NewProject]:
    """Hand out `new_project(broker, database_url, settings=None, app=…)`, a `Project`."""
    made: list[Project] = []

    def new(
        broker: Broker,
        database_url: str | None,
        settings: Mapping[str, Any] | None = None,
        app: str = "tests.support.app",
    ) -> Project:
        directory = tmp_path / f"project-{len(made)}"
        directory.mkdir()
        made.append(Project(directory, broker, database_url, settings, app))
        return made[-1]

    yield new
    for project in made:
        project.close()


def _private(name: str, make: Callable[[], S]) -> Iterator[S]:
    try:
        server = make()
    except Unavailable as reason:
        absent(name, reason)
    with server:
        try:
            server.start()
        except Unavailable as reason:
            absent(name, reason)
        yield server


@pytest.fixture
def private_postgresql() -> Iterator[PrivatePostgreSQL]:
    """Hand out a running PostgreSQL of the test's own."""
    yield from _private("postgresql", PrivatePostgreSQL)


@pytest.fixture
def private_mariadb() -> Iterator[PrivateMariaDB]:
    """Hand out a running MariaDB of the test's own."""
    yield from _private("mariadb", PrivateMariaDB)


@pytest.fixture
def private_redis() -> Iterator[PrivateRedis]:
    """Hand out a running Redis or Valkey of the test's own."""
    yield from _private("redis", PrivateRedis)


@pytest.fixture
def private_rabbitmq() -> Iterator[PrivateRabbitMQ]:
    """Hand out a running RabbitMQ of the test's own."""
    yield from _private("rabbitmq", PrivateRabbitMQ)
