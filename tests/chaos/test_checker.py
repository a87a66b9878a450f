"""The checker of the chaos run finds what is planted, in a ledger where all else is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checker import check
from tests.chaos.ledger import Act, Edge, EntryRow, Event, Ledger, Life, Line, RunRow, Sample

SRC, SAME, LATEST, WAIT, ONCE, EDITED = range(1, 7)

#: Everything is due on the multiples of 5 between these two.
BEGUN, STOPPED = 100.0, 121.0
DUES = (105.0, 110.0, 115.0, 120.0)

ACTIVE = {"state": "active", "kind": "every"}


def run(number: int, entry: int, name: str, due: float, **given: Any) -> RunRow:
    """A run that was sent and has succeeded, all in time."""
    times = {"sent_at": due + 0.1, "started_at": due + 0.2, "finished_at": due + 0.4}
    row = {"attempt": 1, "task_id": f"task-{number}", "state": "succeeded", **times, **given}
    return RunRow(number, entry, name, due, **row)


def seen(one: RunRow, what: str = "ok") -> list[Line]:
    """What the task of a run has written down."""
    started = one.started_at or 0.0
    named: dict[str, Any] = {"run": one.id, "entry": one.entry_name, "task_id": one.task_id}
    return [Line(started, "start", **named), Line(started + 0.1, what, **named)]


def good() -> Ledger:
    """Five entries, of which one has failed and been retried, and one was paused for a while."""
    src = [run(10 + n, SRC, "src", due) for n, due in enumerate(DUES)]
    same = [
        run(20 + n, SAME, "same", due, sent_at=due + 0.5, started_at=due + 0.6, finished_at=due + 1)
        for n, due in enumerate(DUES)
    ]
    late = [
        run(30 + n, LATEST, "latest", due + 0.5, started_at=due + 0.8, finished_at=due + 1)
        for n, due in enumerate(DUES)
    ]
    wait = [
        run(40, WAIT, "wait", 105.0, state="failed", error="ChaosError: no"),
        run(41, WAIT, "wait", 105.0, attempt=2, sent_at=106.5, started_at=107, finished_at=111),
        run(42, WAIT, "wait", 115.0, missed_count=1, first_missed_at=110.0),
        run(43, WAIT, "wait", 120.0),
    ]
    once = [run(50, ONCE, "once", 112.0)]
    edited = [run(60, EDITED, "edited", 105.0), run(61, EDITED, "edited", 120.0)]
    runs = [*src, *same, *late, *wait, *once, *edited]
    names = {SRC: "src", SAME: "same", LATEST: "latest", WAIT: "wait", ONCE: "once"}
    names[EDITED] = "edited"
    acts = [Act("add", name, 100.0, 100.1, "ok", number) for number, name in names.items()]
    acts += [
        Act("pause", "edited", 107.0, 107.1, "ok", EDITED),
        Act("resume", "edited", 116.0, 116.1, "ok", EDITED),
    ]
    counts = {SRC: (4, 0), SAME: (4, 0), LATEST: (4, 0), WAIT: (3, 0), ONCE: (1, 0), EDITED: (2, 0)}
    kinds = {SAME: "after", LATEST: "after", ONCE: "once"}
    return Ledger(
        title="made up",
        begun=BEGUN,
        stopped=STOPPED,
        stopped_by=STOPPED,
        ended=200.0,
        at_rest=True,
        runs=runs,
        entries=[
            EntryRow(
                number,
                name,
                kinds.get(number, "every"),
                "active" if number in (SAME, LATEST) else "finished",
                success_seq=counts[number][0],
                failure_seq=counts[number][1],
                done_seq=sum(counts[number]),
            )
            for number, name in names.items()
        ],
        edges=[Edge(SAME, SRC, align="same"), Edge(LATEST, SRC, consumed_seq=4)],
        lives=[
            Life(SRC, "src", 5.0, guarded=True),
            Life(SAME, "same"),
            Life(LATEST, "latest"),
            Life(WAIT, "wait", 5.0, overlap="wait", max_retries=1),
            Life(ONCE, "once", at=112.0),
            Life(EDITED, "edited", 5.0, stable=False),
        ],
        acts=acts,
        lines=[
            line for one in runs for line in seen(one, "fail" if one.state == "failed" else "ok")
        ],
    )


def with_run(ledger: Ledger, number: int, **changed: Any) -> Ledger:
    """The same ledger with another row for one run."""
    runs = [replace(one, **changed) if one.id == number else one for one in ledger.runs]
    return replace(ledger, runs=runs)


def with_entry(ledger: Ledger, number: int, **changed: Any) -> Ledger:
    """The same ledger with another row for one entry."""
    rows = [replace(one, **changed) if one.id == number else one for one in ledger.entries]
    return replace(ledger, entries=rows)


def without(ledger: Ledger, *numbers: int) -> Ledger:
    """The same ledger without the rows of these runs, and without their tasks' lines."""
    return replace(
        ledger,
        runs=[one for one in ledger.runs if one.id not in numbers],
        lines=[line for line in ledger.lines if line.run not in numbers],
    )


