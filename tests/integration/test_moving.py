"""Moving over from other schedulers, out of tables that those packages wrote themselves.

A package that is not installed is skipped, and fails where `BEATSTORE_TEST_REQUIRE` names
`peers`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from beatstore import ConfigError, SchemaError, Store
from beatstore.cli import beatstore
from beatstore.clock import ManualClock
from beatstore.database.dialects import dialect_of
from beatstore.moving.importer import Moved, move
from beatstore.moving.schedulers import SCHEDULERS, How, read
from beatstore.schedules import Every
from beatstore.tick.queue import Queue
from tests.support.absent import absent
from tests.support.marks import on_postgresql, on_sqlite
from tests.support.processes import ROOT
from tests.support.ticks import tick

pytestmark = [pytest.mark.quick_on("sqlite"), pytest.mark.by_turns("package")]

DJANGO, ALCHEMY = SCHEDULERS
PROGRAMS = {DJANGO: "django_beat", ALCHEMY: "sqlalchemy_beat"}
UTC = timezone.utc
NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

both = pytest.mark.parametrize("package", list(SCHEDULERS))


class Theirs:
    """A database that another scheduler keeps its tables in."""

    def __init__(self, package: str, url: str, **given: Any) -> None:
        self.package = package
        self.url = url
        self.given = given

    def write(self, *tasks: dict[str, Any], **given: Any) -> dict[str, float]:
        """Let the package itself write tasks, and return what it was asked."""
        module = self.package.replace("-", "_")
        if importlib.util.find_spec(module) is None:
            absent("peers", f"{self.package} is not installed")
        program = f"tests.integration.peers.{PROGRAMS[self.package]}"
        asked = {"url": self.url, "tasks": tasks, **self.given, **given}
        command = [sys.executable, "-m", program, json.dumps(asked)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def sql(self, *statements: str) -> list[Any]:
        """Run statements that the package would not, and return the rows of the last."""
        engine = create_engine(self.url, poolclass=NullPool)
        with engine.begin() as connection:
            done = [connection.execute(text(one)) for one in statements]
            return list(done[-1]) if done[-1].returns_rows else []

    @property
    def tasks(self) -> str:
        """The name of their table of tasks."""
        return SCHEDULERS[self.package].tables["tasks"]


def task(name: str, kind: str, rule: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Describe a task of theirs."""
    return {"name": name, "task": f"proj.{name}", "schedule": [kind, rule], **fields}


def cron(name: str, minute: str = "0", hour: str = "9", **fields: Any) -> dict[str, Any]:
    """Describe a task with a crontab, at nine each day in UTC."""
    rule = {"minute": minute, "hour": hour, "timezone": fields.pop("timezone", "UTC")}
    return task(name, "crontab", rule, **fields)


def every(name: str, count: int, period: str, **fields: Any) -> dict[str, Any]:
    """Describe a task with an interval."""
    return task(name, "interval", {"every": count, "period": period}, **fields)


def clocked(name: str, at: datetime, **fields: Any) -> dict[str, Any]:
    """Describe a task that runs once."""
    return task(name, "clocked", {"clocked_time": at.isoformat()}, one_off=True, **fields)


@pytest.fixture
def at_noon(migrated_url: str) -> Iterator[Store]:
    """Hand out a store whose clock stands at noon."""
    store = Store(migrated_url, clock=ManualClock(NOW))
    yield store
    store.close()


@pytest.fixture
def theirs(package: str, migrated_url: str) -> Theirs:
    """Hand out their tables, in the database that ours are in."""
    return Theirs(package, migrated_url)


def moved(store: Store, theirs: Theirs, dry_run: bool = False, **how: Any) -> Moved:
    """Move over."""
    return move(store, theirs.package, how=How(**how), dry_run=dry_run)


def states(store: Store) -> dict[str, str]:
    """Return the states of all entries."""
    return {entry.name: entry.state for entry in store.entries(limit=1000)}


