"""A store made from a Celery app: its settings are found however the app was configured."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from sqlalchemy import create_engine, inspect, make_url
from sqlalchemy.orm import Session

import beatstore
from beatstore import Store
from beatstore.config import Settings
from beatstore.errors import ConfigError, InvalidEntryError, ScheduleError, SchemaError
from tests.support.marks import on_mariadb, on_postgresql, on_servers

URL = "postgresql+psycopg://user:secret@db.example/app"


def from_conf(**conf: Any) -> Celery:
    """Return an app whose settings are set on its conf, one by one."""
    app = Celery("app", set_as_current=False)
    for key, value in conf.items():
        setattr(app.conf, key, value)
    return app


def from_update(**conf: Any) -> Celery:
    """Return an app whose conf is updated."""
    app = Celery("app", set_as_current=False)
    app.conf.update(conf)
    return app


def from_arguments(**conf: Any) -> Celery:
    """Return an app that is given its settings when it is made."""
    return Celery("app", set_as_current=False, **conf)


def from_object(**conf: Any) -> Celery:
    """Return an app configured from an object with lower-case names."""
    app = Celery("app", set_as_current=False)
    app.config_from_object(SimpleNamespace(**conf))
    return app


def from_namespace(**conf: Any) -> Celery:
    """Return an app configured as Django does it: upper-case names with a prefix."""
    app = Celery("app", set_as_current=False)
    names = {f"CELERY_{key.upper()}": value for key, value in conf.items()}
    app.config_from_object(SimpleNamespace(**names), namespace="CELERY")
    return app


def from_defaults(**conf: Any) -> Celery:
    """Return an app with other defaults."""
    app = Celery("app", set_as_current=False)
    app.add_defaults(conf)
    return app


WAYS = [from_conf, from_update, from_arguments, from_object, from_namespace, from_defaults]


@pytest.mark.parametrize("way", WAYS)
def test_the_settings_of_an_app_are_found(way: Any) -> None:
    """Each way to configure Celery is a way to configure beatstore."""
    app = way(beatstore_url=URL, beatstore_schema="beat", beatstore_batch_size=7)
    store = Store.from_app(app)
    assert store.settings.batch_size == 7
    assert store.database.schema == "beat"
    assert store.url == "postgresql+psycopg://user:***@db.example/app"
    assert store.database.url.password == "secret"


def test_an_engine_of_ones_own(tmp_path: Path) -> None:
    """With `engine=` the settings are the app's, and the connections are the application's."""
    engine = create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    zone = {"timezone": "Europe/Berlin", "beatstore_allowed_tasks": ["reports.*"]}
    app = from_conf(beatstore_url="sqlite:////nowhere/else.db", **zone)
    store = Store.from_app(app, engine=engine)
    store.migrate()
    assert store.database.engine is engine
    with Session(engine) as session:
        entry = store.add("a", "reports.build", "0 2 * * *", session=session)
        assert entry.timezone == "Europe/Berlin"
        with pytest.raises(InvalidEntryError, match="beatstore_allowed_tasks"):
            store.add("b", "shop.pay", 60, session=session)
        session.commit()
    assert inspect(engine).has_table("beatstore_entry")
    assert store.names() == ["a"]
    engine.dispose()


@pytest.fixture
def in_tokyo(tmp_path: Path) -> Iterator[Celery]:
    """Hand out an app that was set up, with settings of its own."""
    url = f"sqlite:///{tmp_path / 'app.db'}"
    app = from_conf(beatstore_url=url, timezone="Asia/Tokyo", beatstore_default_grace=5)
    app.main = f"shop of {tmp_path}"  # no other test's app is called so
    beatstore.setup(app)
    yield app
    app.close()


def test_whose_settings_a_store_has_is_said(
    in_tokyo: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    """A store without the settings of its database's app says so, once, when it is used."""
    url = in_tokyo.conf.beatstore_url
    engine = create_engine(url)
    for n in range(2):
        with closing(Store(engine)) as store:
            assert repr(store) == f"<Store {url}, default settings>"
            assert len(caplog.messages) == min(n, 1)
            store.migrate()
    (said,) = caplog.messages
    assert said == (
        f"<Store {url}, default settings>: the app {in_tokyo.main!r} has "
        "beatstore_default_timezone='Asia/Tokyo', beatstore_default_grace=5.0, which this store "
        "ignores; write Store.from_app(app), or Store.from_app(app, engine=engine)"
    )
    with closing(Store.from_app(in_tokyo, engine=engine)) as store:
        assert repr(store) == f"<Store {url}, settings of the app {in_tokyo.main!r}>"
        assert store.put("a", "t", "0 9 * * *").timezone == "Asia/Tokyo"
    engine.dispose()


