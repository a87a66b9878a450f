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
from beatstore.types import Overlap

__all__ = [
    "OPEN",
    "OVERLAP",
    "OVERLAPS",
    "WAITED",
    "Gate",
    "Missing",
    "SharedAccount",
    "SharedTime",
    "Verdict",
    "duration",
    "fold",
    "pass_or_wait",
    "record",
    "run_timeout",
]

OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)

#: How the `reason` of a run begins that was due before, and had to wait.
WAITED = "waited"

#: How the `reason` of a record begins that an unfinished run of the entry was the cause of.
OVERLAP = "overlap:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What is not there yet: an unsatisfied edge, and what ends the wait for all that are not.

    Attributes:
        upstream_id: an upstream that has not ended as its edge asks.
        words: that upstream, in words; None: the edge is gone.
        failed: the name of an upstream whose failure ends the wait; None: none has failed.
        timeout_s: how long may be waited, the shortest of the unsatisfied edges; None: for ever.
    """

    upstream_id: int
    words: str | None = None
    failed: str | None = None
    timeout_s: float | None = None

    def ends_at(self, since: datetime) -> datetime | None:
        """Return when a wait that began at `since` ends; None: never."""
        return None if self.timeout_s is None else since + timedelta(seconds=self.timeout_s)

    def give_up(
        self, due: Sequence[PlannedRun], since: datetime, now: datetime
    ) -> PlannedRun | None:
        """Return the record of what was due, if its wait is over without a run.

        Args:
            due: what waits.
            since: when the wait began.
            now: the database's time.
        """
        if self.failed is not None:
            return record(due, f"upstream {self.failed!r} failed", counts=True)
        ends_at = self.ends_at(since)
        if ends_at is None or ends_at > now:
            return None
        return record(due, f"{self.words}: given up after {duration(now - since)}", counts=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedTime:
    """One due time, as the edges with `align="same"` see it.

    Attributes:
        at: the due time.
        missing: what is not there yet for it; None: every such edge is satisfied.
        since: when the first upstream ended for it; None: none has.
        fresh: whether this was found out by this look, and is to be written down.
    """

    at: datetime
    missing: Missing | None = None
    since: datetime | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedAccount:
    """What is known of the due times that an entry shares with its upstreams.

    Attributes:
        told: those of which an upstream has told and that are not accounted for, oldest first.
        untold: what is missing for a due time of which no upstream has told.
        taken: those ahead of the cursor that are accounted for already.
        under_way: those that an upstream has a run of which has not ended.
    """

    untold: Missing
    told: tuple[SharedTime, ...] = ()
    taken: frozenset[datetime] = frozenset()
    under_way: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What an entry's edges and unfinished runs say now.

    Attributes:
        edges: whether it has upstreams at all.
        missing: what is not there yet of the edges that any completion satisfies; None: they are
            satisfied.
        begun: whether some of these is satisfied by a completion that was not used up yet.
        shared: the due times that it shares with upstreams; None: no edge has `align="same"`.
        running: the due time of a run of its own that has not ended.
    """

    edges: bool = False
    missing: Missing | None = None
    begun: bool = False
    shared: SharedAccount | None = None
    running: datetime | None = None

    @property
    def failed(self) -> bool:
        """Say whether an upstream has failed, and that ends the wait, whatever the due time."""
        return self.missing is not None and self.missing.failed is not None


#: The gate of an entry that nothing holds back.
OPEN = Gate()


@dataclass(frozen=True, slots=True, kw_only=True)
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
    if gate.missing is not None:
        return _upstream_missing(due, gate.missing, since or now, now)
    if overlap != "allow" and gate.running is not None:
        words = f"its run due {gate.running.isoformat()} has not ended"
        if overlap == "wait":
            return Verdict(waits=f"waits: {words}", blocked_by=entry_id)
        return Verdict(runs=(record(due, f"{OVERLAP} {words}, policy skip"),))
    if overlap == "skip" and len(due) > 1:
        late = record(due[1:], f"{OVERLAP} due together with the run before, policy skip")
        return Verdict(runs=(due[0], late), consume=gate.edges)
    if not gate.edges and overlap == "allow":
        return Verdict(runs=tuple(due))
    run = fold(due)
    if since is not None:
        waited = duration(now - since)
        run = replace(run, reason=f"{WAITED} {waited}" + (f"; {run.reason}" if run.reason else ""))
    return Verdict(runs=(run,), consume=gate.edges)


def _upstream_missing(
    due: Sequence[PlannedRun], missing: Missing, since: datetime, now: datetime
) -> Verdict:
    over = missing.give_up(due, since, now)
    if over is not None:
        return Verdict(runs=(over,), consume=True, spares_free=True)
    return Verdict(
        waits=missing.words, blocked_by=missing.upstream_id, wake_at=missing.ends_at(since)
    )


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
    return PlannedRun(
        one.due_at,
        state="skipped",
        reason=reason,
        first_missed_at=one.first_missed_at or one.due_at,
        missed_count=one.missed_count + 1,
        counts=counts,
    )


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
