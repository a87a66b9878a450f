"""Runs of several messages, on every database: alive while a part is, and never moved back."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from beatstore import Run
from beatstore.database.tables import RUN
from beatstore.tick.reports import Origin, Reports
from tests.support.harness.play import Play
from tests.support.harness.reported import begin, said

HEARTBEAT = 10
MISSED_UNTIL_STALE = 3 * HEARTBEAT
GONE = MISSED_UNTIL_STALE + 2 * HEARTBEAT


def of(run: Run, part: str) -> Origin:
    return Origin(run.id, run.task_id, part)


def pass_silently(play: Play, seconds: float) -> None:
    """Let time pass, with a tick now and then, in which nobody says anything."""
    for _ in range(5):
        play.clock.advance(seconds / 5)
        play.tick()


def test_a_group_with_a_pause_between_its_members(play: Play, reports: Reports) -> None:
    """A group of which no member is under way waits in the queue, however long, and is not lost."""
    run = begin(play)
    reports.write([said(run, "started", "1/2")])
    assert play.last("a").state == "started"
    reports.write([said(run, "succeeded", "1/2")])
    waiting = play.last("a")
    assert (waiting.state, waiting.wake_at) == ("sent", None)
    pass_silently(play, 3000)
    assert play.last("a").state == "sent"
    reports.write([said(run, "started", "2/2"), said(run, "succeeded", "2/2")])
    assert play.last("a").state == "succeeded"
    assert play.store.get("a").success_seq == 1


def test_a_waiting_group_has_its_timeout(play: Play, reports: Reports) -> None:
    """The timeout of a run counts from when the last of its tasks under way has ended."""
    run = begin(play, run_timeout=60)
    play.clock.advance(50)
    reports.write([said(run, "started", "1/2"), said(run, "succeeded", "1/2")])
    assert play.last("a").wake_at == play.clock.now() + timedelta(seconds=60)
    play.clock.advance(60)
    play.tick()
    assert play.last("a").state == "lost"


@pytest.mark.parametrize("killed", ["1/1", "2/3", "step-1"])
def test_a_part_whose_worker_is_killed(play: Play, reports: Reports, killed: str) -> None:
    """The first, a later or the last task of a canvas: if its worker falls silent, it is lost."""
    run = begin(play)
    reports.write([said(run, "started", "step-0"), said(run, "succeeded", "step-0")])
    reports.write([said(run, "started", killed)])
    pass_silently(play, GONE + 5)
    assert play.last("a").state == "lost"


def test_a_worker_speaks_for_its_own_part(
    play: Play, reports: Reports, other_reports: Reports
) -> None:
    """A worker that lives keeps the run alive as long as it has a task of it, and no longer."""
    run = begin(play)
    reports.write([said(run, "started", "1/2")])
    other_reports.write([said(run, "started", "2/2", by="two")])
    for _ in range(10):  # the other one is dead by now
        reports.heartbeat("w", "one", 1, [of(run, "1/2")])
        play.clock.advance(HEARTBEAT)
        play.tick()
    assert play.last("a").state == "started"
    reports.write([said(run, "succeeded", "1/2")])
    for _ in range(5):  # what it still has of the run is over
        reports.heartbeat("w", "one", 1, [of(run, "1/2")])
        play.clock.advance(HEARTBEAT + 1)
        play.tick()
    assert play.last("a").state == "lost"


def test_a_step_that_reports_late(play: Play, reports: Reports, other_reports: Reports) -> None:
    """The end of a step that comes after the start of the next does not move the run back."""
    run = begin(play)
    reports.write([said(run, "started", "step-1")])
    other_reports.write([said(run, "started", "1/1", by="two")])
    reports.write([said(run, "succeeded", "step-1")])
    assert play.last("a").state == "started"
    pass_silently(play, GONE + 5)
    assert play.last("a").state == "lost"


def test_a_step_that_reports_after_the_end(
    play: Play, reports: Reports, other_reports: Reports
) -> None:
    """What comes in when the last task has ended changes nothing."""
    run = begin(play)
    other_reports.write(
        [said(run, "started", "1/1", by="two"), said(run, "succeeded", "1/1", by="two")]
    )
    for state in ("started", "sent", "succeeded", "failed", "cancelled"):
        reports.write([said(run, state, "step-1")])
        ended = play.last("a")
        assert (ended.state, ended.wake_at) == ("succeeded", None)
    entry = play.store.get("a")
    assert (entry.success_seq, entry.failure_seq, entry.done_seq) == (1, 0, 1)


def test_a_part_that_is_retried_elsewhere(
    play: Play, reports: Reports, other_reports: Reports
) -> None:
    """That a task went back to the queue, said late, does not hide that another has it."""
    run = begin(play)
    reports.write([said(run, "started", "1/2")])
    play.clock.advance(1)
    other_reports.write([said(run, "started", "1/2", by="two")])
    reports.write([said(run, "sent", "1/2")])
    assert play.last("a").state == "started"
    other_reports.write([said(run, "sent", "1/2", by="two")])
    assert play.last("a").state == "sent"


def test_a_part_delivered_again(play: Play, reports: Reports, other_reports: Reports) -> None:
    """A task whose worker was killed, and that another does, is ended by that one."""
    run = begin(play)
    reports.write([said(run, "started", "step-1")])
    play.clock.advance(HEARTBEAT)
    # Its start is written with its end, as that of every short task.
    other_reports.write([said(run, "succeeded", "step-1", by="two", started=time.monotonic())])
    assert play.last("a").state == "sent"
    reports.write([said(run, "started", "1/1"), said(run, "started", "1/1")])
    assert play.last("a").state == "started"


def test_a_part_started_after_its_end(play: Play, reports: Reports) -> None:
    """A start that is told after the end of its task does not open it again."""
    run = begin(play)
    reports.write([said(run, "succeeded", "1/2"), said(run, "started", "1/2")])
    assert play.last("a").state == "sent"


def test_parts_of_a_part(play: Play, reports: Reports) -> None:
    """A member of a group that goes on as a canvas has succeeded when all of that has."""
    run = begin(play)
    for part in ("2/2", "1/2.s", "1/2.1/2", "1/2.2/2.1/2", "1/2.1/2"):
        reports.write([said(run, "started", part), said(run, "succeeded", part)])
        assert play.last("a").state == "sent", part
    reports.write([said(run, "succeeded", "1/2.2/2.2/2")])
    assert play.last("a").state == "succeeded"


def test_a_failing_part_ends_the_run(play: Play, reports: Reports) -> None:
    """A run fails with the first of its parts that does, and once."""
    run = begin(play)
    reports.write([said(run, "succeeded", "1/3"), said(run, "failed", "2/3", error="E")])
    ended = play.last("a")
    assert (ended.state, ended.error) == ("failed", "E")
    assert ended.started_at is not None
    reports.write([said(run, "failed", "3/3"), said(run, "started", "3/3")])
    assert play.last("a").state == "failed"
    assert play.store.get("a").failure_seq == 1


def test_the_start_of_a_run_is_that_of_its_first_part(play: Play, reports: Reports) -> None:
    """A run of several messages began with the first and ends with the last."""
    run = begin(play)
    began = play.clock.now()
    reports.write([said(run, "started", "step-1"), said(run, "succeeded", "step-1")])
    play.clock.advance(100)
    now = time.monotonic()
    reports.write([said(run, "succeeded", "1/1", started=now - 1)])
    ended = play.last("a")
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert abs(ended.started_at - began) < timedelta(seconds=1)
    assert abs(ended.finished_at - play.clock.now()) < timedelta(seconds=1)


def test_parts_of_a_run_that_was_given_up(play: Play, reports: Reports) -> None:
    """When all tasks of a lost run are heard of after all, it has succeeded."""
    run = begin(play, run_timeout=60)
    reports.write([said(run, "succeeded", "1/2")])
    play.clock.advance(61)
    play.tick()
    assert play.last("a").state == "lost"
    reports.write([said(run, "started", "2/2")])
    assert play.last("a").state == "lost"
    reports.write([said(run, "succeeded", "2/2")])
    assert play.last("a").state == "succeeded"
    entry = play.store.get("a")
    assert (entry.success_seq, entry.failure_seq, entry.done_seq) == (1, 1, 1)


@pytest.mark.parametrize(
    "spoiled",
    [
        [1, 2],
        "text",
        {"open": 3, "done": [], "until": "never"},
        {"open": {"1/2": 5, "2/2": "soon"}, "done": {"2": {}, "x": [None, "1"]}},
    ],
)
def test_a_spoiled_column(play: Play, reports: Reports, spoiled: Any) -> None:
    """Whatever a hand has written into `parts`, the run ends when its parts have."""
    run = begin(play)
    with play.store.database.engine.begin() as connection:
        connection.execute(update(RUN).where(RUN.c.id == run.id).values(parts=spoiled))
    reports.heartbeat("w", "one", 1, [of(run, "1/2")])
    reports.write([said(run, "started", "1/2"), said(run, "succeeded", "1/2")])
    reports.write([said(run, "succeeded", "2/2")])
    assert play.last("a").state == "succeeded"


def test_a_large_group(play: Play, reports: Reports) -> None:
    """A group of many ends with its last member, in whatever order they end."""
    run = begin(play)
    parts = [f"{number}/150" for number in range(150, 0, -1)]
    for first in range(0, 150, 50):
        reports.write([said(run, "succeeded", part) for part in parts[first : first + 50]])
        assert play.last("a").state == ("succeeded" if first == 100 else "sent")
