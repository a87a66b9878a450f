"""Reports of runs that are in another database: they move nothing here, and are told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from beatstore import ManualClock, Run
from beatstore.tick.reports import Origin, Report, Reports
from tests.support.databases import DatabaseServer
from tests.support.harness.play import Play

WORKER = "celery@there"


@pytest.fixture
def other(database_server: DatabaseServer, clock: ManualClock) -> Iterator[Play]:
    """Return a store and a beat with another database of the same kind."""
    url = database_server.create_migrated()
    other = Play(url, clock)
    yield other
    other.close()
    database_server.drop(url)


def said(of: Origin, state: str) -> Report:
    return Report(of, state, time.monotonic(), WORKER)


def message_of(run: Run, part: str | None = None) -> Origin:
    return Origin(run.id, run.task_id, part)


@pytest.mark.parametrize("part", [None, "1/1", "a-step"])
@pytest.mark.parametrize("state", ["started", "sent", "succeeded", "failed", "cancelled"])
def test_another_database_s_run_of_the_same_id(
    play: Play, other: Play, reports: Reports, state: str, part: str | None
) -> None:
    """A report of a run of one database leaves the run with the same id in another as it was."""
    play.add("nightly", "0 * * * *")
    play.add("report", after=["nightly"])
    play.clock.advance(0.001)
    other.add("nightly", "0 * * * *")
    play.at("13:00")
    other.tick()
    ours, theirs = play.last("nightly"), other.last("nightly")
    assert ours.id == theirs.id
    report = said(message_of(theirs, part), state)
    assert reports.write([report]).unknown == [report]
    assert play.last("nightly").state == "sent"
    assert play.tick() == []
    assert not reports.write([said(message_of(ours), "succeeded")]).unknown
    assert play.tick() == ["report"]


def test_a_restored_backup(play: Play, other: Play) -> None:
    """After a backup is restored, a message from before does not end another due time's run."""
    for one in (play, other):
        one.add("a", "0 * * * *")
    play.at("13:00")
    before = play.last("a")
    other.at("14:00")  # the backup was made before 13:00, and beat came back after it
    after = other.last("a")
    assert (before.id, before.due_at) != (after.id, after.due_at)
    assert before.id == after.id
    reports = Reports(other.store.database, other.store.settings)
    reports.write([said(message_of(before), "started"), said(message_of(before), "failed")])
    reports.close()
    assert other.last("a").state == "sent"


def test_a_foreign_message_starts(play: Play, reports: Reports) -> None:
    """The guard neither stops a message of another database's run, nor marks ours as started."""
    play.add("a", "0 * * * *")
    play.at("13:00")
    run = play.last("a")
    foreign = said(Origin(run.id, "another"), "started")
    assert reports.start(foreign, again=False) is None
    assert play.last("a").state == "sent"
    assert reports.start(said(message_of(run), "started"), again=False) is None
    assert reports.start(foreign, again=False) is None
    assert "started" in (reports.start(said(message_of(run), "started"), again=False) or "")


def test_a_foreign_heartbeat_keeps_nothing_alive(play: Play, reports: Reports) -> None:
    """A worker that runs another database's run of the same id does not speak for ours."""
    play.add("a", "0 * * * *")
    play.at("13:00")
    run = play.last("a")
    reports.write([said(message_of(run), "started")])
    deadline = play.last("a").wake_at
    play.clock.advance(5)
    reports.heartbeat("w", WORKER, 1, [Origin(run.id, "another")])
    assert play.last("a").wake_at == deadline
    reports.heartbeat("w", WORKER, 1, [message_of(run)])
    assert play.last("a").wake_at != deadline


@pytest.mark.parametrize("state", ["succeeded", "failed", "lost"])
def test_an_answer_about_a_foreign_run(play: Play, state: str) -> None:
    """What the result backend knows of another task ends no run of the same id."""
    play.add("a", "0 * * * *", run_timeout=60)
    play.at("13:00")
    play.clock.advance(61)
    [suspect] = play.queue.sweep(play.queue.look().now).stale_runs
    ending = replace(suspect.lost, state=state)
    play.queue.end([replace(ending, task_id="another")])
    assert play.last("a").state == "sent"
    play.queue.end([ending])
    assert play.last("a").state == state


def test_ours_and_theirs_in_one_transaction(play: Play, reports: Reports) -> None:
    """Reports of two runs with one id are told apart, and only the foreign one is given back."""
    play.add("a", "0 * * * *")
    play.at("13:00")
    run = play.last("a")
    foreign = said(Origin(run.id, "another"), "failed")
    unwritten = reports.write([foreign, said(message_of(run), "succeeded")])
    assert unwritten.unknown == [foreign]
    assert play.last("a").state == "succeeded"


def test_a_run_whose_entry_is_gone_is_not_foreign(play: Play, reports: Reports) -> None:
    """The end of a run is written, and no stranger's, though its entry was removed."""
    play.add("a", "0 * * * *")
    play.at("13:00")
    run = play.last("a")
    play.store.remove("a")
    ended = said(message_of(run), "succeeded")
    for _ in range(2):
        assert not reports.write([ended]).unknown
    assert [one.state for one in play.store.runs()] == ["succeeded"]
