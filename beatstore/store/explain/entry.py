"""Why has it not run? Explain an entry in facts and in sentences.

Nothing here writes. The cost of an answer does not grow with the history: it counts the entry's
own edges, and reads everything else from an index, a few rows at a time. It takes a statement
for the entry, one for what is on record of it, and one for the upstreams that hold it up.

On failure: an entry whose schedule can't be read is explained too.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from beatstore.database.rows import Transaction
from beatstore.database.tables import RUN
from beatstore.database.together import Question, ask
from beatstore.definition import fields
from beatstore.errors import ScheduleError
from beatstore.records import Entry, Run
from beatstore.rules.due import DueTimes, accounted_for, remaining_runs, sent_from, shown_offset
from beatstore.rules.gate import run_timeout
from beatstore.rules.states import LIVE
from beatstore.schedules import zone
from beatstore.schedules.instants import EPOCH
from beatstore.store import audit, processes
from beatstore.store.ahead import UNREADABLE, Ahead
from beatstore.store.explain import stalls
from beatstore.store.explain.blocked import Blocked
from beatstore.store.explain.upstreams import (
    Upstream,
    Upstreams,
    changed_to,
    changes,
    readable,
    runs,
    unfinished,
)
from beatstore.store.explain.wording import SILENT, Wording, maker, sentence
from beatstore.text.values import runs_sent

__all__ = ["Answer", "Explanation", "Facts", "explain", "explained", "gone"]

#: How many runs of each kind are shown.
_RUNS_SHOWN = 3

#: An entry that has been due for less than this is not called overdue.
_PATIENCE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an entry has or has not run, as facts and as `sentences`; `str()` joins those.

    Attributes:
        name: of the entry.
        now: when this was so, by the database's clock.
        state: the entry's state; `removed` or `renamed` if no entry has the name now.
        since: when it entered that state, if the audit knows.
        by: who put it into that state, if the audit knows.
        reason: why, if that was noted; see `Store.by`.
        error: why the entry is broken.
        next_due_at: the next due time.
        overdue_since: since when the entry has been overdue; None: it is not.
        waits_since: since when an occurrence has been waiting.
        waits_due_at: its due time; None for an entry without a schedule.
        waits_for: the upstreams it waits for, at most 10 of them.
        waits_for_count: how many upstreams it waits for.
        waits_for_itself: whether it waits for a run of its own to end.
        unfinished: a few runs that have not ended, those with a worker first.
        runs: the last few runs, the newest first.
        beats_alive: how many beats sent a heartbeat in the last minute.
        at: the instant asked about.
        verdict: what happened to that occurrence, in a word: `ran`, `late`, `coalesced`,
            `sending`, `sent`, `running`, `retrying`, `failed`, `lost`, `missed`,
            `skipped`, `cancelled`, `waiting`, `due`, `paused`, `future`, `removed`,
            `not created`, `not an occurrence`, `passed over` (by an edit), `unknown`,
            or the state of an entry that is out of service.
        run: the run of `at`, or the one that covers it.
        sentences: the same facts in words.
    """

    name: str
    now: datetime
    state: str
    since: datetime | None = None
    by: str | None = None
    reason: str | None = None
    error: str | None = None
    next_due_at: datetime | None = None
    overdue_since: datetime | None = None
    waits_since: datetime | None = None
    waits_due_at: datetime | None = None
    waits_for: tuple[Upstream, ...] = ()
    waits_for_count: int = 0
    waits_for_itself: bool = False
    unfinished: tuple[Run, ...] = ()
    runs: tuple[Run, ...] = ()
    beats_alive: int = 0
    at: datetime | None = None
    verdict: str | None = None
    run: Run | None = None
    sentences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return " ".join(self.sentences)


def explain(tx: Transaction, name: str, timezone: str | None) -> Explanation:
    """Explain an entry; see `Store.explain`."""
    entry = tx.find(name)
    if entry is None:
        return gone(tx, name, timezone)
    facts = Facts(tx, entry)
    facts.read(tx)
    return explained(tx, facts, timezone)


def explained(tx: Transaction, facts: Facts, timezone: str | None) -> Explanation:
    """Return the explanation of an entry of which the facts were read."""
    answer = Answer(tx, facts, timezone)
    answer.describe_state()
    answer.describe_overdue()
    answer.describe_wait()
    answer.describe_unfinished()
    answer.describe_stalls()
    answer.describe_next()
    answer.describe_last()
    return answer.explanation()


