"""What workers report, on every database: outcomes, silence, second thoughts, the guard."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest

from beatstore import After, Run
from beatstore.tick.claims import Ending, Outcome
from beatstore.tick.reports import Origin, Report, Reports
from tests.support.harness.play import Play
from tests.support.harness.reported import begin

WORKER = "celery@there"
HEARTBEAT = 10


def of(run: Run, part: str | None = None) -> Origin:
    """Return what the messages of a run are of."""
    return Origin(run.id, run.task_id, part)


def said(
    run: Run, state: str, part: str | None = None, *, by: str = WORKER, ago: float = 0, **more: Any
) -> Report:
    """Return a report of now, or of some seconds ago."""
    return Report(of(run, part), state, time.monotonic() - ago, by, **more)


def test_a_report_says_when_where_and_why(play: Play, reports: Reports) -> None:
    """A run is started and ends as the worker says; its texts are bounded."""
    run = begin(play)
    reports.write([said(run, "started")])
    started = play.last("a")
    assert (started.state, started.worker) == ("started", WORKER)
    assert started.started_at is not None
    assert play.clock.now() - started.started_at < timedelta(seconds=1)
    play.clock.advance(5)
    reports.write([said(run, "failed", error="E" * 5000, traceback="x" * 30_000 + "end")])
    ended = play.last("a")
    assert (ended.state, ended.wake_at) == ("failed", None)
    assert ended.finished_at is not None
    assert play.clock.now() - ended.finished_at < timedelta(seconds=1)
    assert len(ended.error or "") == 2000
    assert len(ended.traceback or "") == 20_001
    assert (ended.traceback or "").endswith("end")


def test_what_has_ended_stays_so(play: Play, reports: Reports) -> None:
    """Whatever is reported later, and however often, a run counts once."""
    run = begin(play)
    ended = said(run, "succeeded")
    for _ in range(2):
        reports.write([said(run, "started"), ended, ended])
    reports.write([said(run, "failed"), said(run, "started")])
    assert play.last("a").state == "succeeded"
    entry = play.store.get("a")
    assert (entry.success_seq, entry.failure_seq, entry.done_seq) == (1, 0, 1)


def test_a_worker_may_be_quicker_than_the_mark(play: Play, reports: Reports) -> None:
    """A run that ended before beat marked it as sent stays ended, and was sent all the same."""
    play.add("a", "0 * * * *")
    play.clock.advance(3600)
    planned, _ = play.queue.plan(play.queue.look().now)
    reports.write([said(play.last("a"), "succeeded")])
    play.queue.mark([Outcome(claim, "sent") for claim in planned])
    run = play.last("a")
    assert (run.state, run.sent_at is not None, run.wake_at) == ("succeeded", True, None)
    assert play.tick() == []


def test_silence_is_suspected_first_and_then_a_loss(play: Play, reports: Reports) -> None:
    """A started run is lost when its worker has been silent for three heartbeats and two more."""
    run = begin(play)
    reports.write([said(run, "started")])
    play.clock.advance(3 * HEARTBEAT - 1)
    play.tick()
    assert play.last("a").claimed_by != "suspected"
    play.clock.advance(1)
    play.tick()
    assert (play.last("a").state, play.last("a").claimed_by) == ("started", "suspected")
    play.clock.advance(2 * HEARTBEAT)
    play.tick()
    lost = play.last("a")
    assert (lost.state, lost.reason) == ("lost", f"worker {WORKER} stopped sending heartbeats")
    assert play.store.get("a").failure_seq == 1


def test_a_slow_task_with_a_live_worker_is_never_lost(play: Play, reports: Reports) -> None:
    """A heartbeat takes a suspicion back, and a run that is kept alive so goes on for days."""
    run = begin(play, run_timeout=60)
    reports.write([said(run, "started")])
    play.clock.advance(3 * HEARTBEAT)
    play.tick()
    assert play.last("a").claimed_by == "suspected"
    for _ in range(12):
        reports.heartbeat("w", WORKER, 1, [of(run)])
        assert play.last("a").claimed_by != "suspected"
        play.clock.advance(2 * HEARTBEAT)
        play.tick()
    assert play.last("a").state == "started"


def silent(play: Play) -> list[Ending]:
    """Return what a beat would make of the runs that it finds silent now, and write it later."""
    return [one.lost for one in play.queue.sweep(play.clock.now()).stale_runs]


def begin_unheard(play: Play, **given: Any) -> tuple[Run, list[Ending]]:
    """Let a run be sent that no worker reports; return it, and what a beat makes of it then."""
    run = begin(play, run_timeout=60, **given)
    play.clock.advance(61)
    return run, silent(play)


def test_what_another_beat_suspects_is_not_lost_by_an_older_answer(
    play: Play, reports: Reports
) -> None:
    """A late answer on a silent message says nothing about the worker that has started it since."""
    run, old = begin_unheard(play)
    assert [one.state for one in old] == ["lost"]
    reports.write([said(run, "started")])
    play.clock.advance(3 * HEARTBEAT)
    assert silent(play) == []
    assert play.last("a").claimed_by == "suspected"
    play.queue.end(old)
    assert play.last("a").state == "started"
    play.clock.advance(2 * HEARTBEAT)
    play.queue.end(silent(play))
    assert play.last("a").state == "lost"


def test_what_a_worker_has_refused_is_not_lost(play: Play, reports: Reports) -> None:
    """A run whose task was cancelled while a result backend was asked stays cancelled."""
    run, old = begin_unheard(play, max_retries=1)
    reports.write([said(run, "cancelled")])
    play.queue.end(old)
    assert [(one.state, one.attempt) for one in play.store.runs("a")] == [("cancelled", 1)]
    assert play.store.get("a").failure_seq == 0


def test_a_late_answer_does_not_end_what_runs_of_a_removed_entry(
    play: Play, reports: Reports
) -> None:
    """A run whose entry is gone is lost by the same rule as any other."""
    run, old = begin_unheard(play)
    reports.write([said(run, "started")])
    play.store.remove("a")
    play.queue.end(old)
    assert play.last("a").state == "started"


def test_the_clock_may_be_put_forward(play: Play, reports: Reports) -> None:
    """A database whose clock jumps by a day loses no run of a worker that lives."""
    run = begin(play)
    reports.write([said(run, "started")])
    play.clock.advance(3 * 3600)
    play.tick()
    reports.heartbeat("w", WORKER, 1, [of(run)])
    play.clock.advance(2 * HEARTBEAT)
    play.tick()
    assert [one.state for one in play.store.runs("a") if one.id == run.id] == ["started"]


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_heard_of_after_all(play: Play, reports: Reports, state: str) -> None:
    """The end of a run that was given up is believed, and a success frees who waits for it."""
    run = begin(play, run_timeout=60)
    play.add("b", after=["a"])
    play.add("c", after=[After("a", on="done")])
    play.tick()
    play.clock.advance(61)
    assert play.tick() == ["c"]
    assert play.last("a").state == "lost"
    reports.write([said(run, state)])
    assert play.last("a").state == state
    assert play.tick() == (["b"] if state == "succeeded" else [])
    entry = play.store.get("a")
    assert (entry.done_seq, entry.failure_seq) == (1, 1)


def test_a_waiting_attempt_is_taken_back(play: Play, reports: Reports) -> None:
    """When a lost run ends after all, its next attempt is not sent, if it was not yet."""
    run = begin(play, run_timeout=60, max_retries=1, retry_delay=100)
    play.clock.advance(61)
    play.tick()
    reports.write([said(run, "succeeded")])
    play.clock.advance(100)
    assert play.tick() == []
    states = {one.attempt: one.state for one in play.store.runs("a")}
    assert states == {1: "succeeded", 2: "cancelled"}
    entry = play.store.get("a")
    assert (entry.success_seq, entry.failure_seq, entry.done_seq) == (1, 0, 1)


def test_an_attempt_under_way_decides(play: Play, reports: Reports) -> None:
    """When the next attempt was sent already, the end of the lost one is noted, and no more."""
    run = begin(play, run_timeout=60, max_retries=1, retry_delay=0)
    play.clock.advance(61)
    play.tick()
    play.tick()
    reports.write([said(run, "succeeded")])
    first = next(one for one in play.store.runs("a") if one.attempt == 1)
    assert first.state == "lost"
    assert (first.reason or "").endswith("reported later: succeeded")
    assert play.store.get("a").done_seq == 0


def test_back_in_the_queue(play: Play, reports: Reports) -> None:
    """A task that celery itself retries is waited for, by its timeout again."""
    run = begin(play, run_timeout=60)
    reports.write([said(run, "started"), said(run, "sent", reason="retried by the task")])
    waiting = play.last("a")
    assert (waiting.state, waiting.reason) == ("sent", "retried by the task")
    reports.write([said(run, "started"), said(run, "succeeded")])
    assert play.last("a").state == "succeeded"


def test_a_group_ends_with_its_last_member(play: Play, reports: Reports) -> None:
    """All parts of a group must succeed, each counts once, and one failure is the end."""
    run = begin(play)
    for part in ("1/3", "3/3", "1/3"):
        reports.write([said(run, "started", part)])
        reports.write([said(run, "succeeded", part)])
        assert play.last("a").state == "sent"
    reports.write([said(run, "succeeded", part="2/3")])
    assert play.last("a").state == "succeeded"
    play.at("14:00")
    run = play.last("a")
    reports.write([said(run, "succeeded", part="1/2"), said(run, "failed", part="2/2")])
    assert play.last("a").state == "failed"


# -- the guard -----------------------------------------------------------------------------


def test_a_second_message_must_not_start(play: Play, reports: Reports) -> None:
    """A run starts once; another message of it is told who has it, or how it ended."""
    run = begin(play)
    assert reports.start(said(run, "started"), again=False) is None
    assert WORKER in (reports.start(said(run, "started"), again=False) or "")
    assert reports.start(said(run, "started"), again=True) is None
    reports.write([said(run, "succeeded")])
    assert reports.start(said(run, "started"), again=True) == "the run is succeeded"


def test_a_lost_run_may_start_late_unless_it_is_tried_again(play: Play, reports: Reports) -> None:
    """A message that comes after its run was given up starts, if no other attempt was made."""
    run = begin(play, run_timeout=60)
    play.clock.advance(61)
    play.tick()
    assert reports.start(said(run, "started"), again=False) is None
    play.store.rerun(run.id)
    assert (reports.start(said(run, "started"), again=False) or "").startswith("the run is lost")


def test_a_run_that_is_not_on_record_starts(reports: Reports) -> None:
    """Without a row nobody knows better than the message."""
    assert (
        reports.start(Report(Origin(4711, "x"), "started", time.monotonic(), WORKER), again=False)
        is None
    )


def test_what_was_dropped_is_not_sent(play: Play, reports: Reports) -> None:
    """A run cancelled on its way, whose message the guard dropped, is not marked as sent."""
    play.add("a", "0 * * * *")
    play.clock.advance(3600)
    planned, _ = play.queue.plan(play.queue.look().now)
    [run] = play.store.runs()
    play.store.remove("a")
    assert (reports.start(said(run, "started"), again=False) or "").startswith(
        "the run is cancelled"
    )
    play.queue.mark([Outcome(claim, "sent") for claim in planned])
    [run] = play.store.runs()
    assert run.state == "cancelled"


def test_the_worker_is_on_record(play: Play, reports: Reports) -> None:
    """A heartbeat keeps one row for a worker, which says when it was stopped in order."""
    for running in ([], [Origin(1, "a"), Origin(2, "b")]):
        reports.heartbeat("w", WORKER, 7, running)
    heard_at = play.clock.now()
    [worker] = play.store.status().workers
    assert (worker.name, worker.pid, worker.running, worker.alive) == (WORKER, 7, 2, True)
    play.clock.advance(5)
    reports.withdraw("w")
    [worker] = play.store.status().workers
    assert (worker.running, worker.alive) == (0, False)
    assert (worker.heartbeat_at, worker.stopped_at) == (heard_at, play.clock.now())


def test_heard_of_at_the_last_moment(play: Play, reports: Reports) -> None:
    """A run that a worker speaks of while beat asks after it is not lost."""
    run = begin(play, run_timeout=60)
    play.clock.advance(61)
    [suspect] = play.queue.sweep(play.queue.look().now).stale_runs
    reports.write([said(run, "started")])
    play.queue.end([Ending(suspect.run_id, suspect.task_id, "lost", suspect.reason)])
    assert play.last("a").state == "started"
