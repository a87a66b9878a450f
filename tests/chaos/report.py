"""What is said at the end: one page, with what shows each kind of violation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timezone

from tests.chaos.ledger import Ledger, Line, RunRow
from tests.chaos.view import View, Violation
from tests.chaos.witnessed import doubled

__all__ = ["summary"]

#: So many violations of a rule are shown, each with so many rows and lines.
_SHOWN = 5
_ROWS = 8


def summary(ledger: Ledger, violations: Sequence[Violation]) -> str:
    """Return the page."""
    span = ledger.ended - ledger.begun
    parts = [
        f"chaos: {ledger.title}; "
        f"{span:.0f} s in all, {'at rest' if ledger.at_rest else 'NOT AT REST'} at the end",
        f"entries   {len(ledger.lives)} lives, {len(ledger.edges)} edges",
        f"runs      {_counted(run.state for run in ledger.runs)}",
        f"attempts  {_counted(f'{run.attempt}.' for run in ledger.runs)}",
        f"witness   {_counted(line.what for line in ledger.lines)}",
        f"doubles   {_counted(doubled(View(ledger)).elements())}",
        f"acts      {_counted(_act(act.verb, act.outcome) for act in ledger.acts)}",
        f"events    {_counted(event.kind for event in ledger.events)}",
        f"violations: {len(violations) or 'none'}",
    ]
    by_rule: dict[str, list[Violation]] = defaultdict(list)
    for violation in violations:
        by_rule[violation.rule].append(violation)
    for rule, found in sorted(by_rule.items()):
        subjects = _counted(violation.subject for violation in found)
        parts += ["", f"{rule}: {len(found)} ({subjects})"]
        for violation in found[:_SHOWN]:
            parts += [f"  {violation.subject}: {violation.text}"]
            parts += [f"    {_run(run)}" for run in violation.runs[:_ROWS]]
            parts += [f"    {_line(line)}" for line in violation.lines[:_ROWS]]
    return "\n".join(parts)


def _act(verb: str, outcome: str) -> str:
    return verb if outcome == "ok" else f"{verb} {outcome}"


def _counted(words: object) -> str:
    counts = Counter(words)  # type: ignore[call-overload]
    return ", ".join(f"{count} {word}" for word, count in sorted(counts.items())) or "none"


def _run(run: RunRow) -> str:
    times = " ".join(
        f"{name} {_at(at)}"
        for name in ("sent", "started", "finished")
        if (at := getattr(run, f"{name}_at")) is not None
    )
    missed = f" +{run.missed_count} since {_at(run.first_missed_at)}" if run.missed_count else ""
    words = "; ".join(text for text in (run.reason, run.error) if text)
    return (
        f"run {run.id} of {run.entry_name} due {_at(run.due_at)} attempt {run.attempt} "
        f"{run.state}{missed} {times} {words[:160]}"
    ).rstrip()


def _line(line: Line) -> str:
    part = f" part {line.part}" if line.part else ""
    return f"{_at(line.at)} run {line.run} {line.what}{part} retries {line.retries} {line.worker}"


def _at(at: float | None) -> str:
    if at is None:
        return "?"
    return f"{datetime.fromtimestamp(at, timezone.utc):%H:%M:%S.%f}"[:-3]