@both
def test_what_they_wrote_is_carried(theirs: Theirs, at_noon: Store) -> None:
    """Every kind of schedule, and every field of a task, becomes an entry that means the same."""
    pytest.importorskip("ephem", reason="Solar needs ephem, of the extra `solar`")
    end, start = NOW + 100 * HOUR, NOW + 24 * HOUR
    theirs.write(
        task(
            "monthly",
            "crontab",
            {
                **{"minute": "*/20", "hour": "1-3", "day_of_month": "1-7"},
                **{"day_of_week": "mon", "month_of_year": "*", "timezone": "Europe/Berlin"},
            },
            args='[1, "zwei", null]',
            kwargs='{"deep": {"er": [true, 1.5]}}',
            queue="etl",
            exchange="ex",
            routing_key="key",
            priority=0,
            headers='{"trace": "yes"}',
            expire_seconds=600,
            description="The first Monday",
        ),
        every("often", 250_000, "microseconds", last_run_at=(NOW - HOUR).isoformat()),
        every("daily", 1, "days", last_run_at=(NOW - 5 * HOUR).isoformat()),
        cron("bounded", start_time=start.isoformat(), expires=end.isoformat()),
        cron("off", enabled=False),
        cron("single", one_off=True),
        clocked("later", NOW + HOUR),
        task("dusk", "solar", {"event": "sunset", "latitude": 52.52, "longitude": 13.405}),
    )
    report = moved(at_noon, theirs)
    assert report.report.refused == {}
    assert report.left == {}
    assert [(note.name, note.field) for note in report.notes] == [("bounded", "start_time")]
    found = {entry.name: entry for entry in at_noon.entries()}
    assert {(name, e.kind, e.spec) for name, e in found.items()} == {
        ("monthly", "cron", found["monthly"].spec),
        ("often", "every", "0.25 from 2026-01-15T11:00:00+00:00"),
        ("daily", "every", "86400 from 2026-01-15T07:00:00+00:00"),
        ("bounded", "cron", "0 9 * * *"),
        ("off", "cron", "0 9 * * *"),
        ("single", "cron", "0 9 * * *"),
        ("later", "once", "2026-01-15T13:00:00+00:00"),
        ("dusk", "solar", "sunset 52.52 13.405"),
    }
    assert {entry.source for entry in found.values()} == {theirs.package}
    monthly = found["monthly"]
    assert (monthly.task, monthly.args, monthly.kwargs) == (
        "proj.monthly",
        [1, "zwei", None],
        {"deep": {"er": [True, 1.5]}},
    )
    assert monthly.options == {
        **{"queue": "etl", "exchange": "ex", "routing_key": "key", "priority": 0},
        **{"expires": 600, "headers": {"trace": "yes"}},
    }
    assert (monthly.timezone, monthly.description) == ("Europe/Berlin", "The first Monday")
    # Both day fields at once: the first of the days 1 to 7 that is a Monday.
    assert monthly.next_due_at == datetime(2026, 2, 2, 0, tzinfo=UTC)
    assert found["daily"].next_due_at == NOW + 19 * HOUR
    bounded = found["bounded"]
    assert (bounded.start_at, bounded.end_at) == (start, end - timedelta(microseconds=1))
    assert datetime.fromisoformat(bounded.options["expires"]) == end
    assert [found[name].max_runs for name in ("single", "bounded", "later")] == [1, None, None]
    assert states(at_noon) == {**dict.fromkeys(found, "active"), "off": "paused"}


ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York", "Pacific/Auckland")


def some_field(pick: random.Random, low: int, high: int) -> str:
    """Return the text of a field of a crontab."""
    first, last = sorted(pick.sample(range(low, high + 1), 2))
    step = pick.randint(2, 7)
    forms = ("*", "*", str(first), f"{first},{last}", f"{first}-{last}", f"*/{step}")
    return pick.choice((*forms, f"{first}-{last}/{step}"))


def some_crontab(pick: random.Random) -> dict[str, str]:
    """Return the fields of a crontab."""
    return {
        "minute": some_field(pick, 0, 59),
        "hour": some_field(pick, 0, 23),
        "day_of_month": pick.choice(("*", "*", some_field(pick, 1, 28))),
        "month_of_year": pick.choice(("*", "*", "*", some_field(pick, 1, 12))),
        "day_of_week": pick.choice(("*", "*", some_field(pick, 0, 6), "mon-fri", "sun", "sat,1")),
        "timezone": pick.choice(ZONES),
    }


