"""The reporter, on a writer that notes what it gets: waits, outages, order, bounds."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from threading import Thread

import pytest

from beatstore.config import Settings
from beatstore.database.engine import Database
from beatstore.errors import ConfigError, UnavailableError
from beatstore.tick.reports import MISSED_UNTIL_LOST, Origin, Report, Reports
from beatstore.worker.reporter import Reporter
from tests.support.recorder import Recorder
from tests.support.wait import wait_until


@pytest.fixture
def reporter(writer: Recorder) -> Iterator[Reporter]:
    reporter = Reporter(lambda: writer)
    yield reporter
    writer.error = None
    writer.refuses = lambda report: False
    writer.release()
    reporter.stop(10)


def started(run_id: int) -> Report:
    return Report(Origin(run_id, "t"), "started", time.monotonic(), "w")


def ended(run_id: int, state: str = "succeeded") -> Report:
    return Report(Origin(run_id, "t"), state, time.monotonic(), "w")


def stall(reporter: Reporter, writer: Recorder) -> None:
    """Have the reporter's thread hang in a write."""
    writer.hang()
    reporter.report(ended(0))
    wait_until(lambda: writer.calls == 1)


def test_what_is_waited_for_is_written(reporter: Reporter, writer: Recorder) -> None:
    """Whoever waits for an end is told that the database has it."""
    assert reporter.report(ended(1), wait=10)
    assert writer.states == [(1, "succeeded")]


def test_reports_keep_their_order(reporter: Reporter, writer: Recorder) -> None:
    """Reports are written in the order they came, at most fifty in a transaction."""
    stall(reporter, writer)
    for run_id in range(1, 121):
        reporter.report(ended(run_id))
    writer.release()
    assert reporter.flush(10)
    assert [len(batch) for batch in writer.batches] == [1, 50, 50, 20]
    assert [report.of.run_id for report in writer.reports] == list(range(121))


def test_a_start_is_written_with_its_end(reporter: Reporter, writer: Recorder) -> None:
    """An end that finds the start of its run in the queue takes its place, and its time."""
    stall(reporter, writer)
    start = started(1)
    reporter.report(start)
    reporter.report(started(2))
    reporter.report(ended(1))
    writer.release()
    assert reporter.flush(10)
    assert writer.states[1:] == [(2, "started"), (1, "succeeded")]
    assert writer.reports[-1].started == start.at


def test_a_burst_is_written_together(writer: Recorder) -> None:
    """What comes soon after a write is gathered, unless somebody waits for it."""
    reporter = Reporter(lambda: writer, linger=30)
    reporter.report(ended(1))
    wait_until(lambda: writer.calls == 1)
    reporter.report(ended(2))
    reporter.report(ended(3))
    assert writer.states == [(1, "succeeded")]
    assert reporter.report(ended(4), wait=10)
    assert [len(batch) for batch in writer.batches] == [1, 3]
    reporter.stop(10)


def test_a_retried_run_keeps_its_story(reporter: Reporter, writer: Recorder) -> None:
    """What went back to the queue and came again is told in this order, each with its start."""
    stall(reporter, writer)
    first, second = started(1), started(1)
    for report in (first, ended(1, "sent"), second, ended(1)):
        reporter.report(report)
    writer.release()
    assert reporter.flush(10)
    assert writer.states[1:] == [(1, "sent"), (1, "succeeded")]
    assert [report.started for report in writer.reports[1:]] == [first.at, second.at]


def test_the_end_of_a_part_is_not_the_end(reporter: Reporter, writer: Recorder) -> None:
    """The start of one part stays in the queue when only another has ended."""
    stall(reporter, writer)
    reporter.report(replace(started(1), of=Origin(1, "t", "2/2")))
    reporter.report(replace(ended(1), of=Origin(1, "t", "1/2")))
    writer.release()
    assert reporter.flush(10)
    assert writer.states[1:] == [(1, "started"), (1, "succeeded")]


def test_a_start_alone_is_written_soon(reporter: Reporter, writer: Recorder) -> None:
    """The start of a long task does not wait for its end."""
    reporter.report(started(1))
    wait_until(lambda: writer.states == [(1, "started")])


