"""Shared due times where something else comes between: edits, alarms, edges of two kinds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

from beatstore import After, Declared, Once
from beatstore.models import RunModel, WaitModel
from beatstore.types import Align
from tests.support.harness.play import NOON, Play
from tests.support.harness.ticks import report

HOURLY = "0 * * * *"


def same(name: str, **given: Any) -> After:
    return After(name, align="same", **given)


def test_a_coalesced_wait_has_its_time(play: Play) -> None:
    """After downtime the wait ends by its timeout too, though an upstream is at work."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=[same("up", timeout=600)])
    play.at("15:00")
    play.at("15:11")
    assert [run[:2] for run in play.history("down")] == [("15:00", "skipped")]


def test_what_is_given_up_beside_a_wait(play: Play) -> None:
    """A due time whose time is over is recorded, though a newer one waits for an own run."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=[same("up", timeout=7200)], overlap="wait")
    play.at("13:00")
    play.end("up")
    play.at("14:00")
    play.held.pop("up")
    play.at("15:00")
    play.end("up")
    play.at("16:01")
    assert [run[:2] for run in play.history("down")] == [("13:00", "sent"), ("14:00", "skipped")]
    assert "down" in play.end("down")


def test_a_trigger_of_an_upstream_holds_nothing_up(play: Play) -> None:
    """A run by hand that never ends is nothing to the due times after a misfire."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=[same("up")])
    play.at("15:00")
    play.clock.set(NOON + timedelta(hours=3, minutes=30))
    play.store.trigger("up")
    claims = play.held.pop("up")
    play.tick()
    play.held.pop("up")
    report(play.store, "succeeded", claims)
    assert play.tick() == ["down"]
    play.at("16:00")
    assert play.end("up") == ["down"]


def test_an_alarm_does_not_wait_for_what_has_succeeded(play: Play) -> None:
    """A good night opens no wait for a failure; a rerun that fails sounds the alarm."""
    play.add("up", HOURLY)
    play.add("alarm", after=[After("up", on="failure")])
    play.at("13:00")
    assert play.end("up") == []
    assert play.store.get("alarm").pending_since is None
    with play.store.database.session() as session:
        assert session.execute(select(WaitModel)).all() == []
    play.store.rerun(play.last("up").id)
    play.tick()
    assert play.end("up", "failed") == ["alarm"]


def test_before_it_starts_completions_count_as_one(play: Play) -> None:
    """An entry without a clock runs once at `start_at`, for the last of what came before."""
    play.add("up", HOURLY)
    play.add("down", after=["up"], start_at=NOON + timedelta(hours=4, minutes=30))
    for hour in (13, 14, 15, 16):
        play.at(f"{hour}:00")
        assert play.end("up") == []
    assert play.at("16:30") == ["down"]
    assert play.history("down") == [("16:00", "sent", 0)]


def test_an_edit_fires_nothing_old(play: Play) -> None:
    """Due times from before an edit that begins anew are over."""
    play.add("up", HOURLY)
    play.add("down", after=["up"], max_runs=1)
    play.at("13:00")
    assert play.end("up") == ["down"]
    play.at("14:00")
    play.end("up")
    play.at("16:00")
    play.end("up")
    play.store.change("down", max_runs=5)
    assert play.tick() == []
    play.at("17:00")
    assert play.end("up") == ["down"]


def test_an_edge_that_is_added_to_what_waits(play: Play) -> None:
    """Without a clock too, a due time that waits takes an end that came before the edge."""
    play.add("a", HOURLY)
    play.add("b", HOURLY)
    play.add("c", HOURLY)
    play.add("load", after=[same("a"), same("c")])
    play.at("13:00")
    play.end("b")
    play.end("c")
    play.store.link("load", same("b"))
    play.tick()
    assert play.end("a") == ["load"]


def test_an_upstream_that_plain_sql_deletes_lets_go(play: Play) -> None:
    """Due times that wait for it are asked about anew; on MySQL a patrol finds out."""
    play.add("a", HOURLY)
    play.add("b", HOURLY)
    play.add("load", after=[same("a"), same("b")])
    play.at("13:00")
    play.end("a")
    with play.store.database.engine.begin() as connection:
        connection.execute(text("DELETE FROM beatstore_entry WHERE name = 'b'"))
    play.queue.upkeep.wake_forgotten()
    assert play.tick() == ["load"]