@both
@on_sqlite
@pytest.mark.parametrize("at", [NOW, datetime(2026, 7, 5, 8, 30, 15, 250_000, tzinfo=UTC)])
def test_due_times_are_theirs(
    package: str, at: datetime, database_url: str, migrated_url: str
) -> None:
    """Any crontab or interval is next due when their own schedule says so."""
    pick = random.Random(f"{package} {at}")
    units = ("days", "hours", "minutes", "seconds")
    tasks = [task(f"cron-{n}", "crontab", some_crontab(pick)) for n in range(100)]
    tasks += [
        every(
            f"every-{n}",
            pick.randint(300, 900),
            pick.choice(units),
            last_run_at=(at - timedelta(seconds=pick.uniform(1, 290))).isoformat(),
        )
        for n in range(20)
    ]
    theirs = Theirs(package, database_url)
    left = theirs.write(*tasks, ask=at.isoformat())
    store = Store(migrated_url, clock=ManualClock(at))
    report = move(store, package, url=database_url)
    assert report.report.refused == {}
    due = {entry.name: entry.next_due_at for entry in store.entries(limit=1000)}
    store.close()
    assert due.keys() == left.keys()
    assert due == {name: at + timedelta(seconds=seconds) for name, seconds in left.items()}


@both
def test_a_second_time_changes_nothing(theirs: Theirs, at_noon: Store) -> None:
    """Moving over again does nothing to what did not change there, and follows what did."""
    theirs.write(cron("one"), cron("two"), every("three", 10, "minutes"), cron("four"))
    first = moved(at_noon, theirs).report
    assert first.created == ("four", "one", "three", "two")
    versions = {entry.name: entry.version for entry in at_noon.entries()}
    again = moved(at_noon, theirs).report
    assert again.unchanged == first.created
    assert {entry.name: entry.version for entry in at_noon.entries()} == versions
    theirs.sql(
        f"UPDATE {theirs.tasks} SET task = 'proj.other' WHERE name = 'one'",
        f"DELETE FROM {theirs.tasks} WHERE name = 'two'",
    )
    theirs.write(run=["three"])
    third = moved(at_noon, theirs).report
    assert (third.updated, third.deactivated) == (("one", "three"), ("two",))
    assert third.unchanged == ("four",)
    assert at_noon.get("one").task == "proj.other"
    assert at_noon.get("two").state == "cancelled"


@both
def test_a_dry_run_writes_nothing(theirs: Theirs, at_noon: Store) -> None:
    """A dry run reports what would be done, and leaves every table as it was."""
    theirs.write(cron("one"), clocked("gone", NOW - HOUR, enabled=False))
    dry = moved(at_noon, theirs, dry_run=True)
    assert dry.report.created == ("one",)
    assert list(dry.left) == ["gone"]
    assert at_noon.entries() == []
    assert at_noon.audit() == []
    assert moved(at_noon, theirs).report.created == ("one",)


@both
@on_sqlite
def test_it_joins_the_callers_transaction(theirs: Theirs, at_noon: Store) -> None:
    """With session= entries are there when the caller commits, and not when he rolls back."""
    theirs.write(cron("one"))
    for commits in (False, True):
        with Session(at_noon.database.engine) as session:
            report = move(at_noon, theirs.package, session=session).report
            assert report.created == ("one",)
            if commits:
                session.commit()
        assert states(at_noon) == ({"one": "active"} if commits else {})


@both
@on_sqlite
def test_edits_here_are_kept(theirs: Theirs, at_noon: Store) -> None:
    """What somebody changed or paused here stays so, also when it changes there."""
    theirs.write(cron("one"), cron("two"))
    moved(at_noon, theirs)
    at_noon.change("one", args=[42])
    at_noon.pause("two")
    theirs.sql(f"UPDATE {theirs.tasks} SET args = '[1]', task = 'proj.new'")
    report = moved(at_noon, theirs).report
    assert report.kept == {"one": ("args",), "two": ("state",)}
    one, two = at_noon.entries()
    assert (one.args, one.task) == ([42], "proj.new")
    assert (two.args, two.task, two.state) == ([1], "proj.new", "paused")


