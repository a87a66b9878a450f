"""Entries without a schedule: due when all their upstreams have ended as their edges require.

Nothing of such an entry is pending until its first upstream completes. Then it waits for the
others, and is sent when the last one completes; sending consumes these completions. Its `due_at`
is that moment.

With `align="same"`, its `due_at` is the due time that its upstreams share. Each due time is
decided separately, oldest first: it is sent, given up, or continues to wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from beatstore.rules.decision import Decision, EntryRow, PlannedRun
from beatstore.rules.due import LATEST, STEP, remaining_runs
from beatstore.rules.gate import Gate, SharedAccount, SharedTime, Verdict, pass_or_wait

__all__ = ["NO_UPSTREAMS", "AfterLook"]

#: The reason of an entry without upstreams.
NO_UPSTREAMS = "it has no upstreams; link some"

_SECOND = timedelta(seconds=1)


def _wakes_at(verdict: Verdict) -> datetime:
    """Return when a wait times out; one that never does comes last."""
    return verdict.wake_at or LATEST


@dataclass(frozen=True, slots=True)
class AfterLook:
    """One look at one active entry of kind `after`.

    Attributes:
        entry: its columns.
        now: the database's time.
        gate: the state of its edges and of its unfinished runs.
    """

    entry: EntryRow
    now: datetime
    gate: Gate

    def decision(self) -> Decision:
        """Return the decision about the entry."""
        entry, gate = self.entry, self.gate
        if self._is_exhausted(0) or (entry.end_at is not None and self.now > entry.end_at):
            return Decision(state="finished", cursor_at=entry.cursor_at)
        if entry.start_at is not None and self.now < entry.start_at:
            return self._waiting(wake_at=entry.start_at)
        if not gate.edges:
            return self._waiting(NO_UPSTREAMS)
        if gate.shared is not None and (gate.shared.reported or not gate.failed):
            passed = self._passed(gate.shared.reported)
            left = [one for one in gate.shared.reported if one.at not in passed]
            found = self._by_due_time(gate.shared, left)
            return replace(found, takes=(*found.takes, *passed))
        if gate.missing is not None and not gate.begun and not gate.failed:
            return self._waiting(gate.missing.words)
        return self._decide_now()

    def _decide_now(self) -> Decision:
        """Decide an occurrence that is due now."""
        verdict = self._verdict_on(self.now, self.entry.pending_since)
        if verdict.waits is not None:
            since = self.entry.pending_since or self.now
            return self._waiting(verdict.waits, verdict.blocked_by, since, verdict.wake_at)
        return self._send_or_record(verdict)

    def _passed(self, reported: Sequence[SharedTime]) -> list[datetime]:
        """Return the due times to drop: those before an edit, and those before `start_at`.

        Completions before `start_at` count as one: the newest.
        """
        entry = self.entry
        passed = [one.at for one in reported if entry.cursor_at and one.at <= entry.cursor_at]
        if entry.start_at is not None:
            begun_before = [
                one.at
                for one in reported
                if one.since is not None and one.since < entry.start_at and one.at not in passed
            ]
            passed += begun_before[:-1]
        return passed

    def _by_due_time(self, account: SharedAccount, reported: Sequence[SharedTime]) -> Decision:
        """Decide the oldest shared due time that can be sent or given up."""
        held: Verdict | None = None
        entry_waited = self.entry.pending_since is not None
        for one in reported:
            since = one.since or self.now
            if one.missing is not None:
                over = one.missing.give_up([PlannedRun(one.at)], since, self.now)
                if over is not None:
                    return self._send_or_record(Verdict(runs=(over,)), one, more=len(reported) > 1)
            if one.missing is None or self.gate.missing is not None:
                # An edge with align="latest" may end the wait of each of them.
                waited = entry_waited and self.now - since >= _SECOND
                counts = waited or self.gate.missing is not None
                verdict = self._verdict_on(one.at, since if counts else None)
                if verdict.waits is None:
                    return self._send_or_record(verdict, one, more=len(reported) > 1)
                held = verdict if held is None else min(held, verdict, key=_wakes_at)
        if not reported:
            return self._waiting(account.unreported.words)
        return self._wait_on(reported, held)

    def _verdict_on(self, due_at: datetime, since: datetime | None) -> Verdict:
        """Return the verdict of the other edges and of `overlap` on one occurrence."""
        return pass_or_wait(
            [PlannedRun(due_at)],
            self.gate,
            entry_id=self.entry.id,
            overlap=self.entry.overlap,
            since=since,
            now=self.now,
        )

    def _wait_on(self, reported: Sequence[SharedTime], held: Verdict | None) -> Decision:
        """Return the decision that leaves all these due times waiting."""
        oldest = reported[0]
        ends = [one.missing.ends_at(one.since or self.now) for one in reported if one.missing]
        reason = blocked_by = None
        if held is not None:
            # What holds up one due time holds up all of them, and only its end wakes the entry.
            ends.append(held.wake_at)
            reason, blocked_by = held.waits, held.blocked_by
        elif oldest.missing is not None:
            reason, blocked_by = oldest.missing.words, oldest.missing.upstream_id
        wake_at = min((at for at in ends if at is not None), default=None)
        return self._waiting(reason, blocked_by, oldest.since or self.now, wake_at, oldest.at)

    def _send_or_record(
        self, verdict: Verdict, one: SharedTime | None = None, *, more: bool = False
    ) -> Decision:
        """Return the decision that sends or records one occurrence."""
        takes = () if one is None else (one.at,)
        # A skip for an overlap consumes the completions too: else it would repeat at each look.
        # A shared due time that is given up does not change the other edges.
        consume = verdict.consume or not verdict.runs[0].counts
        if self._is_exhausted(sum(run.state == "claimed" for run in verdict.runs)):
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

    def _is_exhausted(self, sent: int) -> bool:
        """Return True if `sent` more runs reach `max_runs`."""
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
        """Return the decision that sends nothing; the entry is finished after its `end_at`."""
        end_at = self.entry.end_at
        if end_at is not None and end_at < LATEST:
            over = end_at + STEP
            wake_at = over if wake_at is None else min(wake_at, over)
        return Decision(
            state="active",
            cursor_at=self.entry.cursor_at,
            wake_at=wake_at,
            pending_due_at=due_at,
            pending_since=since,
            pending_reason=reason,
            blocked_by=blocked_by,
        )
