"""The made-up workers of a simulation, and its ledger: no database, no clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from beatstore import ConfigError
from beatstore.testing import Ledger, Outcome, Row, Waiting, Work
from beatstore.testing.workers import Script, Sent, Workers

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


def sent(run_id: int, name: str = "job", attempt: int = 1, *, watched: bool = False) -> Sent:
    """Return a message."""
    return Sent(run_id, name, f"a.{name}", [], {}, NOON, attempt, NOON, watched)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def play(
    outcome: Any = None, duration: Any = 1.0, *, names: str = "job job", concurrency: Any = None
) -> list[tuple[int, str, float]]:
    """Send runs of these names together; return the ends: which run, how, after how long."""
    workers = Workers(Script(outcome, duration), concurrency)
    workers.take(sent(number, name) for number, name in enumerate(names.split(), 1))
    workers.begin(NOON)
    found = []
    while (at := workers.next_end()) is not None:
        for one in workers.end(at):
            found.append((one.work.run_id, one.outcome.state, (at - NOON).total_seconds()))
        workers.begin(at)
    return found


def by_attempt(work: Work) -> str:
    return "failed" if work.run_id == 1 else "succeeded"


@pytest.mark.parametrize(
    ("outcome", "states"),
    [
        (None, ["succeeded", "succeeded"]),
        ("cancelled", ["cancelled", "cancelled"]),
        (Outcome("failed"), ["failed", "failed"]),
        (ValueError("no"), ["failed", "failed"]),
        (["lost"], ["lost", "succeeded"]),
        ([None, "failed"], ["succeeded", "failed"]),
        (by_attempt, ["failed", "succeeded"]),
        (lambda work: None, ["succeeded", "succeeded"]),
        ({"job": "failed"}, ["failed", "failed"]),
        ({"job": ["failed", "cancelled"]}, ["failed", "cancelled"]),
        ({"job": by_attempt, "other": "lost"}, ["failed", "succeeded"]),
        ({"other": "failed"}, ["succeeded", "succeeded"]),
        ([Outcome("failed", duration=1)], ["failed", "succeeded"]),
    ],
)
def test_what_can_be_said_of_an_outcome(outcome: Any, states: list[str]) -> None:
    """One word for all, a list for the first runs, a callable, or any of these by name."""
    assert [state for _, state, _ in sorted(play(outcome))] == states


@pytest.mark.parametrize(
    ("duration", "ends"),
    [
        (60, [60, 60]),
        (timedelta(minutes=2), [120, 120]),
        ([5], [5, 1]),
        (lambda work: work.run_id * 10, [10, 20]),
        ({"job": [3, timedelta(seconds=4)]}, [3, 4]),
        ({"other": 7}, [1, 1]),
        (0, [1e-6, 1e-6]),
    ],
)
def test_what_can_be_said_of_a_duration(duration: Any, ends: list[float]) -> None:
    """Seconds or a timedelta, in the same shapes; nothing takes no time at all."""
    assert [end for _, _, end in sorted(play(duration=duration))] == ends


def test_an_outcomes_own_duration_is_stronger() -> None:
    """An outcome that says how long it takes is believed."""
    assert play([Outcome("failed", duration=9)], 30) == [(1, "failed", 9), (2, "succeeded", 30)]


@pytest.mark.parametrize("given", ["success", 1, True, Outcome("sent"), ValueError])
def test_an_outcome_that_is_none_is_refused(given: Any) -> None:
    """A misspelt outcome is an error that lists the right ones."""
    with pytest.raises(ConfigError, match="succeeded, failed, lost, cancelled"):
        play({"job": lambda work: given} if given is ValueError else given)


@pytest.mark.parametrize(
    "given",
    [-1, "60", timedelta(-1), lambda work: "long", math.inf, math.nan, 1e12, timedelta.max],
)
def test_a_duration_that_is_none_is_refused(given: Any) -> None:
    """So is a span of time that is none."""
    with pytest.raises(ConfigError, match="duration"):
        play(duration=given)


def test_a_failure_has_an_error() -> None:
    """An exception gives its own words; a plain "failed" says who made it."""
    script = Script([KeyError("x"), "failed", Outcome("failed", error="E: no")], 1)
    errors = [script.end(script.work(sent(number), NOON))[0].error for number in (1, 2, 3)]
    assert errors == ["KeyError: 'x'", "made to fail by simulate()", "E: no"]


def test_workers_take_turns() -> None:
    """With two places the third run begins when the first ends, in the order of sending."""
    ends = play(duration=[10, 20, 5, 1], names="a b c d", concurrency=2)
    # The lists are by entry, so each of these is the first run of its own.
    assert [run_id for run_id, _, _ in ends] == [1, 2, 3, 4]
    assert play(duration={"a": 10, "b": 20, "c": 5}, names="a b c d", concurrency=2) == [
        (1, "succeeded", 10),
        (3, "succeeded", 15),
        (4, "succeeded", 16),
        (2, "succeeded", 20),
    ]


def test_runs_that_end_together_end_in_the_order_they_began() -> None:
    """The order of what happens at one instant is fixed."""
    assert [run_id for run_id, _, _ in play(names="c a b")] == [1, 2, 3]


def test_only_what_is_watched_is_told_as_started() -> None:
    """A row says that it was started only where the sweep would look, which costs a statement."""
    workers = Workers(Script({"dies": "lost"}, 5), None)
    workers.take([sent(1), sent(2, watched=True), sent(3, "dies")])
    assert [one.work.run_id for one in workers.begin(NOON)] == [2, 3]
    assert [one.work.run_id for one in workers.unreported()] == [1]


def test_a_run_that_was_under_way_goes_on() -> None:
    """Its end counts from its start, in whatever simulation that was."""
    workers = Workers(Script(None, 60), None)
    workers.take([Sent(1, "a", "a.a", [], {}, NOON, 1, NOON, False, NOON)])
    workers.begin(after(45))
    assert workers.next_end() == after(60)


# -- the ledger --------------------------------------------------------------------------------


def row(name: str, seconds: float, state: str = "succeeded", **given: Any) -> Row:
    """Return a row."""
    values: dict[str, Any] = {
        **{"at": after(seconds), "name": name, "due_at": after(seconds), "attempt": 1},
        **{"state": state, "reason": None, "error": None, "sent_at": after(seconds)},
        **{"started_at": None, "finished_at": None, "first_missed_at": None},
        **{"missed_count": 0, "run_id": 1, **given},
    }
    return Row(**values)


@pytest.fixture
def ledger() -> Ledger:
    """Hand out a ledger of three rows, with one thing left."""
    rows = (
        row("a", 0),
        row("b", 60, "skipped", sent_at=None, due_at=NOON, missed_count=2, reason="overlap"),
        row("a", 3600, "failed", missed_count=3, error="E: no", reason="late"),
    )
    left = (Waiting("c", "waits for 'a' to succeed", after(5)),)
    return Ledger(rows, left, NOON, after(7200))


def test_a_ledger_is_a_sequence(ledger: Ledger) -> None:
    """It has a length, rows by number and by slice, and an order."""
    assert len(ledger) == 3
    assert [one.name for one in ledger] == ledger.names == ["a", "b", "a"]
    assert ledger[-1].state == "failed"
    assert [one.name for one in ledger[:2]] == ["a", "b"]
    assert ledger[0] in ledger


def test_a_ledger_can_be_narrowed(ledger: Ledger) -> None:
    """To some entries, what is left of them too; and to what was sent."""
    assert ledger.of("b", "c").names == ["b"]
    assert ledger.of("b").waiting == ()
    assert [left.name for left in ledger.of("c").waiting] == ["c"]
    assert ledger.sent.names == ["a", "a"]
    assert ledger.states() == {"failed": 1, "skipped": 1, "succeeded": 1}
    assert ledger.of("x").names == []


def test_a_ledger_reads_well(ledger: Ledger) -> None:
    """It prints as a table, with what is left below it."""
    assert str(ledger).splitlines() == [
        "at                   entry  due                  state      reason",
        "2026-01-15 12:00:00  a                           succeeded",
        "2026-01-15 12:01:00  b      2026-01-15 12:00:00  skipped    overlap",
        "2026-01-15 13:00:00  a +3                        failed     late; E: no",
        "left: c since 2026-01-15 12:00:05: waits for 'a' to succeed",
    ]
    assert repr(ledger) == "<Ledger: {'failed': 1, 'skipped': 1, 'succeeded': 1}, 1 waiting>"


def test_an_empty_ledger_reads_well_too() -> None:
    """Its heading says what it would have told."""
    assert str(Ledger((), (), NOON, NOON)).split() == ["at", "entry", "due", "state", "reason"]


def test_work_is_what_the_task_would_see() -> None:
    """A callable learns the run's entry, arguments, attempt, and how many came before."""
    seen: list[Work] = []
    keep: Callable[[Work], None] = seen.append
    script = Script(keep, 1)
    for attempt in (1, 2):
        script.end(script.work(sent(9, attempt=attempt), after(3)))
    assert [(work.name, work.task, work.attempt, work.number) for work in seen] == [
        ("job", "a.job", 1, 1),
        ("job", "a.job", 2, 2),
    ]
    assert (seen[0].sent_at, seen[0].started_at, seen[0].run_id) == (NOON, after(3), 9)