@both
@on_sqlite
def test_what_ran_there_does_not_run_again(theirs: Theirs, at_noon: Store) -> None:
    """A task that runs once and has run there is left out, and taken out of service here."""
    soon = NOW + HOUR
    theirs.write(
        clocked("ran", NOW - HOUR),
        cron("ran-too", one_off=True),
        cron("counted", one_off=True, total_run_count=1),
        clocked("moved", soon),
        run=["ran", "ran-too"],
    )
    at_noon.database.clock = ManualClock(NOW - 2 * HOUR)
    theirs.sql(f"UPDATE {theirs.tasks} SET enabled = true")
    moved(at_noon, theirs)
    at_noon.database.clock = ManualClock(NOW)
    theirs.sql(f"UPDATE {theirs.tasks} SET enabled = false WHERE name LIKE 'ran%'")
    report = moved(at_noon, theirs)
    assert report.left["counted"] == "it runs once, and has already run"
    assert report.left.keys() == {"ran", "counted"}
    assert report.report.deactivated == ("ran",)
    # It may run once more there too, if somebody enables it again.
    assert states(at_noon) == {"ran": "cancelled", "ran-too": "paused", "moved": "active"}


@both
@on_sqlite
def test_a_time_that_has_passed_is_somebodys_choice(theirs: Theirs, at_noon: Store) -> None:
    """A one-shot that never ran there is left out when its time has passed, or taken on request."""
    theirs.write(
        clocked("late", NOW - HOUR),
        clocked("off", NOW - HOUR, enabled=False),
        clocked("ran", NOW - HOUR, last_run_at=(NOW - HOUR / 2).isoformat()),
        clocked("waits", NOW - HOUR, start_time=(NOW + HOUR).isoformat()),
    )
    report = moved(at_noon, theirs)
    assert report.left["ran"] == "it ran at 2026-01-15 11:30:00 UTC"
    assert "--overdue" in report.left["late"]
    assert "disabled" in report.left["off"]
    assert states(at_noon) == {"waits": "active"}
    assert at_noon.get("waits").next_due_at == NOW + HOUR
    report = moved(at_noon, theirs, overdue=True)
    assert (report.report.created, list(report.left)) == (("late",), ["off", "ran"])
    assert at_noon.get("late").next_due_at == NOW - HOUR
    # It is known here now, so it is not left out, which would take it out of service.
    assert moved(at_noon, theirs).report.unchanged == ("late", "waits")


@both
@on_sqlite
def test_what_has_expired_is_left_out(theirs: Theirs, at_noon: Store) -> None:
    """A task that expired there, or would before its time, is left out."""
    theirs.write(
        cron("expired", expires=(NOW - HOUR).isoformat()),
        clocked("never", NOW + 2 * HOUR, expires=(NOW + HOUR).isoformat()),
        cron("last", expires=(NOW + 2 * HOUR).isoformat(), hour="13"),
        cron("over", expires=(NOW + 2 * HOUR).isoformat(), hour="14"),
    )
    report = moved(at_noon, theirs)
    assert list(report.left) == ["expired", "never", "over"]
    assert states(at_noon) == {"last": "active"}
    # Its last run, which is due now, is not called back.
    at_noon.database.clock = ManualClock(NOW + HOUR)
    assert moved(at_noon, theirs).report.unchanged == ("last",)
    at_noon.database.clock = ManualClock(NOW + 2 * HOUR)
    assert moved(at_noon, theirs).report.deactivated == ("last",)


