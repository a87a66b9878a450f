"""Reports that nobody expects any more, or that cross each other: believed, and counted once."""

from __future__ import annotations

import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import timedelta
from functools import partial
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import select, update

from beatstore import After
from beatstore.database.tables import ENTRY, RUN
from beatstore.tick.claims import Claim, Ending, Outcome
from beatstore.tick.complete import count
from beatstore.tick.reports import Origin, Report, Reports
from beatstore.worker.reporter import Reporter
from tests.support.harness.play import Play
from tests.support.harness.reported import begin, counts, said
from tests.support.marks import on_servers

HEARTBEAT = 10


def claim(play: Play, **given: Any) -> Claim:
    """Let one hourly entry be claimed at one o'clock."""
    play.add("a", "0 * * * *", **given)
    play.clock.advance(3600)
    ((claim,), _) = play.queue.plan(play.queue.look().now)
    return claim


# -- what beat took for not sent ---------------------------------------------------------------


def test_skipped_and_run_all_the_same(play: Play, reports: Reports) -> None:
    """A run that beat took for queued already is started, watched and counted as any."""
    found = claim(play)
    play.add("b", after=["a"])
    play.queue.mark([Outcome(found, "skipped", "already queued")])
    assert play.last("a").state == "skipped"
    reports.write([said(found, "started")])
    started = play.last("a")
    assert (started.state, started.finished_at) == ("started", None)
    assert started.wake_at == play.clock.now() + timedelta(seconds=3 * HEARTBEAT)
    reports.write([said(found, "succeeded")])
    assert play.last("a").state == "succeeded"
    assert play.tick() == ["b"]
    assert counts(play) == (1, 0, 1)


@pytest.mark.parametrize("state", ["succeeded", "failed", "sent"])
def test_skipped_and_ended_all_the_same(play: Play, reports: Reports, state: str) -> None:
    """The end of such a run is believed without its start, and so is a retry of its task."""
    found = claim(play)
    play.queue.mark([Outcome(found, "skipped", "already queued")])
    reports.write([said(found, state)])
    assert play.last("a").state == state
    play.tick()
    expected = {"succeeded": (1, 0, 1), "failed": (0, 1, 1), "sent": (0, 0, 0)}
    assert counts(play) == expected[state]


def test_a_skip_of_the_plan_stays(play: Play, reports: Reports) -> None:
    """What was skipped without a message is not ended by any report."""
    run = begin(play, overlap="skip")
    play.at("14:00")
    skipped = play.last("a")
    assert skipped.state == "skipped"
    reports.write([said(skipped, "started"), said(skipped, "succeeded")])
    assert play.last("a").state == "skipped"
    assert counts(play) == (0, 0, 0)
    reports.write([said(run, "succeeded")])
    assert counts(play) == (1, 0, 1)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_failed_and_run_all_the_same(
    play: Play, reports: Reports, state: str, counted: bool
) -> None:
    """A message that arrived though its sending failed is believed, and counted once."""
    found = claim(play)
    play.add("b", after=["a"])
    play.queue.mark([Outcome(found, "failed", "refused")])
    if counted:
        play.tick()
        assert counts(play) == (0, 1, 1)
    reports.write([said(found, "started"), said(found, state)])
    assert play.last("a").state == state
    assert play.tick() == (["b"] if state == "succeeded" else [])
    assert counts(play)[2] == 1
    assert counts(play)[0] == (state == "succeeded")


def test_cancelled_and_run_all_the_same(play: Play, reports: Reports) -> None:
    """A run that was cancelled on its way is started, as its worker says, and counted once."""
    found = claim(play)
    play.store.pause("a")
    play.clock.advance(3600)
    play.tick()
    assert play.last("a").state == "cancelled"
    reports.write([said(found, "started")])
    assert play.last("a").state == "started"
    reports.write([said(found, "succeeded")])
    assert counts(play) == (1, 0, 1)


