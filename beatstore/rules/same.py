"""Entries with a clock whose upstreams must have ended for the same due time.

Each occurrence is decided by itself: it is sent when every edge with `align="same"` is
satisfied for it, given up when its wait is over, or it waits on. What is older and still
waits folds into the one that is sent; what was given up does not.

Occurrences that beat was too late for, and that `misfire="coalesce"` makes one of, are one
here too: while an upstream has a run of one of them under way, they wait for it.
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

__all__ = ["decide_same"]

#: How many occurrences that wait are looked at, at most; the next look sees the next ones.
_PAGE = 100


def decide_same(look: Look, account: SharedAccount) -> Decision:
    """Return what an entry gets of which something is due.

    Args:
        look: at the entry.
        account: the due times that it shares with its upstreams.
    """
    window = look.window
    if look.entry.pending_due_at is not None:
        return _SameLook.at(look, account, window.first).decision()
    planned = look.wanted()
    to_send = [run for run in planned if run.state == "claimed"]
    if not to_send:
        return look.gone_by(tuple(planned))
    start = to_send[0].first_missed_at or to_send[0].due_at
    # The excess of `misfire="all"` comes after what waits; its turn comes later.
    records = tuple(run for run in planned if run.state != "claimed" and run.due_at < start)
    if records:
        look = replace(look, window=window.past(max(run.due_at for run in records)))
    return _SameLook.at(look, account, start, records, to_send[0].reason).decision()


@dataclass(frozen=True, slots=True)
class _SameLook:
    """One look at an active entry of which something is due.

    Attributes:
        look: the entry's schedule and policies, at this moment.
        account: the due times that it shares with its upstreams.
        start: the first occurrence that is sent, or waits.
        told: what is known of due times, by these.
        met: the due times for which every such edge is satisfied, in order.
        records: of occurrences before `start`, which are not sent.
        reason: why several are made one, if they are.
    """

    look: Look
    account: SharedAccount
    start: datetime
    told: Mapping[datetime, SharedTime]
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
        """Return the look that decides about what comes from `start` on."""
        told = {one.at: one for one in account.told}
        met = sorted(one.at for one in account.told if one.missing is None and one.at >= start)
        due = tuple(at for at in met if look.window.includes(at))
        return cls(look, account, start, told, due, records, reason)

    def decision(self) -> Decision:
        """Return what the entry gets."""
        together = self._coalesced_until()
        chosen = self._chosen(together)
        if chosen is None:
            over = self._given_up(together) or self._given_up_for_another()
            return over or self._parked()
        run = self.look.folded(self.start, chosen, self.reason)
        given_up = [] if together else self._over(self._waiting_until(chosen))
        if given_up:
            run = _without(run, [one.due_at for one in given_up])
        verdict = self.look.ask([run])
        if verdict.waits is not None:
            over = self._given_up(together) if given_up else None
            return over or self._parked(verdict)
        found = self.look.let_through((*self.records, *given_up), verdict)
        return self._with_what_waits(found)

    # -- which one ---------------------------------------------------------------------------

    @property
    def _first_look(self) -> datetime:
        return self.look.entry.pending_since or self.look.now

    def _coalesced_until(self) -> datetime | None:
        """Return until when occurrences are one, since beat was too late for the first."""
        if self.look.misfire != "coalesce":
            return None
        seen_until = self._first_look - self.look.offset
        late_s = (seen_until - self.start).total_seconds()
        return seen_until if late_s > self.look.grace_s else None

    def _known(self, at: datetime) -> SharedTime:
        """Return what is known of a due time."""
        return self.told.get(at) or SharedTime(at=at, missing=self.account.untold)

    def _chosen(self, together: datetime | None) -> datetime | None:
        """Return the due time that is sent: the first that is met, or the last of one misfire."""
        met = self.met
        if together is None:
            return met[0] if met else None
        inside = [at for at in met if at <= together]
        if not inside:
            return met[0] if met else None
        if any(inside[-1] < at <= together for at in self._under_way()):
            # A later one that is met ends the wait for it, and folds all of them.
            return met[len(inside)] if len(met) > len(inside) else None
        return inside[-1]

    def _under_way(self) -> list[datetime]:
        """Return the due times of the misfire that upstreams have runs of under way."""
        return [at for at in self.account.under_way if self.look.window.includes(at)]

    # -- what is given up ----------------------------------------------------------------------

    def _given_up(self, together: datetime | None) -> Decision | None:
        """Return the decision in which waits end, if some do."""
        if together is not None:
            return self._given_up_together(together)
        window = self.look.window
        over = self._over(self._waiting_until(window.until))
        if not over:
            return None
        given_up = {run.due_at for run in over}
        left = replace(window, taken=window.taken | given_up)
        ahead = left.next_after(left.after)
        found = self._recorded(over, left.settled_before(ahead), ahead)
        return replace(found, takes=tuple(run.due_at for run in over))

    def _given_up_together(self, together: datetime) -> Decision | None:
        """Return the decision in which the wait of one misfire ends, by its last occurrence."""
        window = self.look.window
        last = window.times.latest_until(together)
        assert last is not None  # the misfire has occurrences
        over = self._over([self._known(last)])
        if not over or any(at <= together for at in self.met):
            return None
        folded = self.look.folded(self.start, last, None)
        whole = record([folded], over[0].reason or "", counts=True)
        return self._recorded([whole], last, window.next_after(last))

    def _given_up_for_another(self) -> Decision | None:
        """Return the decision in which an edge that takes any completion ends the wait."""
        if self.look.gate.missing is None:
            return None
        folded = self.look.folded(self.start, self.look.window.latest, None)
        verdict = self.look.ask([folded])
        if verdict.waits is not None:
            return None
        return self.look.let_through(self.records, verdict)

    def _recorded(
        self, over: Sequence[PlannedRun], cursor_at: datetime, ahead: datetime | None
    ) -> Decision:
        found = self.look.ahead((*self.records, *over), cursor_at, ahead)
        return self._with_what_waits(found)

    def _over(self, waiting: Iterable[SharedTime]) -> list[PlannedRun]:
        """Return the records of those whose wait is over without a run."""
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

    # -- what waits ----------------------------------------------------------------------------

    def _parked(self, verdict: Verdict | None = None) -> Decision:
        """Return the decision in which all that is due waits on."""
        waiting = self._waiting_until(self.look.window.until)
        ends = [one.missing.ends_at(self._since(one.at)) for one in waiting if one.missing]
        if verdict is None:
            first = (waiting[0].missing if waiting else None) or self.account.untold
            verdict = Verdict(waits=first.words, blocked_by=first.upstream_id)
        ends.append(verdict.wake_at)
        # What is over already waits for something else; only that wakes the entry then.
        ahead = [at for at in ends if at is not None and at > self.look.now]
        verdict = replace(verdict, wake_at=min(ahead, default=None))
        return self.look.parked(self.records, PlannedRun(self.start), verdict)

    def _with_what_waits(self, found: Decision) -> Decision:
        """Keep the wait of what is due and was not decided by this look."""
        ahead = found.next_due_at
        if found.state != "active" or ahead is None or ahead > self.look.window.until:
            return found
        return replace(
            found,
            pending_due_at=ahead,
            pending_since=self._since(ahead),
            pending_reason=self.account.untold.words,
        )


def _without(run: PlannedRun, given_up: Sequence[datetime]) -> PlannedRun:
    """Return a folded run that does not stand for what was given up beside it."""
    count = max(0, run.missed_count - len(given_up))
    if not count:
        return PlannedRun(run.due_at)
    return replace(run, missed_count=count)
