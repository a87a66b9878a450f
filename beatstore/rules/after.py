"""Entries without a clock: due whenever all their upstreams have ended as they should.

Such an entry sleeps, with nothing pending, until a first upstream completes. Then it waits
for the others, and is sent when the last of them is there; what has completed by then is
used up. Its `due_at` is that moment.

With `align="same"` it is the due time that its upstreams share. Each due time is decided by
itself, the oldest first: it is sent, given up, or waits on, whatever becomes of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from beatstore.rules.decision import Decision, EntryRow, PlannedRun
from beatstore.rules.gate import Gate, Shared, Verdict, give_up, pass_or_wait

__all__ = ["NO_UPSTREAMS", "AfterLook"]

#: Why an entry waits that nothing will ever wake.
NO_UPSTREAMS = "it has no upstreams; link some"

_SECOND = timedelta(seconds=1)


class AfterLook:
    """One look at one active entry of kind `after`."""

    def __init__(self, entry: EntryRow, now: datetime, gate: Gate) -> None:
        self.entry = entry
        self.now = now
        self.gate = gate

    def decision(self) -> Decision:
        """Return what the entry gets."""
        entry, gate = self.entry, self.gate
        if self._over(0) or (entry.end_at is not None and self.now > entry.end_at):
            return Decision("finished", cursor_at=entry.cursor_at)
        if entry.start_at is not None and self.now < entry.start_at:
            return self._waiting(wake_at=entry.start_at)
        if not gate.edges:
            return self._waiting(NO_UPSTREAMS)
        if gate.same is not None and (gate.same or gate.failed is None):
            passed = self._passed(gate.same)
            found = self._by_due_time([one for one in gate.same if one.at not in passed])
            return replace(found, takes=(*found.takes, *passed))
        if gate.unmet_id is not None and not gate.begun and gate.failed is None:
            return self._waiting(gate.unmet)
        return self._at_this_moment()

    def _at_this_moment(self) -> Decision:
        """Decide about an occurrence that is due now."""
        verdict = self._ask(self.now, self.entry.pending_since)
        if verdict.waits is not None:
            since = self.entry.pending_since or self.now
            return self._waiting(verdict.waits, verdict.blocked_by, since, verdict.wake_at)
        return self._through(verdict)

    def _passed(self, shared: Sequence[Shared]) -> list[datetime]:
        """Return the due times that an edit, or the time before `start_at`, has done away with.

        What completed before `start_at` counts as one completion: the newest.
        """
        entry = self.entry
        passed = [one.at for one in shared if entry.cursor_at and one.at <= entry.cursor_at]
        if entry.start_at is not None:
            begun_before = [
                one.at
                for one in shared
                if one.since is not None and one.since < entry.start_at and one.at not in passed
            ]
            passed += begun_before[:-1]
        return passed

    def _by_due_time(self, shared: Sequence[Shared]) -> Decision:
        """Decide about the oldest shared due time that something becomes of."""
        held: Verdict | None = None
        entry_waited = self.entry.pending_since is not None
        for one in shared:
            since = one.since or self.now
            over = give_up(one, since, self.now)
            if over is not None:
                return self._through(Verdict((over,)), one, more=len(shared) > 1)
            if one.met and held is None:
                waited = entry_waited and self.now - since >= _SECOND
                verdict = self._ask(one.at, since if waited else None)
                if verdict.waits is None:
                    return self._through(verdict, one, more=len(shared) > 1)
                held = verdict
        return self._all_wait(shared, held)

    def _ask(self, due_at: datetime, since: datetime | None) -> Verdict:
        """Ask the other edges, and the overlap, about one occurrence."""
        return pass_or_wait(
            [PlannedRun(due_at)],
            self.gate,
            entry_id=self.entry.id,
            overlap=self.entry.overlap,
            since=since,
            now=self.now,
        )

    def _all_wait(self, shared: Sequence[Shared], held: Verdict | None) -> Decision:
        """Return the decision in which each of these due times waits on."""
        if not shared:
            missing = self.gate.missing
            return self._waiting(missing.unmet if missing else self.gate.unmet)
        if held is None and self.gate.unmet_id is not None:
            # An edge that takes any completion may end the wait of the oldest, too.
            held = self._ask(shared[0].at, shared[0].since or self.now)
            if held.waits is None:
                return self._through(held, shared[0], more=len(shared) > 1)
        ends = [one.ends_at(one.since or self.now) for one in shared if not one.met]
        if held is not None:
            ends.append(held.wake_at)
        oldest = shared[0]
        reason, blocked_by = oldest.unmet, oldest.unmet_id
        if held is not None:
            # What is met waits for a completion, or an end, that wakes the entry by its name.
            blocked_by = held.blocked_by
            reason = held.waits if oldest.met else oldest.unmet
        wake_at = min((at for at in ends if at is not None), default=None)
        return self._waiting(reason, blocked_by, oldest.since or self.now, wake_at, oldest.at)

    def _through(
        self, verdict: Verdict, one: Shared | None = None, *, more: bool = False
    ) -> Decision:
        """Return the decision in which one occurrence is sent, or recorded."""
        takes = () if one is None else (one.at,)
        # What is skipped for an overlap is used up too: it would be due again at each look.
        # A shared due time that is given up leaves the other edges as they are.
        consume = verdict.consume or not verdict.runs[0].counts
        if self._over(sum(run.state == "claimed" for run in verdict.runs)):
            found = Decision("finished", cursor_at=self.entry.cursor_at)
        else:
            found = self._waiting(wake_at=self.now if more else None)
        return replace(
            found,
            runs=verdict.runs,
            consume=consume,
            spares_free=verdict.spares_free,
            takes=takes,
        )

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
        due_at: datetime | None = None,
    ) -> Decision:
        return Decision(
            "active",
            cursor_at=self.entry.cursor_at,
            wake_at=wake_at,
            pending_due_at=due_at,
            pending_since=since,
            pending_reason=reason,
            blocked_by=blocked_by,
        )
