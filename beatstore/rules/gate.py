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

from beatstore.config import Settings
from beatstore.rules.decision import PlannedRun
from beatstore.types import Align, On, OnUpstreamFailure, Overlap

__all__ = [
    "ALIGNS",
    "CONDITIONS",
    "ON_FAILURE",
    "OPEN",
    "OVERLAPS",
    "WAITED",
    "Gate",
    "Shared",
    "Verdict",
    "duration",
    "fold",
    "give_up",
    "pass_or_wait",
    "record",
    "run_timeout",
    "unmet_words",
]

#: What may be asked of an upstream's run; each names the counter `<condition>_seq`.
CONDITIONS: tuple[On, ...] = get_args(On)

ALIGNS: tuple[Align, ...] = get_args(Align)
ON_FAILURE: tuple[OnUpstreamFailure, ...] = get_args(OnUpstreamFailure)
OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)

#: How the `reason` of a run begins that was due before, and had to wait.
WAITED = "waited"

_WORDS = {"success": "succeed", "done": "end", "failure": "fail"}


@dataclass(frozen=True, slots=True)
class Shared:
    """One due time, as the edges with `align="same"` see it.

    Attributes:
        at: the due time.
        unmet_id: an upstream that has not ended as it should for it; None: all have.
        unmet: that upstream, in words.
        failed: the name of an upstream that failed for it, where that ends the wait.
        since: when the first upstream ended for it; None: none has.
        timeout_s: how long it may be waited for, the shortest of its unsatisfied edges.
        fresh: whether this was found out by this look, and is to be written down.
    """

    at: datetime
    unmet_id: int | None = None
    unmet: str | None = None
    failed: str | None = None
    since: datetime | None = None
    timeout_s: float | None = None
    fresh: bool = False

    @property
    def met(self) -> bool:
        """Say whether every such edge is satisfied for this due time."""
        return self.unmet_id is None and self.failed is None

    def ends_at(self, since: datetime) -> datetime | None:
        """Return when a wait that began at `since` ends; None: never."""
        return None if self.timeout_s is None else since + timedelta(seconds=self.timeout_s)


@dataclass(frozen=True, slots=True)
class Gate:
    """What an entry's edges and unfinished runs say now.

    Attributes:
        edges: whether it has upstreams at all.
        unmet_id: an upstream whose edge is not satisfied, whatever the due time; None: all are.
        unmet: that upstream, in words.
        begun: whether some edge is satisfied by a completion that was not used up yet.
        failed: the name of an upstream that failed, where that ends the wait.
        timeout_s: how long an unsatisfied edge may be waited for, the shortest.
        same: the due times, oldest first, of which an upstream with `align="same"` has told;
            None where there is no such edge.
        missing: what holds of a due time of which no upstream has told.
        taken: due times ahead of the cursor that are accounted for already.
        under_way: due times that such an upstream has runs of which have not ended.
        running: the due time of a run of its own that has not ended.
    """

    edges: bool = False
    unmet_id: int | None = None
    unmet: str | None = None
    begun: bool = False
    failed: str | None = None
    timeout_s: float | None = None
    same: tuple[Shared, ...] | None = None
    missing: Shared | None = None
    taken: frozenset[datetime] = frozenset()
    under_way: tuple[datetime, ...] = ()
    running: datetime | None = None


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
        spares_free: whether that leaves alone the edges whose first run is still free.
    """

    runs: tuple[PlannedRun, ...] = ()
    waits: str | None = None
    blocked_by: int | None = None
    wake_at: datetime | None = None
    consume: bool = False
    spares_free: bool = False


def run_timeout(own_s: float | None, overlap: str, settings: Settings) -> float | None:
    """Return how many seconds a run may go unheard of once it was sent; None: for ever.

    Args:
        own_s: the entry's own `run_timeout`.
        overlap: its policy: where a run holds back others, there always is an end to it.
        settings: give that end where the entry has none of its own.
    """
    if own_s is not None or overlap == "allow":
        return own_s
    return settings.overlap_timeout


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
        return Verdict((record(due, f"overlap: {words}, policy skip"),))
    if overlap == "skip" and len(due) > 1:
        late = record(due[1:], "overlap: due together with the run before, policy skip")
        return Verdict((due[0], late), consume=gate.edges)
    if not gate.edges and overlap == "allow":
        return Verdict(tuple(due))
    run = fold(due)
    if since is not None:
        waited = duration(now - since)
        run = replace(run, reason=f"{WAITED} {waited}" + (f"; {run.reason}" if run.reason else ""))
    return Verdict((run,), consume=gate.edges)


def _upstream_missing(
    due: Sequence[PlannedRun], gate: Gate, since: datetime, now: datetime
) -> Verdict:
    if gate.failed is not None:
        return _given_up(due, f"upstream {gate.failed!r} failed")
    ends_at = None if gate.timeout_s is None else since + timedelta(seconds=gate.timeout_s)
    if ends_at is not None and ends_at <= now:
        return _given_up(due, f"{gate.unmet}: given up after {duration(now - since)}")
    return Verdict(waits=gate.unmet, blocked_by=gate.unmet_id, wake_at=ends_at)


def _given_up(due: Sequence[PlannedRun], reason: str) -> Verdict:
    run = record(due, reason, counts=True)
    return Verdict((run,), consume=True, spares_free=True)


def give_up(one: Shared, since: datetime, now: datetime) -> PlannedRun | None:
    """Return the record of a due time whose wait is over without a run, or None if it is not.

    Args:
        one: the due time.
        since: when its wait began.
        now: the database's time.
    """
    due = [PlannedRun(one.at)]
    if one.failed is not None:
        return record(due, f"upstream {one.failed!r} failed", counts=True)
    ends_at = one.ends_at(since)
    if one.met or ends_at is None or ends_at > now:
        return None
    return record(due, f"{one.unmet}: given up after {duration(now - since)}", counts=True)


def fold(due: Sequence[PlannedRun]) -> PlannedRun:
    """Make one run of several, due when the last of them is, which counts the others."""
    *others, last = due
    if not others:
        return last
    first = min(run.first_missed_at or run.due_at for run in due)
    count = len(others) + sum(run.missed_count for run in due)
    return replace(last, first_missed_at=first, missed_count=count)


def record(due: Sequence[PlannedRun], reason: str, *, counts: bool = False) -> PlannedRun:
    """Return the row that says of what was due why it is not sent."""
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
