"""Ending a run by hand, since nobody will report it: what follows is what a report has."""

from __future__ import annotations

import pytest
from sqlalchemy import insert
from sqlalchemy.orm import Session

from beatstore import InvalidEntryError
from beatstore.models import RunModel, WorkerModel
from beatstore.tick.reports import Reports
from tests.support.harness.play import Play, held
from tests.support.harness.reported import counts, said
from tests.support.marks import on_servers

HOURLY = "0 * * * *"


def later(play: Play) -> list[str]:
    """Tick some seconds later, and return the names sent."""
    play.clock.advance(5)
    return play.tick()


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
@pytest.mark.parametrize("overlap", ["skip", "wait"])
def test_what_waits_for_the_run_goes_on(play: Play, overlap: str, state: str) -> None:
    """An entry with overlap, whose message is gone, sends its next occurrence."""
    play.add("a", HOURLY, overlap=overlap)
    assert play.at("13:00") == ["a"]
    assert play.at("14:00") == []
    ended = play.store.end(play.store.runs("a", state="sent")[0], state, reason="purged")
    assert (ended.state, ended.reason) == (state, "ended by hand: purged")
    assert ended.finished_at == play.clock.now()
    assert later(play) == (["a"] if overlap == "wait" else [])
    assert play.at("15:00") == ([] if overlap == "wait" else ["a"])
    entry = play.store.get("a")
    assert (entry.success_seq, entry.failure_seq) == (state == "succeeded", state == "failed")
    assert play.store.audit("a")[0].action == "end"


def test_a_failed_one_gets_its_next_attempt(play: Play) -> None:
    """It is retried as any failure is, and downstreams hear of the last attempt only."""
    play.add("up", HOURLY, max_retries=1, retry_delay=60)
    play.add("down", after=["up"])
    play.at("13:00")
    play.store.end(play.last("up"), "failed")
    assert later(play) == []
    assert play.at("13:02") == ["up"]
    assert play.last("up").attempt == 2
    play.store.end(play.last("up"), "succeeded")
    assert later(play) == ["down"]


def test_the_run_of_a_removed_entry_is_over(play: Play) -> None:
    """Nothing is left to do for a run that was ended by hand while its entry was removed."""
    play.add("a", HOURLY, max_retries=1)
    play.at("13:00")
    run = play.last("a")
    play.store.end(run, "failed")
    play.store.remove("a")
    later(play)
    with Session(play.store.database.engine) as session:
        row = session.get_one(RunModel, run.id)
        assert (row.state, row.follow_up, row.wake_at) == ("failed", None, None)


def test_a_retry_of_a_triggered_run_is_sent_though_the_entry_is_paused(play: Play) -> None:
    """What was asked for by hand stays so."""
    play.add("a", HOURLY, max_retries=1, retry_delay=60)
    play.store.pause("a")
    play.store.trigger("a")
    assert later(play) == ["a"]
    play.store.end(play.last("a"), "failed")
    assert later(play) == []
    play.clock.advance(60)
    assert play.tick() == ["a"]


def test_the_worker_reports_after_all(play: Play, reports: Reports) -> None:
    """What was ended as failed and turns up is believed, as a lost run is."""
    play.add("up", HOURLY)
    play.add("down", after=["up"])
    play.at("13:00")
    play.store.end(play.last("up"), "failed")
    assert later(play) == []
    assert play.end("up") == ["down"]
    assert play.last("up").state == "succeeded"


def test_a_success_takes_back_the_rerun_that_was_asked_for(play: Play, reports: Reports) -> None:
    """A run that was ended by hand turns up before beat has counted it: no rerun is needed."""
    play.add("a", HOURLY)
    play.at("13:00")
    run = play.last("a")
    play.store.end(run, "failed")
    again = play.store.rerun(run)
    reports.write([said(run, "succeeded")])
    assert later(play) == []
    states = {one.id: one.state for one in play.store.runs("a")}
    assert states == {run.id: "succeeded", again.id: "cancelled"}
    assert counts(play) == (1, 0, 1)


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_rerun_that_was_asked_for_is_sent_after_another_end(
    play: Play, reports: Reports, state: str
) -> None:
    """Only a success makes it needless."""
    play.add("a", HOURLY)
    play.at("13:00")
    run = play.last("a")
    play.store.end(run, "failed")
    play.store.rerun(run)
    reports.write([said(run, state)])
    assert later(play) == ["a"]