def gone(tx: Transaction, name: str, timezone: str | None) -> Explanation:
    """Explain an entry that no longer exists.

    Raises:
        EntryNotFoundError: the audit has no change of it.
    """
    if not fields.storable(name):
        raise tx.missing(name)
    change = audit.last_change(tx, name)
    if change is None:
        raise tx.missing(name)
    wording = Wording(timezone or tx.settings.default_timezone, tx.now())
    became = "renamed" if audit.new_name(change) else "removed"
    answer = Explanation(name, wording.now, became, sentences=[wording.gone(change)])
    if not audit.is_departure(change):
        return answer
    return replace(answer, since=change.at, by=change.actor, reason=change.reason)


class Facts:
    """What is on record of an entry, besides its own row.

    Args:
        tx: the open transaction.
        entry: the entry's row.
        at_present: whether its state of now is to be explained. Otherwise the facts that this
            alone takes are left out.
    """

    def __init__(self, tx: Transaction, entry: Entry, *, at_present: bool = True) -> None:
        self.entry = entry = readable(entry)
        self.now = tx.now()
        self.workers = processes.workers_asked(self.now)
        self.beats = processes.beats_asked(self.now)
        self.changes = changes(entry.name)
        self._asked: list[Question[Any]] = [self.workers, self.beats, self.changes]
        self.upstreams = Upstreams(entry, tx.settings) if _may_wait(entry) else None
        self._asked += self.upstreams.questions if self.upstreams else []
        self._blocked: Blocked | None = None
        if at_present:
            newest = select(RUN).where(RUN.c.entry_id == entry.id)
            newest = newest.order_by(RUN.c.due_at.desc(), RUN.c.attempt.desc())  # as an index
            self.last = runs(newest.limit(2 * _RUNS_SHOWN))
            self._unfinished = unfinished(entry.id, _RUNS_SHOWN)
            self._stalls = stalls.forgotten(entry.id)
            self._stalls += stalls.stalls(self.now, tx.settings, entry.id)
            self._asked += [self.last, *self._unfinished, *self._stalls]
            self._blocked = Blocked(self.now, tx.settings, entry.id)
            self._asked.append(self._blocked.chains)

    def read(self, tx: Transaction, more: Iterable[Question[Any]] = ()) -> None:
        """Read the facts by one or two statements, and answer further questions by the first."""
        ask(tx, [*self._asked, *more])
        details = self.upstreams.details() if self.upstreams else []
        ask(tx, details + (self._blocked.details() if self._blocked else []))

    @property
    def unfinished(self) -> list[Run]:
        """A few runs that have not ended, the started ones first, and one more if there are."""
        return [run for of_state in self._unfinished for run in of_state.answer]

    @property
    def stalls(self) -> list[str]:
        """Why the entry is stalled, in sentences."""
        blocked = self._blocked.sentences() if self._blocked else []
        return [said for kind in self._stalls for said in kind.answer] + blocked


def _may_wait(entry: Entry) -> bool:
    """Return whether upstreams may be what the entry waits for."""
    if entry.pending_since is None:
        return entry.kind == "after" and entry.state == "active"
    return not _waits_for_itself(entry)


def _waits_for_itself(entry: Entry) -> bool:
    reason = entry.pending_reason or ""
    return entry.blocked_by == entry.id and not reason.startswith("waits for")


