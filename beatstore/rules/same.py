"""Entries with a schedule whose upstreams must have ended for the same due time.

Each occurrence is decided separately: it is sent when every edge with `align="same"` is
satisfied for it, given up when its wait ends, or continues to wait. Older occurrences that still
wait coalesce into the one that is sent; those that were given up do not.

Misfires that `misfire="coalesce"` makes one run are one here too: while an upstream has an
unfinished run of one of them, they wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from beatstore.rules.decision import Decision, PlannedRun
from beatstore.rules.due import just_before
from beatstore.rules.gate import SharedAccount, SharedTime, Verdict, record

if TYPE_CHECKING:
    from beatstore.rules.decide import Look

__all__ = ["decide_same", "unmatched"]

#: The most waiting occurrences per look; the next look continues from there.
_PAGE = 100


def decide_same(look: Look, account: SharedAccount) -> Decision:
    """Return the decision about a due entry.

    Args:
        look: the look at the entry.
        account: the due times that it shares with its upstreams.
    """
    return replace(_decide(look, account), unmatched=unmatched(look))


def unmatched(look: Look) -> tuple[datetime, ...]:
    """Return the shared due times until now that are not occurrences of the entry."""
    reported = () if look.gate.shared is None else look.gate.shared.reported
    window = look.window
    return tuple(
        one.at for one in reported if one.at <= window.until and not window.times.includes(one.at)
    )


def _decide(look: Look, account: SharedAccount) -> Decision:
    window = look.window
    if look.entry.pending_due_at is not None:
        return _SameLook.at(look, account, window.first).decision()
    planned = look.planned_runs()
    to_send = [run for run in planned if run.state == "claimed"]
    if not to_send:
        return look.all_decided(tuple(planned))
    start = to_send[0].first_missed_at or to_send[0].due_at
    # The excess of `misfire="all"` is later than what waits; a later look records it.
    records = tuple(run for run in planned if run.state != "claimed" and run.due_at < start)
    if records:
        look = replace(look, window=window.past(max(run.due_at for run in records)))
    return _SameLook.at(look, account, start, records, to_send[0].reason).decision()


@dataclass(frozen=True, slots=True)
class _SameLook:
    """One look at a due active entry.

    Attributes:
        look: the entry's schedule and policies, at this moment.
        account: the due times that it shares with its upstreams.
        start: the first occurrence to send or to leave waiting.
        reported: the reported due times, by instant.
        met: the due times for which every such edge is satisfied, in order.
        records: the records of occurrences before `start`, which are not sent.
        reason: why several are coalesced, or None.
    """

    look: Look
    account: SharedAccount
    start: datetime
    reported: Mapping[datetime, SharedTime]
    met: tuple[datetime, ...]
    records: tuple[PlannedRun, ...]
    reason: str | None

    @classmethod
    def at(
        cls,
        look: Look,
        account: SharedAccount,
        start: datetime,
        records: tuple[PlannedRun, ...] = (),
        reason: str | None = None,
    ) -> _SameLook:
        """Return the look that decides the occurrences from `start`."""
        reported = {one.at: one for one in account.reported}
        met = sorted(one.at for one in account.reported if one.missing is None and one.at >= start)
        due = tuple(at for at in met if look.window.includes(at))
        return cls(look, account, start, reported, due, records, reason)

    def decision(self) -> Decision:
        """Return the decision about the entry."""
        together = self._coalesced_until()
        chosen = self._chosen(together)
        if chosen is None:
            over = self._given_up(together) or self._given_up_for_another()
            return over or self._parked()
        run = self.look.coalesced(self.start, chosen, self.reason)
        given_up = [] if together else self._over(self._waiting_until(chosen))
        if given_up:
            run = _without(run, [one.due_at for one in given_up])
        verdict = self.look.verdict_on([run])
        if verdict.waits is not None:
            over = self._given_up(together) if given_up else None
            return over or self._parked(verdict)
        found = self.look.let_through((*self.records, *given_up), verdict)
        return self._with_what_waits(found)

    # -- which to send ---------------------------------------------------------------------------

    @property
    def _first_look(self) -> datetime:
        return self.look.entry.pending_since or self.look.now

    def _coalesced_until(self) -> datetime | None:
        """Return the end of the coalesced misfire; None if the first occurrence is not one."""
        if self.look.misfire != "coalesce":
            return None
        seen_until = self._first_look - self.look.offset
        late_s = (seen_until - self.start).total_seconds()
        return seen_until if late_s > self.look.grace_s else None

    def _known(self, at: datetime) -> SharedTime:
        """Return the state of a due time."""
        return self.reported.get(at) or SharedTime(at=at, missing=self.account.unreported)

    def _chosen(self, together: datetime | None) -> datetime | None:
        """Return the due time to send: the first that is met, or the last of one misfire."""
        met = self.met
        if together is None:
            return met[0] if met else None
        inside = [at for at in met if at <= together]
        if not inside:
            return met[0] if met else None
        if any(inside[-1] < at <= together for at in self._under_way()):
            # A later one that is met ends the wait, and coalesces all of them.
            return met[len(inside)] if len(met) > len(inside) else None
        return inside[-1]

    def _under_way(self) -> list[datetime]:
        """Return the due times for which upstreams have unfinished runs."""
        return [at for at in self.account.under_way if self.look.window.includes(at)]

    # -- giving up ----------------------------------------------------------------------

    def _given_up(self, together: datetime | None) -> Decision | None:
        """Return the decision that gives up waits that have ended, or None."""
        if together is not None:
            return self._given_up_together(together)
        window = self.look.window
        over = self._over(self._waiting_until(window.until))
        if not over:
            return None
        given_up = {run.due_at for run in over}
        left = replace(window, taken=window.taken | given_up)
        ahead = left.next_after(left.after)
        found = self._recorded(over, left.accounted_before(ahead), ahead)
        return replace(found, takes=tuple(run.due_at for run in over))

    def _given_up_together(self, together: datetime) -> Decision | None:
        """Return the decision that gives up one misfire, by its last occurrence, or None."""
        window = self.look.window
        last = window.times.latest_until(together)
        assert last is not None  # the misfire has occurrences
        over = self._over([self._known(last)])
        if not over or any(at <= together for at in self.met):
            return None
        run = self.look.coalesced(self.start, last, None)
        whole = record([run], over[0].reason or "", counts=True)
        return self._recorded([whole], last, window.next_after(last))

    def _given_up_for_another(self) -> Decision | None:
        """Return the decision in which an edge with `align="latest"` ends the wait, or None."""
        if self.look.gate.missing is None:
            return None
        run = self.look.coalesced(self.start, self.look.window.latest, None)
        verdict = self.look.verdict_on([run])
        if verdict.waits is not None:
            return None
        return self.look.let_through(self.records, verdict)

    def _recorded(
        self, over: Sequence[PlannedRun], cursor_at: datetime, ahead: datetime | None
    ) -> Decision:
        found = self.look.next_due((*self.records, *over), cursor_at, ahead)
        return self._with_what_waits(found)

    def _over(self, waiting: Iterable[SharedTime]) -> list[PlannedRun]:
        """Return the records of those whose wait has ended without a run."""
        ends = (
            one.missing.give_up([PlannedRun(one.at)], self._since(one.at), self.look.now)
            for one in waiting
            if one.missing is not None
        )
        return [run for run in ends if run is not None]

    def _waiting_until(self, end: datetime) -> list[SharedTime]:
        """Return the first occurrences until `end` that are not met."""
        window = self.look.window
        limit = _PAGE + len(window.taken)
        due = window.times.between(just_before(self.start), end, limit)
        every = (self._known(at) for at in due if at not in window.taken)
        return [one for one in every if one.missing is not None]

    def _since(self, at: datetime) -> datetime:
        """Return when the wait of an occurrence began."""
        return max(at + self.look.offset, self._first_look)

    # -- waiting ----------------------------------------------------------------------------

    def _parked(self, verdict: Verdict | None = None) -> Decision:
        """Return the decision that leaves all due occurrences waiting."""
        waiting = self._waiting_until(self.look.window.until)
        ends = [one.missing.ends_at(self._since(one.at)) for one in waiting if one.missing]
        if verdict is None:
            first = (waiting[0].missing if waiting else None) or self.account.unreported
            verdict = Verdict(waits=first.words, blocked_by=first.upstream_id)
            # An edge with align="latest" may end the wait too.
            other = self.look.gate.missing
            ends.append(None if other is None else other.ends_at(self._first_look))
        ends.append(verdict.wake_at)
        # An occurrence whose wait has ended waits for something else, which wakes the entry.
        ahead = [at for at in ends if at is not None and at > self.look.now]
        verdict = replace(verdict, wake_at=min(ahead, default=None))
        return self.look.parked(self.records, PlannedRun(self.start), verdict)

    def _with_what_waits(self, found: Decision) -> Decision:
        """Keep the wait of due occurrences that this look did not decide."""
        ahead = found.next_due_at
        if found.state != "active" or ahead is None or ahead > self.look.window.until:
            return found
        return replace(
            found,
            pending_due_at=ahead,
            pending_since=self._since(ahead),
            pending_reason=self.account.unreported.words,
        )


def _without(run: PlannedRun, given_up: Sequence[datetime]) -> PlannedRun:
    """Return a coalesced run without the occurrences that were given up."""
    count = max(0, run.missed_count - len(given_up))
    if not count:
        return PlannedRun(run.due_at)
    return replace(run, missed_count=count)
