"""What becomes of an entry that a beat looks at: the rule, without a clock or a database.

`decide(entry, now, settings, gate)` answers from the entry's own columns, and from what
its upstreams and its own runs have come to (see `beatstore.rules.gate`). It may be asked at any
time and as often as anyone likes: `wake_at` only says when the answer may have changed,
so an early look is harmless and a late one is a misfire or no misfire, as the entry's
policy says.

Invariants:
    * Every occurrence in (cursor, now] is accounted for exactly once: as a run, folded
      into a run, or counted in a `missed` or `skipped` row; and the new cursor is the last
      of them. What waits for an upstream stays ahead of the cursor until it is let through.
    * The cursor never moves back, so a clock that does can't double an occurrence.
    * The work for one look is bounded, however long beat was away.

On failure: what can't be decided (a bad schedule, an unknown policy, a row written by
hand) is a decision too: state `broken`, with the reason in `error`.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from beatstore.config import MISFIRES, NOT_SKIPPING_ALL, Settings, skips_all
from beatstore.errors import ScheduleError
from beatstore.rules.after import AfterLook
from beatstore.rules.decision import Decision, EntryRow, PlannedRun
from beatstore.rules.gate import OPEN, OVERLAPS, Gate, Verdict, duration, pass_or_wait
from beatstore.rules.same import SameLook
from beatstore.rules.states import ENTRY_STATES
from beatstore.schedules import Cron, Every, Once, RRule, Schedule, Solar, parse
from beatstore.words import misspelt

__all__ = [
    "BURST",
    "COUNT_LIMIT",
    "KINDS",
    "TRIGGERED",
    "Decision",
    "EntryRow",
    "PlannedRun",
    "broken",
    "call_problem",
    "decide",
    "is_triggered",
    "jitter_offset",
    "retry_delay",
    "reworded",
    "schedule_of",
    "sent_from",
]

#: The kinds of schedules, and of entries without one.
KINDS = (*(one.kind for one in (Once, Cron, Every, RRule, Solar)), "after")

#: At most so many runs of one entry per look; the next look goes on where it stopped.
BURST = 100

#: Missed occurrences are counted exactly up to here; one more stands for "and more".
COUNT_LIMIT = 1000

#: The `reason` of a run that somebody asked for by hand.
TRIGGERED = "triggered"

_EVER = datetime.min.replace(tzinfo=timezone.utc)
_LAST = datetime.max.replace(tzinfo=timezone.utc)
_STEP = timedelta(microseconds=1)

#: The longest that a growing retry delay becomes, in seconds.
_LONGEST_RETRY_S = 86400.0

#: Some thirty years: above it, seconds are a mistake, and beyond what dates can hold.
_FOREVER_S = 1e9


def decide(entry: EntryRow, now: datetime, settings: Settings, gate: Gate = OPEN) -> Decision:
    """Say what `entry` gets at the instant `now`.

    Raises nothing: an entry that can't be decided is `broken`.
    """
    problem = misspelt("state", entry.state, ENTRY_STATES)
    if problem:
        return broken(entry, problem)
    if entry.state != "active":
        return Decision(entry.state, (), entry.cursor_at, None, None, entry.error)
    problem = call_problem(entry) or _policy_problem(entry, settings)
    if problem:
        return broken(entry, problem)
    try:
        if entry.kind == "after":
            return AfterLook(entry, now, gate).decision()
        return Look(entry, now, settings, gate).decision()
    except ScheduleError as error:
        return broken(entry, str(error))


def broken(entry: EntryRow, reason: str) -> Decision:
    """Return the decision that takes `entry` out of service, saying why."""
    return Decision("broken", (), entry.cursor_at, None, None, reason)


def schedule_of(entry: EntryRow, settings: Settings) -> Schedule:
    """Return the schedule that the columns of `entry` describe.

    Raises:
        ScheduleError: they describe none.
    """
    anchor = entry.start_at or entry.created_at
    if entry.start_at is None and entry.kind == "rrule":
        anchor += _STEP  # an entry is never due when it is made, and COUNT must not count that
    return parse(entry.kind, entry.spec, entry.timezone or settings.default_timezone, anchor)


def is_triggered(reason: str | None) -> bool:
    """Say whether a run with this reason was asked for by hand."""
    return (reason or "").startswith(TRIGGERED)


def reworded(reason: str | None, words: str) -> str:
    """Return a new reason for a run, which still says if it was asked for by hand."""
    return f"{TRIGGERED}; {words}" if is_triggered(reason) else words


def jitter_offset(entry_id: int, jitter_s: float) -> timedelta:
    """Return by how much an entry is sent after its due time, 0 <= offset < jitter.

    The offset is one and the same for all occurrences of an entry, so that jitter
    spreads entries and leaves the distance between the runs of each alone.
    """
    if not jitter_s:
        return timedelta(0)
    share = zlib.crc32(str(entry_id).encode()) / 2**32
    return timedelta(seconds=jitter_s * share)


def sent_from(due_at: datetime, offset: timedelta) -> datetime:
    """Return from when on an occurrence is sent: put off by its jitter, within the calendar."""
    return due_at + min(offset, _LAST - due_at)


def retry_delay(entry: Any, run_id: int, attempt: int) -> timedelta | None:
    """Return how long after a failed attempt the next one is due; None: there is none.

    Args:
        entry: has the columns `max_retries` and `retry_*`.
        run_id: spreads the retries of several runs over `retry_jitter_s`.
        attempt: the one that failed, from 1 on.
    """
    columns = (entry.max_retries, entry.retry_delay_s, entry.retry_backoff, entry.retry_jitter_s)
    if not all(isinstance(value, (int, float)) and 0 <= value < _FOREVER_S for value in columns):
        return None  # a row written by hand
    if attempt > entry.max_retries:
        return None
    longest = max(_LONGEST_RETRY_S, entry.retry_delay_s)
    try:
        seconds = min(longest, entry.retry_delay_s * entry.retry_backoff ** (attempt - 1))
    except OverflowError:
        seconds = longest
    spread = jitter_offset(run_id, min(longest, entry.retry_jitter_s))
    return timedelta(seconds=seconds) + spread


def call_problem(entry: EntryRow) -> str | None:
    """Say why no message can be made of the entry's arguments, or None."""
    if not isinstance(entry.args, list):
        return f"args: expected a JSON list, got {entry.args!r:.80}; write []"
    for field in ("kwargs", "options"):
        value = getattr(entry, field)
        if not isinstance(value, dict):
            return f"{field}: expected a JSON object, got {value!r:.80}; write {{}}"
    headers = entry.options.get("headers")
    if headers is not None and not isinstance(headers, dict):
        return f"options: expected headers to be a JSON object, got {headers!r:.80}"
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
        if value is not None and not (isinstance(value, (int, float)) and 0 <= value < _FOREVER_S):
            return f"{field}: expected seconds, 0 or more, got {value!r}"
    for field in ("max_runs", "run_count"):
        value = getattr(entry, field)
        if value is not None and not isinstance(value, int):
            return f"{field}: expected a whole number, got {value!r}"
    grace_s = settings.default_grace if entry.grace_s is None else entry.grace_s
    if entry.kind != "after" and skips_all(misfire, grace_s):
        return f"grace_s: expected {NOT_SKIPPING_ALL}; write 60"
    return None