@both
@on_sqlite
def test_paused_first_and_in_service_later(theirs: Theirs, at_noon: Store) -> None:
    """Moved over paused, entries are put into service by moving over once more."""
    theirs.write(cron("on"), cron("off", enabled=False), cron("held"), clocked("later", NOW + HOUR))
    moved(at_noon, theirs, paused=True)
    assert set(states(at_noon).values()) == {"paused"}
    at_noon.database.clock = ManualClock(NOW + timedelta(minutes=5))
    moved(at_noon, theirs)
    assert states(at_noon) == {
        **{"on": "active", "held": "active", "later": "active", "off": "paused"}
    }
    # Nothing of the time in between is made up for.
    assert at_noon.get("on").next_due_at > NOW + timedelta(minutes=5)


@both
@on_sqlite
def test_nothing_is_sent_twice_by_the_switch(theirs: Theirs, at_noon: Store) -> None:
    """From the last import on our beat sends what is due, and nothing that theirs has sent."""
    clock = ManualClock(NOW)
    at_noon.database.clock = clock
    theirs.write(
        cron("hourly", hour="*"),
        every("every", 1, "hours", last_run_at=(NOW - HOUR / 2).isoformat()),
        clocked("ran", NOW + HOUR),
        clocked("later", NOW + 4 * HOUR),
        cron("off", hour="*", enabled=False),
    )
    moved(at_noon, theirs, paused=True)
    queue = Queue(at_noon.database, at_noon.settings, "a-beat")
    queue.upkeep.introduce(host="here", pid=1, version="1", tzdata="2026a")
    clock.advance(2.25 * 3600)
    assert tick(queue) == []
    last = f"{NOW + 1.75 * HOUR:%Y-%m-%d %H:%M:%S}"
    theirs.sql(
        f"UPDATE {theirs.tasks} SET last_run_at = '{last}' WHERE name = 'every'",
        f"UPDATE {theirs.tasks} SET enabled = false WHERE name = 'ran'",
    )
    moved(at_noon, theirs)
    assert tick(queue) == []
    clock.advance(2 * 3600)
    sent = sorted((claim.name, claim.due_at) for claim in tick(queue))
    # Two hours later, of which the first is a misfire: one run for both.
    assert sent == [
        ("every", NOW + 3.75 * HOUR),
        ("hourly", NOW + 4 * HOUR),
        ("later", NOW + 4 * HOUR),
    ]
    moved(at_noon, theirs)
    assert tick(queue) == []
    queue.close()


@both
@on_sqlite
def test_their_own_entries_of_celery_are_left_to_beatstore(theirs: Theirs, at_noon: Store) -> None:
    """celery.backend_cleanup, and what is in beat_schedule, is not carried twice."""
    theirs.write(cron("celery.backend_cleanup", enabled=False), cron("in-code"), cron("one"))
    report = moved(at_noon, theirs, leave={"in-code": "it is in beat_schedule"})
    assert report.left["in-code"] == "it is in beat_schedule"
    assert "to keep it disabled" in report.left["celery.backend_cleanup"]
    assert states(at_noon) == {"one": "active"}


@both
@on_sqlite
def test_an_interval_goes_on_where_it_was(theirs: Theirs, at_noon: Store) -> None:
    """An interval is next due a period after its last run there, or at its start."""
    start = NOW + timedelta(minutes=90)
    theirs.write(
        every("ran", 3, "hours", last_run_at=(NOW - HOUR).isoformat()),
        every("starts", 3, "hours", start_time=start.isoformat()),
        every(
            "late",
            1,
            "hours",
            start_time=start.isoformat(),
            last_run_at=(NOW - HOUR).isoformat(),
        ),
        every(
            "edited",
            3,
            "hours",
            start_time=start.isoformat(),
            last_run_at=(NOW - HOUR).isoformat(),
        ),
        every("never", 7, "days"),
    )
    changed = NOW - timedelta(days=2)
    said = f"{changed:%Y-%m-%d %H:%M:%S}"
    theirs.sql(f"UPDATE {theirs.tasks} SET date_changed = '{said}' WHERE name = 'never'")
    moved(at_noon, theirs)
    assert {entry.name: entry.next_due_at for entry in at_noon.entries()} == {
        "ran": NOW + 2 * HOUR,
        "starts": start,
        "late": start,
        "edited": NOW + 2 * HOUR,
        "never": changed + timedelta(days=7),
    }


