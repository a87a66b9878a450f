"""What beat's log says of a tick: each event once, a batch in a line, on every database."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

import pytest

from beatstore import After, Cron, Every
from beatstore.beat.scheduler import DBScheduler
from beatstore.models import DependencyModel, EntryModel
from beatstore.tick.claims import Outcome
from beatstore.tick.queue import Queue
from beatstore.tick.reports import Origin, Report, Reports
from tests.support.brokers import Broker
from tests.support.harness.play import Play
from tests.support.written import MINUTE, NOON, alter, write

HOURLY = Cron("0 * * * *")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Lines:
    """Return what is logged, from INFO on."""
    caplog.set_level(logging.INFO, "beatstore")
    return Lines(caplog)


class Lines:
    """What was logged since the last call."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def __call__(self, *levels: str) -> list[str]:
        """Return the lines of these levels, or else the warnings, and forget all."""
        wanted = levels or ("WARNING",)
        found = [one.getMessage() for one in self._caplog.records if one.levelname in wanted]
        self._caplog.clear()
        return found


def test_nothing_is_said_of_what_goes_well(play: Play, said: Lines) -> None:
    """An entry that is planned, sent and ended in time is no event."""
    play.add("a", HOURLY)
    assert play.at("13:00") == ["a"]
    play.end("a")
    assert said("INFO", "WARNING") == []


def test_an_entry_that_becomes_broken_is_said_once(play: Play, said: Lines) -> None:
    """With its due time and the reason; later ticks have nothing to add."""
    play.add("a", HOURLY)
    play.tick()
    alter(play.store, "a", spec="no cron\nat all")
    play.at("13:00")
    [line] = said()
    assert line.startswith(
        "an entry is broken and will not run until it is fixed: 'a' (due 2026-01-15 13:00:00 UTC): "
    )
    assert "\n" not in line
    assert play.at("14:00") == []
    assert said() == []


