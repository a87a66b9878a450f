"""The caller's transaction: joined by every method, committed and rolled back with theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Integer, String, create_engine, event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    scoped_session,
    sessionmaker,
)

from beatstore import Declared, Store
from beatstore.database.models import Base
from beatstore.errors import EntryExistsError, EntryNotFoundError, SessionError
from beatstore.models import EntryModel
from tests.support.marks import on_sqlite

UTC = timezone.utc
LATEST = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


class Shop(DeclarativeBase):
    """The caller's own tables."""


class Order(Shop):
    """A row of the caller's."""

    __tablename__ = "shop_order"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    number: Mapped[str] = mapped_column(String(20), unique=True)


@pytest.fixture
def engine(engine: Engine) -> Engine:
    """Return the caller's engine, on a database with their tables and ours."""
    Shop.metadata.create_all(engine)
    return engine


@pytest.fixture
def store(engine: Engine) -> Store:
    """Return a store on the caller's engine."""
    return Store(engine)


@pytest.fixture(params=["Session", "scoped_session"])
def session(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Any]:
    """Return a session as applications have them."""
    if request.param == "Session":
        with Session(engine) as session:
            yield session
        return
    scoped = scoped_session(sessionmaker(engine))
    yield scoped
    scoped.remove()


def allow_savepoints(engine: Engine) -> None:
    """Do what SQLAlchemy's documentation says is needed for savepoints on SQLite."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda driver, _: setattr(driver, "isolation_level", None))
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        engine.dispose()


def names(store: Store) -> list[str]:
    """Return the names of the committed entries."""
    return [entry.name for entry in store.entries()]


def test_the_business_row_and_the_schedule_commit_together(store: Store, session: Any) -> None:
    """Before the caller's commit nobody sees the entry; after it everybody does."""
    order = Order(number="1")
    session.add(order)
    session.flush()
    entry = store.schedule("remind", countdown=60, name="a", session=session)
    assert entry.id
    assert store.get("a", session=session).id == entry.id
    if store.database.engine.dialect.name != "sqlite":
        assert names(store) == []
    session.commit()
    assert names(store) == ["a"]
    assert session.get(Order, order.id).number == "1"


def test_a_rollback_undoes_everything(store: Store, session: Any) -> None:
    """Whatever was done in the caller's transaction is gone with their rollback."""
    store.add("kept", "t", 60, tags=["x"])
    before = store.get("kept")
    session.add(Order(number="1"))
    session.flush()
    store.add("a", "t", 60, session=session)
    store.put("b", "t", 60, session=session)
    store.schedule("t", at=LATEST, session=session)
    store.change("kept", new_name="other", schedule=30, tags=["y"], session=session)
    store.pause("other", session=session)
    store.trigger("other", session=session)
    store.cancel("b", session=session)
    store.remove("a", session=session)
    store.prune(0, session=session)
    session.rollback()
    assert names(store) == ["kept"]
    after = store.get("kept")
    assert (after.version, after.wake_at, after.spec) == (before.version, before.wake_at, "60")
    assert store.get("kept").tags == ("x",)
    assert store.runs() == []
    assert session.query(Order).count() == 0


def test_every_method_takes_part(store: Store, session: Any) -> None:
    """All methods see what the caller's transaction did before, and are committed with it."""
    store.add("a", "t", 60, tags=["x"], session=session)
    store.put("a", "t", 30, tags=["y"], session=session)
    store.change("a", description="d", session=session)
    store.pause("a", session=session)
    store.resume("a", session=session)
    assert store.pause_many(["a"], session=session).states == {"a": "paused"}
    assert store.resume_many(["a"], session=session).states == {"a": "active"}
    run = store.trigger("a", session=session)
    name = store.schedule("t", at=LATEST, session=session).name
    assert store.add_many([Declared("b", "t", 60)], session=session).names == ("b",)
    store.remove("b", session=session)
    assert store.reschedule(name, LATEST - timedelta(days=1), session=session)
    assert store.cancel(name, session=session)
    assert [entry.name for entry in store.entries(tag="y", session=session)] == ["a"]
    assert store.get("a", session=session).tags == ("y",)
    assert [item.id for item in store.runs("a", session=session)] == [run.id]
    assert store.preview("a", session=session)
    assert store.status(session=session).entries == {"active": 1, "cancelled": 1}
    assert store.prune(timedelta(days=1), session=session) == 0
    session.commit()
    assert store.get("a").description == "d"
    store.remove("a", session=session)
    session.commit()
    assert names(store) == [name]


