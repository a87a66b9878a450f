"""Rules about rows: every occurrence has one, every run ends, and the counters say the same."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.chaos.ledger import Life, RunRow
from tests.chaos.view import OPEN, Phase, View, Violation

__all__ = ["attempts", "cancelled", "counters", "ends", "occurrences", "one_shots", "unique"]

#: Due times are whole seconds, whatever a float makes of them.
_CLOSE = 1e-3

#: An occurrence may be due for so long before a beat looks at it: longer than all outages.
PATIENCE = 45.0


def unique(view: View) -> Iterator[Violation]:
    """There is one row for each entry, due time and attempt."""
    keys = Counter((run.entry_id, run.due_at, run.attempt) for run in view.ledger.runs)
    for key, count in keys.items():
        if count > 1:
            rows = [run for run in view.ledger.runs if (run.entry_id, run.due_at) == key[:2]]
            yield Violation("doubled row", rows[0].entry_name, f"{count} rows of {key}", rows)


# -- occurrences ---------------------------------------------------------------------------


def occurrences(view: View) -> Iterator[Violation]:
    """Every occurrence of an entry with a clock is in one run, or counted by one."""
    for life in view.lives.values():
        if life.period is not None:
            yield from _of_entry(view, life)


def _of_entry(view: View, life: Life) -> Iterator[Violation]:
    phases = view.phases(life)
    possible = sorted({at for phase in phases for at in phase.possible})
    owner: dict[float, RunRow] = {}
    for run in view.scheduled(life.id):
        covered = _covered(run, possible)
        if not covered or abs(covered[-1] - run.due_at) > _CLOSE:
            text = f"due at {run.due_at:.3f}, which is no occurrence in a time it was active"
            yield Violation("no occurrence", life.name, text, [run])
            continue
        yield from _miscounted(run, covered, phases, life)
        for at in covered:
            if at in owner:
                text = f"{at:.0f} is accounted for twice"
                yield Violation("accounted twice", life.name, text, [owner[at], run])
            owner[at] = run
    for phase in phases:
        yield from _missing(view, life, phase, owner)


def _covered(run: RunRow, possible: Sequence[float]) -> Sequence[float]:
    """Return the occurrences that a row stands for, its own included."""
    first = run.due_at if run.first_missed_at is None else run.first_missed_at
    return possible[
        bisect_left(possible, first - _CLOSE) : bisect_right(possible, run.due_at + _CLOSE)
    ]


def _miscounted(
    run: RunRow, covered: Sequence[float], phases: Sequence[Phase], life: Life
) -> Iterator[Violation]:
    """What a row says it stands for is what lies between its first and last due time."""
    inside = any(
        phase.begin[1] <= covered[0] and covered[-1] <= phase.end[0]
        for phase in phases  # so that all of them were due for certain
    )
    own = 0 if run.state in ("missed", "skipped") else 1
    if inside and len(covered) != run.missed_count + own:
        text = f"stands for {len(covered)} occurrences, and counts {run.missed_count}"
        yield Violation("miscounted", life.name, text, [run])


def _missing(
    view: View, life: Life, phase: Phase, owner: dict[float, RunRow]
) -> Iterator[Violation]:
    entry = view.entries.get(life.id)
    waits_from = entry.pending_due_at if entry is not None and not phase.cut else None
    missing = [at for at in phase.certain if at not in owner]
    if not missing:
        return
    there = [at for at in phase.possible if at in owner]
    last = max(there, default=phase.begin[1])
    may_wait = life.overlap == "wait" or bool(view.upstreams.get(life.id)) or not life.stable
    for at in missing:
        if waits_from is not None and at >= waits_from - _CLOSE:
            continue
        dropped = phase.cut and at > last and (may_wait or at > phase.end[0] - PATIENCE)
        if not dropped:
            rows = [owner[near] for near in there if abs(near - at) <= 3 * phase.period]
            text = f"{at:.0f} has no row, and no row counts it"
            yield Violation("missing", life.name, text, rows)


def one_shots(view: View) -> Iterator[Violation]:
    """A one-shot has one occurrence, at its time; one that was cancelled in time has none."""
    for life in view.lives.values():
        if life.at is None:
            continue
        acts = [act for act in view.acts.get(life.id, []) if act.outcome != "refused"]
        verbs = {act.verb for act in acts}
        runs = view.scheduled(life.id)
        done = [act for act in acts if act.verb == "cancel" and act.value.get("in_time")]
        sent = [run for run in runs if run.sent_at is not None or run.started_at is not None]
        if done and sent:
            text = "was cancelled in time, and sent all the same"
            yield Violation("sent after cancel", life.name, text, sent)
        if len(runs) > 1:
            yield Violation("one-shot twice", life.name, f"has {len(runs)} occurrences", runs)
        if not runs and not verbs & {"cancel", "remove", "pause"}:
            yield Violation("missing", life.name, f"one-shot of {life.at:.0f} has no row")
        moved = [act.value["at"] for act in acts if act.verb == "reschedule"]
        times = {life.at, *moved}
        for run in runs:
            if all(abs(run.due_at - at) > 0.01 for at in times):
                text = f"due at {run.due_at:.3f}, and not at its time"
                yield Violation("no occurrence", life.name, text, [run])


# -- runs ----------------------------------------------------------------------------------


def ends(view: View) -> Iterator[Violation]:
    """When all is healthy every run ends, and nothing is left to be looked at."""
    for run in view.ledger.runs:
        if run.state in OPEN:
            yield Violation("never ends", run.entry_name, f"is {run.state} for ever", [run])
        elif run.wake_at is not None:
            text = "has ended, and is still to be counted"
            yield Violation("never counted", run.entry_name, text, [run])
        if run.state == "failed" and run.sent_at is None and run.started_at is None:
            text = f"no message was made of it: {run.reason or run.error}"
            yield Violation("never sent", run.entry_name, text, [run])


def cancelled(view: View) -> Iterator[Violation]:
    """Nothing is cancelled that nobody has cancelled, paused or removed."""
    for life in view.lives.values():
        if not life.stable or {act.verb for act in view.acts.get(life.id, [])} & _ENDING:
            continue
        for run in view.by_entry.get(life.id, []):
            if run.state == "cancelled" and run.attempt == 1:
                lines = view.lines.get(run.id, [])
                text = f"was cancelled, by nobody: {run.reason}"
                yield Violation("cancelled", life.name, text, [run], lines)


_ENDING = {"cancel", "pause", "remove"}


def attempts(view: View) -> Iterator[Violation]:
    """What failed has its next attempt while there are any left, and nothing else has one."""
    for life in view.lives.values():
        entry = view.entries.get(life.id)
        for due_at, runs in view.occurrences(life.id).items():
            again = view.reruns(life.id, due_at)
            if [run.attempt for run in runs] != list(range(1, len(runs) + 1)):
                yield Violation("attempts", life.name, "an attempt is left out", runs)
            for run, following in zip(runs, [*runs[1:], None], strict=True):
                if entry is not None and entry.state != "cancelled" and life.stable:
                    yield from _next_attempt(life, run, following, again)
                if following is not None and following.attempt not in again:
                    yield from _carried_on(life, run, following)


def _next_attempt(
    life: Life, run: RunRow, following: RunRow | None, again: set[int]
) -> Iterator[Violation]:
    left = run.attempt <= life.max_retries
    is_next = following is not None and following.attempt not in again
    failed = run.state in ("failed", "lost")
    if failed and left and not is_next and run.sent_at is not None:
        yield Violation("no next attempt", life.name, f"attempt {run.attempt} has none", [run])
    if following is None or not is_next:
        return
    if not left:
        text = f"has attempt {following.attempt}, and max_retries is {life.max_retries}"
        yield Violation("too many attempts", life.name, text, [run, following])
    if following.state != "cancelled" and not failed:
        text = f"attempt {run.attempt} is {run.state}, and has a next one"
        yield Violation("needless attempt", life.name, text, [run, following])
    if following.state == "cancelled" and failed:
        text = f"attempt {run.attempt} is {run.state}, and the next one was cancelled"
        yield Violation("no next attempt", life.name, text, [run, following])


def _carried_on(life: Life, run: RunRow, following: RunRow) -> Iterator[Violation]:
    before = (run.missed_count, run.first_missed_at)
    after = (following.missed_count, following.first_missed_at)
    if before != after:
        text = f"attempt {run.attempt} stands for {before}, and the next one for {after}"
        yield Violation("retry stands for less", life.name, text, [run, following])


def counters(view: View) -> Iterator[Violation]:
    """The counters of an entry are how its occurrences ended for good."""
    for entry in view.ledger.entries:
        if entry.id not in view.lives:
            continue
        chains = view.chains(entry.id)
        outcomes = Counter(chain.outcome for chain in chains)
        if outcomes["open"]:
            continue  # which is told elsewhere
        late = sum(chain.late_success for chain in chains)
        successes, failures = outcomes["success"], outcomes["failure"]
        right = (
            entry.success_seq == successes
            and failures <= entry.failure_seq <= failures + late
            and entry.done_seq == successes + failures
        )
        if not right:
            text = (
                f"counts {entry.success_seq} successes, {entry.failure_seq} failures and "
                f"{entry.done_seq} ends; its rows {successes}, {failures} and "
                f"{successes + failures}"
            )
            odd = [chain.last for chain in chains if len(chain.runs) > 1 or chain.rerun]
            odd += [chain.last for chain in chains if chain.last.state in ("cancelled", "skipped")]
            yield Violation("counters", entry.name, text, odd[-8:])