def test_nothing_is_said_where_nothing_is_left_out(
    in_tokyo: Celery, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Settings that are given, or another database, are the caller's choice."""
    url = in_tokyo.conf.beatstore_url
    for store in (
        Store.from_app(in_tokyo),
        Store(url, settings=Settings()),
        Store(f"sqlite:///{tmp_path / 'other.db'}"),
    ):
        store.migrate()
        store.close()
    assert not caplog.messages


@on_postgresql
def test_a_store_that_looks_in_another_schema_says_so(migrated_url: str) -> None:
    """Where the app has a schema and the store does not, the error names what to write."""
    app = from_conf(beatstore_url=migrated_url, beatstore_schema="beat")
    beatstore.setup(app)
    with closing(Store.from_app(app)) as store:
        store.migrate()
        with store.database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE public.beatstore_entry RENAME TO aside")
    with (
        closing(Store(migrated_url)) as store,
        pytest.raises(SchemaError, match=r"beatstore_schema='beat'.*from_app\(app, engine=engine"),
    ):
        store.names()
    app.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_misspelt_setting_is_refused(way: Any) -> None:
    """An unknown beatstore_ key is an error that names the nearest, in each way."""
    with pytest.raises(ConfigError, match="write beatstore_batch_size"):
        Store.from_app(way(beatstore_url=URL, beatstore_bach_size=7))


@pytest.mark.parametrize("setting", ["claim_ttl", "retention", "heartbeat", "report_wait"])
@pytest.mark.parametrize("endless", [math.inf, 10**12, timedelta.max])
def test_a_time_without_end_is_refused(setting: str, endless: Any) -> None:
    """What is added to the time, or waited for, has an end: else entries and tasks would fail."""
    with pytest.raises(
        ConfigError, match=rf"beatstore_{setting}: .* to 3153600000, or a timedelta"
    ):
        Store.from_app(from_conf(beatstore_url=URL, **{f"beatstore_{setting}": endless}))


@pytest.mark.parametrize(
    "options",
    [
        {"nonsense": 1},
        {"poolclass": "NullPool"},
        {"pool_size": "x"},
        {"url": "x"},
        {"connect_args": None},
        {"connect_args": {"nonsense": 1}},
        {"isolation_level": "NONSENSE"},
    ],
)
def test_an_engine_option_that_is_wrong_is_refused(migrated_url: str, options: Any) -> None:
    """What create_engine or the driver does not take is an error of the settings, before a tick."""
    app = from_conf(beatstore_url=migrated_url, beatstore_engine_options=options)
    with closing(Store.from_app(app)) as store, pytest.raises(ConfigError) as refused:
        store.check()
    assert str(refused.value).count("engine_options") == 1


@on_servers
@pytest.mark.parametrize("wrong", [{"nonsense": "1"}, {"charset": "nonsense"}])
def test_a_parameter_of_the_url_that_is_wrong_is_refused(migrated_url: str, wrong: Any) -> None:
    """What the driver does not know of a URL is said in a line, without the password."""
    url = make_url(migrated_url).set(password="secret").update_query_dict(wrong)
    with closing(Store(url)) as store, pytest.raises(ConfigError, match="driver takes") as refused:
        store.check()
    assert "secret" not in str(refused.value)


@on_mariadb
def test_a_url_without_a_database_is_refused(migrated_url: str) -> None:
    """A server alone has no place for tables."""
    url = make_url(migrated_url).set(database="")
    with closing(Store(url)) as store, pytest.raises(ConfigError, match="names a database"):
        store.check()


def test_a_setting_given_twice_is_what_celery_says() -> None:
    """Where a key is both read from a file and set on the app, Celery's own lookup decides."""
    app = from_namespace(beatstore_batch_size=7)
    app.conf.beatstore_batch_size = 8
    assert Store.from_app(app).settings.batch_size == app.conf.beatstore_batch_size


@pytest.mark.parametrize(
    ("conf", "name"),
    [
        ({}, "UTC"),
        ({"timezone": "Europe/Berlin"}, "Europe/Berlin"),
        ({"timezone": ZoneInfo("Asia/Tokyo")}, "Asia/Tokyo"),
        ({"timezone": timezone.utc}, "UTC"),
        ({"timezone": "Europe/Berlin", "beatstore_default_timezone": "Asia/Tokyo"}, "Asia/Tokyo"),
    ],
)
def test_the_apps_zone_is_the_default_zone(conf: dict[str, Any], name: str) -> None:
    """Entries that name no zone are meant in that of the app, unless it is set."""
    assert Store.from_app(from_conf(**conf)).settings.default_timezone == name


def test_a_pytz_zone_has_a_name_too() -> None:
    """An app zone that keeps its name in `zone`, as pytz does, is understood."""
    app = Celery("paris", set_as_current=False)
    app.timezone = SimpleNamespace(zone="Europe/Paris")
    assert Store.from_app(app).settings.default_timezone == "Europe/Paris"


def test_a_zone_without_a_name_is_refused() -> None:
    """A host's own nameless zone can't be stored; the error names the setting to use."""
    app = SimpleNamespace(conf={}, timezone=object())
    with pytest.raises(ConfigError, match="beatstore_default_timezone"):
        Store.from_app(app)
    app = SimpleNamespace(conf={"beatstore_default_timezone": "Mars"}, timezone=object())
    with pytest.raises(ScheduleError):
        Store.from_app(app)


def test_a_store_needs_a_url() -> None:
    """What is no database URL is refused when the store is made, without the password."""
    for wrong in ("nonsense", "postgres+nothing://u:secret@h/d", 3):
        with pytest.raises(ConfigError) as caught:
            Store(wrong)  # type: ignore[arg-type]
        assert "secret" not in str(caught.value)


def test_every_public_name_is_there() -> None:
    """`from beatstore import *` works, and its names are sorted."""
    assert beatstore.__all__ == sorted(beatstore.__all__)
    for name in beatstore.__all__:
        assert getattr(beatstore, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        beatstore.Nothing  # noqa: B018


def test_importing_beatstore_is_light() -> None:
    """Neither celery nor SQLAlchemy's asyncio half is imported before it is needed."""
    code = (
        "import sys, beatstore; from beatstore import Store; Store('sqlite://');"
        "heavy = {'celery', 'kombu', 'alembic', 'sqlalchemy.ext.asyncio'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_a_default_that_would_skip_everything_is_refused() -> None:
    """Skipping whatever is late without any grace is an error at start, and not silence."""
    with pytest.raises(ConfigError, match="beatstore_default_grace"):
        Settings.read({"beatstore_default_misfire": "skip", "beatstore_default_grace": 0})
    assert Settings.read({"beatstore_default_grace": 0}).default_grace == 0
