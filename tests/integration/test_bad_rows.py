"""Rows that somebody wrote by hand, and wrongly: each holds up only itself."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import text

from beatstore import Once, Store
from beatstore.clock import ManualClock
from beatstore.errors import InvalidEntryError
from beatstore.tick.queue import Queue
from beatstore.types import ChangeOptions
from tests.support.command import Command
from tests.support.marks import on_postgresql, on_sqlite

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`

START = datetime(2026, 3, 2, 9, 0, 0, tzinfo=timezone.utc)

BAD = {
    "an impossible cron": {"kind": "'cron'", "spec": "'0 0 31 2 *'"},
    "a cron that is none": {"kind": "'cron'", "spec": "'every full moon'"},
    "an empty spec": {"kind": "'cron'", "spec": "''"},
    "an unknown kind": {"kind": "'lunar'", "spec": "'1'"},
    "an unknown zone": {"kind": "'cron'", "spec": "'0 9 * * *'", "timezone": "'Mars/Olympus'"},
    "a zone that is a path": {
        "kind": "'cron'",
        "spec": "'0 9 * * *'",
        "timezone": "'../../etc/passwd'",
    },
    "an instant that is none": {"kind": "'once'", "spec": "'tomorrow'"},
    "a naive instant": {"kind": "'once'", "spec": "'2026-01-01 00:00:00'"},
    "an interval below nothing": {"kind": "'every'", "spec": "'-5'"},
    "an interval without end": {"kind": "'every'", "spec": "'1e400'"},
    "a huge spec": {"kind": "'cron'", "spec": "'" + "1," * 20000 + "'"},
    "a policy that is none": {"kind": "'every'", "spec": "'5'", "misfire": "'panic'"},
    "args that are no list": {"kind": "'every'", "spec": "'5'", "args": "'{\"a\": 1}'"},
    "kwargs that are no object": {"kind": "'every'", "spec": "'5'", "kwargs": "'[1]'"},
    "options that are text": {"kind": "'every'", "spec": "'5'", "options": "'\"fast\"'"},
    "an endless rrule": {"kind": "'rrule'", "spec": "'FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=31'"},
    "a sun that is none": {"kind": "'solar'", "spec": "'moonrise 1 2'"},
}

DEEP = f"'{'[' * 300}{']' * 300}'"

BAD_ON = {
    "sqlite": {
        "args that are not JSON": {"kind": "'every'", "spec": "'5'", "args": "'[1'"},
        "a time that is none": {"kind": "'every'", "spec": "'5'", "end_at": "'soon'"},
        "a cursor that is none": {"kind": "'every'", "spec": "'5'", "cursor_at": "'soon'"},
        "a count that is text": {"kind": "'every'", "spec": "'5'", "max_runs": "'many'"},
        "a jitter that is text": {"kind": "'every'", "spec": "'5'", "jitter_s": "'much'"},
        "a blob for a zone": {"kind": "'cron'", "spec": "'0 9 * * *'", "timezone": "x'ff00'"},
        "a wake_at that is text": {"kind": "'lunar'", "spec": "'1'", "wake_at": "''"},
        "args without end": {"kind": "'every'", "spec": "'5'", "args": DEEP},
    },
    "postgresql": {
        "an end at infinity": {"kind": "'every'", "spec": "'5'", "end_at": "'infinity'"},
        "a start before Christ": {
            "kind": "'every'",
            "spec": "'5'",
            "start_at": "'4713-01-01 00:00:00+00 BC'",
        },
        "a jitter that is no number": {"kind": "'every'", "spec": "'5'", "jitter_s": "'NaN'"},
        "args without end": {"kind": "'every'", "spec": "'5'", "args": DEEP},
    },
    "mariadb": {},
}


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock that stands at 2 March 2026, 09:00 UTC."""
    return ManualClock(START)


def insert(store: Store, name: str, columns: dict[str, str]) -> None:
    """Insert an entry by plain SQL; the values are SQL literals."""
    values = {"name": f"'{name}'", "task": "'t'", **columns}
    with store.database.session() as session:
        connection = session.connection()
        connection.exec_driver_sql(
            f"INSERT INTO beatstore_entry ({', '.join(values)}) "
            f"VALUES ({', '.join(values.values()).replace('%', '%%')})"
        )


