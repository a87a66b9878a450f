"""Settings of servers and sessions: none of them changes what is stored or read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import create_engine, event, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from beatstore import Store
from beatstore.models import EntryModel
from beatstore.tick.queue import Queue
from tests.support.databases import DatabaseServer
from tests.support.harness.ticks import tick
from tests.support.marks import on_mariadb, on_postgresql

pytestmark = pytest.mark.every_database

UTC = timezone.utc


#: What administrators set for a server, a database or a role.
ODD = {
    "TimeZone": "Asia/Tokyo",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "default_transaction_isolation": "serializable",
    "standard_conforming_strings": "off",
    "extra_float_digits": "-3",
    "client_encoding": "latin1",
}

INSTANTS = (
    datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
    datetime(2027, 3, 4, 5, 6, tzinfo=UTC),
    datetime(2027, 3, 4, 5, 6, 7, 120000, UTC),
    datetime(2027, 12, 31, 23, 0, tzinfo=UTC),
)

DRIVERS = ("psycopg", "psycopg2", "pg8000")


@pytest.fixture
def odd_url(database_server: DatabaseServer) -> Iterator[str]:
    """Hand out a database with beatstore's tables, under odd settings."""
    url = database_server.create()
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    name = make_url(url).database
    with engine.connect() as connection:
        for setting, value in ODD.items():
            quoted = value if "," in value else f"'{value}'"
            connection.execute(text(f'ALTER DATABASE "{name}" SET {setting} = {quoted}'))
    engine.dispose()
    with closing(Store(url)) as store:
        store.migrate()
    yield url
    database_server.drop(url)


def with_driver(url: str, driver: str) -> str:
    made = make_url(url).set(drivername=f"postgresql+{driver}")
    return made.render_as_string(hide_password=False)


@on_postgresql
@pytest.mark.by_turns("at")
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("at", INSTANTS, ids=str)
def test_instants_on_postgresql(odd_url: str, driver: str, at: datetime) -> None:
    """An instant comes back as it was given: to the store, in a user's session, in their query."""
    pytest.importorskip(driver)
    url = with_driver(odd_url, driver)
    with closing(Store(url)) as store:
        store.put("own", "t", at, end_at=INSTANTS[0], description="grün")
        own = store.get("own")
        assert (own.next_due_at, own.end_at, own.description) == (at, INSTANTS[0], "grün")
        engine = create_engine(url)
        with Session(engine) as session:
            store.put("theirs", "t", at, session=session)
            assert store.get("theirs", session=session).next_due_at == at
            asked = select(EntryModel.next_due_at, EntryModel.created_at).where(
                EntryModel.next_due_at == at
            )
            rows = session.execute(asked).all()
            assert [row.next_due_at for row in rows] == [at, at]
            assert all(store.now() - row.created_at < timedelta(minutes=5) for row in rows)
            session.commit()
        engine.dispose()
        assert store.get("theirs").next_due_at == at


@on_postgresql
@pytest.mark.by_turns("at")
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("at", INSTANTS, ids=str)
def test_instants_of_async_sessions(odd_url: str, driver: str, at: datetime) -> None:
    """In a user's asyncio session too; asyncpg would make `infinity` of the last instant."""
    pytest.importorskip(driver)

    async def put() -> None:
        engine = create_async_engine(with_driver(odd_url, driver))
        async with AsyncSession(engine) as session:
            await session.run_sync(lambda sync: store.put("a", "t", at, session=sync))
            found = await session.run_sync(lambda sync: store.get("a", session=sync))
            await session.commit()
        await engine.dispose()
        assert found.next_due_at == at

    with closing(Store(odd_url)) as store:
        asyncio.run(put())
        assert store.get("a").next_due_at == at


@on_postgresql
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_tick_under_odd_settings(odd_url: str, driver: str) -> None:
    """An entry that goes on to the end of year 9999 is sent, and stays active."""
    pytest.importorskip(driver)
    with closing(Store(with_driver(odd_url, driver))) as store:
        store.put("a", "t", timedelta(milliseconds=100), end_at=INSTANTS[0], overlap="skip")
        store.put("b", "t", after=["a"])
        with closing(Queue(store.database, store.settings, "b1")) as queue:
            while not tick(queue):
                pass
        assert store.get("a").state == "active"
        runs = store.runs("a")
        assert all(run.due_at <= store.now() for run in runs)
        # On a slow machine the next one is due by now, and is skipped for its overlap.
        assert runs[-1].state == "sent"


@pytest.mark.parametrize("at", INSTANTS, ids=str)
def test_instants_on_every_database(store: Store, at: datetime) -> None:
    """An instant comes back to the microsecond, on every database."""
    store.put("a", "t", at, end_at=INSTANTS[0])
    found = store.get("a")
    assert (found.next_due_at, found.end_at) == (at, INSTANTS[0])


@on_mariadb
@pytest.mark.parametrize("mode", ["", "ANSI_QUOTES,PIPES_AS_CONCAT", "ORACLE", "TRADITIONAL"])
def test_modes_of_mariadb(migrated_url: str, mode: str) -> None:
    """Neither the SQL mode, nor the zone or the isolation of a session matters."""
    engine = create_engine(migrated_url)

    def odd(connection: Any, record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("SET SESSION time_zone = '+09:00', tx_isolation = 'SERIALIZABLE'")
        cursor.execute(f"SET SESSION sql_mode = '{mode}'")
        cursor.close()

    event.listen(engine, "connect", odd, insert=True)
    store = Store(engine)
    with closing(Queue(store.database, store.settings, "b1")) as queue:
        store.put("a", "t", timedelta(milliseconds=100), description='it\'s "so" \\ grün')
        store.put("b", "t", INSTANTS[2])
        while not tick(queue):
            pass
        assert store.get("a").description == 'it\'s "so" \\ grün'
        assert store.get("b").next_due_at == INSTANTS[2]
        assert abs(store.runs("a")[0].due_at - store.now()) < timedelta(minutes=5)
    engine.dispose()


@on_mariadb
def test_values_are_not_cut(migrated_url: str) -> None:
    """On connections of its own beatstore has values refused that the server would cut."""
    with closing(Store(migrated_url)) as store, store.database.engine.connect() as connection:
        assert "STRICT_TRANS_TABLES" in str(connection.scalar(text("SELECT @@sql_mode")))


@on_mariadb
@pytest.mark.parametrize("charset", ["utf8", "utf8mb3", "UTF8"])
def test_a_url_with_a_narrow_charset_loses_nothing(migrated_url: str, charset: str) -> None:
    """`utf8` is of three bytes there; an emoji came back as `?`, and an error with one was lost."""
    url = make_url(migrated_url).update_query_dict({"charset": charset})
    with closing(Store(url)) as store:
        store.add("a 😀", "t", 60, description="😀")
        assert store.get("a 😀").description == "😀"
