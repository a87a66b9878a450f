"""How an explanation tells times, schedules and rows that can't be read, on every database."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from beatstore import RRule
from beatstore.errors import EntryNotFoundError, ScheduleError
from beatstore.models import RunModel
from beatstore.schedules import zone
from beatstore.store.explain.wording import Wording
from tests.support.marks import on_sqlite
from tests.support.nights import ASKED, THREE, Night, running
from tests.support.written import DAY, HOUR, MINUTE, alter, run, write


def test_times_are_told_in_the_zone_asked_for(night: Night) -> None:
    """With `timezone=` due times are given there and in the entry's zone, reasons included."""
    store = night.store
    entry = store.add("skips", "t", "*/30 * * * *", timezone="Europe/Berlin", overlap="skip")
    at, before = ASKED - HOUR, ASKED - 2 * HOUR
    reason = f"overlap: its run due {before.isoformat()} has not ended, policy skip"
    write(store, RunModel, run(entry, at, state="skipped", reason=reason))
    said = store.explain("skips", at, timezone="Asia/Tokyo").sentences
    there = at.astimezone(zone("Asia/Tokyo"))
    assert said[0].startswith(f"The occurrence of 'skips' at {there:%Y-%m-%d %H:%M} Asia/Tokyo (")
    assert " Europe/Berlin) was skipped." in said[0]
    earlier = before.astimezone(zone("Asia/Tokyo"))
    assert f"its run due {earlier:%Y-%m-%d %H:%M} Asia/Tokyo (" in said[1]
    assert "+00:00" not in " ".join(said)
    assert store.runs("skips")[0].reason == reason
    with pytest.raises(ScheduleError, match="Asia/Tokio"):
        store.explain("skips", timezone="Asia/Tokio")


def test_an_hour_that_is_shown_twice(night: Night) -> None:
    """Of an instant in the hour that a clock repeats, the offset is told."""
    wording = Wording("Europe/Berlin", datetime(2026, 10, 25, 12, tzinfo=timezone.utc))
    first = datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc)
    assert wording.moment(first) == "02:30:00+02:00"
    assert wording.moment(first + HOUR) == "02:30:00+01:00"
    assert wording.moment(first + 2 * HOUR) == "03:30:00"
    assert wording.when(first) == "2026-10-25 02:30 Europe/Berlin (00:30 UTC)"


def test_an_occurrence_is_found_by_its_second(night: Night) -> None:
    """An instant to the second is the occurrence due within it; an exact one is only itself."""
    store = night.store
    entry = store.add("a", "t", "@daily")
    at = (ASKED - HOUR).replace(microsecond=250_000)
    write(store, RunModel, run(entry, at, state="succeeded"))
    assert store.explain("a", at.replace(microsecond=0)).verdict == "ran"
    assert store.explain("a", at).verdict == "ran"
    assert store.explain("a", at.replace(microsecond=1)).run is None


def test_other_schedules_are_told(night: Night) -> None:
    """Intervals, one-shots and rules of each kind, in UTC as elsewhere."""
    store, soon = night.store, ASKED + HOUR
    store.add("often", "t", 90)
    store.schedule("t", at=soon, name="once")
    store.add("rule", "t", RRule("FREQ=YEARLY;BYMONTH=6;BYMONTHDAY=1;BYHOUR=0", "UTC"))
    said = {name: store.explain(name).sentences for name in ("often", "once", "rule")}
    assert said["often"][0] == "'often' is active: every 1 min 30 s."
    assert said["often"][1] == "'often' is due next at 2026-01-15 02:06:30 UTC, in 1 min 30 s."
    assert said["once"][0] == "'once' is active: once, at 2026-01-15 03:05 UTC."
    assert said["once"][1] == "'once' is due next at 2026-01-15 03:05 UTC, in 1 h."
    assert said["rule"][0].startswith("'rule' is active: rrule 'FREQ=YEARLY;")
    alter(store, "once", state="finished", run_count=1, wake_at=None)
    assert store.explain("once").sentences[0] == "'once' is finished: its only run was sent."
    alter(store, "once", state="missed", run_count=0, wake_at=None)
    assert store.explain("once").sentences[0] == (
        "'once' is missed: its only run was not sent in time."
    )
    alter(store, "rule", state="finished", wake_at=None)
    assert store.explain("rule").sentences[0] == "'rule' is finished: nothing more will be due."