@pytest.mark.parametrize("state", ["claimed", "succeeded", "cancelled"])
def test_what_can_t_be_ended(play: Play, state: str) -> None:
    """Only what a worker would report; the error says what it is, and what to do instead."""
    play.add("a", HOURLY)
    if state == "claimed":
        play.store.trigger("a")
    else:
        play.at("13:00")
        play.end("a", state)
    run = play.last("a")
    with pytest.raises(InvalidEntryError, match=f"this one is {state}"):
        play.store.end(run, "failed")
    with pytest.raises(InvalidEntryError, match="a run on record"):
        play.store.end(run.id + 1000, "failed")
    with pytest.raises(InvalidEntryError, match="one of"):
        play.store.end(run, "lost")  # type: ignore[arg-type]
    assert play.last("a").state == state


def test_the_audit_names_the_entry_as_it_is_called_now(play: Play) -> None:
    """A run that was sent before its entry was renamed is found under the new name."""
    play.add("old", HOURLY)
    play.at("13:00")
    play.store.change("old", new_name="new")
    play.store.end(play.last("new"), "failed")
    assert play.store.audit("new")[0].action == "end"


def test_it_joins_the_caller_s_transaction(play: Play) -> None:
    """Rolled back, the run is as it was."""
    play.add("a", HOURLY)
    play.at("13:00")
    with Session(play.store.database.engine) as session:
        play.store.end(play.last("a"), "failed", session=session)
        session.rollback()
    assert play.last("a").state == "sent"
    assert play.store.audit("a")[0].action == "add"


@pytest.mark.parametrize(("overlap", "what"), [("skip", "are skipped"), ("wait", "wait")])
def test_status_names_a_stalled_entry(play: Play, overlap: str, what: str) -> None:
    """A run that is never reported, and holds back what is due, is told with what to do."""
    worker = {"id": "1", "name": "celery@a", "pid": 1, "version": "0"}
    with play.store.database.session() as session:
        session.execute(insert(WorkerModel).values(worker))
    play.add("a", HOURLY, overlap=overlap)
    play.add("free", HOURLY)
    play.at("13:00")
    play.clock.advance(1800)
    assert play.store.status().warnings == []
    play.at("14:00")
    run = play.store.runs("a", state="sent")[0]
    assert play.store.status().warnings == [
        f"'a' is stalled: its run {run.id} was sent at 2026-01-15 13:00:00 UTC, no worker has "
        f"reported it, and later occurrences {what}. If no worker reports by 2026-01-16 13:00:00 "
        f"UTC, it is marked lost. If its message is gone, write `beatstore end {run.id} --as "
        "failed`; a shorter run_timeout of the entry applies to this run too."
    ]
    play.store.end(run, "failed")
    later(play)
    assert play.store.status().warnings == []


def test_an_end_that_no_beat_has_seen_is_not_held(play: Play) -> None:
    """Where no beat is alive, nobody is told of a transaction that holds something."""
    play.add("a", HOURLY)
    play.at("13:00")
    play.store.end(play.last("a"), "failed")
    play.clock.advance(300)
    assert not [said for said in play.store.status().warnings if "another transaction" in said]


@on_servers
def test_nobody_waits_for_a_held_entry(play: Play) -> None:
    """A transaction that holds the entry delays what follows, and not the ending."""
    play.add("up", HOURLY)
    play.add("down", after=["up"])
    play.at("13:00")
    with held(play, "up"):
        play.store.end(play.last("up"), "succeeded")
        assert later(play) == []
    assert later(play) == ["down"]