class Answer:
    """Collects facts and sentences about one entry."""

    def __init__(self, tx: Transaction, facts: Facts, timezone: str | None) -> None:
        self.tx = tx
        self.entry = facts.entry
        self.known = facts
        own = _zone_name(tx, facts.entry)
        asked = timezone not in (None, own)
        self.offset = shown_offset(self.entry)
        also = own if asked else "UTC"
        self.wording = Wording(timezone or own, facts.now, also, own, self.offset)
        self.now = facts.now
        self.workers = facts.workers.answer
        self.facts: dict[str, Any] = {}
        self.sentences: list[str] = []
        self._described: set[int] = set()

    def explanation(self) -> Explanation:
        """Return the facts and sentences that were collected."""
        entry = self.entry
        sentences = [self.wording.retold(one) for one in self.sentences]
        return Explanation(entry.name, self.now, entry.state, **self.facts, sentences=sentences)

    def describe_state(self) -> None:
        """Describe the entry's state, since when it has it, and who set it."""
        entry = self.entry
        change = changed_to(self.known.changes.answer, entry.state)
        if change is not None:
            self.facts |= {"since": change.at, "by": change.actor, "reason": change.reason}
        self.facts["error"] = entry.error if entry.state == "broken" else None
        by = None if change is None else maker(change)
        self.sentences += self.wording.state(entry, self.facts.get("since"), by)

    def describe_overdue(self) -> None:
        """Say if the entry is overdue or no beat is alive."""
        since = self._overdue_since() if self.entry.state == "active" else None
        if since is not None:
            self.facts["overdue_since"] = since
            self.sentences.append(self.wording.overdue(since))
        self.describe_beats(always=since is not None)

    def describe_beats(self, *, always: bool = True) -> None:
        """Say which beats are alive; without `always`, only if one is needed and none is."""
        beats = self.known.beats.answer
        alive = self.facts["beats_alive"] = sum(beat.alive for beat in beats)
        if always or (not alive and self._needs_beat()):
            last = max(beats, key=lambda beat: beat.stopped_at or beat.heartbeat_at, default=None)
            self.sentences.append(self.wording.beats(alive, last))

    def _needs_beat(self) -> bool:
        """Return whether a beat has something to do, such as a run that somebody has triggered."""
        unsent = any(run.state == "claimed" for run in self.known.unfinished)
        return unsent or self.entry.state == "active"

    def _overdue_since(self) -> datetime | None:
        """Return since when the entry has been overdue; None if it is not, or only just."""
        entry, until = self.entry, self.now - _PATIENCE
        if not isinstance(entry.wake_at, datetime) or entry.wake_at > until:
            return None
        if entry.wake_at > EPOCH + timedelta(days=1):
            return entry.wake_at
        if entry.pending_since is not None:
            return None  # it was woken just now, and `describe_wait` says so
        owed = _owed_since(self.tx, entry)
        send_at = None if owed is None else sent_from(owed, self.offset)
        if send_at is None or send_at > self.now or entry.updated_at > until:
            return None
        return max(send_at, entry.updated_at)

    # -- what waits ------------------------------------------------------------------------

    def describe_wait(self) -> None:
        """Describe what an occurrence waits for and what its upstreams are doing."""
        entry = self.entry
        upstreams = self.known.upstreams
        if entry.pending_since is None and upstreams is None:
            return
        self.facts |= {"waits_since": entry.pending_since, "waits_due_at": entry.pending_due_at}
        if upstreams is None:
            self.facts["waits_for_itself"] = True
            self.sentences.append(
                self.wording.waits(entry, "for its own run to end (overlap: wait)")
            )
            return
        if entry.kind == "after" and entry.start_at is not None and entry.start_at > self.now:
            begin = self.wording.when(entry.start_at)
            self.sentences.append(f"It does not run before its start, {begin}.")
            return
        reason = entry.pending_reason or ""
        ups = upstreams.described(self.wording)
        edges, count = upstreams.edges, upstreams.unmet
        self.facts |= {"waits_for": tuple(ups), "waits_for_count": count}
        if count:
            self._describe_upstreams(edges, count, ups)
        elif isinstance(entry.wake_at, datetime) and entry.wake_at <= self.now:
            subject = self.wording.subject(entry)
            self.sentences.append(
                f"Nothing blocks {subject} any more: a beat is about to pick it up."
            )
        elif reason:
            words = reason.removeprefix("waits: ").removeprefix("waits ")
            because = "" if words.startswith("for ") else "because "
            self.sentences.append(self.wording.waits(entry, because + words))

    def _describe_upstreams(self, edges: int, count: int, ups: list[Upstream]) -> None:
        entry, wording = self.entry, self.wording
        part = f"all its {edges:,}" if count == edges else f"{count:,} of its {edges:,}"
        what = "its upstream" if edges == 1 else f"{part} upstreams"
        self.sentences.append(wording.waits(entry, f"for {what}"))
        self.sentences += [wording.must(up.name, up.on, up.align, up.doing) for up in ups]
        if count > len(ups):
            self.sentences.append(f"And {count - len(ups):,} more.")
        ends_at = entry.wake_at if entry.pending_since is not None else None
        if isinstance(ends_at, datetime) and ends_at > self.now:
            self.sentences.append(f"It gives up waiting at {wording.moment(ends_at)}.")

    # -- runs ------------------------------------------------------------------------------

    def describe_unfinished(self) -> None:
        """Describe the runs that have not ended, and why no worker may have reported them."""
        found = self.known.unfinished
        more, runs = len(found) > _RUNS_SHOWN, found[:_RUNS_SHOWN]
        self.facts["unfinished"] = tuple(runs)
        if not self.workers:
            # No worker reports outcomes: a sent run stays `sent` for good.
            more, runs = False, [run for run in runs if run.state != "sent"]
        for run in runs:
            self._described.add(run.id)
            self.sentences.append(sentence(self.wording.under_way(run, self.wording.which(run))))
            if run.state == "claimed":
                self.sentences += self.wording.will_be_cancelled(self.entry, run)
        silent = [run for run in runs if run.state == "sent" and self._is_silent(run)]
        if silent:
            self.describe_silence(silent[0])
        if more:
            self.sentences.append("It has more runs that have not ended.")

    def describe_stalls(self) -> None:
        """Say why the entry is stalled, if it is, and what to do."""
        self.sentences += self.known.stalls

    def describe_silence(self, run: Run) -> None:
        """Say why no worker may have reported a run."""
        if not self.workers:
            self.sentences.append(self.wording.unreported(0))
            return
        options = self.entry.options
        queue = options.get("queue") if isinstance(options, dict) else None
        timeout_s = run_timeout(self.entry.run_timeout_s, self.entry.overlap, self.tx.settings)
        self.sentences += self.wording.unheard(run, queue, timeout_s is not None)
        if not any(worker.alive for worker in self.workers):
            self.sentences.append(self.wording.unreported(len(self.workers)))

    def _is_silent(self, run: Run) -> bool:
        return run.sent_at is not None and self.now - run.sent_at >= SILENT

    def describe_next(self) -> None:
        """Say when the entry is due next."""
        at = self._next_due()
        if at is not None:
            self.facts["next_due_at"] = at
            self.sentences.append(self.wording.next(self.entry, at))
        elif self.entry.state == "active" and self._has_no_runs_left():
            why = runs_sent(self.entry.max_runs or 0)
            self.sentences.append(f"{self.entry.name!r} is not due any more: {why}.")

    def _has_no_runs_left(self) -> bool:
        """Return whether beat will finish the entry at its next due time."""
        return self.entry.kind != "after" and remaining_runs(self.entry) == 0

    def _next_due(self) -> datetime | None:
        """Return the next occurrence, also that of a paused entry, or the one that is put off."""
        entry = self.entry
        if entry.state not in LIVE or entry.kind == "after":
            return None
        if stalls.is_forgotten(entry):
            return None  # as `describe_stalls` says
        with suppress(*UNREADABLE):  # a row written by hand
            return Ahead(entry, self.now, self.tx.settings).next()
        return None

    def describe_last(self) -> None:
        """Describe the last runs."""
        runs = self.known.last.answer
        shown = [run for run in runs if run.id not in self._described][:_RUNS_SHOWN]
        self.facts["runs"] = tuple(runs[:_RUNS_SHOWN])
        if not runs:
            self.sentences.append(f"{self.entry.name!r} has never run.")
        self.sentences += [self.wording.ended(run) for run in shown]
        if not self.workers and any(run.state == "sent" for run in shown):
            self.sentences.append(self.wording.unreported(0))


def _zone_name(tx: Transaction, entry: Entry) -> str:
    name = entry.timezone or tx.settings.default_timezone
    try:
        zone(name)
    except ScheduleError:  # that may be why it is broken
        return "UTC"
    return name


# -- when it is due ------------------------------------------------------------------------


def _owed_since(tx: Transaction, entry: Entry) -> datetime | None:
    """Return the first occurrence that is not accounted for, even if it is in the future."""
    if entry.kind == "after":
        return None
    try:
        return DueTimes.of(entry, tx.settings).next_after(accounted_for(entry))
    except UNREADABLE:  # a row written by hand
        return None
