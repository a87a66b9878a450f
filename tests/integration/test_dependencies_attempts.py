"""Overlap, retries and reruns of entries that others wait for, on every database."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from sqlalchemy import text

from beatstore import After, InvalidEntryError
from tests.support.harness.play import Play, held
from tests.support.marks import on_servers

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)
HOURLY = "0 * * * *"


# -- overlap -------------------------------------------------------------------------------


def test_overlap_skip_records_what_it_skips(play: Play) -> None:
    """While a run has not ended, an occurrence is recorded as skipped, and why."""
    play.add("a", HOURLY, overlap="skip")
    assert [play.at(when) for when in ("13:00", "14:00")] == [["a"], []]
    assert play.end("a") == []
    assert play.at("15:00") == ["a"]
    assert play.history("a") == [
        ("13:00", "succeeded", 0),
        ("14:00", "skipped", 1),
        ("15:00", "sent", 0),
    ]
    skipped = [run for run in play.store.runs("a") if run.state == "skipped"]
    assert "13:00" in (skipped[0].reason or "")


@pytest.mark.parametrize("how", ["overlap", "self-edge"])
def test_overlap_wait_is_an_edge_to_oneself(play: Play, how: str) -> None:
    """While a run has not ended the next waits, several as one; an edge to itself says the same."""
    play.add("a", HOURLY, overlap="wait" if how == "overlap" else "allow")
    if how == "self-edge":
        play.store.link("a", After("a", on="done", first_free=True))
    assert [play.at(when) for when in ("13:00", "14:00", "15:00")] == [["a"], [], []]
    assert play.end("a", "failed") == ["a"]
    assert play.history("a") == [("13:00", "failed", 0), ("15:00", "sent", 1)]
    assert play.end("a") == []


def test_a_run_that_is_never_heard_of_holds_up_only_so_long(play: Play) -> None:
    """After `run_timeout` without a word from any worker a run is lost, and the next one runs."""
    play.add("a", HOURLY, overlap="wait", run_timeout=5400)
    assert [play.at(when) for when in ("13:00", "14:00")] == [["a"], []]
    assert play.at("14:30") == ["a"]
    assert play.history("a") == [("13:00", "lost", 0), ("14:00", "sent", 0)]


# -- retries -------------------------------------------------------------------------------


def test_retries_are_runs_of_their_own(play: Play) -> None:
    """Each attempt is a row with its own task id, and the schedule does not shift."""
    play.add("a", HOURLY, max_retries=2, retry_delay=60, retry_backoff=10)
    play.at("13:00")
    assert play.end("a", "failed") == []
    assert play.at("13:01") == ["a"]
    assert play.end("a", "failed") == []
    assert play.at("13:10") == []
    assert play.at("13:11") == ["a"]
    assert play.end("a", "failed") == []
    assert play.at("14:00") == ["a"]
    runs = sorted(play.store.runs("a"), key=lambda run: (run.due_at, run.attempt))
    assert [(f"{run.due_at:%H}", run.attempt, run.state) for run in runs] == [
        ("13", 1, "failed"),
        ("13", 2, "failed"),
        ("13", 3, "failed"),
        ("14", 1, "sent"),
    ]
    assert len({run.task_id for run in runs}) == 4
    assert [run.error for run in runs[:3]] == ["RuntimeError: no"] * 3


def test_a_retry_that_is_cancelled_is_a_failure(play: Play) -> None:
    """When nobody will try again, whoever waits for the failure is told."""
    play.add("a", "0 13 * * *", max_retries=1)
    play.add("alarm", after=[After("a", on="failure")])
    play.at("13:00")
    assert play.end("a", "failed") == []
    play.store.cancel("a")
    assert play.tick() == ["alarm"]


# -- reruns --------------------------------------------------------------------------------


def test_rerun_is_one_more_attempt(play: Play) -> None:
    """A run that failed for good is sent again by hand, and its success frees the downstream."""
    play.add("a", "0 13 * * *")
    play.add("b", after=["a"])
    play.at("13:00")
    play.end("a", "failed")
    again = play.store.rerun(play.last("a"))
    assert (again.attempt, again.due_at) == (2, NOON.replace(hour=13))
    assert play.tick() == ["a"]
    assert play.end("a") == ["b"]
    with pytest.raises(InvalidEntryError, match="attempt 1 is sent"):
        play.store.rerun(play.last("b"))
    play.store.change("a", new_name="z")
    assert play.store.rerun(again).entry_name == "z"
    with pytest.raises(InvalidEntryError, match="attempt 3 is claimed"):
        play.store.rerun(again)


def counted(play: Play) -> tuple[int, int, int]:
    """Return how often 'a' has succeeded, failed and ended."""
    entry = play.store.get("a")
    return entry.success_seq, entry.failure_seq, entry.done_seq


@pytest.mark.parametrize("how", ["cancel", "plain SQL", "end"])
@pytest.mark.parametrize("first", ["succeeded", "failed"])
def test_a_rerun_that_is_cancelled_is_not_counted(play: Play, how: str, first: str) -> None:
    """The attempt before it has been counted, so that nobody is told anything new."""
    play.add("a", "0 13 * * *")
    play.add("next", after=[After("a", on="done")])
    play.at("13:00")
    assert play.end("a", first) == ["next"]
    before = counted(play)
    again = play.store.rerun(play.last("a"))
    if how == "cancel":
        play.store.cancel("a")
    elif how == "plain SQL":
        with play.store.database.session() as session:
            session.execute(text("UPDATE beatstore_entry SET state = 'cancelled' WHERE name = 'a'"))
    else:
        play.tick()
        play.store.end(again.id, "cancelled")
    assert play.tick() == []
    [run] = [one for one in play.store.runs("a") if one.id == again.id]
    words = "ended by hand" if how == "end" else "entry cancelled before it was sent"
    assert (run.state, run.reason) == ("cancelled", f"triggered: rerun; {words}")
    assert counted(play) == before


def test_a_rerun_whose_retry_is_cancelled_is_a_failure(play: Play) -> None:
    """The rerun has failed, was not counted because of its retry, and nobody tries again."""
    play.add("a", "0 13 * * *", max_retries=2, retry_delay=0)
    play.at("13:00")
    play.end("a")
    play.store.rerun(play.last("a"))
    assert play.tick() == ["a"]
    play.store.change("a", retry_delay=600)
    play.end("a", "failed")
    assert counted(play) == (1, 0, 1)
    play.store.cancel("a")
    play.tick()
    assert counted(play) == (1, 1, 2)


@on_servers
def test_a_rerun_asked_for_before_the_failure_was_counted(play: Play) -> None:
    """A failure that waits for its locked entry is counted, though its next attempt exists."""
    play.add("a", "0 13 * * *", max_retries=1)
    play.at("13:00")
    with held(play, "a"):
        play.end("a", "failed")
    play.store.rerun(play.last("a"))
    play.store.cancel("a")
    play.clock.advance(2)
    assert play.tick() == []
    assert [run.state for run in play.store.runs("a")] == ["cancelled", "failed"]
    assert counted(play) == (0, 1, 1)


def test_a_lost_run_that_succeeds_before_its_rerun_is_sent(play: Play) -> None:
    """The rerun is not needed, and the success is added to a failure that was counted."""
    play.add("a", "0 13 * * *", run_timeout=60)
    play.at("13:00")
    assert play.at("13:02") == []
    play.store.rerun(play.last("a"))
    play.end("a")
    assert [run.state for run in play.store.runs("a")] == ["cancelled", "succeeded"]
    assert counted(play) == (1, 1, 1)