def test_a_refusal_leaves_the_transaction_usable(store: Store, session: Any) -> None:
    """An EntryExistsError or EntryNotFoundError does not end the caller's transaction."""
    store.add("a", "t", 60)
    store.add("b", "t", 60)
    session.add(Order(number="1"))
    session.flush()
    with pytest.raises(EntryExistsError):
        store.add("a", "t", 60, session=session)
    with pytest.raises(EntryExistsError):
        store.change("b", new_name="a", session=session)
    with pytest.raises(EntryNotFoundError):
        store.get("c", session=session)
    store.add("c", "t", 60, session=session)
    session.commit()
    assert names(store) == ["a", "b", "c"]
    assert session.query(Order).count() == 1


def test_a_savepoint_of_the_callers_can_be_rolled_back(store: Store, engine: Engine) -> None:
    """What was done inside a savepoint goes with it; the rest of the transaction stays."""
    allow_savepoints(engine)
    with Session(engine) as session:
        store.add("a", "t", 60, session=session)
        savepoint = session.begin_nested()
        store.add("b", "t", 60, session=session)
        store.change("a", new_name="c", session=session)
        savepoint.rollback()
        session.commit()
    assert names(store) == ["a"]
    assert store.add("b", "t", 60).name == "b"


def test_the_callers_pending_objects_are_left_alone(store: Store, session: Any) -> None:
    """A half-built object of the caller's is not flushed by a call of ours."""
    half_built = Order()
    session.add(half_built)
    store.add("a", "t", 60, session=session)
    store.change("a", new_name="b", session=session)
    store.put("b", "t", 30, session=session)
    assert half_built in session.new
    half_built.number = "1"
    session.commit()
    assert names(store) == ["b"]


def test_entries_stay_readable_after_the_callers_commit(store: Store, session: Any) -> None:
    """A returned entry is a snapshot: commit and rollback of the session do not expire it."""
    entry = store.add("a", "t", 60, session=session)
    run = store.trigger("a", session=session)
    session.commit()
    assert (entry.name, run.entry_name) == ("a", "a")
    assert not list(session)


def test_an_own_object_of_the_caller_is_not_touched(store: Store, session: Any) -> None:
    """An Entry that the caller holds keeps its unflushed edit, and sees ours when refreshed."""
    store.add("a", "t", 60)
    mine = session.query(EntryModel).filter_by(name="a").one()
    mine.description = "mine"
    store.change("a", grace=5, session=session)
    assert mine.description == "mine"
    session.commit()
    assert (mine.description, mine.grace_s) == ("mine", 5.0)


def test_a_callers_error_is_the_drivers(store: Store, session: Any) -> None:
    """An error of the caller's own statement passes through unchanged."""
    session.add_all([Order(number="1"), Order(number="1")])
    store.add("a", "t", 60, session=session)
    with pytest.raises(IntegrityError):
        session.commit()
    session.rollback()
    assert names(store) == []


def test_a_session_may_be_bound_by_table(store: Store, engine: Engine) -> None:
    """A session without a default database is asked where beatstore's tables are."""
    factory = sessionmaker(binds={Base: engine, Shop: engine})
    with factory() as session:
        store.add("a", "t", 60, tags=["x"], session=session)
        store.put("a", "t", 30, session=session)
        store.change("a", new_name="b", session=session)
        store.trigger("b", session=session)
        assert store.status(session=session).entries == {"active": 1}
        session.commit()
    assert names(store) == ["b"]


