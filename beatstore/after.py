"""Entries without a clock: due whenever all their upstreams have ended as they should.

Such an entry sleeps, with nothing pending, until a first upstream completes. Then it waits
for the others, and is sent when the last of them is there; what has completed by then is
used up. Its `due_at` is that moment, or with `align="same"` the due time its upstreams
share, of which each is one run, oldest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from beatstore.decision import Decision, EntryRow, PlannedRun
from beatstore.gate import Gate, pass_or_wait

__all__ = ["AfterLook"]


class AfterLook:
    """One look at one active entry of kind `after`."""

    def __init__(self, entry: EntryRow, now: datetime, gate: Gate) -> None:
        self.entry = entry
        self.now = now
        self.gate = gate

    def decision(self) -> Decision:
        """Return what the entry gets."""
        entry = self.entry
        if self._over(0) or (entry.end_at is not None and self.now > entry.end_at):
            return Decision("finished", (), entry.cursor_at)
        if entry.start_at is not None and self.now < entry.start_at:
            return self._waiting(wake_at=entry.start_at)
        if not self.gate.edges:
            return self._waiting("it has no upstreams; link some")
        gate, due = self.gate, self.gate.same or ()
        if gate.same is not None and not gate.same and gate.unmet_id is None:
            failed = gate.same_failed
            due = tuple(at for at, _ in failed) or gate.same_begun
            gate = gate.waiting_for_same(failed[-1][1] if failed else None)
        if gate.unmet_id is not None and not gate.begun and gate.failed is None:
            return self._waiting(gate.unmet)
        return self._at_the_gate(gate, due)

    def _at_the_gate(self, gate: Gate, due: Sequence[datetime]) -> Decision:
        """Decide about the oldest of these due times, or about this moment."""
        entry = self.entry
        verdict = pass_or_wait(
            [PlannedRun(due[-1] if due else self.now)],
            gate,
            entry_id=entry.id,
            overlap=entry.overlap,
            since=entry.pending_since,
            now=self.now,
        )
        if verdict.waits is not None:
            since = entry.pending_since or self.now
            return self._waiting(verdict.waits, verdict.blocked_by, since, verdict.wake_at)
        # What is skipped for an overlap is used up too: it would be due again at each look.
        if self._over(sum(run.state == "claimed" for run in verdict.runs)):
            return Decision("finished", verdict.runs, entry.cursor_at, consume=True)
        found = self._waiting(wake_at=self.now if len(due) > 1 else None)
        return replace(found, runs=verdict.runs, consume=True)

    def _over(self, sent: int) -> bool:
        """Say whether `sent` more runs are the last."""
        entry = self.entry
        return entry.max_runs is not None and entry.run_count + sent >= entry.max_runs

    def _waiting(
        self,
        reason: str | None = None,
        blocked_by: int | None = None,
        since: datetime | None = None,
        wake_at: datetime | None = None,
    ) -> Decision:
        return Decision(
            "active",
            (),
            self.entry.cursor_at,
            None,
            wake_at,
            None,
            None,
            since,
            reason,
            blocked_by,
        )
