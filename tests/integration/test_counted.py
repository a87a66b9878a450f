"""The ends that only count: how few statements they take, and what they must not overlook."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, true

from beatstore import After, Run
from beatstore.database.dialects import dialect_of
from beatstore.tick import counted
from beatstore.tick.reports import Origin, Report, Reports
from tests.support.harness.play import Play

pytestmark = pytest.mark.every_database


def ended(run: Run, state: str = "succeeded") -> Report:
    """Return a report that a run has ended."""
    return Report(Origin(run.id, run.task_id), state, time.monotonic(), "w@h")


def knows_rows(play: Play) -> bool:
    """Say whether rows are given to the database in one parameter."""
    dialect = play.store.database.engine.dialect
    return dialect_of(dialect).given_rows(dialect, counted._GIVEN) is not None


@contextmanager
def executed(play: Play) -> Iterator[list[str]]:
    """Collect the statements that are executed."""
    found: list[str] = []

    def note(*said: object) -> None:
        # What a new connection sets for its session is no part of a report.
        if "set_config" not in str(said[2]):
            found.append(str(said[2]))

    event.listen(play.store.database.engine, "before_cursor_execute", note)
    yield found
    event.remove(play.store.database.engine, "before_cursor_execute", note)


def test_an_end_takes_few_statements(play: Play, reports: Reports) -> None:
    """An end that only counts is two statements where rows are one parameter, else seven."""
    play.add("a", "0 * * * *")
    play.at("13:00")
    reports.write([ended(play.last("a"))])
    play.at("14:00")
    given = [ended(play.last("a"))]
    with executed(play) as statements:
        reports.write(given)
    assert len(statements) <= (2 if knows_rows(play) else 7), statements
    assert play.store.get("a").success_seq == 2


def test_many_ends_take_no_more_statements(play: Play, reports: Reports) -> None:
    """Ends of different entries, good and bad ones, are written and counted together."""
    names = [f"e{number}" for number in range(10)]
    for name in names:
        play.add(name, "0 * * * *")
    assert sorted(play.at("13:00")) == names
    runs = [play.last(name) for name in names]
    given = [ended(run, "failed" if number % 2 else "succeeded") for number, run in enumerate(runs)]
    with executed(play) as statements:
        reports.write(given)
    assert len(statements) <= (2 if knows_rows(play) else 25), statements
    entries = [play.store.get(name) for name in names]
    assert [(one.success_seq, one.failure_seq, one.done_seq) for one in entries] == [
        (0, 1, 1) if number % 2 else (1, 0, 1) for number in range(10)
    ]


def test_the_guard_takes_few_statements(play: Play, reports: Reports) -> None:
    """A start is one statement where rows are one parameter, and takes the ends with it."""
    for name in ("a", "b"):
        play.add(name, "0 * * * *")
    play.at("13:00")
    first, second = play.last("a"), play.last("b")
    given = [ended(first), ended(second, "started")]
    with executed(play) as statements:
        assert reports.start(ended(first, "started"), again=False) is None
    assert len(statements) <= (1 if knows_rows(play) else 4), statements
    with executed(play) as statements:
        answer, written = reports.start_and_end(given[1], given[:1], again=False)
    assert answer is None
    assert len(statements) <= (3 if knows_rows(play) else 4), statements
    assert written == (given[:1] if knows_rows(play) else [])
    assert [play.last(name).state for name in ("a", "b")] == [
        "succeeded" if knows_rows(play) else "started",
        "started",
    ]
    assert "started it at" in str(reports.start(given[1], again=False))


def test_the_end_of_a_run_is_not_written_with_its_start(play: Play, reports: Reports) -> None:
    """What is reported of the run that is asked about is left alone."""
    play.add("a", "0 * * * *")
    play.at("13:00")
    run = play.last("a")
    given = [ended(run)]
    assert reports.start_and_end(ended(run, "started"), given, again=False) == (None, [])
    assert play.last("a").state == "started"


@pytest.mark.parametrize("align", ["latest", "same"])
def test_an_edge_that_the_statement_did_not_see(
    play: Play, reports: Reports, monkeypatch: pytest.MonkeyPatch, align: Any
) -> None:
    """A downstream that was linked while the end was being written is woken all the same."""
    play.add("a", "0 * * * *")
    play.at("13:00")
    play.store.add("down", "t.down", after=[After("a", align=align)])
    play.tick()
    monkeypatch.setattr(counted, "_NOT_WAITED_FOR", true())
    counted._write.cache_clear()
    try:
        reports.write([ended(play.last("a"))])
    finally:
        counted._write.cache_clear()
    assert play.tick() == ["down"]
    assert play.store.get("a").success_seq == 1


def test_a_run_that_has_ended_is_not_counted_again(play: Play, reports: Reports) -> None:
    """An end that is reported twice, alone or with others, counts once."""
    play.add("a", "0 * * * *")
    play.add("b", "0 * * * *")
    play.at("13:00")
    first, second = ended(play.last("a")), ended(play.last("b"))
    for given in ([first], [first], [first, second], [second, second]):
        assert not reports.write(given).held
    assert [play.store.get(name).done_seq for name in ("a", "b")] == [1, 1]
