"""Dependencies on every database: when a downstream runs, once, and what it waits for."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from beatstore import After, Once
from tests.support.harness.play import Play
from tests.support.harness.ticks import report

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)
HOURLY = "0 * * * *"


# -- djag's rule ---------------------------------------------------------------------------


#
# A depender runs when it has a pending event, and every dependee has had at least one new
# event since the depender last started. Each story is a list of steps: a time (tick then), or
# "name=state" (its run ends so); each with what must be sent by it.
STORIES: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "no event of its own": (
        {"up": {"schedule": HOURLY}, "down": {"schedule": "30 13 * * *", "after": ["up"]}},
        [("13:00", "up"), ("up=succeeded", ""), ("13:30", "down")],
    ),
    "pending, and freed by the completion": (
        {"up": {"schedule": HOURLY}, "down": {"schedule": HOURLY, "after": ["up"]}},
        [("13:00", "up"), ("13:10", ""), ("up=succeeded", "down")],
    ),
    "a failure is no success": (
        {"up": {"schedule": HOURLY}, "down": {"schedule": HOURLY, "after": ["up"]}},
        [("13:00", "up"), ("up=failed", ""), ("14:00", "up"), ("up=succeeded", "down")],
    ),
    "a failure is an end": (
        {
            "up": {"schedule": HOURLY},
            "down": {"schedule": HOURLY, "after": [After("up", on="done")]},
        },
        [("13:00", "up"), ("up=failed", "down")],
    ),
    "only a failure": (
        {"up": {"schedule": HOURLY}, "down": {"after": [After("up", on="failure")]}},
        [("13:00", "up"), ("up=succeeded", ""), ("14:00", "up"), ("up=failed", "down")],
    ),
    "a cancelled run counts for nobody": (
        {
            "up": {"schedule": HOURLY},
            "down": {"schedule": HOURLY, "after": [After("up", on="done")]},
        },
        [("13:00", "up"), ("up=cancelled", ""), ("14:00", "up"), ("up=succeeded", "down")],
    ),
    "each completion counts once": (
        {"up": {"schedule": "0 13 * * *"}, "down": {"schedule": HOURLY, "after": ["up"]}},
        [
            ("13:00", "up"),
            ("up=succeeded", "down"),
            ("down=succeeded", ""),
            ("14:00", ""),
            ("15:00", ""),
        ],
    ),
    "several completions before one start are one": (
        {"up": {"schedule": HOURLY}, "down": {"schedule": "30 15,16 * * *", "after": ["up"]}},
        [
            ("13:00", "up"),
            ("up=succeeded", ""),
            ("14:00", "up"),
            ("up=succeeded", ""),
            ("15:00", "up"),
            ("up=succeeded", ""),
            ("15:30", "down"),
            ("16:00", "up"),
            ("16:30", ""),
        ],
    ),
    "a completion while it runs counts for the next": (
        {"up": {"schedule": HOURLY}, "down": {"schedule": "30 13,14 * * *", "after": ["up"]}},
        [
            ("13:00", "up"),
            ("up=succeeded", ""),
            ("13:30", "down"),
            ("14:00", "up"),
            ("up=succeeded", ""),
            ("down=succeeded", ""),
            ("14:30", "down"),
        ],
    ),
    "all of several": (
        {"a": {"schedule": HOURLY}, "b": {"schedule": HOURLY}, "down": {"after": ["a", "b"]}},
        [
            ("13:00", "a b"),
            ("a=succeeded", ""),
            ("b=succeeded", "down"),
            ("14:00", "a b"),
            ("b=succeeded", ""),
            ("a=succeeded", "down"),
        ],
    ),
    "one of several twice is not both": (
        {"a": {"schedule": HOURLY}, "b": {"schedule": "0 15 * * *"}, "down": {"after": ["a", "b"]}},
        [
            ("13:00", "a"),
            ("a=succeeded", ""),
            ("14:00", "a"),
            ("a=succeeded", ""),
            ("15:00", "a b"),
            ("b=succeeded", "down"),
            ("a=succeeded", ""),
        ],
    ),
    "a first run that is free": (
        {
            "up": {"schedule": "0 14 * * *"},
            "down": {"schedule": HOURLY, "after": [After("up", first_free=True)]},
        },
        [("13:00", "down"), ("14:00", "up"), ("up=succeeded", "down"), ("15:00", "")],
    ),
    "its own last run": (
        {"down": {"schedule": HOURLY}},
        [
            ("link down down", ""),
            ("13:00", "down"),
            ("14:00", ""),
            ("15:00", ""),
            ("down=succeeded", "down"),
            ("down=failed", ""),
            ("16:00", "down"),
        ],
    ),
    "a chain": (
        {"a": {"schedule": HOURLY}, "b": {"after": ["a"]}, "c": {"after": ["b"]}},
        [("13:00", "a"), ("a=succeeded", "b"), ("b=succeeded", "c"), ("c=succeeded", "")],
    ),
    "a diamond": (
        {
            "a": {"schedule": HOURLY},
            "b": {"after": ["a"]},
            "c": {"after": ["a"]},
            "d": {"after": ["b", "c"]},
        },
        [("13:00", "a"), ("a=succeeded", "b c"), ("c=succeeded", ""), ("b=succeeded", "d")],
    ),
    "once each: a pipeline": (
        {
            "a": {"schedule": Once(NOON.replace(hour=13))},
            "b": {"after": ["a"], "max_runs": 1},
            "c": {"after": ["b"], "max_runs": 1},
        },
        [("13:00", "a"), ("a=succeeded", "b"), ("b=succeeded", "c"), ("c=succeeded", "")],
    ),
    "a coalesced run is one completion": (
        {"up": {"schedule": HOURLY}, "down": {"after": ["up"]}},
        [("15:30", "up"), ("up=succeeded", "down"), ("down=succeeded", "")],
    ),
    "a skipped occurrence is none": (
        {
            "up": {"schedule": HOURLY, "misfire": "skip"},
            "down": {"after": [After("up", on="done")]},
        },
        [("13:30", ""), ("14:00", "up"), ("up=succeeded", "down")],
    ),
    "a paused upstream": (
        {"up": {"schedule": HOURLY}, "down": {"schedule": HOURLY, "after": ["up"]}},
        [
            ("pause up", ""),
            ("13:00", ""),
            ("resume up", ""),
            ("14:00", "up"),
            ("up=succeeded", "down"),
        ],
    ),
    "a deleted upstream blocks nothing": (
        {
            "a": {"schedule": HOURLY},
            "b": {"schedule": HOURLY},
            "down": {"schedule": HOURLY, "after": ["a", "b"]},
        },
        [("13:00", "a b"), ("a=succeeded", ""), ("remove b", "down")],
    ),
    "a failed upstream may end the wait": (
        {
            "up": {"schedule": HOURLY},
            "down": {"schedule": HOURLY, "after": [After("up", on_upstream_failure="skip")]},
            "below": {"after": [After("down", on="failure")]},
        },
        [("13:00", "up"), ("up=failed", "below"), ("14:00", "up"), ("up=succeeded", "down")],
    ),
    "the end of a wait goes down the chain": (
        {
            "a": {"schedule": HOURLY},
            "b": {"after": [After("a", on_upstream_failure="skip")]},
            "c": {"after": [After("b", on_upstream_failure="skip")]},
            "d": {"after": [After("c", on="done")]},
        },
        [
            ("13:00", "a"),
            ("a=failed", "d"),
            ("14:00", "a"),
            ("a=succeeded", "b"),
            ("b=succeeded", "c"),
        ],
    ),
    "a wait has its time": (
        {
            "up": {"schedule": HOURLY},
            "down": {
                "schedule": "0 13 * * *",
                "after": [After("up", timeout=timedelta(minutes=45))],
            },
            "below": {"after": [After("down", on="failure")]},
        },
        [("13:00", "up"), ("13:44", ""), ("13:45", "below"), ("up=succeeded", "")],
    ),
    "an upstream's retry is not its end": (
        {
            "up": {"schedule": "0 13 * * *", "max_retries": 1, "retry_delay": 600},
            "down": {"after": [After("up", on="done")]},
        },
        [("13:00", "up"), ("up=failed", ""), ("13:10", "up"), ("up=failed", "down")],
    ),
    "the retry that succeeds": (
        {
            "up": {"schedule": "0 13 * * *", "max_retries": 1, "retry_delay": 600},
            "down": {"after": ["up"]},
            "alarm": {"after": [After("up", on="failure")]},
        },
        [("13:00", "up"), ("up=failed", ""), ("13:10", "up"), ("up=succeeded", "down")],
    ),
}


@pytest.mark.parametrize("story", STORIES)
def test_the_rule_of_dependencies(play: Play, story: str) -> None:
    """A downstream runs when it is due and all its upstreams have newly completed, once."""
    entries, steps = STORIES[story]
    for name, given in entries.items():
        play.add(name, **given)
    assert play.tick() == []
    for step, expected in steps:
        assert sorted(take(play, step)) == sorted(expected.split()), f"{story}: {step}"


def take(play: Play, step: str) -> list[str]:
    """Do one step of a story, and return the names that were sent."""
    if ":" in step:
        return play.at(step)
    if "=" in step:
        return play.end(*step.split("="))
    verb, name, *others = step.split()
    if verb == "link":
        play.store.link(name, *(After(other, on="done", first_free=True) for other in others))
    else:
        getattr(play.store, verb)(name)
    return play.tick()


def test_what_waits_folds_into_one_run(play: Play) -> None:
    """Occurrences that wait become one run, due when the last of them was, which counts them."""
    play.add("up", "0 13 * * *")
    play.add("down", HOURLY, after=["up"])
    assert [play.at(when) for when in ("13:00", "14:00", "15:00")] == [["up"], [], []]
    waiting = play.store.get("down")
    assert waiting.pending_due_at == waiting.pending_since == NOON.replace(hour=13)
    assert waiting.pending_reason == "waits for 'up' to succeed"
    assert waiting.wake_at is None
    play.at("15:30")
    assert play.end("up") == ["down"]
    assert play.history("down") == [("15:00", "sent", 2)]
    run = play.last("down")
    assert (run.first_missed_at, run.reason) == (NOON.replace(hour=13), "waited 2 h 30 min")
    now = play.store.get("down")
    assert (now.pending_due_at, now.pending_reason, now.blocked_by) == (None, None, None)


def test_waiting_is_no_misfire(play: Play) -> None:
    """What waits longer than its grace is sent all the same, even where misfires are skipped."""
    play.add("up", "0 13 * * *")
    play.add("down", "0 13 * * *", after=["up"], misfire="skip", grace=1)
    play.at("13:00")
    play.at("23:00")
    assert play.end("up") == ["down"]


def test_a_misfire_is_recorded_before_the_rest_waits(play: Play) -> None:
    """What beat missed is skipped by its policy; what is in time waits for its upstream."""
    play.add("up", "0 20 * * *")
    play.add("down", HOURLY, after=["up"], misfire="skip")
    assert play.at("15:00") == []
    assert play.history("down") == [("14:00", "missed", 2)]
    assert play.store.get("down").pending_due_at == NOON.replace(hour=15)


def test_a_completion_counts_that_came_before_the_downstream(play: Play) -> None:
    """With a clock of its own, a new downstream takes what its upstream did before."""
    play.add("up", "0 13 * * *")
    play.at("13:00")
    play.end("up")
    play.add("down", HOURLY, after=["up"])
    assert play.at("14:00") == ["down"]


def test_nothing_without_a_clock_runs_for_being_made(play: Play) -> None:
    """Without a clock it waits for the next completion; of a one-shot there is no other."""
    play.add("daily", "0 13 * * *")
    play.add("once", Once(NOON.replace(hour=13)))
    play.at("13:00")
    play.end("daily")
    play.end("once")
    play.add("report", after=["daily"])
    play.add("pipeline", after=["once"], max_runs=1)
    assert play.tick() == ["pipeline"]
    assert play.store.get("pipeline").state == "finished"


# -- align="same" --------------------------------------------------------------------------


def test_the_same_due_time(play: Play) -> None:
    """With align="same" a downstream waits for its upstream's run of its own due time."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=[After("up", align="same")])
    play.at("13:00")
    first = play.held.pop("up")
    play.at("14:00")
    assert play.end("up") == ["down"]
    assert play.history("down") == [("14:00", "sent", 1)]
    report(play.store, "succeeded", first)
    assert play.tick() == []


def test_without_a_clock_each_shared_due_time_is_a_run(play: Play) -> None:
    """Without a clock, each due time that all upstreams have completed is one run."""
    play.add("a", HOURLY)
    play.add("b", HOURLY)
    play.add("down", after=[After("a", align="same"), After("b", align="same")])
    play.at("13:00")
    late = play.held.pop("a")
    play.end("b")
    play.at("14:00")
    play.end("a")
    assert play.end("b") == ["down"]
    report(play.store, "succeeded", late)
    assert play.tick() == ["down"]
    assert play.history("down") == [("13:00", "sent", 0), ("14:00", "sent", 0)]
