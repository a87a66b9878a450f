"""What the store returns are values: they hold what was read, and can't be written back."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, asdict, fields, replace
from datetime import datetime, timezone
from typing import Any

import pytest
from sqlalchemy import ForeignKey, Table, create_engine, event, select, update
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from beatstore import (
    After,
    Audit,
    Cron,
    Declared,
    Entry,
    Every,
    InvalidEntryError,
    NotReadError,
    Once,
    RRule,
    Run,
    Schedule,
    ScheduleError,
    Settings,
    Solar,
    Store,
)
from beatstore.database.columns import Unreadable
from beatstore.database.tables import AUDIT, ENTRY, RUN
from beatstore.models import (
    AuditModel,
    Base,
    BeatModel,
    DependencyModel,
    EntryModel,
    RunModel,
    TagModel,
    TokenModel,
    WaitModel,
    WorkerModel,
)

DUE = datetime(2026, 1, 15, tzinfo=timezone.utc)

#: A row of every table, as an application writes it by a session of its own. Those that
#: refer to entries come after them.
ROWS: dict[type[Base], dict[str, Any]] = {
    EntryModel: {"id": 1, "name": "a", "task": "t", "kind": "every", "spec": "60"},
    RunModel: {"entry_id": 1, "entry_name": "a", "due_at": DUE, "task_id": "x", "state": "sent"},
    AuditModel: {"actor": "me", "action": "add", "entry": "a"},
    BeatModel: {"id": "b", "host": "here", "pid": 1, "version": "1", "tzdata": "2026a"},
    WorkerModel: {"id": "w", "name": "celery@here", "pid": 1, "version": "1"},
    TagModel: {"entry_id": 1, "tag": "etl"},
    DependencyModel: {"downstream_id": 1, "upstream_id": 1, "first_free": True, "on": "done"},
    TokenModel: {"downstream_id": 1, "due_at": DUE, "upstream_id": 1, "outcome": "success"},
    WaitModel: {"downstream_id": 1, "due_at": DUE, "state": "waits"},
}
#: A column of each that is changed.
CHANGED: dict[type[Base], str] = {
    EntryModel: "misfire",
    RunModel: "state",
    AuditModel: "actor",
    BeatModel: "host",
    WorkerModel: "name",
    TagModel: "tag",
    DependencyModel: "on",
    TokenModel: "outcome",
    WaitModel: "state",
}

#: What a session can be asked to do with an object.
VERBS: dict[str, Callable[[Session, Any], object]] = {
    "add": lambda session, value: session.add(value),
    "add_all": lambda session, value: session.add_all([value]),
    "merge": lambda session, value: session.merge(value),
    "merge without loading": lambda session, value: session.merge(value, load=False),
    "delete": lambda session, value: session.delete(value),
    "refresh": lambda session, value: session.refresh(value),
    "bulk_save_objects": lambda session, value: session.bulk_save_objects([value]),
}

#: Schedules of each kind.
SCHEDULES: tuple[Schedule, ...] = (
    Cron("0 9 * * *", "Europe/Berlin"),
    Once(datetime(2030, 1, 31, 9, tzinfo=timezone.utc)),
    Every(60, datetime(2026, 1, 1, tzinfo=timezone.utc)),
    RRule("DTSTART:20260101T090000\nRRULE:FREQ=DAILY", "Europe/Berlin"),
    Solar("sunset", 52.52, 13.4),
)


class Shop(DeclarativeBase):
    """The application's own tables."""


class Reminder(Shop):
    """A row of theirs that belongs to an entry."""

    __tablename__ = "shop_reminder"

    id: Mapped[int] = mapped_column(primary_key=True)
    entry_id: Mapped[int] = mapped_column(ForeignKey(EntryModel.id))
    entry: Mapped[EntryModel] = relationship(EntryModel)


@pytest.fixture
def session(migrated_url: str) -> Iterator[Session]:
    """Yield a session of the application's own."""
    engine = create_engine(migrated_url)
    with Session(engine) as session:
        yield session
    engine.dispose()


def one_of_each(store: Store) -> list[Any]:
    """Return an entry, a run and a change."""
    store.add("a", "t", 60, args=[1, {"two": 2}], tags=["x"])
    run = store.trigger("a")
    return [store.get("a"), run, store.audit()[0]]


def edit(store: Store, name: str, **columns: Any) -> None:
    """Give a row other columns, past the API."""
    with store.database.session() as session:
        session.execute(update(EntryModel).where(EntryModel.name == name).values(**columns))