def test_started_before_it_is_counted(play: Play, reports: Reports) -> None:
    """A cancelled run that is started before beat counts it keeps its deadline."""
    found = claim(play)
    play.store.pause("a")
    play.clock.advance(600)
    now = play.queue.look().now
    with play.store.database.engine.begin() as connection:
        of_run = update(RUN).where(RUN.c.id == found.run_id)
        connection.execute(of_run.values(state="cancelled", wake_at=now))
    reports.write([said(found, "started")])
    with play.store.database.engine.begin() as connection:
        count(connection, play.store.database, [found.run_id])
    started = play.last("a")
    assert (started.state, started.wake_at) == ("started", now + timedelta(seconds=3 * HEARTBEAT))


@pytest.mark.parametrize("held", [False, True])
def test_started_before_what_is_left_is_put_off(play: Play, reports: Reports, held: bool) -> None:
    """A run of an entry that was removed, or is locked, keeps its deadline if it is started."""
    found = claim(play)
    database = play.store.database
    if not held:
        play.store.remove("a")
    reports.write([said(found, "started")])
    started = play.store.run(found.run_id).run
    assert (started.state, started.wake_at is None) == ("started", False)
    with database.engine.connect() as connection, database.engine.begin() as other:
        if held:
            other.execute(select(ENTRY.c.id).with_for_update())
        count(connection, database, [found.run_id])
        connection.commit()
    assert play.store.run(found.run_id).run.wake_at == started.wake_at


def test_lost_then_cancelled_then_done(play: Play, reports: Reports) -> None:
    """A lost run whose message comes twice is counted once, whatever the two of them report."""
    run = begin(play, run_timeout=60)
    play.at("13:02")
    assert (play.last("a").state, counts(play)) == ("lost", (0, 1, 1))
    reports.write([said(run, "cancelled", reason="the task raised Ignore")])
    late = play.last("a")
    assert (late.state, counts(play)) == ("lost", (0, 1, 1))
    assert late.reason is not None
    assert late.reason.endswith("; reported later: cancelled")
    reports.write([said(run, "succeeded", by="two")])
    assert (play.last("a").state, counts(play)) == ("succeeded", (1, 1, 1))


def test_a_cancelled_attempt_is_counted_once(play: Play, reports: Reports) -> None:
    """A next attempt that was cancelled on its way, and so counted, is not counted again."""
    run = begin(play, max_retries=1, retry_delay=0)
    reports.write([said(run, "failed")])
    claims = play.queue.sweep(play.queue.look().now).claims
    play.store.pause("a")
    play.clock.advance(600)
    play.tick()
    second = next(one for one in play.store.runs("a") if one.attempt == 2)
    assert (second.state, counts(play)) == ("cancelled", (0, 1, 1))
    reports.write([said(claims[0], "started"), said(claims[0], "succeeded")])
    second = next(one for one in play.store.runs("a") if one.attempt == 2)
    assert (second.state, counts(play)) == ("succeeded", (1, 1, 1))


def test_an_attempt_that_was_ended_by_hand(play: Play, reports: Reports) -> None:
    """A next attempt that a user ends as cancelled leaves the failure; it may succeed after all."""
    run = begin(play, max_retries=1, retry_delay=0)
    reports.write([said(run, "failed")])
    assert play.tick() == ["a"]
    [second] = [one for one in play.store.runs("a") if one.attempt == 2]
    play.store.end(second, "cancelled", reason="why not")
    play.store.pause("a")
    play.clock.advance(600)
    play.tick()
    assert (play.store.run(second.id).run.state, counts(play)) == ("cancelled", (0, 1, 1))
    reports.write([said(second, "started"), said(second, "succeeded")])
    assert (play.store.run(second.id).run.state, counts(play)) == ("succeeded", (1, 1, 1))


@pytest.mark.parametrize("by", ["worker", "sweep"])
def test_an_attempt_that_expires_leaves_the_failure(play: Play, reports: Reports, by: str) -> None:
    """Nobody tries again after it, whoever sees first that its message has expired."""
    run = begin(play, max_retries=1, retry_delay=0)
    play.add("c", after=[After("a", on="failure")])
    reports.heartbeat("w", "worker@test", 1, [])
    reports.write([said(run, "failed")])
    [claim] = play.queue.sweep(play.queue.look().now).claims
    play.queue.mark([Outcome(claim, "sent", expires=60.0)])
    [second] = [one for one in play.store.runs("a") if one.attempt == 2]
    if by == "worker":
        reports.write([said(second, "cancelled", reason="expired in the queue")])
    else:
        play.clock.advance(71)
    assert play.tick() == ["c"]
    assert (play.store.run(second.id).run.state, counts(play)) == ("cancelled", (0, 1, 1))
    reports.write([said(second, "succeeded")])
    assert (play.store.run(second.id).run.state, counts(play)) == ("succeeded", (1, 1, 1))


