"""Nobody waits for a transaction of the application: what it holds is left for the next time."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from beatstore import After, Cron, Store
from beatstore.models import EntryModel, RunModel
from beatstore.tick.complete import SUSPECTED
from beatstore.tick.reports import Origin, Report, Reports
from tests.support.harness.play import Play, held
from tests.support.pace import Pace

HOURLY = "0 * * * *"

#: Longer than any lock is waited for, and much shorter than a transaction may stay open.
SOON = 6.0


@pytest.fixture
def pace() -> Pace:
    """Hand out a bound that a tick sets, which nothing holds up."""
    return Pace()


# SQLite has one writer at a time: an open transaction that has written holds all of it.
pytestmark = [
    pytest.mark.parametrize("backend", ["postgresql", "mariadb"], indirect=True),
    pytest.mark.every_database,
]


def said(play: Play, name: str, state: str = "succeeded") -> Report:
    """Return what a worker says of the run of an entry."""
    (claim,) = play.held.pop(name)
    origin = Origin(claim.run_id, claim.task_id)
    return Report(origin, state, time.monotonic(), "worker@test", error="X" * (state == "failed"))


def later(play: Play) -> list[str]:
    """Tick some seconds later, and return the names sent."""
    play.clock.advance(5)
    return play.tick()


def test_reports_of_other_entries_are_written(play: Play, pace: Pace, reports: Reports) -> None:
    """A report of an entry that is held delays no other, and is written itself."""
    for name in ("held", "a", "b"):
        play.add(name, HOURLY)
    with pace.usual():
        play.at("13:00")
    with held(play, "held"):
        with pace.within(SOON):
            unwritten = reports.write([said(play, name) for name in ("held", "a", "b")])
        assert not unwritten.held
        assert {play.last(name).state for name in ("held", "a", "b")} == {"succeeded"}
        assert play.store.get("a").success_seq == 1
    assert play.store.get("held").success_seq == 0
    assert later(play) == []
    assert play.store.get("held").success_seq == 1
    assert later(play) == []
    assert play.store.get("held").success_seq == 1


def test_new_zone_data_comes_to_an_entry_when_it_is_free(play: Play) -> None:
    """After a change of zone data a held entry is looked at again when it is let go."""
    for name in ("held", "free"):
        play.add(name, Cron("0 9 * * *", "Europe/Berlin"))
    play.tick()
    with play.store.database.session() as session:
        session.execute(update(EntryModel).values(next_due_at=None))
    with held(play, "held"):
        after = play.queue.upkeep.replan_zones(0)
        play.tick()
        due = {name: play.store.get(name).next_due_at for name in ("held", "free")}
        assert due["held"] is None
        assert due["free"] is not None
        assert after is not None
        after = play.queue.upkeep.replan_zones(after)
        assert after is not None
    assert play.queue.upkeep.replan_zones(after) is None
    play.tick()
    assert play.store.get("held").next_due_at == due["free"]


def test_what_follows_comes_when_the_entry_is_free(play: Play, reports: Reports) -> None:
    """The downstream of a held entry is sent, and its retry is made, when it is let go."""
    play.add("up", HOURLY)
    play.add("down", after=["up"])
    play.add("again", HOURLY, max_retries=1, retry_delay=0)
    play.at("13:00")
    with held(play, "up"), held(play, "again"):
        reports.write([said(play, "up"), said(play, "again", "failed")])
        assert later(play) == []
    assert sorted(later(play)) == ["again", "down"]
    assert [run.attempt for run in play.store.runs("again")] == [2, 1]


@pytest.mark.parametrize("align", ["latest", "same"])
def test_a_held_downstream_is_told_later(
    play: Play, pace: Pace, reports: Reports, align: str
) -> None:
    """Its upstream is counted at once, its sisters are sent, and it follows when it is free."""
    play.add("up", HOURLY)
    for name in ("down", "sister"):
        play.add(name, after=[After("up", align=align)])  # type: ignore[arg-type]
    with pace.usual():
        play.at("13:00")
    with held(play, "down"), pace.within(SOON):
        reports.write([said(play, "up")])
        assert play.store.get("up").success_seq == 1
        assert play.tick() == ["sister"]
    assert later(play) == ["down"]
    assert later(play) == []
    assert play.store.get("up").success_seq == 1


def test_beat_goes_on_past_what_is_held(play: Play, pace: Pace) -> None:
    """What beat has to end, count or plan of a held entry holds up nothing else."""
    for name in ("held", "other"):
        play.add(name, HOURLY, run_timeout=60)
    with pace.usual():
        play.at("13:00")
    play.at("14:00")
    play.held.clear()
    with held(play, "held"):
        with pace.within(SOON):
            play.at("14:30")
            play.at("15:00")
        assert play.last("other").due_at.hour == 15
        assert play.last("held").due_at.hour == 14
        with play.store.database.session() as session:
            due = update(RunModel).where(RunModel.entry_name == "held", RunModel.state != "sent")
            session.execute(due.values(wake_at=play.clock.now()))
        play.tick()
    assert play.at("15:01") == ["held"]


def test_a_removal_that_is_not_committed_holds_one_run(
    play: Play, pace: Pace, reports: Reports
) -> None:
    """Its runs are written when it is over; the others, and the heartbeat, go on."""
    for name in ("gone", "other"):
        play.add(name, HOURLY)
    play.clock.set(play.clock.now() + timedelta(hours=1))
    with pace.usual():
        claims = play.queue.plan(play.clock.now())[0]
    by_name = {claim.name: claim for claim in claims}
    application = Store(play.store.database.url.render_as_string(hide_password=False))
    of = {name: Origin(claim.run_id, claim.task_id) for name, claim in by_name.items()}
    with Session(application.database.engine) as session:
        application.remove("gone", session=session)
        with pace.within(SOON):
            at = time.monotonic()
            started = [Report(of[name], "started", at, "worker@test") for name in ("gone", "other")]
            unwritten = reports.write(started)
            reports.heartbeat("w", "worker@test", 1, list(of.values()))
        assert [report.of for report in unwritten.held] == [of["gone"]]
        assert play.last("other").state == "started"
        session.rollback()
    assert not reports.write(unwritten.held).held
    assert play.last("gone").state == "started"
    application.close()


def test_status_names_what_is_held_for_long(play: Play, reports: Reports) -> None:
    """A person is told which entry it is, and what to end."""
    play.add("held", HOURLY)
    play.at("13:00")
    with held(play, "held"):
        reports.write([said(play, "held")])
        play.clock.advance(300)
        play.tick()
        (warning,) = play.store.status().warnings
        assert "The outcome of a run of 'held' has been waiting since 2026-01-15 12:59" in warning
    later(play)
    assert play.store.status().warnings == []


def test_a_success_that_meets_its_loss_counts(play: Play, reports: Reports) -> None:
    """A worker that reports a run while beat gives it up is heard: the success is not dropped."""
    play.add("a", HOURLY)
    play.add("down", after=["a"])
    play.at("13:00")
    report = said(play, "a")
    with play.store.database.session() as session:
        lost = {"state": "lost", "claimed_by": SUSPECTED, "finished_at": play.clock.now()}
        session.execute(update(RunModel).values(**lost, wake_at=None))
        session.execute(
            update(EntryModel).where(EntryModel.name == "a").values(failure_seq=1, done_seq=1)
        )
    reports.write([report])
    assert play.last("a").state == "succeeded"
    assert play.tick() == ["down"]


def test_a_counter_at_its_end_stops_nobody(play: Play, reports: Reports) -> None:
    """A number that was set by hand to the end of its range stays there; the others count."""
    for name in ("full", "other"):
        play.add(name, HOURLY)
    with play.store.database.session() as session:
        full = update(EntryModel).where(EntryModel.name == "full")
        session.execute(full.values(success_seq=2**63 - 1, done_seq=2**63 - 1))
    play.at("13:00")
    reports.write([said(play, "full"), said(play, "other")])
    assert {play.last(name).state for name in ("full", "other")} == {"succeeded"}
    assert play.store.get("other").success_seq == 1
    assert play.store.get("full").success_seq == 2**63 - 1
    assert sorted(play.at("14:00")) == ["full", "other"]
