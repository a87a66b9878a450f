"""Dependencies on every database: when a downstream runs, once, and what it waits for."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import text

from beatstore import After, DependencyCycleError, InvalidEntryError, Once
from tests.support.play import Play
from tests.support.ticks import report

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
    assert play.runs("down") == [("15:00", "sent", 2)]
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
    assert play.runs("down") == [("14:00", "missed", 2)]
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
    assert play.runs("down") == [("14:00", "sent", 1)]
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
    assert play.runs("down") == [("13:00", "sent", 0), ("14:00", "sent", 0)]


# -- overlap -------------------------------------------------------------------------------


def test_overlap_skip_records_what_it_skips(play: Play) -> None:
    """While a run has not ended, an occurrence is recorded as skipped, and why."""
    play.add("a", HOURLY, overlap="skip")
    assert [play.at(when) for when in ("13:00", "14:00")] == [["a"], []]
    assert play.end("a") == []
    assert play.at("15:00") == ["a"]
    assert play.runs("a") == [
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
    assert play.runs("a") == [("13:00", "failed", 0), ("15:00", "sent", 1)]
    assert play.end("a") == []


def test_a_run_that_is_never_heard_of_holds_up_only_so_long(play: Play) -> None:
    """After `run_timeout` without a word from any worker a run is lost, and the next one runs."""
    play.add("a", HOURLY, overlap="wait", run_timeout=5400)
    assert [play.at(when) for when in ("13:00", "14:00")] == [["a"], []]
    assert play.at("14:30") == ["a"]
    assert play.runs("a") == [("13:00", "lost", 0), ("14:00", "sent", 0)]


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


# -- cycles --------------------------------------------------------------------------------


def test_a_cycle_is_refused(play: Play) -> None:
    """An edge that would create a cycle is refused, unless a first run in it is free."""
    play.add("a", HOURLY)
    play.add("b", after=["a"])
    play.add("c", after=["b"])
    with pytest.raises(DependencyCycleError) as caught:
        play.store.link("a", "c")
    assert (caught.value.given, caught.value.cycle) == ("c", "'a' → 'b' → 'c' → 'a'")
    assert str(caught.value) == (
        "after: 'c' would create a dependency cycle: 'a' → 'b' → 'c' → 'a'; "
        "write first_free=True on one edge"
    )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(InvalidEntryError, match="overlap='wait'"):
        play.store.link("a", "a")
    assert play.store.link("a", After("c", first_free=True)).name == "a"


def test_a_cycle_by_plain_sql_is_taken_out_of_service(play: Play) -> None:
    """Rows that form a cycle are broken, with its members on each; the others go on."""
    for name in ("a", "b", "c"):
        play.add(name, HOURLY)
    play.add("other", HOURLY, after=["a"])
    ids = {name: play.store.get(name).id for name in ("a", "b", "c")}
    with play.store.database.engine.begin() as connection:
        for up, down in (("a", "b"), ("b", "c"), ("c", "a")):
            connection.execute(
                text(
                    "INSERT INTO beatstore_dependency (upstream_id, downstream_id) VALUES (:u, :d)"
                ),
                {"u": ids[up], "d": ids[down]},
            )
    assert play.tick() == []
    for name in ("a", "b", "c"):
        entry = play.store.get(name)
        assert entry.state == "broken"
        assert "dependency cycle: " in (entry.error or "")
    play.store.unlink("a", "c")
    for name in ("a", "b", "c"):
        play.store.resume(name)
    assert play.at("13:00") == ["a"]
    play.end("a")
    assert play.store.get("c").pending_reason == "waits for 'b' to succeed"


def test_an_edge_by_plain_sql_counts_at_the_next_tick(play: Play) -> None:
    """An edge that is inserted holds back, and one that is deleted lets go."""
    play.add("up", "0 20 * * *")
    play.add("down", HOURLY)
    ids = {name: play.store.get(name).id for name in ("up", "down")}
    with play.store.database.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO beatstore_dependency (upstream_id, downstream_id) VALUES (:up, :down)"
            ),
            ids,
        )
    assert play.at("13:00") == []
    with play.store.database.engine.begin() as connection:
        connection.execute(text("DELETE FROM beatstore_dependency"))
    assert play.tick() == ["down"]


def test_what_no_trigger_told_of_is_found(play: Play) -> None:
    """An entry that sleeps beside its satisfied edges is woken by the beats' patrol."""
    play.add("up", "0 13 * * *")
    play.add("down", HOURLY, after=["up"])
    play.at("13:00")
    with play.store.database.engine.begin() as connection:
        connection.execute(text("UPDATE beatstore_entry SET success_seq = 1 WHERE name = 'up'"))
    assert play.tick() == []
    assert play.queue.upkeep.wake_forgotten() == 1
    assert play.tick() == ["down"]
    assert play.queue.upkeep.wake_forgotten() == 0


def test_nothing_can_be_said_of_when_without_a_clock(play: Play) -> None:
    """An entry that follows others has no due times of its own to show."""
    play.add("up", HOURLY)
    play.add("down", after=["up"])
    assert play.store.preview("down") == []
    assert play.store.get("down").next_due_at is None


def test_an_edit_keeps_what_it_does_not_name(play: Play) -> None:
    """put() makes the upstreams those named, change() leaves them alone where it names none."""
    for name in ("a", "b"):
        play.add(name, HOURLY)
    play.add("down", after=["a"])
    play.store.change("down", max_retries=3)
    assert play.store.put("down", "tests.down", after=["a"], max_retries=3).version == 2
    assert play.store.put("down", "tests.down", after=["a", "b"], max_retries=3).version == 3
    play.store.change("down", after=["b"])
    play.at("13:00")
    assert play.end("b") == ["down"]
    with pytest.raises(InvalidEntryError, match="after=\\[…\\]"):
        play.store.put("down", "tests.down")


def test_a_free_first_run_by_plain_sql(play: Play) -> None:
    """An edge inserted with only its obvious columns lets the first run go, and no other."""
    play.add("up", "0 20 * * *")
    play.add("down", HOURLY)
    ids = {name: play.store.get(name).id for name in ("up", "down")}
    with play.store.database.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO beatstore_dependency (upstream_id, downstream_id, first_free) "
                "VALUES (:up, :down, true)"
            ),
            ids,
        )
    assert play.at("13:00") == ["down"]
    assert play.at("14:00") == []


def test_an_upstream_deleted_by_plain_sql(play: Play) -> None:
    """Its edges go with it, and who waited for it goes on; on MySQL a patrol finds out."""
    play.add("up", "0 20 * * *")
    play.add("down", HOURLY, after=["up"])
    assert play.at("13:00") == []
    with play.store.database.engine.begin() as connection:
        connection.execute(text("DELETE FROM beatstore_entry WHERE name = 'up'"))
    play.queue.upkeep.wake_forgotten()
    assert play.tick() == ["down"]


def test_a_due_time_from_before_it_was_made_is_none_of_its_own(play: Play) -> None:
    """Without a clock, an entry runs for the due times its upstreams share from then on."""
    play.add("up", HOURLY)
    play.at("13:00")
    play.end("up")
    play.at("13:30")
    play.add("down", after=[After("up", align="same")])
    assert play.tick() == []
    play.at("14:00")
    assert play.end("up") == ["down"]
    assert play.runs("down") == [("14:00", "sent", 0)]