@pytest.mark.parametrize("state", ["cancelled", "sent"])
def test_a_report_leaves_the_note_that_a_user_asked_for_the_run(
    play: Play, reports: Reports, state: str
) -> None:
    """A rerun that its task retries or cancels is still one, so nothing is counted for it twice."""
    run = begin(play)
    reports.write([said(run, "failed")])
    again = play.store.rerun(run)
    assert play.tick() == ["a"]
    reports.write([said(again, "started"), said(again, state, reason="the task said so")])
    assert play.store.run(again.id).run.reason == "triggered: rerun; the task said so"
    assert counts(play) == (0, 1, 1)
    reports.write([said(again, "succeeded")])
    assert counts(play) == (1, 1, 2)


def test_what_a_worker_has_revoked_is_over(play: Play, reports: Reports) -> None:
    """The start of a run, told after it was revoked at the same worker, does not reopen it."""
    run = begin(play)
    reports.write([said(run, "cancelled", reason="revoked"), said(run, "started")])
    assert play.last("a").state == "cancelled"


# -- what was given up -------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [True, False])
def test_a_lost_run_that_failed(play: Play, reports: Reports, waits: bool) -> None:
    """When a lost run turns out to have failed, its next attempt is made all the same."""
    run = begin(play, run_timeout=60, max_retries=1, retry_delay=100)
    play.add("c", after=[After("a", on="failure")])
    play.clock.advance(61)
    play.tick()
    if not waits:
        play.clock.advance(100)
        assert play.tick() == ["a"]
    reports.write([said(run, "failed", error="E")])
    states = {one.attempt: one.state for one in play.store.runs("a")}
    assert states == {1: "failed", 2: "claimed" if waits else "sent"}
    assert counts(play) == (0, 0, 0)
    if waits:
        play.clock.advance(100)
        assert play.tick() == ["a"]
    second = next(one for one in play.store.runs("a") if one.attempt == 2)
    reports.write([said(second, "failed")])
    assert counts(play) == (0, 1, 1)
    assert play.tick() == ["c"]


def test_a_run_is_lost_once(play: Play) -> None:
    """A second beat that gives up the same run does not take its next attempt back."""
    run = begin(play, run_timeout=60, max_retries=1, retry_delay=100)
    play.clock.advance(61)
    play.tick()
    play.queue.end([Ending(run.id, run.task_id, "lost", "said again")])
    play.clock.advance(100)
    assert play.tick() == ["a"]


# -- reports that cross ------------------------------------------------------------------------


def test_a_retry_that_is_told_late(play: Play, reports: Reports, other_reports: Reports) -> None:
    """That a message went back to the queue, said late, does not undo the start that followed."""
    run = begin(play)
    reports.write([said(run, "started")])
    play.clock.advance(1)
    other_reports.write([said(run, "started", by="two")])
    reports.write([said(run, "sent", reason="retried by the task")])
    started = play.last("a")
    assert (started.state, started.worker) == ("started", "two")
    other_reports.write([said(run, "sent", by="two", reason="retried by the task")])
    assert play.last("a").state == "sent"


def test_a_quick_retry(play: Play, reports: Reports) -> None:
    """A task that is retried at once is in the queue, and is not watched meanwhile."""
    run = begin(play)
    for _ in range(20):
        reports.write([said(run, "started")])
        assert play.last("a").state == "started"
        reports.write([said(run, "sent")])
        assert play.last("a").state == "sent"


def test_a_message_put_back_by_the_main_process(
    play: Play, reports: Reports, other_reports: Reports
) -> None:
    """What another process of the worker says of a message that comes again is believed."""
    run = begin(play)
    reports.write([said(run, "started")])
    play.clock.advance(1)
    other_reports.write([said(run, "sent", reason="put back in the queue")])
    assert play.last("a").state == "sent"


