"""Decide what happens to a due entry. Pure: no clock, no database.

`decide(entry, now, settings, gate)` reads the entry's columns, and the state of its upstreams and
of its own runs (see `beatstore.rules.gate`). It may be called at any time and any number of
times: `wake_at` only says when the decision may change. An early call is harmless; after a late
one, the misfire policy applies.

Invariants:
    * Every occurrence in (cursor, now] is accounted for exactly once: as a run, coalesced into a
      run, or counted in a `missed` or `skipped` row. The new cursor is the last of them. An
      occurrence that waits for an upstream stays ahead of the cursor until it is sent.
    * The cursor never moves back, so a clock that moves back can't double an occurrence.
    * The work of one call is bounded, however long beat was away.

On failure: an invalid entry (a bad schedule, an unknown policy, a row written by hand) gets the
state `broken`, with the reason in `error`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from beatstore.config import MISFIRES, NOT_SKIPPING_ALL, Settings, skips_all
from beatstore.errors import ScheduleError
from beatstore.rules import alike
from beatstore.rules.after import AfterLook
from beatstore.rules.decision import Decision, EntryRow, PlannedRun
from beatstore.rules.due import (
    EARLIEST,
    DueTimes,
    Window,
    accounted_for,
    jitter_offset,
    just_before,
    remaining_runs,
    sent_from,
)
from beatstore.rules.gate import OPEN, OVERLAPS, Gate, Verdict, pass_or_wait
from beatstore.rules.reasons import MISFIRE, duration, never_due
from beatstore.rules.same import decide_same, unmatched
from beatstore.rules.states import ENTRY_STATES
from beatstore.schedules import Cron, Every, Once, RRule, Solar
from beatstore.schedules.instants import is_span
from beatstore.words import misspelt

__all__ = ["BURST", "COUNT_LIMIT", "KINDS", "call_problem", "decide"]

#: The kinds of schedules, and of entries without one.
KINDS = (*(one.kind for one in (Once, Cron, Every, RRule, Solar)), "after")

#: The most runs of one entry per look; the next look continues from there.
BURST = 100

_due_at = attrgetter("due_at")

#: Missed occurrences are counted exactly up to this number; one more means "more than that".
COUNT_LIMIT = 1000


def decide(entry: EntryRow, now: datetime, settings: Settings, gate: Gate = OPEN) -> Decision:
    """Return what happens to `entry` at the instant `now`.

    Raises nothing: an invalid entry becomes `broken`.
    """
    problem = misspelt("state", entry.state, ENTRY_STATES)
    if problem:
        return _broken(entry, problem)
    if entry.state != "active":
        return Decision(state=entry.state, cursor_at=entry.cursor_at, error=entry.error)
    problem = call_problem(entry)
    if problem:
        return _broken(entry, problem)
    rule = alike.rule_of(entry, settings) if gate is OPEN else None
    return alike.kept(rule, now) or _alone(entry, now, settings, gate, rule)


def _alone(entry: EntryRow, now: datetime, settings: Settings, gate: Gate, rule: Any) -> Decision:
    """Decide an entry by itself, and keep the decision for others with its `rule`."""
    problem = _policy_problem(entry, settings)
    if problem:
        return _broken(entry, problem)
    try:
        if entry.kind == "after":
            return AfterLook(entry, now, gate).decision()
        look = Look.at(entry, now, settings, gate)
        decision = look.decision()
    except ScheduleError as error:
        return _broken(entry, str(error))
    alike.keep(rule, look, decision)
    return decision


def _broken(entry: EntryRow, reason: str) -> Decision:
    """Return the decision that sets `entry` to `broken`, with the reason."""
    return Decision(state="broken", cursor_at=entry.cursor_at, error=reason)


def call_problem(entry: EntryRow) -> str | None:
    """Return why the entry's columns do not make a message, or None if they do."""
    if not isinstance(entry.args, list):
        return f"args: expected a JSON list, got {entry.args!r:.80}; write []"
    for field in ("kwargs", "options"):
        value = getattr(entry, field)
        if not isinstance(value, dict):
            return f"{field}: expected a JSON object, got {value!r:.80}; write {{}}"
    headers = entry.options.get("headers")
    if headers is not None and not isinstance(headers, dict):
        return f"options: expected headers to be a JSON object, got {headers!r:.80}; write {{}}"
    return None