def more(ledger: Ledger, *rows: RunRow, lines: bool = True) -> Ledger:
    """The same ledger with more runs."""
    added = [line for row in rows for line in seen(row)] if lines else []
    return replace(ledger, runs=[*ledger.runs, *rows], lines=[*ledger.lines, *added])


def started_again(ledger: Ledger, number: int) -> Ledger:
    """The same ledger where a task has started once more."""
    [first, *_] = [line for line in ledger.lines if line.run == number]
    return replace(ledger, lines=[*ledger.lines, replace(first, at=first.at + 1)])


#: What is planted, and the rule that has to find it, of the entry.
PLANTED: dict[str, tuple[Callable[[Ledger], Ledger], str, str]] = {
    "an occurrence without a row": (lambda good: without(good, 11), "missing", "src"),
    "an occurrence in a row of two": (
        lambda good: more(good, run(90, SRC, "src", 110.0, attempt=1)),
        "doubled row",
        "src",
    ),
    "an occurrence counted by two rows": (
        lambda good: with_run(good, 12, missed_count=1, first_missed_at=110.0),
        "accounted twice",
        "src",
    ),
    "a row for no occurrence": (
        lambda good: more(good, run(90, SRC, "src", 112.0)),
        "no occurrence",
        "src",
    ),
    "a row in a pause": (
        lambda good: more(good, run(90, EDITED, "edited", 110.0)),
        "no occurrence",
        "edited",
    ),
    "a wrong count": (lambda good: with_run(good, 42, missed_count=2), "miscounted", "wait"),
    "a run that is sent for ever": (
        lambda good: with_run(good, 13, state="sent", finished_at=None),
        "never ends",
        "src",
    ),
    "an end that nobody counted": (
        lambda good: with_run(good, 13, wake_at=121.0),
        "never counted",
        "src",
    ),
    "a run that was cancelled by nobody": (
        lambda good: with_run(good, 13, state="cancelled"),
        "cancelled",
        "src",
    ),
    "a failure without its next attempt": (
        lambda good: without(good, 41),
        "no next attempt",
        "wait",
    ),
    "an attempt too many": (
        lambda good: more(
            with_run(good, 41, state="failed", error="ChaosError: no"),
            run(90, WAIT, "wait", 105.0, attempt=3),
        ),
        "too many attempts",
        "wait",
    ),
    "an attempt after a success": (
        lambda good: with_run(good, 40, state="succeeded"),
        "needless attempt",
        "wait",
    ),
    "a retry that stands for less": (
        lambda good: with_run(good, 40, missed_count=1, first_missed_at=100.0),
        "retry stands for less",
        "wait",
    ),
    "a counter too high": (lambda good: with_entry(good, SRC, success_seq=5), "counters", "src"),
    "a failure counted that was none": (
        lambda good: with_entry(good, SRC, failure_seq=1),
        "counters",
        "src",
    ),
    "a downstream without a token": (
        lambda good: with_run(good, 12, state="failed", error="ChaosError: no"),
        "without token",
        "same",
    ),
    "a downstream that ran too often": (
        lambda good: more(good, run(90, LATEST, "latest", 121.0)),
        "without token",
        "latest",
    ),
    "a token swallowed": (lambda good: without(good, 22), "token swallowed", "same"),
    "a completion that set nothing going": (
        lambda good: without(good, 31),
        "token swallowed",
        "latest",
    ),
    "a last completion that set nothing going": (
        lambda good: without(good, 33),
        "token swallowed",
        "latest",
    ),
    "a downstream before its upstream": (
        lambda good: replace(
            good,
            lines=[
                replace(line, at=line.at - 2) if line.run == 22 else line for line in good.lines
            ],
        ),
        "too early",
        "same",
    ),
    "an entry that stands still": (
        lambda good: replace(good, edges=[good.edges[0], Edge(LATEST, SRC, consumed_seq=3)]),
        "standing still",
        "latest",
    ),
    "an entry that waits for its own run, which has ended": (
        lambda good: with_entry(good, WAIT, state="active", pending_due_at=120.0),
        "standing still",
        "wait",
    ),
    "a broken entry": (lambda good: with_entry(good, SRC, state="broken"), "broken", "src"),
    "a success that nobody saw": (
        lambda good: replace(good, lines=[line for line in good.lines if line.run != 13]),
        "no witness",
        "src",
    ),
    "a skipped run that ran": (
        lambda good: with_run(
            good, 13, state="skipped", sent_at=None, started_at=None, missed_count=1
        ),
        "ran all the same",
        "src",
    ),
    "a task of no run": (
        lambda good: replace(good, lines=[*good.lines, Line(110.0, "start", 999, "src")]),
        "ran without a row",
        "src",
    ),
    "a start in spite of the guard": (
        lambda good: started_again(good, 12),
        "started twice",
        "src",
    ),
    "a second start without a cause": (
        lambda good: started_again(good, 50),
        "started twice",
        "once",
    ),
    "two task ids of one run": (
        lambda good: replace(
            good, lines=[*good.lines, Line(110.0, "retry", 12, "src", task_id="other")]
        ),
        "task ids",
        "src",
    ),
    "two tasks at a time": (
        lambda good: replace(
            good,
            lines=[
                replace(line, at=121.0) if (line.run, line.what) == (42, "ok") else line
                for line in good.lines
            ],
        ),
        "overlap",
        "wait",
    ),
    "a trigger that came to nothing": (
        lambda good: replace(
            good, acts=[*good.acts, Act("trigger", "src", 108, 108.1, value={"run_id": 999})]
        ),
        "asked for in vain",
        "src",
    ),
    "a triggered run that nobody asked for": (
        lambda good: more(good, run(90, SRC, "src", 112.5, reason="triggered")),
        "nobody asked",
        "src",
    ),
    "a run sent while its entry is paused": (
        lambda good: replace(
            with_run(good, 60, sent_at=130.0),
            acts=[act for act in good.acts if act.verb != "resume"],
        ),
        "not silent",
        "edited",
    ),
    "a one-shot that was cancelled and sent": (
        lambda good: replace(
            good,
            acts=[*good.acts, Act("cancel", "once", 108, 108.1, "ok", ONCE, {"in_time": True})],
        ),
        "sent after cancel",
        "once",
    ),
    "a one-shot that was forgotten": (lambda good: without(good, 50), "missing", "once"),
    "a one-shot sent twice": (
        lambda good: more(good, run(90, ONCE, "once", 113.0)),
        "one-shot twice",
        "once",
    ),
    "a run that is late": (
        lambda good: with_run(good, 12, sent_at=130.0, started_at=131.0, finished_at=132.0),
        "late",
        "src",
    ),
    "a downstream that is late": (
        lambda good: with_run(good, 22, sent_at=130.0, started_at=131.0, finished_at=132.0),
        "late",
        "same",
    ),
    "a row that is left lying": (
        lambda good: replace(good, samples=[Sample(160.0, entries={"src": 40.0})]),
        "left lying",
        "src",
    ),
}


