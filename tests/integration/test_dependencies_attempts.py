"""Overlap and retries of entries that others wait for, on every database."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from beatstore import After, InvalidEntryError
from tests.support.harness.play import Play

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


def test_a_retry_that_is_cancelled_is_a_failure(play: Play) -> None:
    """When nobody will try again, whoever waits for the failure is told."""
    play.add("a", "0 13 * * *", max_retries=1)
    play.add("alarm", after=[After("a", on="failure")])
    play.at("13:00")
    assert play.end("a", "failed") == []
    play.store.cancel("a")
    assert play.tick() == ["alarm"]
