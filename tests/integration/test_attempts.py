"""The attempts of one occurrence: which of them decides, and that it is counted once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from beatstore import After, Run
from beatstore.tick.claims import Claim, Outcome
from beatstore.tick.reports import Reports
from tests.support.harness.play import Play, held
from tests.support.harness.reported import begin, counts, said
from tests.support.marks import on_servers


def attempt(play: Play, number: int) -> Run:
    return next(run for run in play.store.runs("a") if run.attempt == number)


def second_claimed(play: Play, reports: Reports, **given: Any) -> Claim:
    """Let a run fail, and a beat claim its next attempt."""
    reports.write([said(begin(play, max_retries=1, retry_delay=0, **given), "failed")])
    [claim] = play.queue.sweep(play.queue.look().now).claims
    return claim


def cancel_on_its_way(play: Play, reports: Reports) -> Claim:
    """Let another beat cancel a next attempt that a slow beat is sending."""
    claim = second_claimed(play, reports)
    play.store.pause("a")
    play.clock.advance(600)
    play.tick()
    assert (attempt(play, 2).state, counts(play)) == ("cancelled", (0, 1, 1))
    return claim


def later(play: Play) -> list[str]:
    play.clock.advance(5)
    return play.tick()


# -- a next attempt that is dropped ------------------------------------------------------------


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_a_counted_attempt_is_not_sent_again(play: Play, reports: Reports, state: str) -> None:
    """A slow beat marks what it has sent; an attempt that was cancelled meanwhile stays so."""
    claim = cancel_on_its_way(play, reports)
    play.queue.mark([Outcome(claim, "sent")])
    assert attempt(play, 2).state == "cancelled"
    reports.write([said(claim, "started"), said(claim, state)])
    later(play)
    assert counts(play) == ((1, 1, 1) if state == "succeeded" else (0, 1, 1))


def test_no_attempt_follows_a_counted_one(play: Play, reports: Reports) -> None:
    """After the alarm for the failure there is no other attempt."""
    reports.write([said(begin(play, max_retries=2, retry_delay=0), "failed")])
    play.add("c", after=[After("a", on="failure")])
    [claim] = play.queue.sweep(play.queue.look().now).claims
    play.store.pause("a")
    play.clock.advance(600)
    assert play.tick() == ["c"]
    play.queue.mark([Outcome(claim, "sent")])
    play.store.resume("a")
    reports.write([said(claim, "failed")])
    assert "a" not in play.tick()
    assert [run.attempt for run in play.store.runs("a")] == [2, 1]


def test_a_skipped_attempt_leaves_the_failure(play: Play, reports: Reports) -> None:
    """If another package has locked the task, nobody tries again, and downstreams learn of it."""
    claim = second_claimed(play, reports)
    play.add("c", after=[After("a", on="failure")])
    play.add("d", after=[After("a", on="done")])
    play.queue.mark([Outcome(claim, "skipped", "already queued")])
    assert sorted(later(play)) == ["c", "d"]
    assert counts(play) == (0, 1, 1)
    reports.write([said(claim, "started"), said(claim, "succeeded")])
    assert counts(play) == (1, 1, 1)


def test_a_skipped_run_wakes_what_waits_for_it(play: Play) -> None:
    """An entry that waits for its own run goes on when that was skipped."""
    play.add("a", 10, overlap="wait")
    play.clock.advance(10)
    ((claim,), _) = play.queue.plan(play.queue.look().now)
    assert later(play) == later(play) == []
    play.queue.mark([Outcome(claim, "skipped", "already queued")])
    assert later(play) == ["a"]


@pytest.mark.parametrize("how", ["pause", "cancel"])
def test_a_late_success_counts_if_the_next_attempt_was_not_sent(
    play: Play, reports: Reports, how: str
) -> None:
    """Who has paused or cancelled the entry has dropped the attempt, and the run has succeeded."""
    run = begin(play, max_retries=1, retry_delay=100, run_timeout=60)
    play.add("b", after=["a"])
    play.clock.advance(61)
    play.tick()
    getattr(play.store, how)("a")
    play.clock.advance(101)
    if how == "pause":
        play.tick()
    assert attempt(play, 2).state == "cancelled"
    reports.write([said(run, "succeeded")])
    assert play.tick() == ["b"]
    assert attempt(play, 1).state == "succeeded"
    assert counts(play) == ((1, 1, 1) if how == "pause" else (1, 0, 1))


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_a_late_cancelled_leaves_it_to_the_next_attempt(
    play: Play, reports: Reports, state: str
) -> None:
    """If the run was dropped after all, and its next attempt has run too, that one counts."""
    run = begin(play, max_retries=1, retry_delay=0, run_timeout=60)
    play.add("d", after=[After("a", on="done")])
    play.clock.advance(60)
    play.queue.end([one.lost for one in play.queue.sweep(play.queue.look().now).stale_runs])
    [claim] = play.queue.sweep(play.queue.look().now).claims
    play.queue.mark([Outcome(claim, "claimed", retry_in=60, tries=1)])
    reports.write([said(run, "cancelled", reason="revoked")])
    assert (attempt(play, 2).state, counts(play)) == ("cancelled", (0, 0, 0))
    reports.write([said(claim, state)])
    assert later(play) == ["d"]
    assert counts(play) == ((1, 0, 1) if state == "succeeded" else (0, 1, 1))


def test_a_rerun_that_was_cancelled_on_its_way_is_started(play: Play, reports: Reports) -> None:
    """Its worker is believed, and watched."""
    run = begin(play)
    reports.write([said(run, "failed")])
    again = play.store.rerun(run)
    assert play.queue.sweep(play.queue.look().now).claims
    play.store.cancel("a")
    play.clock.advance(600)
    play.tick()
    assert attempt(play, 2).state == "cancelled"
    reports.write([said(again, "started")])
    assert attempt(play, 2).state == "started"


def test_a_run_that_is_sent_after_all_has_not_ended(play: Play) -> None:
    """A first attempt that was cancelled on its way, and is marked, has no end any more."""
    play.add("a", "0 * * * *")
    play.clock.advance(3600)
    ((claim,), _) = play.queue.plan(play.queue.look().now)
    play.store.pause("a")
    play.clock.advance(600)
    play.tick()
    play.queue.mark([Outcome(claim, "sent")])
    assert (play.last("a").state, play.last("a").finished_at) == ("sent", None)


def test_a_late_report_is_noted_once(play: Play, reports: Reports) -> None:
    """The same report once more changes nothing."""
    run = begin(play, run_timeout=60, max_retries=1, retry_delay=0)
    play.clock.advance(61)
    play.tick()
    play.tick()
    report = said(run, "succeeded")
    reports.write([report])
    before = attempt(play, 1).reason
    assert str(before).endswith("reported later: succeeded")
    reports.write([report])
    assert attempt(play, 1).reason == before


def test_a_lost_run_of_a_removed_entry_succeeds(play: Play, reports: Reports) -> None:
    """Nothing follows from it, and its row says what its worker says."""
    run = begin(play, run_timeout=60)
    play.clock.advance(61)
    play.tick()
    play.store.remove("a")
    reports.write([said(run, "succeeded")])
    assert play.store.run(run.id).run.state == "succeeded"


# -- ended by hand -----------------------------------------------------------------------------


@pytest.mark.parametrize("counted", [True, False])
def test_a_started_run_that_was_ended_by_hand(
    play: Play, reports: Reports, other_reports: Reports, counted: bool
) -> None:
    """Its worker is believed when it turns up after all."""
    run = begin(play)
    play.add("b", after=["a"])
    reports.write([said(run, "started")])
    play.store.end(run, "failed", reason="its machine is gone")
    if counted:
        later(play)
    other_reports.write([said(run, "started", by="two"), said(run, "succeeded", by="two")])
    assert later(play) == ["b"]
    assert play.last("a").state == "succeeded"


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_chain_that_was_ended_by_hand(
    play: Play, reports: Reports, other_reports: Reports, state: Any, counted: bool
) -> None:
    """So is the worker that runs its last task."""
    run = begin(play)
    play.add("b", after=["a"])
    reports.write([said(run, "started", part="step-1"), said(run, "succeeded", part="step-1")])
    play.store.end(run, state, reason="the queue was purged")
    if counted:
        later(play)
    last = [said(run, word, by="two", part="1/1") for word in ("started", "succeeded")]
    other_reports.write(last)
    assert later(play) == ["b"]
    assert play.last("a").state == "succeeded"


# -- a chain whose first message expires -------------------------------------------------------


def test_a_chain_between_its_tasks_does_not_expire(play: Play, reports: Reports) -> None:
    """The first message has an expiry, the next one has none."""
    reports.heartbeat("w", "worker@test", 1, [])
    play.add("a", "0 * * * *")
    play.add("b", after=["a"])
    play.clock.advance(3600)
    claims, _ = play.queue.plan(play.queue.look().now)
    [claim] = [one for one in claims if one.name == "a"]
    play.queue.mark([Outcome(claim, "sent", expires=60.0)])
    reports.write([said(claim, "started", part="step-1"), said(claim, "succeeded", part="step-1")])
    play.clock.advance(100)
    play.store.change("a", max_runs=100)
    play.tick()
    play.clock.advance(30)
    play.tick()
    assert play.last("a").state == "sent"
    reports.write([said(claim, "started", part="1/1"), said(claim, "succeeded", part="1/1")])
    assert play.tick() == ["b"]
    assert counts(play) == (1, 0, 1)


# -- reported while the entry is locked --------------------------------------------------------


@on_servers
@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_a_needless_attempt_is_reported_under_a_lock(
    play: Play, reports: Reports, state: str
) -> None:
    """It counts nothing: the late success of the attempt before it is the outcome."""
    run = begin(play, max_retries=1, retry_delay=3600, run_timeout=60)
    play.clock.advance(120)
    play.tick()
    second = play.last("a")
    reports.write([said(run, "succeeded")])
    with held(play, "a"):
        left = reports.write([said(second, state)])
    reports.write(left.held)
    later(play)
    assert (attempt(play, 2).state, counts(play)) == ("cancelled", (1, 0, 1))


@on_servers
def test_a_counted_attempt_succeeds_under_a_lock(play: Play, reports: Reports) -> None:
    """Its success is added, and the occurrence is counted once."""
    claim = cancel_on_its_way(play, reports)
    with held(play, "a"):
        left = reports.write([said(claim, "succeeded")])
    reports.write(left.held)
    later(play)
    assert (attempt(play, 2).state, counts(play)) == ("succeeded", (1, 1, 1))


@on_servers
@pytest.mark.parametrize("counted", [True, False])
def test_what_beat_gave_up_succeeds_under_a_lock(
    play: Play, reports: Reports, counted: bool
) -> None:
    """The report is not thrown away."""
    play.add("a", "0 * * * *")
    play.clock.advance(3600)
    ((found,), _) = play.queue.plan(play.queue.look().now)
    play.queue.mark([Outcome(found, "failed", "refused")])
    if counted:
        play.tick()
    with held(play, "a"):
        left = reports.write([said(found, "succeeded")])
    reports.write(left.held)
    later(play)
    assert play.last("a").state == "succeeded"
    assert counts(play) == (1, int(counted), 1)


@on_servers
def test_the_last_part_of_a_lost_group_under_a_lock(play: Play, reports: Reports) -> None:
    """What the other parts have reported is still there when the entry is free."""
    run = begin(play, run_timeout=60)
    reports.write([said(run, "started", part="1/2"), said(run, "succeeded", part="1/2")])
    play.clock.advance(61)
    play.tick()
    with held(play, "a"):
        left = reports.write([said(run, "succeeded", part="2/2")])
    assert not reports.write(left.held).held
    assert (play.last("a").state, counts(play)) == ("succeeded", (1, 1, 1))


@on_servers
@pytest.mark.parametrize("locked", [True, False])
def test_a_second_copy_does_not_undo_a_failure(play: Play, reports: Reports, locked: bool) -> None:
    """A run that its worker has ended stays as it is, counted or not."""
    run = begin(play)
    if locked:
        with held(play, "a"):
            assert not reports.write([said(run, "failed")]).held
    else:
        reports.write([said(run, "failed")])
    reports.write([said(run, "succeeded", by="two")])
    later(play)
    assert (play.last("a").state, counts(play)) == ("failed", (0, 1, 1))


@on_servers
def test_a_skip_of_the_plan_is_reported_under_a_lock(play: Play, reports: Reports) -> None:
    """There was no message, so the report is not believed."""
    begin(play, overlap="skip")
    play.at("14:00")
    skipped = play.last("a")
    with held(play, "a"):
        left = reports.write([said(skipped, "succeeded")])
    reports.write(left.held)
    later(play)
    assert play.store.run(skipped.id).run.state == "skipped"


@on_servers
def test_a_success_and_its_failed_rerun_wake_together(play: Play, reports: Reports) -> None:
    """Of two outcomes of one due time the success counts, as when they come one by one."""
    play.add("a", "0 * * * *")
    play.add("b", after=[After("a", align="same", on_upstream_failure="skip")])
    assert play.at("13:00") == ["a"]
    run = play.last("a")
    with held(play, "b"):
        reports.write([said(run, "succeeded")])
        again = play.store.rerun(run)
        assert play.tick() == ["a"]
        reports.write([said(again, "failed")])
    assert later(play) == ["b"]


@on_servers
def test_a_late_success_keeps_the_alarm_for_the_failure(play: Play, reports: Reports) -> None:
    """A failure that was counted while its downstream was locked still wakes it."""
    run = begin(play, run_timeout=60)
    play.add("c", after=[After("a", on="failure", align="same")])
    play.tick()
    with held(play, "c"):
        play.clock.advance(61)
        play.tick()
        assert counts(play) == (0, 1, 1)
    reports.write([said(run, "succeeded")])
    assert later(play) == ["c"]


# -- an edit meanwhile -------------------------------------------------------------------------


def test_the_end_of_a_run_keeps_the_mark_of_an_edit(play: Play, reports: Reports) -> None:
    """A timeout that is set later counts for the run that was sent last."""
    play.add("a", "0 * * * *", overlap="wait", run_timeout=7200)
    assert play.at("13:00") == ["a"]
    first = play.last("a")
    assert play.at("14:00") == []
    play.store.trigger("a")
    play.tick()
    [asked] = [run for run in play.store.runs("a") if run.id != first.id]
    play.store.change("a", run_timeout=600)
    reports.write([said(first, "succeeded")])
    play.tick()
    found = play.store.run(asked.id).run
    assert found.sent_at is not None
    assert found.wake_at == found.sent_at + timedelta(seconds=600)