@both
@on_sqlite
def test_bad_rows_are_refused_with_the_reason(theirs: Theirs, at_noon: Store) -> None:
    """What can't be carried is refused, keeps its entry here, and holds up no other row."""
    broken = {
        "args": "[1,",
        "kwargs": "[1]",
        "headers": '"text"',
        "priority": "'-1'",
        "expires": "'tomorrow'",
    }
    theirs.write(*(cron(f"bad-{column}") for column in broken), cron("good"))
    moved(at_noon, theirs)
    for column, value in broken.items():
        quoted = value if value.startswith("'") else f"'{value}'"
        theirs.sql(
            "PRAGMA ignore_check_constraints = ON",
            f"UPDATE {theirs.tasks} SET task = 'proj.x', {column} = {quoted}"
            f" WHERE name = 'bad-{column}'",
        )
    theirs.sql(f"UPDATE {theirs.tasks} SET task = 'proj.y' WHERE name = 'good'")
    report = moved(at_noon, theirs).report
    assert report.updated == ("good",)
    assert report.deactivated == ()
    assert sorted(report.refused) == sorted(f"bad-{column}" for column in broken)
    for column in broken:
        assert column in report.refused[f"bad-{column}"]
        assert at_noon.get(f"bad-{column}").task == f"proj.bad-{column}"


@both
@on_sqlite
def test_bad_schedules_are_refused_with_the_reason(theirs: Theirs, at_noon: Store) -> None:
    """A schedule that is gone, unreadable or never due is refused, and named."""
    tables = SCHEDULERS[theirs.package].tables
    theirs.write(
        cron("text", "1"),
        cron("never", "2"),
        cron("zone", "3"),
        cron("gone", "4"),
        every("period", 5, "minutes"),
        every("zero", 6, "minutes"),
        every("short", 7, "microseconds"),
        cron("good", "8"),
    )
    theirs.sql(
        "PRAGMA foreign_keys = OFF",
        "PRAGMA ignore_check_constraints = ON",
        f"UPDATE {tables['crontab']} SET hour = 'noon' WHERE minute = '1'",
        f"UPDATE {tables['crontab']} SET day_of_month = '31', month_of_year = '2'"
        " WHERE minute = '2'",
        f"UPDATE {tables['crontab']} SET timezone = 'Mars/Base' WHERE minute = '3'",
        f"DELETE FROM {tables['crontab']} WHERE minute = '4'",
        f"UPDATE {tables['interval']} SET period = 'moons' WHERE every = 5",
        f"UPDATE {tables['interval']} SET every = 0 WHERE every = 6",
    )
    report = moved(at_noon, theirs).report
    assert report.created == ("good",)
    expected = {
        **{"text": "noon", "never": "31", "zone": "Mars/Base", "period": "moons"},
        **{"gone": f"an id that {tables['crontab']} has", "zero": "every", "short": "0.1"},
    }
    assert report.refused.keys() == expected.keys()
    for name, words in expected.items():
        assert words in report.refused[name], report.refused[name]


@both
@on_sqlite
def test_zones_of_instants_and_crontabs_can_be_named(theirs: Theirs, at_noon: Store) -> None:
    """Instants that the tables keep without a zone, and crontabs, are read in the one given."""
    theirs.write(clocked("once", NOW + HOUR), cron("nine", timezone="UTC"))
    moved(at_noon, theirs, timezone="America/New_York", crontab_timezone="Asia/Kolkata")
    once, nine = at_noon.get("once"), at_noon.get("nine")
    assert once.next_due_at == NOW + 6 * HOUR
    assert (nine.timezone, nine.next_due_at.hour, nine.next_due_at.minute) == (
        *("Asia/Kolkata", 3),
        30,
    )