@pytest.mark.parametrize("clocked", [True, False])
def test_the_other_edge_ends_the_wait_of_both(play: Play, clocked: bool) -> None:
    """An edge that takes any completion, and has failed, ends a wait for the same due time too."""
    play.add("a", HOURLY)
    play.add("c", "5 * * * *")
    after = [same("a"), After("c", align="latest", on_upstream_failure="skip")]
    play.add("down", HOURLY if clocked else None, after=after)
    if not clocked:
        play.add("b", HOURLY)
        play.store.link("down", same("b"))
    play.at("13:00")
    if not clocked:
        play.end("b")
    play.at("13:05")
    play.end("c", "failed")
    assert [run[:2] for run in play.history("down")] == [("13:00", "skipped")]


@pytest.mark.parametrize("own", [None, 7200])
def test_the_other_edge_times_out_beside_the_same_due_time(play: Play, own: int | None) -> None:
    """An edge that takes any completion ends the wait by its timeout, though both are missing."""
    play.add("a", HOURLY)
    play.add("c", "5 * * * *")
    after = [same("a", timeout=own), After("c", align="latest", timeout=1200)]
    play.add("down", "0 13 * * *", after=after)
    play.at("13:00")
    assert f"{play.store.get('down').wake_at:%H:%M}" == "13:20"
    play.at("13:20")
    assert [run[:2] for run in play.history("down")] == [("13:00", "skipped")]


def test_each_due_time_has_its_own_time_to_wait(play: Play) -> None:
    """The timeout of another edge counts for each due time from when that was reported."""
    play.add("a", "*/10 13 * * *")
    play.add("c", "5 18 * * *")
    play.add("down", after=[same("a"), After("c", align="latest", timeout=1800)])
    play.at("13:00")
    late = play.held.pop("a")
    for minute in (10, 20):
        play.at(f"13:{minute}")
        play.end("a")
    play.at("13:30")
    report(play.store, "succeeded", late)
    play.tick()
    play.at("13:40")
    assert [run[:2] for run in play.history("down")] == [("13:10", "skipped")]
    play.at("13:50")
    assert [run[:2] for run in play.history("down")][1:] == [("13:20", "skipped")]


@pytest.mark.parametrize("bounds", [{"schedule": Once(NOON + timedelta(hours=1))}, {"max_runs": 1}])
def test_what_is_made_while_its_only_run_is_under_way_takes_it(
    play: Play, bounds: dict[str, Any]
) -> None:
    """The last run of an upstream counts though it was sent before the downstream was made."""
    play.add("extract", **{"schedule": HOURLY, **bounds})
    play.at("13:00")
    play.at("13:10")
    play.add("transform", after=["extract"], max_runs=1)
    play.add("load", after=["transform"], max_runs=1)
    play.tick()
    assert play.end("extract") == ["transform"]
    assert play.end("transform") == ["load"]


@pytest.mark.parametrize("align", ["same", "latest"])
@pytest.mark.parametrize("before", ["rescheduled", "triggered"])
def test_a_one_shot_that_is_still_to_come_is_waited_for(
    play: Play, align: Align, before: str
) -> None:
    """What a one-shot did before it was put off, or when it was triggered, is not its last run."""
    play.add("extract", Once(NOON + timedelta(hours=1 if before == "rescheduled" else 2)))
    if before == "rescheduled":
        play.at("13:00")
    else:
        play.store.trigger("extract")
        play.tick()
    play.end("extract")
    play.store.change("extract", schedule=Once(NOON + timedelta(hours=2)))
    play.add("load", after=[After("extract", align=align)], max_runs=1)
    assert play.tick() == []
    assert play.at("14:00") == ["extract"]
    assert play.end("extract") == ["load"]


