"""What holds a due entry back: its dependencies, and its own unfinished runs; the rule alone.

A `Gate` is what the database knows at the moment of a look. `pass_or_wait` applies it to what
the schedule says is due.

Invariants:
    * What waits folds into one run, and is counted; it is never a misfire.
    * A run that is let through uses up every completion seen so far, so several of one
      upstream before it count as one, and a later one counts for the next run.
    * An entry that waits knows one upstream whose completion will wake it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import get_args

from beatstore.decision import PlannedRun
from beatstore.types import Align, On, OnUpstreamFailure, Overlap

__all__ = [
    "ALIGNS",
    "CONDITIONS",
    "ON_FAILURE",
    "OPEN",
    "OVERLAPS",
    "Gate",
    "Verdict",
    "duration",
    "fold",
    "pass_or_wait",
    "unmet_words",
]

#: What may be asked of an upstream's run; each names the counter `<condition>_seq`.
CONDITIONS: tuple[On, ...] = get_args(On)

ALIGNS: tuple[Align, ...] = get_args(Align)
ON_FAILURE: tuple[OnUpstreamFailure, ...] = get_args(OnUpstreamFailure)
OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)

_WORDS = {"success": "succeed", "done": "end", "failure": "fail"}


@dataclass(frozen=True, slots=True)
class Gate:
    """What an entry's edges and unfinished runs say now.

    Attributes:
        edges: whether it has upstreams at all.
        unmet_id: an upstream whose edge is not satisfied; None: all are.
        unmet: that upstream, in words.
        begun: whether some edge is satisfied by a completion that was not used up yet.
        failed: the name of an upstream that failed, where that ends the wait.
        timeout_s: how long an unsatisfied edge may be waited for, the shortest.
        same: the due times, newest first, that all edges with `align="same"` have seen;
            None where there is no such edge.
        same_id: an upstream of such an edge.
        same_words: that upstream, in words.
        same_failed: due times, newest first, at which such an upstream failed, where that
            ends the wait, and its name.
        same_begun: due times, newest first, that some of these edges have seen, and that an
            entry without a clock has not run for.
        same_timeout_s: how long such an edge may be waited for, the shortest.
        running: the due time of a run of its own that has not ended.
    """

    edges: bool = False
    unmet_id: int | None = None
    unmet: str | None = None
    begun: bool = False
    failed: str | None = None
    timeout_s: float | None = None
    same: tuple[datetime, ...] | None = None
    same_id: int | None = None
    same_words: str | None = None
    same_failed: tuple[tuple[datetime, str], ...] = ()
    same_begun: tuple[datetime, ...] = ()
    same_timeout_s: float | None = None
    running: datetime | None = None

    def waiting_for_same(self, failed: str | None = None) -> Gate:
        """Return this gate where no due time is shared; an upstream may have failed."""
        return replace(
            self,
            unmet_id=self.same_id,
            unmet=self.same_words,
            begun=bool(self.same_begun),
            failed=failed,
            timeout_s=self.same_timeout_s,
        )


#: The gate of an entry that nothing holds back.
OPEN = Gate()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of due occurrences at the gate.

    Attributes:
        runs: the rows to write.
        waits: in words, what for; None where nothing is parked.
        blocked_by: the entry whose completion wakes this one.
        wake_at: when the wait ends at the latest; None: when it is woken.
        consume: whether the completions seen so far are used up.
    """

    runs: tuple[PlannedRun, ...] = ()
    waits: str | None = None
    blocked_by: int | None = None
    wake_at: datetime | None = None
    consume: bool = False


def unmet_words(name: str, on: str, state: str) -> str:
    """Say which upstream is waited for."""
    doing = "" if state == "active" else f", which is {state}"
    return f"waits for {name!r} to {_WORDS.get(on, on)}{doing}"


def pass_or_wait(
    due: Sequence[PlannedRun],
    gate: Gate,
    *,
    entry_id: int,
    overlap: str,
    since: datetime | None,
    now: datetime,
) -> Verdict:
    """Decide what becomes of what is due.

    Args:
        due: at least one run to send, oldest first.
        gate: what holds it back.
        entry_id: of the entry itself.
        overlap: its policy.
        since: since when it has waited already; None: it has not.
        now: the database's time.
    """
    if gate.unmet_id is not None:
        return _upstream_missing(due, gate, since or now, now)
    if overlap != "allow" and gate.running is not None:
        words = f"its run due {gate.running.isoformat()} has not ended"
        if overlap == "wait":
            return Verdict(waits=f"waits: {words}", blocked_by=entry_id)
        return Verdict((_record(due, f"overlap: {words}, policy skip"),))
    if overlap == "skip" and len(due) > 1:
        late = _record(due[1:], "overlap: due together with the run before, policy skip")
        return Verdict((due[0], late), consume=gate.edges)
    if not gate.edges and overlap == "allow":
        return Verdict(tuple(due))
    run = fold(due)
    if since is not None:
        waited = duration(now - since)
        run = replace(run, reason=f"waited {waited}" + (f"; {run.reason}" if run.reason else ""))
    return Verdict((run,), consume=gate.edges)


def _upstream_missing(
    due: Sequence[PlannedRun], gate: Gate, since: datetime, now: datetime
) -> Verdict:
    if gate.failed is not None:
        reason = f"upstream {gate.failed!r} failed"
        return Verdict((_record(due, reason, counts=True),), consume=True)
    ends_at = None if gate.timeout_s is None else since + timedelta(seconds=gate.timeout_s)
    if ends_at is not None and ends_at <= now:
        reason = f"{gate.unmet}: given up after {duration(now - since)}"
        return Verdict((_record(due, reason, counts=True),), consume=True)
    return Verdict(waits=gate.unmet, blocked_by=gate.unmet_id, wake_at=ends_at)


def fold(due: Sequence[PlannedRun]) -> PlannedRun:
    """Make one run of several, due when the last of them is, which counts the others."""
    *others, last = due
    if not others:
        return last
    first = min(run.first_missed_at or run.due_at for run in due)
    count = len(others) + sum(run.missed_count for run in due)
    return replace(last, first_missed_at=first, missed_count=count)


def _record(due: Sequence[PlannedRun], reason: str, *, counts: bool = False) -> PlannedRun:
    one = fold(due)
    first = one.first_missed_at or one.due_at
    return PlannedRun(one.due_at, "skipped", reason, first, one.missed_count + 1, counts)


def duration(span: timedelta) -> str:
    """Return a span as a person says it, in its two largest units."""
    seconds = int(span.total_seconds())
    parts: Sequence[tuple[int, str]] = (
        (seconds // 86400, "d"),
        (seconds // 3600 % 24, "h"),
        (seconds // 60 % 60, "min"),
        (seconds % 60, "s"),
    )
    shown = [f"{value} {unit}" for value, unit in parts if value]
    return " ".join(shown[:2]) or "0 s"