def test_a_hanging_database_is_waited_for_once(reporter: Reporter, writer: Recorder) -> None:
    """When the database hangs, one task waits its time, and those after it none."""
    writer.hang()
    began = time.monotonic()
    for run_id in range(1, 102):
        assert not reporter.report(ended(run_id), wait=0.1)
    assert 0.1 <= time.monotonic() - began < 5, "it is 10 s where each of them waits"
    writer.release()
    assert reporter.flush(10)
    assert len(writer.reports) == 101
    assert reporter.report(ended(102), wait=10)  # it is trusted again


def test_an_outage_loses_nothing(
    reporter: Reporter, writer: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """While the database is away nobody waits; all of it is written when it is back."""
    caplog.set_level(logging.WARNING)
    writer.error = UnavailableError("gone")
    assert not reporter.report(ended(0), wait=10)
    wait_until(lambda: writer.calls >= 3, 10)
    began = time.monotonic()
    for run_id in range(1, 200):
        assert not reporter.report(ended(run_id), wait=10)
    assert time.monotonic() - began < 10, "each of them has waited"
    writer.error = None
    wait_until(lambda: len(writer.reports) == 200, 10)
    assert [report.of.run_id for report in writer.reports] == list(range(200))
    said = [record.levelname for record in caplog.records]
    assert said == ["ERROR", "WARNING"]


def test_an_outage_ends_for_a_report_before_its_run_is_given_up(
    reporter: Reporter, writer: Recorder
) -> None:
    """Where heartbeats are short, the database is tried more often than every three seconds."""
    settings = Settings(heartbeat=0.2)
    writer.max_wait_s = Reports(Database("sqlite://"), settings).max_wait_s
    assert 2 * writer.max_wait_s < settings.heartbeat * MISSED_UNTIL_LOST
    writer.error = UnavailableError("gone")
    reporter.report(ended(0))
    wait_until(lambda: writer.calls >= 12, 12, "twelve attempts, which else take 21 s")


def test_too_many_reports_drop_starts_first(
    writer: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """A full queue drops the oldest start, without one the oldest end, and says so once."""
    reporter = Reporter(lambda: writer, limit=4)
    stall(reporter, writer)
    for report in (ended(1), started(2), started(3), ended(4), ended(5), ended(6), ended(7)):
        reporter.report(report)
    writer.release()
    assert reporter.flush(10)
    reporter.stop(10)
    # The first is in the hands of the writer by then.
    assert writer.states == [(0, "succeeded"), *((run_id, "succeeded") for run_id in (4, 5, 6, 7))]
    assert caplog.text.count("dropping the oldest") == 1


def test_a_bad_report_is_dropped_alone(
    reporter: Reporter, writer: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """A report refused alone on two fresh connections is dropped; the others are written."""
    stall(reporter, writer)
    writer.refuses = lambda report: report.of.run_id == 3
    for run_id in range(1, 6):
        reporter.report(ended(run_id))
    writer.release()
    assert reporter.flush(10)
    # Before the third was dropped, one of no run was written: it is not the database.
    assert [report.of.run_id for report in writer.reports] == [0, 1, 2, 0, 4, 5]
    assert writer.closed == 3  # after the batch, and after each try alone
    (line,) = caplog.messages
    assert line == (
        "dropped the report that run 3 (task id t) is succeeded, since the database refused it "
        "twice: ValueError: refused"
    )


def test_a_bad_connection_is_no_bad_report(
    reporter: Reporter, writer: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """What only this connection refuses is written on the next one, and nothing is said."""
    writer.refuses = lambda report: writer.closed == 0
    assert reporter.report(ended(1), wait=10)
    assert writer.states == [(1, "succeeded")]
    assert caplog.messages == []


def test_a_run_of_another_database_is_said_once(
    reporter: Reporter, writer: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that is not in this database is named once, whatever is reported of it."""
    writer.strange = lambda report: report.of.run_id == 1
    for report in (started(1), ended(1, "sent"), ended(1), ended(2)):
        assert reporter.report(report, wait=10)
    assert caplog.messages == [
        "run 1 with the task id t is not in this database: a beat with another database sent its "
        "message, or its row was deleted; ignoring its reports"
    ]


def test_a_database_that_takes_no_report_is_waited_for(
    reporter: Reporter, writer: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Reports are not dropped while the tables, or the right to write them, are missing."""
    writer.refuses = lambda report: True
    reporter.report(ended(1))
    reporter.report(ended(2))
    wait_until(lambda: ", retrying: " in caplog.text)
    writer.refuses = lambda report: False
    assert reporter.flush(10)
    assert writer.states == [(1, "succeeded"), (2, "succeeded")]
    assert "dropped the report" not in caplog.text
    assert caplog.text.count(", retrying: ") == caplog.text.count(" again after ") == 1


@pytest.mark.parametrize("answer", [None, "it runs elsewhere"])
def test_the_guard_is_asked(reporter: Reporter, writer: Recorder, answer: str | None) -> None:
    """A question is answered by the database, alone in its transaction."""
    writer.answer = answer
    assert reporter.ask(started(1), again=True, wait=10) == answer
    assert [(report.of.run_id, again) for report, again in writer.asked] == [(1, True)]
    assert writer.reports == []


def test_a_question_takes_the_ends_with_it(reporter: Reporter, writer: Recorder) -> None:
    """Ends of other runs are written with the answer, and what is left just after it."""
    stall(reporter, writer)
    for report in (ended(1), started(2), ended(3)):
        reporter.report(report)
    Thread(target=lambda: reporter.ask(started(4), again=False, wait=30)).start()
    wait_until(lambda: len(reporter._items) == 5)
    writer.release()
    assert reporter.flush(10)
    assert [[one.of.run_id for one in batch] for batch in writer.batches] == [[0], [1, 3], [2]]
    assert [report.of.run_id for report, _ in writer.asked] == [4]


def test_what_a_question_takes_with_it_is_written_once(
    reporter: Reporter, writer: Recorder
) -> None:
    """When a report beside a question is refused, or the run is held, all else is written."""
    stall(reporter, writer)
    writer.refuses = lambda report: report.of.run_id == 2
    writer.holds = lambda report: report.of.run_id == 4 and writer.calls < 8
    for report in (ended(1), ended(2), ended(3)):
        reporter.report(report)
    Thread(target=lambda: reporter.ask(started(4), again=False, wait=30)).start()
    wait_until(lambda: len(reporter._items) == 5)
    writer.release()
    assert reporter.flush(10)
    told = [run_id for run_id, state in writer.states if state == "succeeded"]
    assert told == [0, 1, 3]
    assert [report.of.run_id for report, _ in writer.asked] == [4]


def test_a_question_about_a_locked_run_is_asked_again(reporter: Reporter, writer: Recorder) -> None:
    """The answer counts if it comes while the task still waits for it."""
    writer.answer = "it runs elsewhere"
    writer.holds = lambda report: writer.calls < 4
    assert reporter.ask(started(1), again=False, wait=30) == "it runs elsewhere"
    writer.holds = lambda report: True
    assert reporter.ask(started(2), again=False, wait=0.1) is None
    writer.holds = lambda report: False
    assert reporter.flush(10)
    assert writer.states == [(2, "started")]


def test_a_question_comes_after_what_was_said_of_its_run(
    reporter: Reporter, writer: Recorder
) -> None:
    """A run that went back to the queue is asked about when the database knows it."""
    stall(reporter, writer)
    reporter.report(ended(1, "sent"))
    Thread(target=lambda: reporter.ask(started(1), again=True, wait=30)).start()
    wait_until(lambda: len(reporter._items) == 3)
    writer.release()
    wait_until(lambda: len(writer.asked) == 1)
    assert writer.states == [(0, "succeeded"), (1, "sent")]


def test_an_answer_too_late_is_no_answer(
    reporter: Reporter, writer: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Without an answer in time the task starts, and what was to be said is logged."""
    writer.hang()
    writer.answer = "it runs elsewhere"
    began = time.monotonic()
    assert reporter.ask(started(1), again=False, wait=0.04) is None
    assert time.monotonic() - began < 10, "it has waited for the database"
    reporter.report(ended(1), wait=0.04)
    writer.release()
    assert reporter.flush(10)
    assert writer.states == [(1, "succeeded")]
    assert (
        "run 1 started before the database answered that it must not: it runs elsewhere"
        in caplog.text
    )


def test_a_question_in_an_outage_becomes_a_report(reporter: Reporter, writer: Recorder) -> None:
    """The start of what could not be asked about is written when the database is back."""
    writer.error = UnavailableError("gone")
    assert reporter.ask(started(1), again=False, wait=10) is None
    assert reporter.ask(started(2), again=False, wait=10) is None
    writer.error = None
    wait_until(lambda: writer.states == [(1, "started"), (2, "started")], 10)
    assert writer.asked == []


def test_a_question_that_can_t_be_asked(reporter: Reporter, writer: Recorder) -> None:
    """An error of the guard's own does not keep a task from starting."""
    writer.refuses = lambda report: True
    assert reporter.ask(started(1), again=False, wait=10) is None


def test_preparing_leaves_nothing(writer: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """A process that could not connect ahead of time has nothing to write at its end."""
    reporter = Reporter(lambda: writer)
    writer.error = UnavailableError("gone")
    assert not reporter.prepare(10)
    reporter.stop(0)
    assert "not written before shutdown" not in caplog.text
    writer.error = None
    reporter.report(ended(1))
    reporter.stop(10)
    assert writer.states == [(1, "succeeded")]


def test_an_idle_process_keeps_no_connection(writer: Recorder) -> None:
    """The connection is given back when there is nothing to report, once."""
    reporter = Reporter(lambda: writer, idle=0.02)
    assert reporter.report(ended(1), wait=10)
    wait_until(lambda: writer.closed == 1)
    assert reporter.report(ended(2), wait=10)
    wait_until(lambda: writer.closed == 2)
    reporter.stop(10)
    assert writer.states == [(1, "succeeded"), (2, "succeeded")]


def test_the_end_writes_what_is_left(writer: Recorder) -> None:
    """Stopping writes what waits, gives the connection back and ends the thread."""
    reporter = Reporter(lambda: writer, linger=30)
    reporter.report(started(1))
    reporter.stop(10)
    assert writer.states == [(1, "started")]
    assert writer.closed == 1
    assert reporter.report(ended(1), wait=10)  # and begins anew, if it must
    reporter.stop(10)
    assert writer.closed == 2


def test_the_end_tries_once_more(writer: Recorder) -> None:
    """A database that is back by then is not missed because of the patience before."""
    reporter = Reporter(lambda: writer)
    writer.error = UnavailableError("gone")
    reporter.report(ended(1))
    wait_until(lambda: writer.calls >= 5, 10)  # by now it waits more than a second
    writer.error = None
    began = time.monotonic()
    reporter.stop(10)
    assert writer.states == [(1, "succeeded")]
    assert time.monotonic() - began < 1


def test_the_end_does_not_wait_for_ever(writer: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """A process can end while the database is away, and says what is lost with it."""
    reporter = Reporter(lambda: writer)
    writer.error = UnavailableError("gone")
    reporter.report(ended(1))
    reporter.report(ended(2))
    began = time.monotonic()
    reporter.stop(0.3)
    assert time.monotonic() - began < 10, "it has waited for the database"
    assert "2 run reports were not written before shutdown" in caplog.text
    writer.error = None
    reporter.stop(10)


def test_a_wrong_setting_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Where it is not known where to write, one line says so and nobody waits."""

    def open_writer() -> Recorder:
        raise ConfigError("beatstore_urll", "x", "a setting that beatstore knows", "beatstore_url")

    reporter = Reporter(open_writer)
    began = time.monotonic()
    for run_id in range(100):
        assert not reporter.report(ended(run_id), wait=10)
    assert time.monotonic() - began < 5
    assert reporter.ask(started(1), again=False, wait=10) is None
    assert reporter.flush(10)
    reporter.stop(10)
    assert len(caplog.records) == 1


def test_a_child_can_leave_its_parent_s_reporter_alone(writer: Recorder) -> None:
    """A forked child's own reporter works while its parent's hangs with its lock taken."""
    reporter = Reporter(lambda: writer)
    stall(reporter, writer)
    with warnings.catch_warnings(), reporter._changed:
        warnings.simplefilter("ignore")  # of newer Pythons, about threads and fork
        child = os.fork()
    if child == 0:
        own = Recorder()
        done = Reporter(lambda: own).report(ended(1), wait=5)
        os._exit(0 if done and own.states == [(1, "succeeded")] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    writer.release()
    reporter.stop(10)
    assert writer.states == [(0, "succeeded")]