@both
def test_nothing_is_written_where_it_is_read(
    theirs: Theirs, at_noon: Store, tmp_path: Path
) -> None:
    """Their tables are read in a transaction that can't write."""
    theirs.write(cron("one"))
    engine = create_engine(theirs.url, poolclass=NullPool)
    deletion = text(f"DELETE FROM {theirs.tasks}")
    refused = pytest.raises(DBAPIError, match=r"(?i)read.?only")
    reading = dialect_of(engine.dialect).begin_reading
    with engine.connect() as connection, refused, reading(connection):
        connection.execute(deletion)
    assert theirs.sql(f"SELECT name FROM {theirs.tasks}")[0] == ("one",)
    # And whoever uses the connection next may write again.
    moved(at_noon, theirs)
    assert states(at_noon) == {"one": "active"}


@both
@on_sqlite
def test_their_file_is_left_as_it_is(package: str, database_url: str, migrated_url: str) -> None:
    """Not a byte of their SQLite file changes, and no file appears beside it."""
    theirs = Theirs(package, database_url)
    theirs.write(cron("one"))
    file = Path(database_url.partition("///")[2])
    before = hashlib.sha256(file.read_bytes()).digest()
    store = Store(migrated_url)
    assert move(store, package, url=database_url).report.created == ("one",)
    store.close()
    assert hashlib.sha256(file.read_bytes()).digest() == before
    assert [path.name for path in file.parent.glob(f"{file.name}*")] == [file.name]


@pytest.mark.parametrize("package", [ALCHEMY])
@on_postgresql
def test_their_tables_may_have_a_schema(theirs: Theirs, at_noon: Store) -> None:
    """Tables in a schema are found there, and named when they are looked for elsewhere."""
    theirs.write(cron("one"), schema="theirs")
    with pytest.raises(SchemaError, match="schema 'theirs' has one"):
        moved(at_noon, theirs)
    report = move(at_noon, ALCHEMY, schema="theirs")
    assert report.report.created == ("one",)


@both
def test_tables_that_are_not_there_are_named(package: str, at_noon: Store) -> None:
    """What was looked for, and where, is said; and no password with it."""
    with pytest.raises(SchemaError) as refused:
        move(at_noon, package)
    assert SCHEDULERS[package].tables["tasks"] in str(refused.value)
    assert at_noon.url in str(refused.value)


@on_sqlite
def test_a_place_that_can_not_be_is_refused(at_noon: Store, tmp_path: Path) -> None:
    """No file is made of a mistyped name, and an unknown package is named with those known."""
    missing = tmp_path / "nothing.db"
    with pytest.raises(ConfigError, match="that exists"):
        move(at_noon, DJANGO, url=f"sqlite:///{missing}")
    assert not missing.exists()
    with pytest.raises(ConfigError, match="django-celery-beat or sqlalchemy-celery-beat"):
        move(at_noon, "redbeat")


def test_older_tables_are_read_too() -> None:
    """A column or table that an older version has not is as if it were at its default."""
    tables: dict[str, list[dict[str, Any]]] = {
        "tasks": [
            {"id": 1, "name": "one", "task": "t", "crontab_id": 3, "interval_id": None},
            {"id": 2, "name": "two", "task": "t", "interval_id": 4, "crontab_id": 3},
            {"id": 3, "name": "three", "task": "t", "clocked_id": 1},
            {"id": 4, "name": "four", "task": "t"},
        ],
        "crontab": [{"id": 3, "minute": "5", "hour": "*"}],
        "interval": [{"id": 4, "every": 2, "period": "hours"}],
        "solar": [],
        "clocked": [],
    }
    found = read(DJANGO, tables, NOW, How(), lambda name: False)
    one, two = found.entries
    assert (one.schedule.spec, one.schedule.timezone, one.paused) == ("5 * * * *", None, False)
    assert two.schedule == Every(7200)
    assert [(note.name, note.instead) for note in found.notes] == [
        ("two", "interval, which its scheduler uses")
    ]
    assert found.refused.keys() == {"three", "four"}


# -- the verb --------------------------------------------------------------------------------


def imported(store: Store, theirs: Theirs, *arguments: str, code: int = 0) -> Result:
    """Call the verb as `beatstore --url … import …`."""
    url = store.database.url.render_as_string(hide_password=False)
    given = ["--url", url, "import", "--from", theirs.package, *arguments]
    result = CliRunner().invoke(beatstore, given)
    assert result.exit_code == code, result.output
    return result