class Look:
    """One look at one active entry. Times are on the scale of `due_at`, not of `wake_at`."""

    def __init__(self, entry: EntryRow, now: datetime, settings: Settings, gate: Gate) -> None:
        self.entry = entry
        self.gate = gate
        self.looked_at = now
        self.schedule = schedule_of(entry, settings)
        self.offset = jitter_offset(entry.id, entry.jitter_s)
        self.misfire = entry.misfire or settings.default_misfire
        self.grace_s = settings.default_grace if entry.grace_s is None else entry.grace_s
        self.catch_up_limit = settings.catch_up_limit
        self.now = now - self.offset
        self.until = self.now if entry.end_at is None else min(self.now, entry.end_at)
        self.after = self._after()
        self.deadline = _earlier(self.now, self.grace_s)

    def _after(self) -> datetime:
        """Return the instant after which nothing is accounted for yet."""
        entry = self.entry
        if entry.kind == "once":
            # Its time may have passed before the row was committed; it still counts.
            return entry.cursor_at or _EVER
        after = entry.cursor_at or entry.created_at
        return after if entry.start_at is None else max(after, entry.start_at - _STEP)

    def decision(self) -> Decision:
        oldest = self.first_after(self.after)
        cursor_at = self.entry.cursor_at
        if self.gate.taken:
            self.after = cursor_at = self.accounted_for(self.gate.taken, oldest)
        if oldest is None or oldest > self.until:
            return replace(self.ahead((), cursor_at, oldest), strange=self._strange())
        if self._remaining() == 0:
            return Decision("finished", (), self._latest())
        following = self.first_after(oldest)
        if self.gate.same is not None:
            decision = SameLook(self, self.gate.same, oldest, following).decision()
            return replace(decision, strange=self._strange())
        runs = self.wanted(oldest, following)
        to_send = [run for run in runs if run.state == "claimed"]
        if not to_send:
            return self.gone_by(tuple(runs), oldest, following)
        verdict = self.ask(to_send)
        records = tuple(run for run in runs if run.state != "claimed")
        if verdict.waits is not None:
            return self.parked(records, to_send[0], verdict)
        return self.let_through(records, verdict, oldest, following)

    def _strange(self) -> tuple[datetime, ...]:
        """Return the due times that upstreams have told of and that are no occurrences."""
        told = (one.at for one in self.gate.same or ())
        step = self.schedule.next_after
        return tuple(at for at in told if at <= self.until and step(at - _STEP) != at)

    def first_after(self, at: datetime) -> datetime | None:
        """Return the first occurrence after `at` that is not accounted for by itself."""
        found = self.schedule.next_after(at)
        while found is not None and found in self.gate.taken:
            found = self.schedule.next_after(found)
        return found

    def accounted_for(self, taken: Collection[datetime], oldest: datetime | None) -> datetime:
        """Return the last instant before `oldest`, which is the first one not `taken`."""
        passed = (at for at in taken if oldest is None or at < oldest)
        return max((self.after, *passed))

    def wanted(self, oldest: datetime, following: datetime | None) -> list[PlannedRun]:
        """Return what the policy makes of what is due; what has waited folds into one."""
        if self.entry.pending_due_at is not None:
            return [self.folded(oldest, self._latest(), None)]
        return self._runs(oldest, following)

    def ask(self, to_send: Sequence[PlannedRun]) -> Verdict:
        """Ask the gate about what is to be sent."""
        return pass_or_wait(
            to_send,
            self.gate,
            entry_id=self.entry.id,
            overlap=self.entry.overlap,
            since=self.entry.pending_since,
            now=self.looked_at,
        )

    def let_through(
        self,
        records: tuple[PlannedRun, ...],
        verdict: Verdict,
        oldest: datetime,
        following: datetime | None,
    ) -> Decision:
        """Return the decision in which a verdict's runs are written beside `records`."""
        runs = tuple(sorted((*records, *verdict.runs), key=lambda run: run.due_at))
        found = self.gone_by(runs, oldest, following)
        return replace(found, consume=verdict.consume, spares_free=verdict.spares_free)

    def is_due(self, at: datetime) -> bool:
        """Say whether `at` is an occurrence that is not accounted for."""
        return self.after < at <= self.until and self.schedule.next_after(at - _STEP) == at

    def gone_by(
        self, runs: tuple[PlannedRun, ...], oldest: datetime, following: datetime | None
    ) -> Decision:
        """Return the decision in which nothing waits."""
        remaining = self._remaining()
        to_send = [run for run in runs if run.state == "claimed"]
        if remaining is not None and len(to_send) >= remaining:
            allowed = set(to_send[:remaining])
            runs = tuple(run for run in runs if run.state != "claimed" or run in allowed)
            return Decision("finished", runs, runs[-1].due_at)
        through = max(run.due_at for run in runs)
        ahead = following if through == oldest else self.schedule.next_after(through)
        return self.ahead(runs, through, ahead)

    def parked(
        self, records: tuple[PlannedRun, ...], first: PlannedRun, verdict: Verdict
    ) -> Decision:
        """Return the decision in which an occurrence waits, and the cursor stands before it."""
        entry = self.entry
        start = first.first_missed_at or first.due_at
        # What comes after the first that waits is decided when that is let through.
        records = tuple(run for run in records if run.due_at < start)
        cursor_at = max((run.due_at for run in records), default=entry.cursor_at)
        ahead = self.schedule.next_after(self.now)
        if ahead is not None and entry.end_at is not None and ahead > entry.end_at:
            ahead = None
        return Decision(
            "active",
            runs=records,
            cursor_at=cursor_at,
            next_due_at=ahead,
            wake_at=verdict.wake_at,
            pending_due_at=start if entry.pending_due_at is None else entry.pending_due_at,
            pending_since=entry.pending_since or self.looked_at,
            pending_reason=verdict.waits,
            blocked_by=verdict.blocked_by,
        )

    def ahead(
        self, runs: tuple[PlannedRun, ...], cursor_at: datetime | None, due_at: datetime | None
    ) -> Decision:
        """Return the decision with `runs`, and with `due_at` coming next."""
        end_at = self.entry.end_at
        if due_at is not None and (end_at is None or due_at <= end_at):
            return Decision("active", runs, cursor_at, due_at, sent_from(due_at, self.offset))
        if self.entry.kind == "once":
            return self._once_over(runs, cursor_at)
        return Decision("finished", runs, cursor_at)

    def _once_over(self, runs: tuple[PlannedRun, ...], cursor_at: datetime | None) -> Decision:
        sent = self.entry.run_count > 0 or any(run.state == "claimed" for run in runs)
        if sent:
            return Decision("finished", runs, cursor_at)
        if not runs:
            at = self.schedule.next_after(_EVER)
            if at is not None:
                reason = "its time passed while the entry was paused or edited"
                runs = (PlannedRun(at, "missed", reason, at, 1),)
        return Decision("missed", runs, cursor_at)

    def _remaining(self) -> int | None:
        if self.entry.max_runs is None:
            return None
        return max(0, self.entry.max_runs - self.entry.run_count)

    def _runs(self, oldest: datetime, following: datetime | None) -> list[PlannedRun]:
        """Apply the misfire policy to the occurrences from `oldest` until now."""
        if oldest >= self.deadline:
            if following is None or following > self.until:
                return [PlannedRun(oldest)]
            return self._each(self.after, BURST)
        if self.misfire == "skip":
            return self._skip()
        if self.misfire == "coalesce":
            late = duration(self.now - oldest)
            reason = (
                f"misfire: first seen {late} late, grace is {self.grace_s:g} s, policy coalesce"
            )
            return [self.folded(oldest, self._latest(), reason)]
        return self._catch_up(self._latest())

    def _latest(self) -> datetime:
        latest = self.schedule.latest_before(self.until + _STEP)
        assert latest is not None  # something is due, or nobody would ask
        return latest

    def _each(self, after: datetime, limit: int) -> list[PlannedRun]:
        due = self.schedule.between(after, self.until, limit)
        return [PlannedRun(due_at) for due_at in due]

    def _skip(self) -> list[PlannedRun]:
        before = min(self.deadline - _STEP, self.until)
        missed = self.schedule.between(self.after, before, COUNT_LIMIT + 1)
        last = self.schedule.latest_before(before + _STEP)
        assert last is not None  # there is a misfire, or this policy would not be asked
        late = duration(self.now - missed[0])
        reason = f"misfire: first seen {late} late, grace is {self.grace_s:g} s, policy skip"
        record = PlannedRun(last, "missed", reason, missed[0], len(missed))
        return [record, *self._each(before, BURST)]

    def folded(self, oldest: datetime, latest: datetime, reason: str | None) -> PlannedRun:
        """Make one run of all occurrences; the reason is given if there are several."""
        others = len(self.schedule.between(self.after, latest, COUNT_LIMIT + 2)) - 1
        others -= sum(oldest <= at <= latest for at in self.gate.taken)
        if not others:
            return PlannedRun(latest)
        return PlannedRun(latest, "claimed", reason, oldest, others)

    def _catch_up(self, latest: datetime) -> list[PlannedRun]:
        limit = self.catch_up_limit
        due = self.schedule.between(self.after, self.until, limit + COUNT_LIMIT + 1)
        runs = [PlannedRun(due_at) for due_at in due[:limit]]
        excess = due[limit:]
        if excess:
            reason = f"misfire: more than {limit} to catch up, policy all"
            runs.append(PlannedRun(latest, "missed", reason, excess[0], len(excess)))
        return runs


def _earlier(at: datetime, seconds: float) -> datetime:
    try:
        return at - timedelta(seconds=seconds)
    except OverflowError:
        return _EVER