def _policy_problem(entry: EntryRow, settings: Settings) -> str | None:
    misfire = settings.default_misfire if entry.misfire is None else entry.misfire
    problem = (
        misspelt("kind", entry.kind, KINDS)
        or misspelt("misfire", misfire, MISFIRES)
        or misspelt("overlap", entry.overlap, OVERLAPS)
    )
    if problem:
        return problem
    for field in ("grace_s", "jitter_s", "run_timeout_s"):
        value = getattr(entry, field)
        if value is not None and not is_span(value):
            return f"{field}: expected seconds, 0 or more, got {value!r}; write 60"
    for field in ("max_runs", "run_count"):
        value = getattr(entry, field)
        if value is not None and not isinstance(value, int):
            return f"{field}: expected a whole number, got {value!r}; write 1"
    grace_s = settings.default_grace if entry.grace_s is None else entry.grace_s
    if entry.kind != "after" and skips_all(misfire, grace_s):
        return f"grace_s: expected {NOT_SKIPPING_ALL}, got {grace_s!r}; write 60"
    return None


@dataclass(frozen=True, slots=True)
class Look:
    """One look at one active entry. Its times are due times, without the jitter of `wake_at`.

    Attributes:
        entry: its columns.
        now: the database's time.
        gate: the state of its edges and of its unfinished runs.
        window: the due times to decide about.
        offset: how long after its due time an occurrence is sent.
        misfire: the misfire policy, its own or the default.
        grace_s: seconds that an occurrence may be late before it is a misfire.
        catch_up_limit: the most occurrences that `misfire="all"` runs.
    """

    entry: EntryRow
    now: datetime
    gate: Gate
    window: Window
    offset: timedelta
    misfire: str
    grace_s: float
    catch_up_limit: int

    @classmethod
    def at(cls, entry: EntryRow, now: datetime, settings: Settings, gate: Gate) -> Look:
        """Return the look at an entry at the instant `now`.

        Raises:
            ScheduleError: its columns hold no valid schedule.
        """
        offset = jitter_offset(entry.id, entry.jitter_s)
        taken = frozenset() if gate.shared is None else gate.shared.taken
        return cls(
            entry,
            now,
            gate,
            Window.at(DueTimes.of(entry, settings), accounted_for(entry), now - offset, taken),
            offset,
            entry.misfire or settings.default_misfire,
            settings.default_grace if entry.grace_s is None else entry.grace_s,
            settings.catch_up_limit,
        )

    def decision(self) -> Decision:
        """Return the decision about the entry."""
        window = self.window
        if not window.is_due:
            cursor_at = window.after if window.taken else self.entry.cursor_at
            found = self.next_due((), cursor_at, window.oldest)
            return replace(found, unmatched=odd) if (odd := unmatched(self)) else found
        if remaining_runs(self.entry) == 0:
            return Decision(state="finished", cursor_at=window.latest)
        if self.gate.shared is not None:
            return decide_same(self, self.gate.shared)
        runs = self.planned_runs()
        to_send = [run for run in runs if run.state == "claimed"]
        if not to_send:
            return self.all_decided(tuple(runs))
        verdict = self.verdict_on(to_send)
        records = tuple(run for run in runs if run.state != "claimed")
        if verdict.waits is not None:
            return self.parked(records, to_send[0], verdict)
        return self.let_through(records, verdict)

    def planned_runs(self) -> list[PlannedRun]:
        """Return the runs to plan for what is due; occurrences that waited become one run."""
        if self.entry.pending_due_at is not None:
            return [self.coalesced(self.window.first, self.window.latest, None)]
        return self._runs()

    def verdict_on(self, to_send: Sequence[PlannedRun]) -> Verdict:
        """Return the gate's verdict on the runs to send."""
        return pass_or_wait(
            to_send,
            self.gate,
            entry_id=self.entry.id,
            overlap=self.entry.overlap,
            since=self.entry.pending_since,
            now=self.now,
        )

    def let_through(self, records: tuple[PlannedRun, ...], verdict: Verdict) -> Decision:
        """Return the decision that writes a verdict's runs and `records`."""
        runs = tuple(sorted((*records, *verdict.runs), key=_due_at))
        found = self.all_decided(runs)
        if not (verdict.consume or verdict.spares_free):
            return found
        return replace(found, consume=verdict.consume, spares_free=verdict.spares_free)

    def all_decided(self, runs: tuple[PlannedRun, ...]) -> Decision:
        """Return the decision that writes `runs` and leaves nothing waiting."""
        remaining = remaining_runs(self.entry)
        to_send = [run for run in runs if run.state == "claimed"]
        if remaining is not None and len(to_send) >= remaining:
            last = to_send[remaining - 1].due_at
            runs = tuple(run for run in runs if run.due_at <= last)  # what is later is not due
            return Decision(state="finished", runs=runs, cursor_at=runs[-1].due_at)
        through = max(run.due_at for run in runs)
        return self.next_due(runs, through, self.window.next_after(through))

    def parked(
        self, records: tuple[PlannedRun, ...], first: PlannedRun, verdict: Verdict
    ) -> Decision:
        """Return the decision that leaves an occurrence waiting, with the cursor before it."""
        entry = self.entry
        start = first.first_missed_at or first.due_at
        # Later occurrences are decided when this one is sent.
        records = tuple(run for run in records if run.due_at < start)
        return Decision(
            state="active",
            runs=records,
            cursor_at=max((run.due_at for run in records), default=entry.cursor_at),
            next_due_at=self.window.times.next_after(self.window.until),
            wake_at=verdict.wake_at,
            pending_due_at=start if entry.pending_due_at is None else entry.pending_due_at,
            pending_since=entry.pending_since or self.now,
            pending_reason=verdict.waits,
            blocked_by=verdict.blocked_by,
        )

    def next_due(
        self, runs: tuple[PlannedRun, ...], cursor_at: datetime | None, due_at: datetime | None
    ) -> Decision:
        """Return the decision that writes `runs`; `due_at` is the next due time, if any."""
        if due_at is not None:
            return Decision(
                state="active",
                runs=runs,
                cursor_at=cursor_at,
                next_due_at=due_at,
                wake_at=sent_from(due_at, self.offset),
            )
        if self.entry.kind == "once":
            return self._once_over(runs, cursor_at)
        return Decision(state="finished", runs=runs, cursor_at=cursor_at)

    def _once_over(self, runs: tuple[PlannedRun, ...], cursor_at: datetime | None) -> Decision:
        """Return the decision about a one-shot whose due time is past."""
        at = self.window.times.schedule.next_after(EARLIEST)
        last = self.entry.last_run_at
        # It may have run before: when it was triggered, or at the time that it was put off from.
        was_sent = not runs and at is not None and last is not None and last >= at
        if was_sent or any(run.state == "claimed" for run in runs):
            return Decision(state="finished", runs=runs, cursor_at=cursor_at)
        if not runs and at is not None:
            reason = never_due(at, self.entry.start_at, self.entry.end_at)
            runs = (_missed(at, [at], reason),)
        return Decision(state="missed", runs=runs, cursor_at=cursor_at)

    def _runs(self) -> list[PlannedRun]:
        """Apply the misfire policy to the occurrences from the oldest until now."""
        window = self.window
        if window.first >= self._deadline:
            if window.following is None or window.following > window.until:
                return [PlannedRun(window.first)]
            return self._each(window.after, BURST)
        if self.misfire == "skip":
            return self._skip()
        if self.misfire == "coalesce":
            return [self.coalesced(window.first, window.latest, self._misfire_reason(window.first))]
        return self._catch_up()

    @property
    def _deadline(self) -> datetime:
        """The earliest due time that is not a misfire."""
        try:
            return self.window.until - timedelta(seconds=self.grace_s)
        except OverflowError:
            return EARLIEST

    def _misfire_reason(self, first: datetime) -> str:
        """Return the reason of a misfire, of which `first` is the oldest occurrence."""
        late = duration(self.window.until - first)
        return (
            f"{MISFIRE} first seen {late} late, grace is {self.grace_s:g} s, policy {self.misfire}"
        )

    def _each(self, after: datetime, limit: int) -> list[PlannedRun]:
        due = self.window.times.between(after, self.window.until, limit)
        return [PlannedRun(due_at) for due_at in due]

    def _skip(self) -> list[PlannedRun]:
        times = self.window.times
        before = just_before(self._deadline)
        missed = times.between(self.window.after, before, COUNT_LIMIT + 1)
        last = times.latest_until(before)
        assert last is not None  # this policy is only applied to a misfire
        record = _missed(last, missed, self._misfire_reason(missed[0]))
        return [record, *self._each(before, BURST)]

    def coalesced(self, oldest: datetime, latest: datetime, reason: str | None) -> PlannedRun:
        """Coalesce all occurrences into one run; it has the reason if there are several."""
        window = self.window
        others = len(window.times.between(window.after, latest, COUNT_LIMIT + 2)) - 1
        others -= sum(oldest <= at <= latest for at in window.taken)
        if not others:
            return PlannedRun(latest)
        return PlannedRun(latest, reason=reason, first_missed_at=oldest, missed_count=others)

    def _catch_up(self) -> list[PlannedRun]:
        window, limit = self.window, self.catch_up_limit
        due = window.times.between(window.after, window.until, limit + COUNT_LIMIT + 1)
        runs = [PlannedRun(due_at) for due_at in due[:limit]]
        excess = due[limit:]
        if excess:
            reason = f"{MISFIRE} more than {limit} to catch up, policy all"
            runs.append(_missed(window.latest, excess, reason))
        return runs


def _missed(at: datetime, occurrences: Sequence[datetime], reason: str) -> PlannedRun:
    """Return the record, at the last one's due time, of occurrences that are not sent."""
    return PlannedRun(
        at,
        state="missed",
        reason=reason,
        first_missed_at=occurrences[0],
        missed_count=len(occurrences),
    )
