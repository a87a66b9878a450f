"""How long a run may go unheard of once it was sent: by its entry, by the settings, and anew."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text, update

from beatstore import ManualClock, Once, Run, Store
from beatstore.config import Settings
from beatstore.models import RunModel
from beatstore.tick.queue import Queue
from beatstore.tick.reports import Origin, Report, Reports
from tests.support.harness.play import NOON, Play

HOURLY = "0 * * * *"
DAY = timedelta(days=1)


def said(run: Run, state: str, **given: Any) -> Report:
    """Return what a worker says of a run now."""
    return Report(Origin(run.id, run.task_id), state, time.monotonic(), "celery@w", **given)


def day_later(play: Play, when: str) -> list[str]:
    """Tick at that time on the next day, and return the names sent."""
    hour, minute = when.split(":")
    play.clock.set(NOON.replace(hour=int(hour), minute=int(minute)) + DAY)
    return play.tick()


def sql(store: Store, assignments: str, name: str) -> None:
    """Edit an entry by plain SQL, as somebody at a prompt does."""
    with store.database.engine.begin() as connection:
        connection.execute(
            text(f"UPDATE beatstore_entry SET {assignments} WHERE name = :name"),
            {"name": name},
        )


# -- of the settings -----------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", ["skip", "wait"])
def test_an_entry_with_overlap_goes_on_after_a_day(play: Play, overlap: str) -> None:
    """A message that is lost holds back an entry with overlap for a day, and not for ever."""
    play.add("a", HOURLY, overlap=overlap)
    assert [play.at(when) for when in ("13:00", "14:00")] == [["a"], []]
    lost = play.last("a") if overlap == "wait" else play.store.runs("a", state="sent")[0]
    assert lost.wake_at == NOON.replace(hour=13) + DAY
    assert day_later(play, "12:59") == []
    sent = day_later(play, "13:00") + day_later(play, "14:00")
    assert sent[:1] == ["a"]
    assert play.store.runs("a", state="lost")[0].id == lost.id
    assert play.store.runs("a", state="lost")[0].reason == (
        "no worker reported it within 1 d of sending"
    )


def test_an_entry_that_may_overlap_is_waited_for(play: Play) -> None:
    """Where a run holds back nobody, a long queue is no fault."""
    play.add("a", HOURLY, max_runs=1)
    assert play.at("13:00") == ["a"]
    assert play.last("a").wake_at is None


@pytest.mark.parametrize("overlap", ["skip", "wait"])
def test_its_own_timeout_comes_first(play: Play, overlap: str) -> None:
    """The setting is for entries that have none, be theirs longer or shorter."""
    for name, timeout in (("short", 60), ("long", 3 * 86400)):
        play.add(name, HOURLY, overlap=overlap, run_timeout=timeout)
    play.at("13:00")
    for name, timeout in (("short", 60), ("long", 3 * 86400)):
        assert play.last(name).wake_at == play.clock.now() + timedelta(seconds=timeout)


def test_the_setting_is_read(database_url: str, clock: ManualClock) -> None:
    """`beatstore_overlap_timeout` is how long, also of what is sent again."""
    settings = Settings.read({"beatstore_url": database_url, "beatstore_overlap_timeout": 600})
    store = Store(database_url, settings=settings, clock=clock)
    store.migrate()
    store.add("a", "tests.a", HOURLY, overlap="skip")
    queue = Queue(store.database, store.settings, "b")
    clock.advance(3600)
    [claim], _ = queue.plan(queue.look().now)
    assert claim.run_timeout_s == 600
    clock.advance(settings.claim_ttl)
    [claim] = queue.sweep(queue.look().now).claims
    assert claim.run_timeout_s == 600
    queue.close()
    store.close()


def test_back_in_the_queue_it_counts_anew(play: Play, reports: Reports) -> None:
    """A run of an entry with overlap that celery retries is given up too, from then on."""
    play.add("a", HOURLY, overlap="wait")
    play.at("13:00")
    run = play.last("a")
    reports.write([said(run, "started")])
    play.at("13:30")
    reports.write([said(run, "sent")])
    assert play.last("a").wake_at == play.clock.now() + DAY


# -- set later -----------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["api", "sql"])
@pytest.mark.parametrize("state", ["active", "paused", "finished", "cancelled"])
def test_set_later_it_counts_for_what_was_sent(play: Play, by: str, state: str) -> None:
    """A run that nobody asks after is given up by the timeout that its entry gets now."""
    play.add("a", HOURLY, max_runs=1 if state == "finished" else None)
    assert play.at("13:00") == ["a"]
    if state == "paused":
        play.store.pause("a")
    elif state == "cancelled":
        play.store.cancel("a")
    play.at("13:05")
    assert (play.store.get("a").state, play.last("a").state) == (state, "sent")
    if by == "api":
        play.store.change("a", run_timeout=600)
    else:
        sql(play.store, "run_timeout_s = 600", "a")
    assert play.tick() == []
    assert play.last("a").wake_at == NOON.replace(hour=13, minute=10)
    entry = play.store.get("a")
    assert (entry.state, entry.wake_at is None) == (state, state != "active")
    play.at("13:10")
    assert play.last("a").state == "lost"


def test_the_api_needs_no_trigger(play: Play) -> None:
    """On a server that refuses triggers, an edit by the API counts for what was sent too."""
    of = " ON beatstore_entry" if play.store.database.engine.dialect.name == "postgresql" else ""
    with play.store.database.engine.begin() as connection:
        connection.execute(text(f"DROP TRIGGER beatstore_entry_edit{of}"))
    play.add("a", HOURLY)
    play.at("13:00")
    play.store.pause("a")
    play.store.change("a", run_timeout=600)
    play.tick()
    assert play.last("a").wake_at == NOON.replace(hour=13, minute=10)


@pytest.mark.parametrize("by", ["api", "sql"])
def test_a_timeout_that_is_over_already(play: Play, by: str) -> None:
    """What was sent longer ago than the new timeout is given up, and retried, at once."""
    play.add("a", HOURLY, overlap="wait", max_retries=1, retry_delay=60)
    assert [play.at(when) for when in ("13:00", "14:00")] == [["a"], []]
    play.clock.advance(60)
    if by == "api":
        play.store.change("a", run_timeout=600)
    else:
        sql(play.store, "run_timeout_s = 600", "a")
    play.tick()
    assert play.history("a")[0] == ("13:00", "lost", 0)
    play.clock.advance(60)
    assert play.tick() == ["a"]
    assert play.last("a").attempt == 2


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        ({"run_timeout": 7200}, 7200),
        ({"run_timeout": None}, None),
        ({"overlap": "wait"}, 600),
        ({"run_timeout": None, "overlap": "skip"}, 86400),
    ],
)
def test_what_is_watched_follows(play: Play, change: dict[str, Any], seconds: int | None) -> None:
    """A longer timeout, none any more, or the one of the settings counts from the sending too."""
    play.add("a", HOURLY, run_timeout=600)
    play.at("13:00")
    play.at("13:05")
    play.store.change("a", **change)
    play.tick()
    at = None if seconds is None else NOON.replace(hour=13) + timedelta(seconds=seconds)
    assert play.last("a").wake_at == at


def test_a_retry_of_celery_s_own_is_waited_for(play: Play, reports: Reports) -> None:
    """A message that is not worked on before its eta is not given up before that."""
    play.add("a", HOURLY)
    play.at("13:00")
    run = play.last("a")
    reports.write([said(run, "started"), said(run, "sent", delay=3600.0)])
    play.store.change("a", run_timeout=60)
    play.tick()
    found = play.last("a").wake_at
    assert found is not None
    assert abs(found - NOON.replace(hour=14, minute=1)) < timedelta(seconds=1)
    reports.write([said(run, "started"), said(run, "sent")])
    play.store.change("a", run_timeout=90)
    play.tick()
    assert play.last("a").wake_at == play.clock.now() + timedelta(seconds=90)


def test_a_message_that_expires_first_is_asked_after_first(play: Play) -> None:
    """An edit leaves alone when a message expires."""
    play.add("a", Once(NOON + timedelta(hours=1)))
    play.clock.advance(3600)
    play.tick()
    expires_at = NOON.replace(hour=13, minute=20)
    with play.store.database.session() as session:
        session.execute(update(RunModel).values(expires_at=expires_at))
        session.commit()
    looks: list[datetime | None] = []
    for timeout in (600, 3600):
        play.store.change("a", run_timeout=timeout)
        play.tick()
        looks.append(play.last("a").wake_at)
    assert looks == [NOON.replace(hour=13, minute=10), expires_at + timedelta(seconds=10)]


def test_other_edits_leave_the_watch_alone(play: Play) -> None:
    """Pausing, resuming and other edits neither hasten nor delay when a run is given up."""
    play.add("a", HOURLY, run_timeout=5400)
    play.at("13:00")
    play.at("13:30")
    for edit in (
        lambda: play.store.pause("a"),
        lambda: play.store.resume("a"),
        lambda: play.store.change("a", schedule="30 * * * *"),
    ):
        edit()
        play.tick()
        assert play.last("a").wake_at == NOON.replace(hour=14, minute=30)


# -- what was sent while nobody reported ---------------------------------------------------------


def test_a_history_without_reports_is_not_retried(play: Play) -> None:
    """Runs of the time before setup(app) are not given up, all but the last, when it is set."""
    play.add("a", HOURLY, max_retries=3, retry_delay=0)
    assert [play.at(f"{hour}:00") for hour in range(13, 19)] == [["a"]] * 6
    play.clock.advance(60)
    play.store.change("a", run_timeout=30)
    assert play.tick() == ["a"]
    states = [state for _, state, _ in play.history("a")]
    assert states == [*["sent"] * 5, "lost", "sent"]


@pytest.mark.parametrize("overlap", ["skip", "wait"])
def test_a_history_without_reports_is_in_nobody_s_way(play: Play, overlap: str) -> None:
    """An entry that gets an overlap only then goes on when its last run has ended."""
    play.add("a", HOURLY)
    assert [play.at(f"{hour}:00") for hour in range(13, 16)] == [["a"]] * 3
    play.clock.advance(60)
    play.store.change("a", overlap=overlap, run_timeout=1800)
    assert play.tick() == []
    assert play.at("15:29") == []
    assert play.last("a").state == "sent"
    assert play.at("15:30") == []
    assert play.last("a").state == "lost"
    assert play.at("16:00") == ["a"]
    assert play.at("16:29") == []
