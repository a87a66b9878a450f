"""What the store returns can't be written back: it is a value, and no object of the ORM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from beatstore import Entry, Run, SessionError, Store
from beatstore.database.models import Audit, Base, Beat, Dependency, Tag, Token, Wait, Worker
from beatstore.database.rows import Transaction

DUE = datetime(2026, 1, 15, tzinfo=timezone.utc)

#: A row of every table, as an application writes it by a session of its own. Those that
#: refer to entries come after them.
ROWS: dict[type[Base], dict[str, Any]] = {
    Entry: {"id": 1, "name": "a", "task": "t", "kind": "every", "spec": "60"},
    Run: {"entry_id": 1, "entry_name": "a", "due_at": DUE, "task_id": "x", "state": "sent"},
    Audit: {"actor": "me", "action": "add", "entry": "a"},
    Beat: {"id": "b", "host": "here", "pid": 1, "version": "1", "tzdata": "2026a"},
    Worker: {"id": "w", "name": "celery@here", "pid": 1, "version": "1"},
    Tag: {"entry_id": 1, "tag": "etl"},
    Dependency: {"downstream_id": 1, "upstream_id": 1, "first_free": True, "on": "done"},
    Token: {"downstream_id": 1, "due_at": DUE, "upstream_id": 1, "outcome": "success"},
    Wait: {"downstream_id": 1, "due_at": DUE, "state": "waits"},
}
#: A column of each that is changed.
CHANGED = {
    **{Entry: "misfire", Run: "state", Audit: "actor", Beat: "host", Worker: "name"},
    **{Tag: "tag", Dependency: "on", Token: "outcome", Wait: "state"},
}

#: What a session can be asked to do with an object.
VERBS: dict[str, Callable[[Session, Any], object]] = {
    "add": lambda session, row: session.add(row),
    "add_all": lambda session, row: session.add_all([row]),
    "merge": lambda session, row: session.merge(row),
    "merge without loading": lambda session, row: session.merge(row, load=False),
    "delete": lambda session, row: session.delete(row),
    "refresh": lambda session, row: session.refresh(row),
    "bulk_save_objects": lambda session, row: session.bulk_save_objects([row]),
}


class Shop(DeclarativeBase):
    """The application's own tables."""


class Reminder(Shop):
    """A row of theirs that belongs to an entry."""

    __tablename__ = "shop_reminder"

    id: Mapped[int] = mapped_column(primary_key=True)
    entry_id: Mapped[int] = mapped_column(ForeignKey(Entry.id))
    entry: Mapped[Entry] = relationship(Entry)


@pytest.fixture
def session(migrated_url: str) -> Iterator[Session]:
    """Yield a session of the application's own."""
    engine = create_engine(migrated_url)
    with Session(engine) as session:
        yield session
    engine.dispose()


def write(session: Session, kind: type[Base]) -> Base:
    """Commit a row of a kind as an object of the session, and the entry that it belongs to."""
    for each in dict.fromkeys((Entry, kind)):
        row = each(**ROWS[each])
        session.add(row)
        session.commit()
    return row


def test_every_table_is_tried() -> None:
    """The tests below have a row of each table."""
    assert ROWS.keys() == CHANGED.keys() == {mapper.class_ for mapper in Base.registry.mappers}


@pytest.mark.quick_on("sqlite")
@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.__name__)
def test_no_session_takes_a_snapshot(store: Store, session: Session, kind: type[Base]) -> None:
    """A snapshot can't be changed, nor be given to a session, and the error says what to write."""
    write(session, kind)
    tx = Transaction(session, store.database, store.settings)
    (row,) = tx.all(kind, select(kind.__table__))
    before = dict(vars(row))
    column = CHANGED[kind]
    with pytest.raises(SessionError, match=rf"is a snapshot.* session\.get\({kind.__name__}, "):
        setattr(row, column, "bogus")
    vars(row)[column] = "bogus"  # as somebody who means it
    for verb in VERBS.values():
        with pytest.raises(SessionError, match="is a snapshot: it can't be changed"):
            verb(session, row)
        session.commit()
    assert [vars(row) for row in tx.all(kind, select(kind.__table__))] == [before]


def test_the_error_names_change(store: Store, session: Session) -> None:
    """For an entry, the error says how it is edited."""
    entry = store.add("nightly", "t", 60)
    with pytest.raises(SessionError, match=r"write store\.change\('nightly', …\)"):
        session.add(entry)


def test_no_relationship_brings_a_snapshot_in(store: Store, session: Session) -> None:
    """A snapshot does not get into a session by the cascade of a relationship either."""
    entry = store.add("a", "t", 60)
    with pytest.raises(SessionError, match="is a snapshot"):
        session.add(Reminder(entry=entry))
    session.expunge_all()
    reminder = Reminder(entry_id=entry.id)
    session.add(reminder)
    with pytest.raises(SessionError, match="is a snapshot"):
        reminder.entry = entry


@pytest.mark.quick_on("sqlite")
@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.__name__)
def test_their_own_objects_are_theirs(
    migrated_url: str, session: Session, kind: type[Base]
) -> None:
    """Rows of an application's own session are added, changed, merged and deleted as ever."""
    row = write(session, kind)
    setattr(row, CHANGED[kind], "other")
    session.commit()
    session.refresh(row)
    assert getattr(row, CHANGED[kind]) == "other"
    session.expunge(row)
    session.delete(session.merge(row))
    session.commit()
    assert not session.scalars(select(kind)).all()