def test_a_removed_entry_is_explained(night: Night) -> None:
    """By the audit: who removed or renamed it, and when; a name that never was is an error."""
    night.store.change("load", new_name="load2")
    assert night.said() == ["'load' was renamed to 'load2' at 02:05:00, by ann."]
    night.run(name="load2", state="succeeded")
    night.store.by("bob").remove("load2")
    found = night.store.explain("load2")
    assert found.sentences == ["'load2' was removed at 02:05:00, by bob."]
    assert (found.state, found.by, found.since) == ("removed", "bob", ASKED)
    then = night.store.explain("load2", THREE)
    assert then.sentences[1] == "Its run due then is on record: succeeded."
    assert (then.verdict, night.store.explain("load2", ASKED).verdict) == ("ran", "removed")
    with pytest.raises(EntryNotFoundError):
        night.store.explain("lod")


def test_an_explanation_is_facts_too(night: Night) -> None:
    """What the sentences say stands in fields, for programs."""
    night.upstream("extract", state="broken", error="no")
    running(night)
    found = night.store.explain("load")
    assert (found.name, found.now, found.state) == ("load", ASKED, "active")
    assert (found.next_due_at, found.beats_alive) == (THREE + DAY, 1)
    assert (found.waits_due_at, found.waits_since) == (THREE, THREE + timedelta(seconds=1))
    [up] = found.waits_for
    assert (up.name, up.on, up.state, up.next_due_at) == ("extract", "success", "broken", None)
    assert [item.state for item in found.unfinished] == ["started"]
    assert [item.due_at for item in found.runs] == [THREE]
    assert (found.at, found.verdict, found.run, found.overdue_since) == (None,) * 4


def test_rows_written_by_hand_are_explained(night: Night) -> None:
    """A schedule or zone that can't be read, and options that are none, are no error here."""
    alter(night.store, "load", spec="nonsense", options=[1], wake_at=None)
    night.run(sent_at=THREE - HOUR)
    assert "cron 'nonsense'" in night.said()[0]
    assert night.store.explain("load").next_due_at is None
    found = night.store.explain("load", THREE + MINUTE)
    assert found.sentences == ["The schedule of 'load' can't be read."]
    error = "timezone: expected an IANA zone, got 'Mars/Phobos'"
    alter(night.store, "load", timezone="Mars/Phobos", state="broken", error=error, wake_at=None)
    assert night.said()[0] == f"'load' is broken: {error}."
    assert night.said(THREE + MINUTE)[0] == f"The schedule of 'load' can't be read: {error}."


@on_sqlite
def test_instants_that_are_none_are_explained(night: Night) -> None:
    """Where a database stores anything, an answer leaves out what can't be read."""
    night.upstream()
    running(night)
    night.run(THREE - HOUR, sent_at=THREE - HOUR)
    retried_at = {"attempt": 3, "state": "failed", "error": "boom"}
    night.run(**retried_at)
    with night.store.database.engine.begin() as connection:
        for statement in (
            "UPDATE beatstore_entry SET pending_since = 'x', next_due_at = 'x', created_at = 'x'",
            "UPDATE beatstore_entry SET cursor_at = 'x', start_at = 'x', args = 'x'",
            "UPDATE beatstore_run SET finished_at = 'x', sent_at = 'x', started_at = 'x'",
            "UPDATE beatstore_entry SET wake_at = '1999', updated_at = 'x'",
        ):
            connection.exec_driver_sql(statement)
    assert night.said()
    assert night.said(THREE)
    assert night.said(THREE + MINUTE)
    assert night.store.status().overdue == 2
    assert night.store.graph().nodes