@both
@on_sqlite
def test_the_verb_tells_what_it_did(theirs: Theirs, at_noon: Store) -> None:
    """People see each outcome with its reason, and nothing is written by a dry run."""
    theirs.write(
        cron("one"),
        cron("bad", args="[1"),
        clocked("gone", LONG_AGO, enabled=False),
        cron("starts", start_time="2099-01-01T00:00:00+00:00"),
    )
    said = imported(at_noon, theirs, "--dry-run", code=1).stdout
    assert states(at_noon) == {}
    for words in ("refused    bad     args: expected JSON", "left out   gone    it is disabled"):
        assert words in said
    assert (
        "not exact  starts  start_time: its scheduler may run it at 2099-01-01 00:00:00 UTC" in said
    )
    summary = "2 created, 1 refused, 1 left out, 1 not exact"
    assert said.splitlines()[-1].startswith(f"Dry run, nothing was written: {summary}, from")
    assert "Done: 2 created" in imported(at_noon, theirs, code=1).stdout
    assert states(at_noon) == {"one": "active", "starts": "active"}
    theirs.sql(f"DELETE FROM {theirs.tasks} WHERE name = 'bad'")
    again = imported(at_noon, theirs)
    assert "2 unchanged, 1 left out, 1 not exact" in again.stdout


@both
@on_sqlite
def test_the_verb_reports_to_programs(theirs: Theirs, at_noon: Store) -> None:
    """With --json all that is reported is one object."""
    theirs.write(cron("one"), cron("bad", args="[1"), clocked("gone", LONG_AGO, enabled=False))
    done = json.loads(imported(at_noon, theirs, "--json", "--paused", code=1).stdout)
    assert (done["source"], done["dry_run"], done["created"]) == (theirs.package, False, ["one"])
    assert list(done["refused"]) == ["bad"]
    assert list(done["left_out"]) == ["gone"]
    assert [done[key] for key in ("updated", "deactivated", "unchanged")] == [[], [], []]
    assert (done["kept"], done["not_exact"]) == ({}, [])
    assert states(at_noon) == {"one": "paused"}


@both
@on_sqlite
def test_the_app_says_what_it_knows(
    theirs: Theirs, at_noon: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an app, what is in beat_schedule is left to it, and its starting deadline counts."""
    theirs.write(cron("one"), cron("in-code"), every("two", 5, "minutes"))
    app: Any = Celery("proj", broker="memory://", set_as_current=False)
    app.conf.beatstore_url = theirs.url
    app.conf.beat_cron_starting_deadline = 120
    app.conf.beat_schedule = {"in-code": {"task": "proj.t", "schedule": 60.0}}
    if theirs.package == ALCHEMY:
        app.conf.beat_dburi = theirs.url
    context = SimpleNamespace(app=app, no_color=True)
    given = ["import", "--from", theirs.package, "--json"]
    result = CliRunner().invoke(beatstore, given, obj=context)
    app.close()
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["left_out"].keys() == {"in-code"}
    assert {entry.name: entry.grace_s for entry in at_noon.entries()} == {"one": 120, "two": None}


@both
@on_postgresql
def test_no_password_is_shown(package: str, at_noon: Store) -> None:
    """Neither the report nor an error has the password of their database."""
    url = "postgresql+psycopg://me:s3cr3t-w0rd@127.0.0.1:1/nowhere"
    store_url = at_noon.database.url.render_as_string(hide_password=False)
    given = ["--url", store_url, "import", "--from", package, "--url", url]
    result = CliRunner().invoke(beatstore, given)
    assert result.exit_code == 3
    assert "s3cr3t" not in result.output
    assert "127.0.0.1" in result.output


@on_sqlite
@pytest.mark.parametrize("package", [DJANGO])
def test_missing_tables_end_the_verb(theirs: Theirs, at_noon: Store) -> None:
    """Tables that are not there end the verb with one line that names them."""
    result = imported(at_noon, theirs, code=3)
    assert "no table 'django_celery_beat_periodictask'" in result.output
    assert len(result.output.splitlines()) == 1
