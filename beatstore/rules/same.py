"""Entries with a clock whose upstreams must have ended for the same due time.

Each occurrence is decided by itself: it is sent when every edge with `align="same"` is
satisfied for it, given up when its wait is over, or it waits on. What is older and still
waits folds into the one that is sent; what was given up does not.

Occurrences that beat was too late for, and that `misfire="coalesce"` makes one of, are one
here too: while an upstream has a run of one of them under way, they wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from beatstore.rules.decision import Decision, PlannedRun
from beatstore.rules.gate import Shared, Verdict, give_up, record

if TYPE_CHECKING:
    from beatstore.rules.decide import Look

__all__ = ["SameLook"]

#: How many occurrences that wait are looked at, at most; the next look sees the next ones.
_PAGE = 100

_STEP = timedelta(microseconds=1)


class SameLook:
    """One look at an active entry of which something is due.

    Args:
        look: the entry's schedule and policies, at this moment.
        shared: the due times that its upstreams have told of.
        oldest: the first occurrence that is not accounted for.
        following: the one after it.
    """

    def __init__(
        self,
        look: Look,
        shared: Sequence[Shared],
        oldest: datetime,
        following: datetime | None,
    ) -> None:
        self.look = look
        self.oldest = oldest
        self.following = following
        self.told = {one.at: one for one in shared if look.is_due(one.at)}
        #: Due times of the misfire that upstreams have runs of under way.
        self.under_way = [at for at in look.gate.under_way if look.is_due(at)]
        self.first_look = look.entry.pending_since or look.looked_at
        self.records: tuple[PlannedRun, ...] = ()
        self.reason: str | None = None

    def decision(self) -> Decision:
        """Return what the entry gets."""
        start = self.oldest
        if self.look.entry.pending_due_at is None:
            planned = self.look.wanted(self.oldest, self.following)
            to_send = [run for run in planned if run.state == "claimed"]
            if not to_send:
                return self.look.gone_by(tuple(planned), self.oldest, self.following)
            start = to_send[0].first_missed_at or to_send[0].due_at
            # The excess of `misfire="all"` comes after what waits; its turn comes later.
            self.records = tuple(
                run for run in planned if run.state != "claimed" and run.due_at < start
            )
            self.look.after = max((self.look.after, *(run.due_at for run in self.records)))
            self.reason = to_send[0].reason
        together = self._coalesced_until(start)
        chosen = self._chosen(start, together)
        if chosen is None:
            over = self._given_up(start, together) or self._given_up_for_another(start)
            return over or self._parked(start)
        run = self.look.folded(start, chosen.at, self.reason)
        given_up = [] if together else self._over(self._waiting_from(start, chosen.at))
        if given_up:
            run = _without(run, [one.due_at for one in given_up])
        verdict = self.look.ask([run])
        if verdict.waits is not None:
            over = self._given_up(start, together) if given_up else None
            return over or self._parked(start, verdict)
        self.records += tuple(given_up)
        found = self.look.let_through(self.records, verdict, self.oldest, self.following)
        return self._with_what_waits(found)

    # -- which one ---------------------------------------------------------------------------

    def _coalesced_until(self, start: datetime) -> datetime | None:
        """Return until when occurrences are one, since beat was too late for the first."""
        if self.look.misfire != "coalesce":
            return None
        seen_until = self.first_look - self.look.offset
        late = start < seen_until and (seen_until - start).total_seconds() > self.look.grace_s
        return seen_until if late else None

    def _chosen(self, start: datetime, together: datetime | None) -> Shared | None:
        """Return the due time that is sent: the first that is met, or the last of one misfire."""
        met = sorted((one for one in self.told.values() if one.met), key=lambda one: one.at)
        met = [one for one in met if one.at >= start]
        if together is None:
            return met[0] if met else None
        inside = [one for one in met if one.at <= together]
        if not inside:
            return met[0] if met else None
        if any(inside[-1].at < at <= together for at in self.under_way):
            # A later one that is met ends the wait for it, and folds all of them.
            return met[len(inside)] if len(met) > len(inside) else None
        return inside[-1]

    # -- what is given up ----------------------------------------------------------------------

    def _given_up(self, start: datetime, together: datetime | None) -> Decision | None:
        """Return the decision in which waits end, if some do."""
        if together is not None:
            return self._given_up_together(start, together)
        over = self._over(self._waiting_from(start, self.look.until))
        if not over:
            return None
        given_up = {run.due_at for run in over}
        ahead = self.look.first_after(self.look.after)
        while ahead is not None and ahead in given_up:
            ahead = self.look.first_after(ahead)
        taken = {*self.look.gate.taken, *given_up}
        found = self._recorded(over, self.look.accounted_for(taken, ahead), ahead)
        return replace(found, takes=tuple(given_up))

    def _given_up_together(self, start: datetime, together: datetime) -> Decision | None:
        """Return the decision in which the wait of one misfire ends, by its last occurrence."""
        look = self.look
        last = look.schedule.latest_before(together + _STEP)
        missing = look.gate.missing
        assert last is not None  # the misfire has occurrences
        assert missing is not None  # there are such edges
        over = self._over([self.told.get(last, replace(missing, at=last))])
        met = any(one.met and start <= one.at <= together for one in self.told.values())
        if not over or met:
            return None
        whole = record([look.folded(start, last, None)], over[0].reason or "", counts=True)
        return self._recorded([whole], last, look.first_after(last))

    def _given_up_for_another(self, start: datetime) -> Decision | None:
        """Return the decision in which an edge that takes any completion ends the wait."""
        if self.look.gate.unmet_id is None:
            return None
        last = self.look.schedule.latest_before(self.look.until + _STEP)
        assert last is not None  # something is due
        verdict = self.look.ask([self.look.folded(start, last, None)])
        if verdict.waits is not None:
            return None
        return self.look.let_through(self.records, verdict, self.oldest, self.following)

    def _recorded(
        self, over: Sequence[PlannedRun], cursor_at: datetime, ahead: datetime | None
    ) -> Decision:
        found = self.look.ahead((*self.records, *over), cursor_at, ahead)
        return self._with_what_waits(found)

    def _over(self, waiting: Iterable[Shared]) -> list[PlannedRun]:
        """Return the records of those whose wait is over without a run."""
        ends = (give_up(one, self._since(one.at), self.look.looked_at) for one in waiting)
        return [run for run in ends if run is not None]

    def _waiting_from(self, start: datetime, end: datetime) -> list[Shared]:
        """Return the first occurrences from `start` to `end` that are not met."""
        look, missing = self.look, self.look.gate.missing
        assert missing is not None  # there are such edges
        due = look.schedule.between(start - _STEP, end, _PAGE + len(look.gate.taken))
        every = (self.told.get(at, replace(missing, at=at)) for at in due)
        return [one for one in every if not one.met and one.at not in look.gate.taken]

    def _since(self, at: datetime) -> datetime:
        """Return when the wait of an occurrence began."""
        return max(at + self.look.offset, self.first_look)

    # -- what waits ----------------------------------------------------------------------------

    def _parked(self, start: datetime, verdict: Verdict | None = None) -> Decision:
        """Return the decision in which all that is due waits on."""
        waiting = self._waiting_from(start, self.look.until)
        ends = [one.ends_at(self._since(one.at)) for one in waiting]
        if verdict is None:
            first = waiting[0] if waiting else self.look.gate.missing
            assert first is not None  # something waits, or it would have been sent
            verdict = Verdict(waits=first.unmet, blocked_by=first.unmet_id)
        ends.append(verdict.wake_at)
        # What is over already waits for something else; only that wakes the entry then.
        ahead = [at for at in ends if at is not None and at > self.look.looked_at]
        wake_at = min(ahead, default=None)
        return self.look.parked(self.records, PlannedRun(start), replace(verdict, wake_at=wake_at))

    def _with_what_waits(self, found: Decision) -> Decision:
        """Keep the wait of what is due and was not decided by this look."""
        ahead, missing = found.next_due_at, self.look.gate.missing
        if found.state != "active" or ahead is None or ahead > self.look.until:
            return found
        return replace(
            found,
            pending_due_at=ahead,
            pending_since=self._since(ahead),
            pending_reason=missing.unmet if missing else None,
        )


def _without(run: PlannedRun, given_up: Sequence[datetime]) -> PlannedRun:
    """Return a folded run that does not stand for what was given up beside it."""
    count = max(0, run.missed_count - len(given_up))
    if not count:
        return PlannedRun(run.due_at)
    return replace(run, missed_count=count)