def test_a_session_on_a_connection_is_joined(store: Store, engine: Engine) -> None:
    """The session of a test suite that rolls back an outer transaction works as well."""
    allow_savepoints(engine)
    with engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            store.add("a", "t", 60, session=session)
            session.commit()
            assert store.get("a", session=session).name == "a"
        outer.rollback()
    assert names(store) == []


def test_another_driver_or_engine_for_the_same_database_is_accepted(
    migrated_url: str, engine: Engine
) -> None:
    """What counts is the database, not the engine object."""
    store = Store(migrated_url)
    with Session(engine) as session:
        store.add("a", "t", 60, session=session)
        session.commit()
    assert names(store) == ["a"]
    store.close()


@on_sqlite
def test_a_session_of_another_database_is_refused(store: Store, tmp_path: Path) -> None:
    """Rows in a database that beat never reads would be lost; the error names both."""
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    calls: list[Callable[[Session], object]] = [
        lambda session: store.add("a", "t", 60, session=session),
        lambda session: store.get("a", session=session),
        lambda session: store.prune(session=session),
    ]
    for call in calls:
        with Session(other) as session, pytest.raises(SessionError, match=r"other\.db"):
            call(session)
    for wrong in (other, "session", object()):
        with pytest.raises(SessionError, match="expected an SQLAlchemy session"):
            store.entries(session=wrong)
    other.dispose()


# -- asyncio ---------------------------------------------------------------------------


@on_sqlite
def test_an_async_session_is_joined_through_run_sync(store: Store, migrated_url: str) -> None:
    """Under AsyncSession.run_sync all is as with a Session, with no lazy loading afterwards."""
    pytest.importorskip("aiosqlite")
    sqlalchemy_asyncio = pytest.importorskip("sqlalchemy.ext.asyncio")

    async def place(number: str, *, commit: bool) -> tuple[Any, Any]:
        engine = sqlalchemy_asyncio.create_async_engine(
            migrated_url.replace("sqlite:", "sqlite+aiosqlite:")
        )
        async with sqlalchemy_asyncio.AsyncSession(engine) as session:
            session.add(Order(number=number))
            await session.flush()
            entry = await session.run_sync(
                lambda sync: store.add(f"order-{number}", "t", 60, session=sync)
            )
            run = await session.run_sync(
                lambda sync: store.trigger(f"order-{number}", session=sync)
            )
            await session.run_sync(
                lambda sync: store.change(entry.name, new_name=f"o-{number}", session=sync)
            )
            await (session.commit() if commit else session.rollback())
            assert (entry.name, run.entry_name) == (f"order-{number}", f"order-{number}")
            assert entry.options == {}
        await engine.dispose()
        return entry, run

    entry, run = asyncio.run(place("1", commit=True))
    assert (entry.spec, run.state) == ("60", "claimed")
    asyncio.run(place("2", commit=False))
    assert names(store) == ["o-1"]
    with Session(store.database.engine) as session:
        assert [order.number for order in session.query(Order)] == ["1"]


@on_sqlite
def test_an_async_session_itself_is_refused(store: Store, migrated_url: str) -> None:
    """Passing the AsyncSession instead of its sync half says what to write."""
    pytest.importorskip("aiosqlite")
    sqlalchemy_asyncio = pytest.importorskip("sqlalchemy.ext.asyncio")
    url = migrated_url.replace("sqlite:", "sqlite+aiosqlite:")
    engine = sqlalchemy_asyncio.create_async_engine(url)
    with pytest.raises(SessionError, match="run_sync"):
        store.add("a", "t", 60, session=sqlalchemy_asyncio.AsyncSession(engine))
