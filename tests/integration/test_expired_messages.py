"""Messages that expire unheard: the run ends by the time that beat itself gave its message."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from math import inf
from typing import Any

import pytest

from beatstore.tick.claims import Claim, Outcome
from beatstore.tick.reports import Origin, Report, Reports
from tests.support.harness.play import NOON, Play
from tests.support.marks import on_sqlite

HOUR = timedelta(hours=1)

#: As long as a message is good, in seconds, and as long as a beat waits beyond that.
EXPIRES, MARGIN = 60.0, 10


@pytest.fixture
def reports(play: Play) -> Iterator[Reports]:
    """Return what the worker has that says it is alive."""
    reports = Reports(play.store.database, play.store.settings)
    reports.heartbeat("w", "worker@test", 1, [])
    yield reports
    reports.close()


def send(play: Play, when: str) -> list[Claim]:
    """Move the clock, and send what is due with messages that expire; return it."""
    hour, minute = when.split(":")
    play.clock.set(play.clock.now().replace(hour=int(hour), minute=int(minute)))
    claims, _ = play.queue.plan(play.clock.now())
    play.queue.mark([Outcome(claim, "sent", expires=EXPIRES) for claim in claims])
    return claims


@pytest.mark.parametrize("overlap", ["skip", "wait"])
def test_an_expired_message_ends_its_run(play: Play, reports: Reports, overlap: str) -> None:
    """An entry whose message the broker dropped unheard runs again when it is due next."""
    play.add("a", "0 * * * *", overlap=overlap)
    assert len(send(play, "13:00")) == 1
    play.clock.advance(EXPIRES + MARGIN - 1)
    play.tick()
    assert play.last("a").state == "sent"
    play.clock.advance(1)
    play.tick()
    run = play.last("a")
    assert (run.state, run.expires_at) == ("cancelled", run.sent_at and run.expires_at)
    assert (run.reason or "").startswith("expired in the queue")
    assert len(send(play, "14:00")) == 1


def test_a_message_that_was_started_in_time_goes_on(play: Play, reports: Reports) -> None:
    """What a worker has begun is no expired message, however long it takes."""
    play.add("a", "0 * * * *")
    (claim,) = send(play, "13:00")
    of = Origin(claim.run_id, claim.task_id)
    reports.write([Report(of, "started", time.monotonic(), "worker@test")])
    reports.heartbeat("w", "worker@test", 1, [of])
    play.clock.advance(20)
    play.tick()
    for _ in range(10):
        play.clock.advance(20)
        reports.heartbeat("w", "worker@test", 1, [of])
        play.tick()
    assert play.last("a").state == "started"


@pytest.mark.parametrize("part", [None, "step"])
@pytest.mark.parametrize(
    ("expires", "ends_after"),
    [(None, EXPIRES), (EXPIRES / 2, EXPIRES / 2), (300.0, 300.0), (inf, inf)],
)
def test_a_retry_expires_as_well(
    play: Play, reports: Reports, part: str | None, expires: float | None, ends_after: float
) -> None:
    """A retry that waits in the queue expires at the time of its own message."""
    play.add("a", "0 * * * *")
    (claim,) = send(play, "13:00")
    of = Origin(claim.run_id, claim.task_id, part)
    reports.write([Report(of, "started", time.monotonic(), "worker@test")])
    reports.write([Report(of, "sent", time.monotonic(), "worker@test", expires=expires)])
    play.clock.advance(min(ends_after, 900) + MARGIN - 1)
    play.tick()
    assert play.last("a").state == "sent"
    play.clock.advance(2)
    play.tick()
    assert play.last("a").state == ("sent" if ends_after == inf else "cancelled")


def test_the_next_task_of_a_chain_may_expire(play: Play, reports: Reports) -> None:
    """The message of a later task expires as it says, or not at all."""
    play.add("a", "0 * * * *")
    (claim,) = send(play, "13:00")
    for expires, state in ((None, "sent"), (EXPIRES, "cancelled")):
        of, now = Origin(claim.run_id, claim.task_id, "step"), time.monotonic()
        reports.write([Report(of, "started", now, "worker@test")])
        reports.write([Report(of, "succeeded", now, "worker@test", expires=expires)])
        play.clock.advance(EXPIRES + MARGIN + 1)
        play.tick()
        assert play.last("a").state == state


def test_a_worker_that_is_heard_of_late_is_believed(play: Play, reports: Reports) -> None:
    """A run that was taken for expired, and ran all the same, ends as its worker says."""
    play.add("a", "0 * * * *")
    (claim,) = send(play, "13:00")
    play.clock.advance(EXPIRES + MARGIN)
    play.tick()
    assert play.last("a").state == "cancelled"
    of = Origin(claim.run_id, claim.task_id)
    reports.write([Report(of, "succeeded", time.monotonic(), "worker@test")])
    assert play.last("a").state == "succeeded"
    assert play.store.get("a").success_seq == 1


def test_without_reports_nobody_knows(play: Play) -> None:
    """Where no worker has ever reported, a run stays as it was sent."""
    play.add("a", "0 * * * *")
    send(play, "13:00")
    play.clock.advance(3600)
    play.tick()
    assert [run.state for run in play.store.runs("a") if run.due_at.hour == 13] == ["sent"]


def test_without_reports_a_run_is_checked_ever_more_seldom(play: Play) -> None:
    """What nobody will ever report costs little, and is old history one day."""
    play.add("a", NOON + HOUR)
    send(play, "13:00")
    checks = 0
    for _ in range(26 * 60):
        play.clock.advance(60)
        checks += play.queue.sweep(play.clock.now()).count
    assert 5 <= checks <= 15
    run = play.last("a")
    assert (run.state, run.wake_at) == ("sent", None)
    assert play.store.prune(HOUR) > 0
    assert list(play.store.runs(limit=10)) == []


@pytest.mark.parametrize("given", [{"run_timeout": 120}, {"overlap": "wait"}], ids=str)
def test_without_reports_a_run_is_lost_as_others_are(play: Play, given: dict[str, Any]) -> None:
    """A message that expires does not hold back an entry for ever where no worker reports."""
    play.add("a", "0 * * * *", **given)
    send(play, "13:00")
    timeout = given.get("run_timeout", play.store.settings.overlap_timeout)
    play.clock.advance(min(timeout - 1, 3599))
    play.tick()
    assert play.store.runs("a")[-1].state == "sent"
    play.clock.advance(timeout)
    play.tick()
    lost = play.store.runs("a")[-1]
    assert (lost.state, lost.due_at.hour) == ("lost", 13)
    assert str(lost.reason).startswith("no worker reported it within ")


@on_sqlite
@pytest.mark.parametrize("part", [None, "step"])
def test_an_expiry_that_is_none_keeps_no_report_from_being_written(
    play: Play, reports: Reports, part: str | None
) -> None:
    """Plain SQL may write what is no instant; the run starts and is retried all the same."""
    play.add("a", "0 * * * *")
    (claim,) = send(play, "13:00")
    with play.store.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE beatstore_run SET expires_at = 'soon'")
    of = Origin(claim.run_id, claim.task_id, part)
    for state in ("started", "sent"):
        reports.write([Report(of, state, time.monotonic(), "worker@test")])
        run = play.last("a")
        assert run.state == state
    assert run.expires_at is None