# -- values --------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "table"), [(Entry, ENTRY), (Run, RUN), (Audit, AUDIT)])
def test_fields_are_columns(kind: type, table: Table) -> None:
    """A value has the columns of its table, in their order, by which it is made of a row."""
    shown = [field.name for field in fields(kind) if not field.name.startswith("_")]
    assert shown == table.columns.keys()


def test_values_can_not_be_changed(store: Store) -> None:
    """No attribute of a value can be set, also none that it has not."""
    for value in one_of_each(store):
        for name in (*(field.name for field in fields(value)), "tags", "comment"):
            with pytest.raises((FrozenInstanceError, TypeError, AttributeError)):
                setattr(value, name, None)


@pytest.mark.any_database
@pytest.mark.parametrize("verb", VERBS)
def test_no_session_takes_a_value(store: Store, session: Session, verb: str) -> None:
    """Whatever a session is asked to do with a value, SQLAlchemy refuses, and no row changes."""
    values = one_of_each(store)
    for value in values:
        with pytest.raises((InvalidRequestError, AttributeError)):
            VERBS[verb](session, value)
        session.commit()
    assert [store.get("a"), store.runs("a")[0], store.audit()[0]] == values


def test_no_relationship_takes_a_value(store: Store, session: Session) -> None:
    """A value does not get into a session by a relationship either."""
    entry = store.add("a", "t", 60)
    with pytest.raises((InvalidRequestError, AttributeError)):
        session.add(Reminder(entry=entry))


def test_replaced_is_not_written(store: Store) -> None:
    """`dataclasses.replace` gives another value, and leaves the row alone."""
    entry = store.add("a", "t", 60)
    other = replace(entry, state="paused", name="b")
    assert (other.state, other.name, other.spec) == ("paused", "b", "60")
    assert store.get("a") == entry
    assert other != entry


def test_values_are_kept(store: Store) -> None:
    """Values can be copied and pickled, also with a cell that can't be read, and never read."""
    values = one_of_each(store)
    edit(store, "a", args={"a": 1})
    spoilt = replace(store.get("a"), end_at=Unreadable("soon", "not an instant"))
    store.close()
    for value in (*values, spoilt):
        for copied in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value), copy.copy(value)):
            assert copied == value
            assert hash(copied) == hash(value)
            assert repr(copied) == repr(value)
            assert asdict(copied) == asdict(value)
    kept = pickle.loads(pickle.dumps(spoilt))
    assert (kept.end_at, kept.end_at.reason) == ("soon", "not an instant")
    assert (kept.tags, kept.schedule) == (("x",), values[0].schedule)


def test_values_are_told_apart(store: Store) -> None:
    """What was read twice is equal, whatever was read with it; what was edited is not."""
    made = store.add("a", "t", 60, args=[1])
    assert made == store.get("a") == store.entries()[0]
    assert len({made, store.get("a")}) == 1
    assert store.change("a", args=[2]) != made


def test_reprs_are_short(store: Store) -> None:
    """The repr of a value says which it is, and how it stands."""
    entry, run, change = one_of_each(store)
    assert repr(entry) == "<Entry 'a': t, every '60', active>"
    assert repr(run) == f"<Run {run.id} of 'a', due {run.due_at}, claimed>"
    assert repr(change).startswith(f"<Audit {change.id}: trigger 'a' by ")


# -- the schedule --------------------------------------------------------------------------


@pytest.mark.any_database
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.kind)
def test_the_schedule_of_an_entry(store: Store, schedule: Schedule) -> None:
    """An entry has its schedule as the object that it was given."""
    entry = store.add("a", "t", schedule)
    assert entry.schedule is not None
    assert entry.schedule.next_after(DUE) == schedule.next_after(DUE)
    assert type(store.entries()[0].schedule) is type(schedule)


def test_the_schedule_has_the_default_zone(migrated_url: str) -> None:
    """The schedule of an entry without a zone is in that of the settings."""
    store = Store(migrated_url, settings=Settings(default_timezone="Asia/Tokyo"))
    assert store.add("a", "t", "0 9 * * *").schedule == Cron("0 9 * * *", "Asia/Tokyo")
    store.close()


def test_an_entry_without_a_schedule(store: Store) -> None:
    """What runs after others has no schedule."""
    store.add("up", "t", 60)
    assert store.add("a", "t", after=["up"]).schedule is None


