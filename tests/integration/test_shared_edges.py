"""Shared due times where something else comes between: edits, alarms, edges of two kinds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

from beatstore import After
from beatstore.models import RunModel, WaitModel
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


def test_what_is_triggered_has_an_id_of_its_own(play: Play) -> None:
    """No task id stands for two runs, though one of them has moved aside."""
    play.add("a", "0 20 * * *")
    for minute in range(3):
        play.clock.set(NOON + timedelta(minutes=minute, microseconds=5))
        play.store.trigger("a")
    with play.store.database.session() as session:
        ids = session.scalars(select(RunModel.task_id)).all()
    assert len(set(ids)) == 3