def test_a_start_that_is_told_late(play: Play, reports: Reports, other_reports: Reports) -> None:
    """The start of an earlier execution, told late, does not stand for the later one."""
    run = begin(play)
    reports.write([said(run, "started", by="two")])
    other_reports.write([said(run, "started", ago=5)])
    assert play.last("a").worker == "two"


@pytest.mark.parametrize("state", ["started", "sent", "failed", "cancelled"])
def test_nothing_follows_an_end(play: Play, reports: Reports, state: str) -> None:
    """A run that has succeeded stays so, with no deadline, whatever is told later."""
    run = begin(play, run_timeout=60)
    reports.write([said(run, "succeeded")])
    reports.write([said(run, state)])
    ended = play.last("a")
    assert (ended.state, ended.wake_at) == ("succeeded", None)
    assert counts(play) == (1, 0, 1)


# -- a retry of celery's own that waits ----------------------------------------------------------


def test_the_timeout_waits_for_a_retry(play: Play, reports: Reports) -> None:
    """A message that is not worked on before its eta is suspicious its timeout after that."""
    run = begin(play, run_timeout=60)
    reports.write([said(run, "started"), said(run, "sent", delay=3600.0)])
    deadline = play.last("a").wake_at
    assert deadline is not None
    assert abs(deadline - play.clock.now() - timedelta(seconds=3660)) < timedelta(seconds=1)
    play.clock.advance(3600)
    play.tick()
    assert play.last("a").state == "sent"
    reports.write([said(run, "started"), said(run, "sent")])
    assert play.last("a").wake_at == play.clock.now() + timedelta(seconds=60)


def test_the_timeout_waits_for_a_part(play: Play, reports: Reports) -> None:
    """It waits for the latest eta of a canvas, though another task of it ends meanwhile."""
    run = begin(play, run_timeout=60)
    part = Origin(run.id, run.task_id, "1/2")
    now = time.monotonic()
    reports.write([Report(part, "sent", now, "one", delay=3600.0)])
    reports.write([Report(part._replace(part="2/2"), "succeeded", now, "one")])
    deadline = play.last("a").wake_at
    assert deadline is not None
    assert abs(deadline - play.clock.now() - timedelta(seconds=3660)) < timedelta(seconds=1)


# -- a second message --------------------------------------------------------------------------


@on_servers
def test_a_second_message_while_its_run_is_locked(play: Play, reports: Reports) -> None:
    """The guard answers as soon as the row is free, to a task that waits for so long."""
    run = begin(play)
    reporter = Reporter(lambda: reports)
    with play.store.database.session() as session:
        started = {"state": "started", "worker": "one", "started_at": play.clock.now()}
        session.execute(update(RUN).where(RUN.c.id == run.id).values(**started))
        answer = Future[str | None]()
        ask = partial(reporter.ask, said(run, "started", by="two"), again=False, wait=30)
        Thread(target=lambda: answer.set_result(ask())).start()
        with pytest.raises(FutureTimeoutError):
            answer.result(2.5)  # longer than any database waits for a row here
    assert "one started it" in str(answer.result(30))
    reporter.stop(10)


# -- two attempts in one transaction -----------------------------------------------------------


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_a_late_success_and_the_next_attempt(
    play: Play, reports: Reports, state: str, together: bool
) -> None:
    """An attempt that a late success has cancelled counts nothing, whatever is said of it.

    PostgreSQL may write the end of the last attempt first; then that is the only one to count.
    """
    run = begin(play, max_retries=1, retry_delay=3600, run_timeout=60)
    play.clock.advance(120)
    play.tick()
    second = play.last("a")
    assert (second.attempt, second.state) == (2, "claimed")
    given = [said(run, "succeeded"), said(second, state, reason="made")]
    for some in [given] if together else [[one] for one in given]:
        reports.write(some)
    play.tick()
    if play.last("a").state == "cancelled":
        assert counts(play) == (1, 0, 1)
        assert str(play.last("a").reason).endswith(f"reported later: {state}")
    else:
        assert together
        assert counts(play) == ((0, 1, 1) if state == "failed" else (1, 0, 1))
