"""Entries without a clock: due whenever all their upstreams have ended as they should.

Such an entry sleeps, with nothing pending, until a first upstream completes. Then it waits
for the others, and is sent when the last of them is there; what has completed by then is
used up. Its `due_at` is that moment.

With `align="same"` it is the due time that its upstreams share. Each due time is decided by
itself, the oldest first: it is sent, given up, or waits on, whatever becomes of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from beatstore.rules.decision import Decision, EntryRow, PlannedRun
from beatstore.rules.due import remaining_runs
from beatstore.rules.gate import Gate, SharedAccount, SharedTime, Verdict, pass_or_wait

__all__ = ["NO_UPSTREAMS", "AfterLook"]

#: Why an entry waits that nothing will ever wake.
NO_UPSTREAMS = "it has no upstreams; link some"

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class AfterLook:
    """One look at one active entry of kind `after`.

    Attributes:
        entry: its columns.
        now: the database's time.
        gate: what its edges and its unfinished runs say.
    """

    entry: EntryRow
    now: datetime
    gate: Gate

    def decision(self) -> Decision:
        """Return what the entry gets."""
        entry, gate = self.entry, self.gate
        if self._are_last(0) or (entry.end_at is not None and self.now > entry.end_at):
            return Decision(state="finished", cursor_at=entry.cursor_at)
        if entry.start_at is not None and self.now < entry.start_at:
            return self._waiting(wake_at=entry.start_at)
        if not gate.edges:
            return self._waiting(NO_UPSTREAMS)
        if gate.shared is not None and (gate.shared.told or not gate.failed):
            passed = self._passed(gate.shared.told)
            left = [one for one in gate.shared.told if one.at not in passed]
            found = self._by_due_time(gate.shared, left)
            return replace(found, takes=(*found.takes, *passed))
        if gate.missing is not None and not gate.begun and not gate.failed:
            return self._waiting(gate.missing.words)
        return self._at_this_moment()

    def _at_this_moment(self) -> Decision:
        """Decide about an occurrence that is due now."""
        verdict = self._ask(self.now, self.entry.pending_since)
        if verdict.waits is not None:
            since = self.entry.pending_since or self.now
            return self._waiting(verdict.waits, verdict.blocked_by, since, verdict.wake_at)
        return self._through(verdict)

    def _passed(self, told: Sequence[SharedTime]) -> list[datetime]:
        """Return the due times that an edit, or the time before `start_at`, has done away with.

        What completed before `start_at` counts as one completion: the newest.
        """
        entry = self.entry
        passed = [one.at for one in told if entry.cursor_at and one.at <= entry.cursor_at]
        if entry.start_at is not None:
            begun_before = [
                one.at
                for one in told
                if one.since is not None and one.since < entry.start_at and one.at not in passed
            ]
            passed += begun_before[:-1]
        return passed

    def _by_due_time(self, account: SharedAccount, told: Sequence[SharedTime]) -> Decision:
        """Decide about the oldest shared due time that something becomes of."""
        held: Verdict | None = None
        entry_waited = self.entry.pending_since is not None
        for one in told:
            since = one.since or self.now
            if one.missing is not None:
                over = one.missing.give_up([PlannedRun(one.at)], since, self.now)
                if over is not None:
                    return self._through(Verdict(runs=(over,)), one, more=len(told) > 1)
            elif held is None:
                waited = entry_waited and self.now - since >= _SECOND
                verdict = self._ask(one.at, since if waited else None)
                if verdict.waits is None:
                    return self._through(verdict, one, more=len(told) > 1)
                held = verdict
        if not told:
            return self._waiting(account.untold.words)
        return self._all_wait(told, held)

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

    def _all_wait(self, told: Sequence[SharedTime], held: Verdict | None) -> Decision:
        """Return the decision in which each of these due times waits on."""
        oldest = told[0]
        if held is None and self.gate.missing is not None:
            # An edge that takes any completion may end the wait of the oldest, too.
            held = self._ask(oldest.at, oldest.since or self.now)
            if held.waits is None:
                return self._through(held, oldest, more=len(told) > 1)
        ends = [one.missing.ends_at(one.since or self.now) for one in told if one.missing]
        reason = blocked_by = None
        if oldest.missing is not None:
            reason, blocked_by = oldest.missing.words, oldest.missing.upstream_id
        if held is not None:
            ends.append(held.wake_at)
            # What is met waits for a completion, or an end, that wakes the entry by its name.
            blocked_by = held.blocked_by
            reason = held.waits if oldest.missing is None else reason
        wake_at = min((at for at in ends if at is not None), default=None)
        return self._waiting(reason, blocked_by, oldest.since or self.now, wake_at, oldest.at)

    def _through(
        self, verdict: Verdict, one: SharedTime | None = None, *, more: bool = False
    ) -> Decision:
        """Return the decision in which one occurrence is sent, or recorded."""
        takes = () if one is None else (one.at,)
        # What is skipped for an overlap is used up too: it would be due again at each look.
        # A shared due time that is given up leaves the other edges as they are.
        consume = verdict.consume or not verdict.runs[0].counts
        if self._are_last(sum(run.state == "claimed" for run in verdict.runs)):
            found = Decision(state="finished", cursor_at=self.entry.cursor_at)
        else:
            found = self._waiting(wake_at=self.now if more else None)
        return replace(
            found,
            runs=verdict.runs,
            consume=consume,
            spares_free=verdict.spares_free,
            takes=takes,
        )

    def _are_last(self, sent: int) -> bool:
        """Say whether `sent` more runs are the last."""
        remaining = remaining_runs(self.entry)
        return remaining is not None and sent >= remaining

    def _waiting(
        self,
        reason: str | None = None,
        blocked_by: int | None = None,
        since: datetime | None = None,
        wake_at: datetime | None = None,
        due_at: datetime | None = None,
    ) -> Decision:
        return Decision(
            state="active",
            cursor_at=self.entry.cursor_at,
            wake_at=wake_at,
            pending_due_at=due_at,
            pending_since=since,
            pending_reason=reason,
            blocked_by=blocked_by,
        )
