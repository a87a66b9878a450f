"""What ends a wait for the same due time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from beatstore import After, ManualClock
from tests.support.play import Play

HOURLY = "0 * * * *"


@pytest.fixture
def play(migrated_url: str, clock: ManualClock) -> Iterator[Play]:
    play = Play(migrated_url, clock)
    yield play
    play.queue.close()
    play.store.close()


def test_a_failure_of_the_same_due_time_ends_the_wait(play: Play) -> None:
    """With a clock, the occurrence whose upstream's run failed is given up, and told as such."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=[After("up", align="same", on_upstream_failure="skip")])
    play.add("alarm", after=[After("down", on="failure")])
    play.at("13:00")
    assert play.end("up", "failed") == ["alarm"]
    assert play.runs("down") == [("13:00", "skipped", 1)]
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
    assert play.runs("down") == [("13:00", "skipped", 1)]