@pytest.mark.parametrize("align", ["same", "latest"])
def test_an_only_run_that_had_failed_ends_the_wait(play: Play, align: Align) -> None:
    """An entry made after the failure of a one-shot gives up as one made before it."""
    play.add("extract", Once(NOON + timedelta(hours=1)))
    play.at("13:00")
    play.end("extract", "failed")
    play.at("13:10")
    play.add("load", after=[After("extract", align=align, on_upstream_failure="skip")])
    play.add("alarm", after=[After("load", on="failure")])
    assert play.tick() == ["alarm"]
    assert play.last("load").reason == "upstream 'extract' failed"


@pytest.mark.parametrize("clocked", [True, False])
def test_only_the_first_of_those_that_wait_is_free(play: Play, clocked: bool) -> None:
    """Once the first is sent, the others wait for the edge that was free for it."""
    for name in ("a", "b"):
        play.add(name, HOURLY)
    play.add("c", "59 * * * *")
    after = [same("a"), same("b", first_free=True), After("c", align="latest")]
    play.add("down", HOURLY if clocked else None, after=after, misfire="all")
    for hour in ("13:00", "14:00"):
        play.at(hour)
        play.end("a")
    play.at("14:59")
    assert play.end("c") == ["down"]
    play.at("15:59")
    assert play.end("c") == []
    assert len(play.history("down")) == 1


def test_the_reason_names_the_state_last(play: Play) -> None:
    """What the upstream must do stands together, and then what keeps it from doing so."""
    play.add("up", HOURLY, paused=True)
    play.add("down", HOURLY, after=[same("up")])
    play.at("13:00")
    reason = "waits for 'up' to succeed for the same due time, which is paused"
    assert play.store.get("down").pending_reason == reason


def aligned(play: Play) -> dict[tuple[str, str], str]:
    return {(one.downstream, one.upstream): one.align for one in play.store.graph().edges}


@pytest.mark.parametrize("how", ["link", "sync"])
def test_an_edge_back_takes_any_completion(play: Play, how: str) -> None:
    """Where nothing is said, an edge that closes a cycle waits for no run of the same due time."""
    back = After("load", first_free=True)
    play.add("extract", HOURLY)
    if how == "link":
        play.add("clean", after=["extract"])
        play.add("load", after=["clean"])
        play.store.link("clean", back)
    else:
        clean = Declared("clean", "tests.clean", after=["extract", back])
        load = Declared("load", "tests.load", after=["clean"])
        play.store.sync([clean, load], source="app")
    assert aligned(play) == {
        ("clean", "extract"): "same",
        ("clean", "load"): "latest",
        ("load", "clean"): "same",
    }
    for hour in (13, 14, 15):
        assert play.at(f"{hour}:00") == ["extract"]
        assert play.end("extract") == ["clean"]
        assert play.end("clean") == ["load"]
        play.end("load")


@pytest.mark.parametrize("how", ["add", "sync"])
def test_an_upstream_with_due_times_of_its_own_shares_none(play: Play, how: str) -> None:
    """An entry that takes any completion is due at that moment, and not when its root was."""

    def sync(*edges: str | After) -> None:
        load = Declared("load", "tests.load", after=["extract", "clean"])
        clean = Declared("clean", "tests.clean", after=edges)
        play.store.sync([clean, load] if "extract" in edges else [clean], source="app")

    play.add("extract", HOURLY)
    moment = After("extract", align="latest")
    if how == "add":
        play.add("clean", after=[moment])
        play.add("load", after=["extract", "clean"])
    else:
        sync(moment)
        sync("extract")
    play.add("checked", after=["clean"])
    assert aligned(play) == {
        ("clean", "extract"): "latest",
        ("checked", "clean"): "same",
        ("load", "clean"): "latest",
        ("load", "extract"): "latest",
    }
    play.at("13:00")
    assert play.end("extract") == ["clean"]
    assert sorted(play.end("clean")) == ["checked", "load"]


def test_what_is_triggered_has_an_id_of_its_own(play: Play) -> None:
    """No task id stands for two runs, though one of them has moved aside."""
    play.add("a", "0 20 * * *")
    for minute in range(3):
        play.clock.set(NOON + timedelta(minutes=minute, microseconds=5))
        play.store.trigger("a")
    with play.store.database.session() as session:
        ids = session.scalars(select(RunModel.task_id)).all()
    assert len(set(ids)) == 3
