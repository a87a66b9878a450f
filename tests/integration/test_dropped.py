"""A message that a worker drops while another one of the same run is executed."""

from __future__ import annotations

from typing import Any

import pytest

from beatstore import Run
from beatstore.tick.reports import Origin, Report, Reports
from tests.support.harness.play import Play
from tests.support.harness.reported import begin, counts, said

HEARTBEAT = 10


def start(reports: Reports, run: Run, part: str | None = None) -> None:
    """Start a run at a worker that lives."""
    reports.heartbeat("w", "one", 1, [])
    reports.write([said(run, "started", part)])


def dropped(run: Run, part: str | None = None, **more: Any) -> Report:
    """Return the report that a message of a run has expired."""
    state = more.pop("state", "cancelled")
    return said(run, state, part, by="two", reason="expired in the queue", dropped=True, **more)


@pytest.mark.every_database
@pytest.mark.parametrize("state", ["cancelled", "failed"])
def test_a_second_message_ends_no_run(play: Play, reports: Reports, state: str) -> None:
    """A run that a living worker has started goes on when a second message of it is dropped."""
    run = begin(play)
    start(reports, run)
    reports.write([dropped(run, state=state)])
    going_on = play.last("a")
    assert (going_on.state, going_on.reason, going_on.worker) == ("started", None, "one")
    reports.write([said(run, "succeeded"), dropped(run, state=state)])
    assert play.last("a").state == "succeeded"
    assert counts(play) == (1, 0, 1)


def test_reports_that_are_written_together(play: Play, reports: Reports) -> None:
    """The start and the second message may be reported in one transaction."""
    run = begin(play)
    reports.heartbeat("w", "one", 1, [])
    reports.write([said(run, "started"), dropped(run)])
    assert play.last("a").state == "started"


def test_the_only_message_ends_its_run(play: Play, reports: Reports) -> None:
    """A run that nobody has started ends when its message is dropped."""
    run = begin(play)
    reports.heartbeat("w", "one", 1, [])
    reports.write([dropped(run)])
    assert play.last("a").state == "cancelled"


@pytest.mark.parametrize("how", ["stopped", "silent"])
def test_the_message_of_a_worker_that_is_gone(play: Play, reports: Reports, how: str) -> None:
    """A message that comes again after its worker has died or stopped is the only one."""
    run = begin(play)
    start(reports, run)
    if how == "stopped":
        reports.withdraw("w")
    else:
        play.clock.advance(3 * HEARTBEAT)
    reports.write([dropped(run)])
    assert play.last("a").state == "cancelled"


def test_a_task_of_a_canvas(play: Play, reports: Reports) -> None:
    """A second message of a task that runs ends nothing; the only one of another task does."""
    run = begin(play)
    start(reports, run, "1/2")
    reports.write([dropped(run, "1/2")])
    assert play.last("a").state == "started"
    reports.write([dropped(run, "2/2")])
    assert play.last("a").state == "cancelled"


def test_a_run_of_another_database(play: Play, reports: Reports) -> None:
    """What was dropped elsewhere says nothing of a run here that has the same id."""
    run = begin(play)
    start(reports, run)
    foreign = Report(Origin(run.id, "another"), "cancelled", 0.0, "two", dropped=True)
    assert reports.write([foreign]).unknown == [foreign]
    assert play.last("a").state == "started"
