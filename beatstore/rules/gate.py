"""Decide whether dependencies or unfinished runs block a due entry. Pure.

A `Gate` is the state in the database at the moment of a look. `pass_or_wait` applies it to due
occurrences.

Invariants:
    * Waiting occurrences coalesce into one run and are counted; they are never misfires.
    * Starting a run consumes all upstream completions so far: several completions of one
      upstream count as one, and later ones count for the next run.
    * A waiting entry names one entry whose completion will wake it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import get_args

from beatstore.config import Settings
from beatstore.rules.decision import PlannedRun
from beatstore.rules.reasons import OVERLAP, UPSTREAM, duration, waited
from beatstore.types import Overlap

__all__ = [
    "OPEN",
    "OVERLAPS",
    "Gate",
    "Missing",
    "SharedAccount",
    "SharedTime",
    "Verdict",
    "pass_or_wait",
    "record",
    "run_timeout",
]

OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """An unsatisfied edge, and what ends the wait for all unsatisfied edges.

    Attributes:
        upstream_id: an upstream that has not ended as its edge requires.
        words: the reason that names this upstream; None: the edge was removed.
        failed: the name of a failed upstream that ends the wait, or None.
        timeout_s: the shortest timeout of the unsatisfied edges; None: no timeout.
    """

    upstream_id: int
    words: str | None = None
    failed: str | None = None
    timeout_s: float | None = None

    def ends_at(self, since: datetime) -> datetime | None:
        """Return when a wait that began at `since` times out; None: never."""
        return None if self.timeout_s is None else since + timedelta(seconds=self.timeout_s)

    def give_up(
        self, due: Sequence[PlannedRun], since: datetime, now: datetime
    ) -> PlannedRun | None:
        """Return the record that gives up waiting occurrences, or None to keep waiting.

        Args:
            due: the waiting occurrences.
            since: when the wait began.
            now: the database's time.
        """
        if self.failed is not None:
            return record(due, f"{UPSTREAM}{self.failed!r} failed", counts=True)
        ends_at = self.ends_at(since)
        if ends_at is None or ends_at > now:
            return None
        return record(due, f"{self.words}: given up after {duration(now - since)}", counts=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedTime:
    """One due time that edges with `align="same"` wait for.

    Attributes:
        at: the due time.
        missing: an unsatisfied edge; None: every such edge is satisfied.
        since: when the first upstream ended for it; None: none has.
        fresh: whether this look found it, so that it must be written.
    """

    at: datetime
    missing: Missing | None = None
    since: datetime | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedAccount:
    """The due times that an entry shares with its upstreams.

    Attributes:
        reported: those that an upstream has reported and that are not accounted for, oldest
            first.
        unreported: the unsatisfied edge of a due time that no upstream has reported.
        taken: those ahead of the cursor that are already accounted for.
        under_way: those for which an upstream has an unfinished run.
    """

    unreported: Missing
    reported: tuple[SharedTime, ...] = ()
    taken: frozenset[datetime] = frozenset()
    under_way: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The state of an entry's edges and unfinished runs.

    Attributes:
        edges: whether it has upstreams.
        missing: an unsatisfied edge with `align="latest"`; None: all of them are satisfied.
        begun: whether one of these is satisfied by a completion that is not consumed yet.
        shared: the due times that it shares with upstreams; None: no edge has `align="same"`.
        running: the due time of its own unfinished run, or None.
    """

    edges: bool = False
    missing: Missing | None = None
    begun: bool = False
    shared: SharedAccount | None = None
    running: datetime | None = None

    @property
    def failed(self) -> bool:
        """Whether a failed upstream ends the wait, for every due time."""
        return self.missing is not None and self.missing.failed is not None


#: The gate of an entry that nothing blocks.
OPEN = Gate()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What happens to due occurrences at the gate.

    Attributes:
        runs: the rows to write.
        waits: the reason to wait; None if nothing waits.
        blocked_by: the entry whose completion wakes this one.
        wake_at: when the wait times out; None: never.
        consume: whether to consume the completions so far.
        spares_free: whether not to consume edges whose first run is still free.
    """

    runs: tuple[PlannedRun, ...] = ()
    waits: str | None = None
    blocked_by: int | None = None
    wake_at: datetime | None = None
    consume: bool = False
    spares_free: bool = False


def run_timeout(own_s: float | None, overlap: str, settings: Settings) -> float | None:
    """Return the seconds after sending in which a worker must report a run; None: no limit.

    Args:
        own_s: the entry's own `run_timeout`.
        overlap: its overlap policy; if a run can block others, there is always a limit.
        settings: supply that limit if the entry has none.
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
    """Decide whether due occurrences are sent, recorded, or wait.

    Args:
        due: at least one run to send, oldest first.
        gate: the state of the entry's edges and unfinished runs.
        entry_id: the id of the entry.
        overlap: its overlap policy.
        since: when its wait began; None: it has not waited.
        now: the database's time.
    """
    if gate.missing is not None:
        return _wait_or_give_up(due, gate.missing, since or now, now)
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
    run = _coalesced(due)
    if since is not None:
        run = replace(run, reason=waited(now - since, run.reason))
    return Verdict(runs=(run,), consume=gate.edges)


def _wait_or_give_up(
    due: Sequence[PlannedRun], missing: Missing, since: datetime, now: datetime
) -> Verdict:
    over = missing.give_up(due, since, now)
    if over is not None:
        return Verdict(runs=(over,), consume=True, spares_free=True)
    ends_at = missing.ends_at(since)
    return Verdict(waits=missing.words, blocked_by=missing.upstream_id, wake_at=ends_at)


def _coalesced(due: Sequence[PlannedRun]) -> PlannedRun:
    """Coalesce several runs into the last one, which counts the others."""
    *others, last = due
    if not others:
        return last
    first = min(run.first_missed_at or run.due_at for run in due)
    count = len(others) + sum(run.missed_count for run in due)
    return replace(last, first_missed_at=first, missed_count=count)


def record(due: Sequence[PlannedRun], reason: str, *, counts: bool = False) -> PlannedRun:
    """Return the row that records why due occurrences are not sent."""
    one = _coalesced(due)
    return PlannedRun(
        one.due_at,
        state="skipped",
        reason=reason,
        first_missed_at=one.first_missed_at or one.due_at,
        missed_count=one.missed_count + 1,
        counts=counts,
    )