def test_nothing_is_found_where_all_is_right() -> None:
    """A ledger in which every rule is kept has no violation."""
    assert check(good()) == []


@pytest.mark.parametrize("plant", PLANTED)
def test_what_is_planted_is_found(plant: str) -> None:
    """Each kind of fault is found in a ledger, by its rule, of the entry that has it."""
    spoil, rule, subject = PLANTED[plant]
    found = {(violation.rule, violation.subject) for violation in check(spoil(good()))}
    assert (rule, subject) in found


@pytest.mark.parametrize(
    ("event", "number"),
    [
        (Event("kill beat", 113.0, 113.0), 50),
        (Event("beat partition", 112.0, 113.0), 50),
        (Event("database cut", 116.0, 116.0), 12),
    ],
    ids=["a beat was killed, no guard", "a beat was cut off, no guard", "the guard could not ask"],
)
def test_what_the_failure_table_allows_is_none(event: Event, number: int) -> None:
    """A second start is no violation where the failure table has a cause for it."""
    assert check(replace(started_again(good(), number), events=[event])) == []


@pytest.mark.parametrize("kind", ["kill beat", "beat partition"])
def test_a_guard_holds_when_a_beat_is_killed_or_cut_off(kind: str) -> None:
    """What one beat suffers explains no second start of a task with the guard."""
    ledger = replace(started_again(good(), 12), events=[Event(kind, 114.0, 114.0)])
    assert [violation.rule for violation in check(ledger)] == ["started twice"]
    lines = [replace(line, asked_s=5.0) for line in ledger.lines]
    excused = {"beat partition": [], "kill beat": ["started twice"]}  # whose locks are gone with it
    found = check(replace(ledger, lines=lines))
    assert [violation.rule for violation in found] == excused[kind]


