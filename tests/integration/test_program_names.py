"""What the server calls our connections: those of beats, workers and applications differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import click
import pytest
from celery import Celery
from sqlalchemy import Engine, make_url, text

from beatstore import DBScheduler, Store
from beatstore.cli import beatstore
from beatstore.cli.context import open_store
from beatstore.config import Settings
from beatstore.worker.tracker import OwnReports
from tests.support.absent import Unavailable, absent
from tests.support.database_servers import PrivateMariaDB
from tests.support.marks import on_postgresql

pytestmark = pytest.mark.filterwarnings("ignore:.*ssl:DeprecationWarning")

ASKED = {
    "postgresql": "SHOW application_name",
    "mysql": "SELECT attr_value FROM performance_schema.session_connect_attrs "
    "WHERE processlist_id = connection_id() AND attr_name = 'program_name'",
}


def name_of(engine: Engine) -> Any:
    """Return what the server calls a connection of this engine."""
    with engine.connect() as connection:
        return connection.scalar(text(ASKED[engine.dialect.name]))


def of_a_store(url: str) -> Any:
    with closing(Store(url)) as store:
        return name_of(store.database.engine)


def of_a_beat(url: str) -> Any:
    app: Any = Celery("names", broker="memory://", set_as_current=False)
    app.conf.beatstore_url = url
    with app:
        scheduler = DBScheduler(app, lazy=True)
        try:
            return name_of(scheduler.store.database.engine)
        finally:
            scheduler.close()


def of_a_worker(url: str) -> Any:
    reports = OwnReports(Settings.read({"beatstore_url": url}))
    with closing(reports):
        return name_of(reports._own.engine)


def of_a_verb(url: str) -> Any:
    with click.Context(beatstore) as context:
        context.params = {"url": url}
        return name_of(open_store(context).database.engine)


WHO = {
    "beatstore": of_a_store,
    "beatstore-beat": of_a_beat,
    "beatstore-worker": of_a_worker,
    "beatstore-cli": of_a_verb,
}


LIBPQ = ["psycopg", "psycopg2"]


@pytest.fixture(params=[*LIBPQ, "pg8000"])
def url(request: pytest.FixtureRequest, migrated_url: str) -> str:
    """Hand out the database with each driver."""
    pytest.importorskip(request.param)
    made = make_url(migrated_url).set(drivername=f"postgresql+{request.param}")
    return made.render_as_string(hide_password=False)


@on_postgresql
def test_each_half_has_a_name(url: str) -> None:
    """In pg_stat_activity beats, workers, the command line and applications are told apart."""
    assert {name: ask(url) for name, ask in WHO.items()} == {name: name for name in WHO}


def by_url(url: str, name: str) -> Store:
    made = make_url(url).update_query_dict({"application_name": name})
    return Store(made)


def by_the_engine(url: str, name: str) -> Store:
    return Store(url, engine_options={"connect_args": {"application_name": name}})


@on_postgresql
@pytest.mark.parametrize("way", [by_url, by_the_engine])
def test_the_users_own_name_counts(url: str, way: Callable[[str, str], Store]) -> None:
    """Who names the connections, in the URL or in engine_options, finds them under that name."""
    with closing(way(url, "mine")) as store:
        assert name_of(store.database.engine) == "mine"


@on_postgresql
@pytest.mark.parametrize("url", LIBPQ, indirect=True)
def test_what_libpq_reads_counts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGAPPNAME and the parameter `options` hold names of the user's own as well."""
    option = {"options": "-c application_name=mine"}
    with closing(Store(make_url(url).update_query_dict(option))) as store:
        assert name_of(store.database.engine) == "mine"
    monkeypatch.setenv("PGAPPNAME", "theirs")
    assert of_a_beat(url) == "theirs"


@pytest.fixture(scope="module")
def telling_mariadb() -> Iterator[str]:
    """Hand out a server that tells its connections' attributes, which MariaDB does on request."""
    try:
        server = PrivateMariaDB("--performance-schema=ON")
    except Unavailable as reason:
        absent("mariadb", reason)
    with server:
        server.start()
        yield server.url


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["pymysql", "mysqlconnector"])
def test_mysql_is_told_too(telling_mariadb: str, driver: str) -> None:
    """The attribute program_name tells beats, workers and applications apart on MySQL."""
    pytest.importorskip({"mysqlconnector": "mysql.connector"}.get(driver, driver))
    url = make_url(telling_mariadb).set(drivername=f"mysql+{driver}")
    shown = url.render_as_string(hide_password=False)
    assert {name: ask(shown) for name, ask in WHO.items()} == {name: name for name in WHO}
    if driver == "pymysql":
        assert of_a_beat(f"{shown}?program_name=mine") == "mine"