@pytest.mark.parametrize(
    "column",
    [{"spec": "every day"}, {"kind": "weekly"}, {"timezone": "Mars/Base"}],
    ids=["spec", "kind", "timezone"],
)
def test_a_broken_schedule(store: Store, column: dict[str, str]) -> None:
    """Of a row that holds no schedule it is an error that says so; the rest can be read."""
    store.add("a", "t", "0 9 * * *")
    edit(store, "a", **column)
    entry = store.get("a")
    with pytest.raises(ScheduleError):
        _ = entry.schedule
    with pytest.raises(ScheduleError, match=r"write store\.change\('a', schedule=…\)"):
        _ = replace(entry, created_at=Unreadable("soon", "not an instant"), kind="rrule").schedule
    assert entry.tags == ()


# -- what is asked for ---------------------------------------------------------------------


def scene(store: Store) -> None:
    """Declare entries, and edit one of them."""
    declared = [
        Declared("up", "t", "0 2 * * *", tags=["y", "x"]),
        Declared("down", "t", after=[After("up", on="done")]),
    ]
    store.sync(declared, source="app")
    store.change("up", task="other", tags=["z", "x"])
    store.add("own", "t", 60)


def test_get_has_all(store: Store) -> None:
    """An entry by its name has its tags, its upstreams, and in which fields it was edited."""
    scene(store)
    up, down, own = (store.get(name) for name in ("up", "down", "own"))
    assert (up.tags, down.tags, own.tags) == (("x", "z"), (), ())
    assert down.after == (After("up", on="done", align="same"),)
    assert (up.after, own.after) == ((), ())
    assert (up.edited, down.edited, own.edited) == (("task", "tags"), (), ())


@pytest.mark.parametrize("name", ["tags", "after", "edited"])
def test_entries_have_what_is_included(store: Store, name: Any) -> None:
    """A page of entries has what it is asked for, by one word or several, and nothing else."""
    scene(store)
    for include in (name, [name]):
        for entry in store.entries(include=include):
            assert getattr(entry, name) == getattr(store.get(entry.name), name)
            for other in {"tags", "after", "edited"} - {name}:
                with pytest.raises(NotReadError):
                    getattr(entry, other)
    page = store.entries(include=("tags", "edited"), limit=2)
    assert [(entry.name, entry.tags, entry.edited) for entry in page] == [
        ("down", (), ()),
        ("own", (), ()),
    ]
    assert page.more


def test_what_was_not_asked_for(store: Store) -> None:
    """What was not read with an entry is an error that says how to read it."""
    for entry in (store.add("a", "t", 60), store.pause("a"), store.entries()[0]):
        with pytest.raises(NotReadError) as caught:
            _ = entry.tags
        assert str(caught.value) == (
            "entry 'a' was read without 'tags'; write store.get('a').tags, or "
            "store.entries(include=['tags']) for many"
        )
        assert (caught.value.name, caught.value.extra) == ("a", "tags")


@pytest.mark.any_database
@pytest.mark.parametrize("include", ["tag", ["tags", "runs"], 5, [5]])
def test_a_misspelt_include(store: Store, include: Any) -> None:
    """What can't be included is refused before anything is read."""
    with pytest.raises(InvalidEntryError, match="include"):
        store.entries(include=include)


def test_what_is_included_is_read_together(store: Store) -> None:
    """A page costs one statement; with all that can be included, one more for all its entries."""
    for number in range(20):
        store.add(f"e{number}", "t", 60, tags=["x"])
    said: list[str] = []
    engine = store.database.engine
    event.listen(engine, "after_cursor_execute", lambda *args: said.append(args[2]))
    assert len(store.entries()) == 20
    assert len(said) == 1
    assert len(store.entries(include=["tags", "after", "edited"])) == 20
    assert len(said) == 3


# -- rows ----------------------------------------------------------------------------------


def test_every_table_is_tried() -> None:
    """The test below has a row of each table."""
    assert ROWS.keys() == CHANGED.keys() == {mapper.class_ for mapper in Base.registry.mappers}


@pytest.mark.quick_on("sqlite")
@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.__name__)
def test_rows_belong_to_their_session(
    migrated_url: str, session: Session, kind: type[Base]
) -> None:
    """Rows of an application's own session are added, changed, merged and deleted."""
    for each in dict.fromkeys((EntryModel, kind)):
        row = each(**ROWS[each])
        session.add(row)
        session.commit()
    setattr(row, CHANGED[kind], "other")
    session.commit()
    session.refresh(row)
    assert getattr(row, CHANGED[kind]) == "other"
    session.expunge(row)
    session.delete(session.merge(row))
    session.commit()
    assert not session.scalars(select(kind)).all()