def test_a_task_that_waits_for_its_own_retry_may_start() -> None:
    """A second copy of its message finds a run that waits to start, so the guard lets it by."""
    ledger = started_again(good(), 12)
    [first, _, again] = [line for line in ledger.lines if line.run == 12]
    retry = replace(first, what="retry", at=(first.at + again.at) / 2)
    spoiled = replace(
        ledger, lines=[*ledger.lines, retry], events=[Event("beat partition", 114.0, 114.0)]
    )
    assert check(spoiled) == []


def test_a_worker_does_not_start_what_it_runs() -> None:
    """A second start at the worker that still runs the first has no excuse."""
    ledger = good()
    [first, end] = [line for line in ledger.lines if line.run == 12]
    rest = [line for line in ledger.lines if line.run != 12]
    lines = [first, replace(first, at=first.at + 1, pid=1), replace(end, at=first.at + 2)]
    cut = Event("broker cut", 115.0, 115.0)
    spoiled = replace(ledger, lines=[*rest, *lines], events=[cut])
    assert "started twice" in {violation.rule for violation in check(spoiled)}


def test_a_worker_may_start_again_what_it_has_run() -> None:
    """One process that has run it to its end has not had two at once."""
    ledger = good()
    [first, end] = [line for line in ledger.lines if line.run == 12]
    rest = [line for line in ledger.lines if line.run != 12]
    again = [replace(one, at=one.at + 3) for one in (first, end)]
    cut = Event("broker cut", 115.0, 115.0)
    spoiled = replace(ledger, lines=[*rest, first, end, *again], events=[cut])
    assert check(spoiled) == []


@pytest.mark.parametrize(
    ("reason", "rules"),
    [("stopped sending heartbeats", set()), (None, {"without token", "token swallowed"})],
)
def test_a_failure_counts_when_it_is_given_up(reason: str | None, rules: set[str]) -> None:
    """A failure heard of late counted before `finished_at`, and its downstream ran on that."""
    ledger = with_run(
        good(), 13, state="failed", error="ChaosError: no", reason=reason, finished_at=135.0
    )
    ledger = with_entry(ledger, SRC, success_seq=3, failure_seq=1)
    edges = [Edge(LATEST, SRC, on="done", consumed_seq=4)]
    found = {violation.rule for violation in check(replace(ledger, edges=edges))}
    assert found & {"without token", "token swallowed"} == rules


def test_a_ledger_can_be_kept(tmp_path: Path) -> None:
    """What was written to a file is read as it was."""
    ledger = replace(good(), events=[Event("kill beat", 1.0, 2.0)], samples=[Sample(1.0)])
    ledger.save(tmp_path / "ledger.json")
    read = Ledger.load(tmp_path / "ledger.json")
    assert (read.runs, read.events) == (ledger.runs, ledger.events)
    assert check(read) == check(ledger)