def test_a_bad_row_becomes_broken_and_the_good_ones_run(
    store: Store, clock: ManualClock, backend: str
) -> None:
    """Each bad row is `broken` with its error on it; 1,000 good ones around it run on time."""
    with store.database.session() as session:
        for number in range(500):
            store.add(f"good-{number}", "t", Once(START), session=session)
    bad = {**BAD, **BAD_ON[backend]}
    for name, columns in bad.items():
        insert(store, name, columns)
    with store.database.session() as session:
        for number in range(500, 1000):
            store.add(f"good-{number}", "t", Once(START), session=session)
    queue = Queue(store.database, store.settings, str(uuid.uuid4()))
    clock.advance(1)
    sent: set[str] = set()
    for _ in range(40):
        claims, found = queue.plan(queue.look().now)
        sent |= {claim.name for claim in claims}
        if not found:
            break
    queue.close()
    assert sent == {f"good-{number}" for number in range(1000)}
    with store.database.session() as session:
        rows = session.execute(
            text(
                "SELECT name, state, error, wake_at FROM beatstore_entry WHERE state <> 'finished'"
            )
        ).all()
    assert {row.name for row in rows} == set(bad)
    for row in rows:
        assert (row.name, row.state, row.wake_at) == (row.name, "broken", None)
        assert row.error, row.name


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
@on_postgresql
def test_a_number_that_json_does_not_hold(store: Store, number: str) -> None:
    """An entry with such a number can be put right, and removed; the audit has it as text."""
    insert(store, "a", {"kind": "'every'", "spec": "'5'", "grace_s": f"'{number}'"})
    insert(store, "b", {"kind": "'every'", "spec": "'5'", "retry_backoff": f"'{number}'"})
    queue = Queue(store.database, store.settings, str(uuid.uuid4()))
    queue.plan(queue.look().now)
    queue.close()
    assert store.change("a", grace=60).grace_s == 60
    store.remove("b")
    removed, changed = store.audit()
    said = str(float(number))
    assert (changed.before or {})["grace_s"] == said
    assert (removed.before or {})["retry_backoff"] == said


@pytest.mark.parametrize("jitter", ["-1e300", "1e300"])
def test_a_jitter_beyond_the_calendar_is_explained(
    store: Store, migrated_url: str, jitter: str
) -> None:
    """Before beat has looked at the entry, and when it is broken."""
    insert(store, "a", {"kind": "'every'", "spec": "'5'", "jitter_s": jitter})
    assert Command(migrated_url)("next", "a").code == 0
    assert "'a'" in str(store.explain("a"))
    assert "'a'" in str(store.explain("a", START))
    queue = Queue(store.database, store.settings, str(uuid.uuid4()))
    queue.plan(queue.look().now)
    queue.close()
    assert "'a' is broken" in str(store.explain("a"))
    assert Command(migrated_url)("next", "a").code == 0


@pytest.mark.parametrize("column", ["start_at", "end_at"])
@pytest.mark.parametrize("looked", [False, True])
@on_sqlite
def test_an_instant_that_is_none_can_be_put_right(store: Store, column: str, looked: bool) -> None:
    """The API says which column it is, and takes a right one."""
    insert(store, "a", {"kind": "'cron'", "spec": "'* * * * *'", column: "'soon'"})
    if looked:
        queue = Queue(store.database, store.settings, str(uuid.uuid4()))
        queue.plan(queue.look().now)
        queue.close()
    assert store.preview("a") == []
    with pytest.raises(InvalidEntryError, match=f"{column}: expected an instant, got 'soon'"):
        store.change("a", schedule="0 * * * *")
    right: ChangeOptions = {"start_at": None, "end_at": None}
    assert store.change("a", schedule="0 * * * *", **right).state == "active"
    assert store.preview("a", 1)


MISSPELT = [
    ("state", "activ", "active"),
    ("state", "Paused", "paused"),
    ("state", "", None),
    ("kind", "Every", "every"),
    ("kind", "aftr", "after"),
    ("misfire", "colesce", "coalesce"),
    ("overlap", "Skip", "skip"),
]


@pytest.mark.parametrize(("column", "word", "meant"), MISSPELT)
@pytest.mark.parametrize("edited", [False, True], ids=["inserted", "edited"])
def test_a_misspelt_word_of_an_entry(
    store: Store, column: str, word: str, meant: str | None, edited: bool
) -> None:
    """An entry with a word that is none is `broken`, with the word and the nearest right one."""
    columns = {"kind": "'every'", "spec": "'60'"}
    insert(store, "a", columns if edited else {**columns, column: f"'{word}'"})
    queue = Queue(store.database, store.settings, str(uuid.uuid4()))
    queue.plan(queue.look().now)
    if edited:
        with store.database.session() as session:
            session.execute(text(f"UPDATE beatstore_entry SET {column} = '{word}'"))
        queue.plan(queue.look().now)
    assert queue.plan(queue.look().now)[1] == 0
    entry = store.get("a")
    assert (entry.state, entry.wake_at) == ("broken", None)
    assert f"{column}: expected one of " in str(entry.error)
    assert f"got {word!r}" in str(entry.error)
    assert meant is None or f"write {meant!r}" in str(entry.error)
    # What the error says to write is all it takes.
    right = {"state": "active", column: meant or "active"}
    names = ", ".join(f"{name} = :{name}" for name in right)
    with store.database.session() as session:
        session.execute(text(f"UPDATE beatstore_entry SET {names}"), right)
    queue.plan(queue.look().now)
    queue.close()
    if meant not in ("paused", "after"):
        assert (store.get("a").state, store.get("a").error) == ("active", None)


