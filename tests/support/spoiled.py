"""A beat and a database in which somebody spoils rows by plain SQL.

    with Spoiled(url, broker) as world:
        world.write("beatstore_entry", {"name": "a", "kind": "lunar", …})
        world.live()         # ticks; fails if the beat stumbles, or a good entry waits

`values(backend, column)` generates what may be written to a column: whatever the database
takes, and more often what is nearly right.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Integer,
    MetaData,
    Table,
    delete,
    select,
    text,
)
from sqlalchemy.exc import SQLAlchemyError

from beatstore import ManualClock, Store
from beatstore.beat.scheduler import DBScheduler
from beatstore.database.columns import Instant, Json
from beatstore.database.models import Base
from beatstore.errors import BeatstoreError, StoreError
from beatstore.models import EntryModel, RunModel
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_app
from tests.support.hostile import CRON, ISO, RRULE, ZONES, jsons, texts, worded

__all__ = ["NOON", "TABLES", "Spoiled", "values"]

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)

_METADATA: MetaData = Base.metadata

TABLES: Mapping[str, Table] = _METADATA.tables

_ENTRY, _RUN = TABLES[EntryModel.__tablename__], TABLES[RunModel.__tablename__]

#: Ticks in which a beat must have done all there is to do.
_MOST_TICKS = 100

# -- what is written -----------------------------------------------------------------------

_WORDS: Mapping[str, tuple[str, ...]] = {
    "kind": ("once", "cron", "every", "rrule", "solar", "after", "Cron", ""),
    "misfire": ("skip", "coalesce", "all", ""),
    "overlap": ("allow", "skip", "wait", ""),
    "on": ("success", "done", "failure", ""),
    "align": ("latest", "same", ""),
    "on_upstream_failure": ("wait", "skip", ""),
    "timezone": ZONES,
    "reason": ("triggered", "triggered; x", "overlap: x", "waits"),
    "pending_reason": ("waits", "waits for 'up' to end"),
    "claimed_by": ("suspected", "", "00000000-0000-0000-0000-000000000000"),
    "state": (
        *("active", "paused", "finished", "missed", "cancelled", "broken", "claimed", "sent"),
        *("started", "succeeded", "failed", "lost", "skipped", "", "Active"),
    ),
    "spec": (
        *("0 2 * * *", "* * * * * *", "*/7 * 1 * mon", "5", "0.001", "1e9", "P1D", "300"),
        *("2026-01-15T12:00:00+00:00", "1000-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00"),
        *("sunrise 52.5 13.4", "dusk_civil 90 0", "FREQ=SECONDLY", "FREQ=DAILY;COUNT=3"),
    ),
}

_INSTANTS = (
    *("0001-01-01 00:00:00", "0999-12-31 23:59:59.999999", "1000-01-01 00:00:00.000000"),
    *("1969-12-31 23:59:59.999999", "1970-01-01 00:00:00.000000", "1970-01-02 00:00:00.000000"),
    *("2026-01-15 11:59:59.999999", "2026-01-15 12:00:00.000000", "2026-01-15 12:00:01.000000"),
    *("2026-03-29 01:00:00.000000", "2038-01-19 03:14:08.000000", "9999-12-31 23:59:59.999999"),
    *("0000-00-00 00:00:00", "2026-02-30 00:00:00", "2026-01-15T12:00:00+14:00", "-1", "now", ""),
)

_INSTANTS_OF = {
    "postgresql": ("infinity", "-infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59"),
    "mariadb": ("2026-00-00 00:00:00", "0000-01-01 00:00:00"),
}

_JSONS = (
    *("[]", "{}", "null", "0", '""', "[1", "NaN", "[NaN]", "[-Infinity]", "[1e400]", '["\\u0000"]'),
    *('["\\ud800"]', '[{"a": "\\ud800\\u0000"}]', "[" * 5000 + "]" * 5000, "[" + "9" * 5000 + "]"),
    *('{"a": 1, "a": 2}', '{"": null}', "[1] ", "\ufeff[]", "'[]'", "{'a': 1}"),
)

_OPTIONS = (
    *("queue", "priority", "expires", "headers", "link", "link_error", "stamped_headers", "chord"),
    *("time_limit", "retry", "retry_policy", "delivery_mode", "eta", "countdown", "task_id"),
    *("serializer", "compression", "exchange", "routing_key", "group_id", "producer", "shadow"),
    *("ignore_result", "chain", "root_id", "add_to_parent", "reply_to", "content_type", "args"),
)


def values(backend: str, column: Column[Any]) -> SearchStrategy[Any]:
    """Generate what may be written to a column; the database may still refuse it."""
    likely = _likely(backend, column)
    if backend == "sqlite":
        anything = st.one_of(
            texts().filter(_encodable).map(lambda value: value[:500]),
            st.integers(-(2**63), 2**63 - 1),
            st.floats(),
            st.binary(max_size=20),
        )
        likely = st.one_of(likely, likely, anything)
    return st.one_of(likely, st.none()) if column.nullable else likely


def _likely(backend: str, column: Column[Any]) -> SearchStrategy[Any]:
    kind = column.type
    if isinstance(kind, Instant):
        near = st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1))
        known = st.sampled_from([*_INSTANTS, *_INSTANTS_OF.get(backend, ())])
        return st.one_of(known, near.map(str), st.datetimes().map(str))
    if isinstance(kind, Json):
        raw = st.one_of(st.sampled_from(_JSONS), jsons().map(_dumped))
        if column.name == "options":
            odd = st.dictionaries(st.sampled_from(_OPTIONS), jsons(), max_size=3).map(_dumped)
            raw = st.one_of(raw, odd, odd)
        return raw
    if isinstance(kind, Boolean):
        return st.booleans()
    if isinstance(kind, Float):
        floats = st.floats(allow_nan=backend != "mariadb", allow_infinity=backend != "mariadb")
        return st.one_of(floats, st.sampled_from([-1.0, 0.0, 1e-9, 0.5, 60.0, 1e9, 1e12, 1e308]))
    if isinstance(kind, Integer):
        bits = 63 if isinstance(kind, BigInteger) else 31
        whole = st.integers(-(2**bits), 2**bits - 1)
        return st.one_of(whole, st.integers(-3, 5), st.sampled_from([2**bits - 1, -(2**bits)]))
    return _text(backend, column)


def _text(backend: str, column: Column[Any]) -> SearchStrategy[str]:
    length = getattr(column.type, "length", None) or 500
    given = texts().filter(_encodable).map(lambda value: value[:length])
    if backend == "postgresql":
        given = given.map(lambda value: value.replace("\0", ""))
    if column.name == "spec":
        grammar = st.one_of(worded(CRON), worded(RRULE), worded(ISO)).filter(_encodable)
        given = st.one_of(given, grammar)
    words = _WORDS.get(column.name)
    return st.one_of(st.sampled_from(words), given) if words else given


def _encodable(value: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in value)


def _dumped(value: object) -> str:
    try:
        return json.dumps(value, default=repr)
    except (ValueError, TypeError, RecursionError):
        return "[]"


# -- the beat ------------------------------------------------------------------------------


class Spoiled:
    """One database, one beat that sends to a broker in this process, and a clock.

    Args:
        url: a migrated database.
        broker: of this process.
    """

    def __init__(self, url: str, broker: Broker) -> None:
        self.clock = ManualClock(NOON)
        self.store = Store(url, clock=self.clock)
        app = new_app(broker, url, beatstore_listen=False, result_expires=None)

        @app.task(name="tests.note", shared=False)
        def note(*args: Any, **kwargs: Any) -> None:
            """Do nothing."""

        self.broker = broker
        self.scheduler = DBScheduler(app=app, schedule_filename="", max_interval=None, lazy=False)
        self.scheduler.store.database.clock = self.clock
        self._numbers = itertools.count(1)
        self._stumbles = _Stumbles()

    def __enter__(self) -> Spoiled:
        self._stumbles.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self._stumbles.detach()
        self.scheduler.close()
        self.scheduler.app.close()
        self.store.close()

    def write(self, table: str, row: Mapping[str, Any]) -> bool:
        """Insert a row as it is; say whether the database has taken it."""
        quoted = self.store.database.engine.dialect.identifier_preparer.quote
        names = ", ".join(quoted(name) for name in row)
        marks = ", ".join(f":v{number}" for number in range(len(row)))
        given = {f"v{number}": value for number, value in enumerate(row.values())}
        try:
            with self.store.database.session() as session:
                session.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), given)
        except (SQLAlchemyError, OverflowError, ValueError):
            return False
        return True

    def clear(self) -> None:
        """Delete all rows, but for those of beats, and turn the clock back."""
        with self.store.database.session() as session:
            for table in reversed(_METADATA.sorted_tables):
                if table.name != "beatstore_beat":
                    session.execute(delete(table))
        self.clock.set(NOON)
        self.broker.drain()
        self._stumbles.records.clear()

    def live(self) -> None:
        """Let beat work through what is there, now and later; nothing may hold it up."""
        for seconds in (0, 1, 61, 130):
            self.clock.advance(seconds)
            self._sends_what_is_good()
        assert not self._stumbles.records, self._stumbles.told()
        assert self.scheduler._database.over

    def ask(self, names: list[Any]) -> None:
        """Ask all that can be asked; the answer may be an error of ours, and no other."""
        store = self.store
        questions: list[Any] = [store.entries, store.runs, store.status, store.graph, store.audit]
        for name in names:
            if isinstance(name, str):
                for method in (store.get, store.explain, store.preview, store.runs):
                    questions.append(lambda method=method, name=name: method(name))
                questions.append(lambda name=name: store.graph(name=name))
                questions.append(lambda name=name: store.explain(name, NOON))
        for question in questions:
            try:
                str(question())
            except BeatstoreError as error:
                if isinstance(error, StoreError):
                    raise

    def _sends_what_is_good(self) -> None:
        name = f"good-{next(self._numbers)}"
        at = self.clock.now()
        row = {"name": name, "task": "tests.note", "kind": "once", "spec": at.isoformat()}
        row["created_at"] = str(NOON.replace(tzinfo=None))
        assert self.write("beatstore_entry", row)
        idle = 0
        for _ in range(_MOST_TICKS):
            sent = self.scheduler._figures.sent
            idle = idle + 1 if self.scheduler.tick() > 0 else 0
            if idle > 1:  # one that ends what is lost wakes others for the next
                break
        # One that is due each millisecond keeps a beat busy, and from nothing else.
        busy = self.scheduler._figures.sent > sent
        with self.store.database.session() as session:
            found = session.scalars(select(_RUN.c.state).where(_RUN.c.entry_name == name)).all()
        assert found == ["sent"], f"{name}: {found}; {self._stumbles.told()}"
        due = [] if busy else self._due()
        assert not due, f"left: {due}; {self._stumbles.told()}"

    def _due(self) -> list[Any]:
        """Return what should have been looked at."""
        now = self.clock.now()
        with self.store.database.session() as session:
            return [
                row
                for table in (_ENTRY, _RUN)
                for row in session.execute(
                    select(table.c.id, table.c.state).where(table.c.wake_at <= now).limit(3)
                )
            ]


class _Stumbles(logging.Handler):
    """Remembers what beat logged that it should not have to."""

    _LOGGERS = ("beatstore.beat.scheduler", "beatstore.outage")

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def attach(self) -> None:
        for name in self._LOGGERS:
            logging.getLogger(name).addHandler(self)

    def detach(self) -> None:
        for name in self._LOGGERS:
            logging.getLogger(name).removeHandler(self)

    def told(self) -> str:
        formatter = logging.Formatter("%(levelname)s %(message)s")
        return "\n".join(formatter.format(record)[-3000:] for record in self.records[:2])
