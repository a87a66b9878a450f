"""What ends a wait for the same due time."""

from __future__ import annotations

from beatstore import After
from tests.support.harness.play import NOON, Play
from tests.support.harness.ticks import report

HOURLY = "0 * * * *"


def test_a_failure_of_the_same_due_time_ends_the_wait(play: Play) -> None:
    """With a clock, the occurrence whose upstream's run failed is given up, and told as such."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=[After("up", align="same", on_upstream_failure="skip")])
    play.add("alarm", after=[After("down", on="failure")])
    play.at("13:00")
    assert play.end("up", "failed") == ["alarm"]
    assert play.history("down") == [("13:00", "skipped", 1)]
    play.at("14:00")
    assert play.end("up") == ["down"]


def test_a_failure_ends_the_wait_without_a_clock(play: Play) -> None:
    """Without a clock, the due time whose upstream's run failed is given up likewise."""
    play.add("up", HOURLY)
    play.add("down", after=[After("up", align="same", on_upstream_failure="skip")])
    play.add("alarm", after=[After("down", on="failure")])
    play.at("13:00")
    assert play.end("up", "failed") == ["alarm"]
    play.at("14:00")
    assert play.end("up") == ["down"]


def test_a_wait_for_the_same_due_time_has_its_time(play: Play) -> None:
    """What has waited for its upstream's run of the same due time for so long is given up."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=[After("up", align="same", timeout=600)])
    play.at("13:00")
    play.at("13:10")
    assert play.history("down") == [("13:00", "skipped", 1)]


def test_the_end_of_a_wait_goes_down_a_chain(play: Play) -> None:
    """What was given up for a due time is a failure of that due time to those below."""
    skip = {"align": "same", "on_upstream_failure": "skip"}
    play.add("a", HOURLY)
    play.add("b", HOURLY, after=[After("a", **skip)])
    play.add("c", after=[After("b", **skip)])
    play.add("d", HOURLY, after=[After("c", **skip)])
    play.at("13:00")
    assert play.end("a", "failed") == []
    for name in ("b", "c", "d"):
        assert play.history(name) == [("13:00", "skipped", 1)], name
    play.at("14:00")
    assert [play.end(name) for name in ("a", "b", "c")] == [["b"], ["c"], ["d"]]


def test_only_the_due_time_that_failed_is_given_up(play: Play) -> None:
    """What came due later goes on waiting for its own, and so does what failed before."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=[After("up", align="same", on_upstream_failure="skip")])
    play.at("13:00")
    first = play.held.pop("up")
    play.at("14:00")
    report(play.store, "failed", first, "RuntimeError: no")
    assert play.tick() == []
    assert play.history("down") == [("13:00", "skipped", 1)]
    assert play.store.get("down").pending_due_at == NOON.replace(hour=14)
    assert play.end("up") == ["down"]
    assert play.history("down")[1:] == [("14:00", "sent", 0)]


def test_a_retry_may_still_succeed(play: Play) -> None:
    """A failure with attempts left ends no wait."""
    play.add("up", "0 13 * * *", max_retries=1, retry_delay=600)
    play.add("down", "0 13 * * *", after=[After("up", align="same", on_upstream_failure="skip")])
    play.at("13:00")
    assert play.end("up", "failed") == []
    play.at("13:10")
    assert play.end("up") == ["down"]
    assert play.history("down") == [("13:00", "sent", 0)]


def test_an_overlap_of_the_upstream_is_no_failure(play: Play) -> None:
    """What the upstream skipped for its own run is waited for, and folds into the next."""
    play.add("up", HOURLY, overlap="skip")
    play.add("down", HOURLY, after=[After("up", align="same", on_upstream_failure="skip")])
    play.at("13:00")
    play.at("14:00")
    assert play.end("up") == ["down"]
    play.end("down")
    play.at("15:00")
    assert play.end("up") == ["down"]
    assert play.history("down") == [("13:00", "succeeded", 0), ("15:00", "sent", 1)]


def test_each_of_several_failures_is_told(play: Play) -> None:
    """Without a clock every due time that failed is recorded once, whoever failed it."""
    skip = {"align": "same", "on_upstream_failure": "skip"}
    play.add("a", HOURLY)
    play.add("b", HOURLY)
    play.add("down", after=[After("a", **skip), After("b", **skip)])
    for when in ("13:00", "14:00"):
        play.at(when)
    report(play.store, "failed", play.held.pop("a") + play.held.pop("b"), "RuntimeError: no")
    play.tick()
    assert play.history("down") == [("13:00", "skipped", 1), ("14:00", "skipped", 1)]
    assert play.store.get("down").failure_seq == 2