@pytest.mark.parametrize("edited", [False, True], ids=["inserted", "edited"])
@pytest.mark.parametrize(
    ("column", "word", "meant"),
    [
        ("on", "sucess", "success"),
        ("on", "Done", "done"),
        ("align", "lastest", "latest"),
        ("on_upstream_failure", "skp", "skip"),
    ],
)
def test_a_misspelt_word_of_an_edge(
    store: Store, column: str, word: str, meant: str, edited: bool
) -> None:
    """An edge with a word that is none breaks its downstream, and nobody else."""
    for name in ("up", "down", "other"):
        store.add(name, "t", "* * * * *")
    queue = Queue(store.database, store.settings, str(uuid.uuid4()))
    queue.plan(queue.look().now)
    ids = {name: store.get(name).id for name in ("up", "down", "other")}
    quoted = store.database.engine.dialect.identifier_preparer.quote(column)
    edge = {"upstream_id": ids["up"], "value": word}
    with store.database.session() as session:
        for name in ("down", "other"):
            session.execute(
                text(
                    "INSERT INTO beatstore_dependency (downstream_id, upstream_id) "
                    "VALUES (:downstream_id, :upstream_id)"
                ),
                {**edge, "downstream_id": ids[name]},
            )
    if edited:
        queue.plan(queue.look().now)
    with store.database.session() as session:
        session.execute(
            text(f"UPDATE beatstore_dependency SET {quoted} = :value WHERE downstream_id = :id"),
            {"value": word, "id": ids["down"]},
        )
    queue.plan(queue.look().now)
    queue.close()
    states = {name: store.get(name).state for name in ids}
    assert states == {"up": "active", "down": "broken", "other": "active"}
    error = str(store.get("down").error)
    assert error.startswith(f"the edge from 'up': {column}: expected one of ")
    assert error.endswith(f"got {word!r}; write {meant!r}")


@pytest.mark.parametrize(
    ("word", "meant"), [("snt", "sent"), ("Started", "started"), ("claimd", "claimed")]
)
def test_a_misspelt_state_of_a_run(store: Store, clock: ManualClock, word: str, meant: str) -> None:
    """A run in a state that is none ends as failed, with the word and the nearest right one."""
    store.add("a", "t", Once(START))
    queue = Queue(store.database, store.settings, str(uuid.uuid4()))
    queue.plan(queue.look().now)
    with store.database.session() as session:
        session.execute(text("UPDATE beatstore_run SET state = :word"), {"word": word})
    clock.advance(3600)
    assert not queue.sweep(queue.look().now).claims
    queue.close()
    (run,) = store.runs("a")
    assert (run.state, run.wake_at) == ("failed", None)
    assert f"got {word!r}; write {meant!r}" in str(run.reason)


def test_a_mended_row_runs_again(store: Store, clock: ManualClock) -> None:
    """Putting a broken row right, by plain SQL, is all it takes."""
    insert(store, "a", {"kind": "'cron'", "spec": "'nonsense'"})
    queue = Queue(store.database, store.settings, str(uuid.uuid4()))
    queue.plan(queue.look().now)
    assert store.get("a").state == "broken"
    with store.database.session() as session:
        session.execute(
            text("UPDATE beatstore_entry SET spec = '* * * * *', state = 'active' WHERE name = 'a'")
        )
    clock.set(datetime.now(timezone.utc) + timedelta(minutes=2))
    claims, _ = queue.plan(queue.look().now)
    queue.close()
    assert [claim.name for claim in claims] == ["a"]
    assert store.get("a").error is None


def test_an_option_that_celery_does_not_know_fails_that_run_alone(
    store: Store, clock: ManualClock
) -> None:
    """A run whose row was spoiled after the claim fails with the reason, and is not retried."""
    store.add("a", "t", Once(START))
    store.add("b", "t", Once(START))
    queue = Queue(store.database, store.settings, str(uuid.uuid4()))
    queue.plan(queue.look().now)
    with store.database.session() as session:
        session.execute(text("UPDATE beatstore_entry SET args = '{}' WHERE name = 'a'"))
    clock.advance(31)
    claims = queue.sweep(queue.look().now).claims
    queue.close()
    assert [claim.name for claim in claims] == ["b"]
    runs = {run.entry_name: run for run in store.runs()}
    assert runs["a"].state == "failed"
    assert "args" in str(runs["a"].reason)


def test_a_task_that_is_not_allowed_is_not_sent(store: Store, clock: ManualClock) -> None:
    """beatstore_allowed_tasks holds for rows written by plain SQL too."""
    insert(store, "a", {"kind": "'once'", "spec": "'2026-01-01T00:00:00+00:00'"})
    store.add("b", "reports.build", Once(START))
    settings = replace(store.settings, allowed_tasks=("reports.*",))
    queue = Queue(store.database, settings, str(uuid.uuid4()))
    claims, _ = queue.plan(queue.look().now)
    queue.close()
    assert [claim.name for claim in claims] == ["b"]
    assert store.get("a").state == "broken"
    assert "allowed_tasks" in str(store.get("a").error)