def test_a_row_that_no_driver_can_read_is_said(
    play: Play, said: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken out of service by itself, and the others of its batch go on."""
    play.add("a", HOURLY)
    play.add("b", HOURLY)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("the driver says no")

    monkeypatch.setattr(play.queue._planner, "plan_where", fails)
    play.clock.set(NOON + timedelta(hours=1))
    play.queue.plan(play.clock.now())
    assert [line.partition(": ")[2] for line in said()] == [
        f"{name!r}: unreadable row: the driver says no" for name in ("a", "b")
    ]


def test_a_run_that_no_driver_can_read_is_said(
    play: Play, said: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ended by itself, and is not heard of again."""
    play.add("a", HOURLY)
    play.clock.set(NOON + timedelta(hours=1))
    [claim], _ = play.queue.plan(play.clock.now())

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("the driver says no")

    play.clock.advance(31)
    with monkeypatch.context() as patch:
        patch.setattr("beatstore.tick.sweep.sweep", fails)
        play.queue.sweep(play.clock.now())
    assert said() == [
        f"a run could not be sent and has failed: 'a' (run {claim.run_id}): unreadable row: "
        "the driver says no"
    ]
    assert play.tick() == []
    assert said() == []


def test_a_cycle_by_plain_sql_is_said_for_all_its_members(play: Play, said: Lines) -> None:
    """Whoever mends it reads the names of all."""
    play.add("a", HOURLY)
    play.add("b", HOURLY, after=["a"])
    play.tick()
    a, b = (play.store.get(name).id for name in ("a", "b"))
    write(play.store, DependencyModel, {"upstream_id": b, "downstream_id": a})
    play.tick()
    [line] = said()
    assert line.startswith("2 entries are broken and will not run until they are fixed: 'a'")
    assert "dependency cycle: 'a' → 'b' → 'a'" in line


@pytest.mark.parametrize(
    ("batch", "counts"), [(100, [100] * 10), (500, [100, 200, 400, 300])], ids=["100", "500"]
)
def test_a_thousand_missed_one_shots_are_a_few_lines(
    play: Play, said: Lines, batch: int, counts: list[int]
) -> None:
    """A line for each batch has the first few and the count."""
    object.__setattr__(play.store.settings, "batch_size", batch)
    at = NOON + timedelta(seconds=1)
    same = {"task": "t", "kind": "once", "spec": at.isoformat(), "misfire": "skip"}
    write(play.store, EntryModel, *({"name": f"e{number:04}", **same} for number in range(1000)))
    play.clock.advance(3600)
    assert play.tick() == []
    first = 0
    for line, count in zip(said(), counts, strict=True):
        due = f"{count} entries missed their due times: 'e{first:04}' (due 2026-01-15 "
        assert line.startswith(due)
        assert line.endswith(f"; and {count - 3} more")
        assert line.count("misfire: first seen") == 3
        first += count


def test_what_one_run_stands_for_is_said(play: Play, said: Lines) -> None:
    """A misfire says how many occurrences it took, since when, and by which policy."""
    play.add("a", Every(60))
    play.add("b", Every(60), misfire="skip")
    play.at("12:30")
    coalesced, missed = said()
    assert coalesced == (
        "an entry is late, so one run covers several occurrences: 'a' (due 2026-01-15 "
        "12:30:00 UTC): 29 before it, the first due 2026-01-15 12:01:00 UTC; misfire: first seen "
        "29 min late, grace is 60 s, policy coalesce"
    )
    assert missed.startswith(
        "an entry missed its due time: 'b' (due 2026-01-15 12:28:00 UTC): 28 occurrences, the "
        "first due "
    )


def test_who_skips_for_long_is_said_once_and_once_a_day(play: Play, said: Lines) -> None:
    """Not the first skip, but when the run that is in the way was sent ten minutes ago."""
    play.add("a", Every(60), overlap="skip", run_timeout=30 * 86400)
    play.at("12:01")
    told_after = []
    for minute in range(2, 60):
        play.clock.set(NOON + minute * MINUTE)
        play.tick()
        told_after += [minute - 1 for _ in said()]
    assert told_after == [10]
    play.clock.set(NOON + timedelta(hours=23))
    play.tick()
    said()
    lines = []
    for hour in range(24, 73):
        play.clock.set(NOON + timedelta(hours=hour, minutes=1))
        play.tick()
        lines += [
            line for line in said() if line.startswith("an entry has skipped for a long time")
        ]
    assert len(lines) == 3
    assert "its run due 2026-01-15T12:01:00+00:00 has not ended" in lines[0]


def test_a_wait_that_was_given_up_is_said(play: Play, said: Lines) -> None:
    """An upstream that did not come in time is an event; one that is waited for is none."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=[After("up", timeout=600)])
    play.at("13:00")
    assert said() == []
    play.at("13:10")
    [line] = said()
    assert line.startswith(
        "an occurrence was skipped because its dependencies were not met: 'down' (due 2026-01-15"
    )
    assert line.endswith("waits for 'up' to succeed: given up after 10 min")


def test_what_is_skipped_with_its_upstream_is_no_warning(play: Play, said: Lines) -> None:
    """Somebody has asked for that: `on_upstream_failure="skip"`."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=[After("up", on_upstream_failure="skip")])
    play.at("13:00")
    play.end("up", "failed")
    assert said("INFO", "WARNING") == [
        "an occurrence was skipped because its upstream failed: 'down' (due 2026-01-15 13:00:00 "
        "UTC): upstream 'up' failed"
    ]


def test_a_claim_that_a_dead_beat_has_left_is_said(play: Play, said: Lines) -> None:
    """With whose it was; the next attempt of a run, or a send that is tried again, is none."""
    dead = Queue(play.store.database, play.store.settings, "the-dead-beat")
    play.add("a", HOURLY, max_retries=1, retry_delay=60)
    play.clock.set(NOON + timedelta(hours=1))
    [claim], _ = dead.plan(play.clock.now())
    play.clock.advance(31)
    assert play.tick() == ["a"]
    assert said() == [
        "a claim expired before its message was marked as sent; sending it again with the same "
        f"task id: 'a' (run {claim.run_id}, due 2026-01-15 13:00:00 UTC): claimed by beat "
        "the-dead-beat"
    ]
    play.end("a", "failed")
    play.clock.advance(60)
    [claim] = dead.sweep(play.clock.now()).claims
    dead.mark([Outcome(claim, "claimed", "OSError: no", 5.0, tries=1)])
    dead.close()
    play.clock.advance(5)
    assert play.tick() == ["a"]
    assert said() == []


def test_what_a_beat_takes_up_again_itself_is_no_warning(play: Play, said: Lines) -> None:
    """The outage before it was one; while that lasts, each look takes it up again."""
    play.add("a", HOURLY)
    play.clock.set(NOON + timedelta(hours=1))
    play.queue.plan(play.clock.now())
    for _ in range(3):
        play.queue.upkeep.release()
        assert len(play.queue.sweep(play.clock.now()).claims) == 1
    assert said("INFO", "WARNING") == []


def test_a_run_that_is_not_sent_after_all_is_said(play: Play, said: Lines) -> None:
    """An entry that was paused is somebody's wish, and no warning; arguments that broke are one."""
    for name in ("paused", "spoiled"):
        play.add(name, HOURLY)
    play.clock.set(NOON + timedelta(hours=1))
    play.queue.plan(play.clock.now())
    play.store.pause("paused")
    alter(play.store, "spoiled", options=[])
    play.clock.advance(31)
    play.tick()
    run = play.last("spoiled")
    assert said("WARNING") == [
        f"a run could not be sent and has failed: 'spoiled' (run {run.id}, due 2026-01-15 "
        "13:00:00 UTC): options: expected a JSON object, got []; write {}"
    ]


def test_who_was_paused_is_said_for_information(play: Play, said: Lines) -> None:
    """A run of an entry that was paused meanwhile is not sent, and the log can say so."""
    play.add("a", HOURLY)
    play.clock.set(NOON + timedelta(hours=1))
    play.queue.plan(play.clock.now())
    play.store.pause("a")
    play.clock.advance(31)
    play.tick()
    [line] = said("INFO")
    assert line.startswith("a run was cancelled before it was sent: 'a' (run ")
    assert line.endswith("entry paused before it was sent")


def test_lost_runs_are_said_together(play: Play, reports: Reports, said: Lines) -> None:
    """A queue that was purged is one event; what a worker has started meanwhile is none."""
    for name in "abcdef":
        play.add(name, HOURLY, run_timeout=60)
    play.at("13:00")
    play.clock.advance(61)
    silent = play.queue.sweep(play.clock.now()).stale_runs
    started = play.last("d")
    origin = Origin(started.id, started.task_id)
    reports.write([Report(origin, "started", time.monotonic(), "w")])
    play.queue.end([run.lost for run in silent])
    lost = [f"{one.name!r} (run {one.run_id}): {one.reason}" for one in silent if one.name != "d"]
    [line] = said()
    assert line == (
        f"5 runs are lost and count as failed: {lost[0]}; {lost[1]}; {lost[2]}; and 2 more"
    )
    play.queue.end([run.lost for run in silent])
    assert said() == []


def test_each_message_that_was_sent_can_be_read_of(
    play: Play, said: Lines, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """At INFO: which entry, task, run and message, for which due time, and how late it was."""
    play.add("a", HOURLY)
    scheduler.tick()
    play.clock.set(NOON + timedelta(hours=1, seconds=7))
    scheduler.tick()
    [message] = memory_broker.drain()
    run = play.last("a")
    [line] = [line for line in said("INFO") if line.startswith("sent ")]
    start = f"sent 'a' (tests.a): run {run.id}, attempt 1, task id {message.id}, due "
    assert line.startswith(f"{start}2026-01-15 13:00:00 UTC, 7")
    assert line.endswith(" s late")


def test_what_was_not_sent_is_not_said_to_be(
    play: Play,
    said: Lines,
    scheduler: DBScheduler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only what the broker has taken."""
    play.add("a", HOURLY)
    scheduler.tick()
    play.clock.set(NOON + timedelta(hours=1))
    monkeypatch.setattr("beatstore.beat.scheduler.publish", no)
    scheduler.tick()
    assert [line for line in said("INFO") if line.startswith("sent ")] == []
    assert play.last("a").state == "claimed"


def no(*_: object) -> None:
    """Send nothing."""
    raise RuntimeError("a hook of the task's says no")
