"""What another scheduler wrote is carried over: tasks, due times, and what ran there."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy.orm import Session

from beatstore import Store
from beatstore.clock import ManualClock
from beatstore.moving.importer import move
from beatstore.tick.queue import Queue
from tests.support.harness.base import entry_states
from tests.support.harness.ticks import tick
from tests.support.marks import on_sqlite
from tests.support.theirs import HOUR, NOW, Theirs, both, clocked, cron, every, moved, task

pytestmark = [pytest.mark.quick_on("sqlite"), pytest.mark.by_turns("package")]

UTC = timezone.utc


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
    assert entry_states(at_noon) == {**dict.fromkeys(found, "active"), "off": "paused"}


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
@pytest.mark.heavy
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
    # MySQL keeps whole seconds: that may be the one in which it was made.
    theirs.sql(
        f"UPDATE {theirs.tasks} SET last_run_at = '2026-01-02 03:04:05' WHERE name = 'three'"
    )
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
        assert entry_states(at_noon) == ({"one": "active"} if commits else {})


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
    assert entry_states(at_noon) == {"ran": "cancelled", "ran-too": "paused", "moved": "active"}


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
    assert entry_states(at_noon) == {"waits": "active"}
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
    assert entry_states(at_noon) == {"last": "active"}
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
    assert set(entry_states(at_noon).values()) == {"paused"}
    at_noon.database.clock = ManualClock(NOW + timedelta(minutes=5))
    moved(at_noon, theirs)
    assert entry_states(at_noon) == {
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
@pytest.mark.parametrize("overdue", [False, True])
def test_a_time_that_passes_before_the_switch(
    theirs: Theirs, at_noon: Store, *, overdue: bool
) -> None:
    """A one-shot that was moved over paused, and that theirs has not run, runs once if asked."""
    clock = ManualClock(NOW)
    at_noon.database.clock = clock
    off = clocked("off", NOW + HOUR, enabled=False)
    theirs.write(clocked("late", NOW + HOUR), off, clocked("held", NOW + HOUR))
    moved(at_noon, theirs, paused=True)
    at_noon.cancel("held")
    clock.advance(1.25 * 3600)
    theirs.sql(f"UPDATE {theirs.tasks} SET enabled = true")
    queue = Queue(at_noon.database, at_noon.settings, "a-beat")
    queue.upkeep.introduce(host="here", pid=1, version="1", tzdata="2026a")
    report = moved(at_noon, theirs, overdue=overdue)
    assert report.report.updated == ("late", "off")
    assert [note.name for note in report.notes] == ([] if overdue else ["late", "off"])
    assert sorted(claim.name for claim in tick(queue)) == (["late", "off"] if overdue else [])
    state = "finished" if overdue else "missed"
    assert entry_states(at_noon) == {"held": "cancelled", "late": state, "off": state}
    assert moved(at_noon, theirs, overdue=overdue).report.unchanged == ("held", "late", "off")
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
    assert entry_states(at_noon) == {"one": "active"}


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
