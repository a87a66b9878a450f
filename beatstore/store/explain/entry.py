"""Why has it not run? An entry explained to a person, in facts and in sentences.

Nothing here writes, and no answer costs more the longer the history is: what is counted is
the entry's own edges, and everything else is read off an index, a few rows of it.

On failure: an entry with a schedule that can't be read is explained too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from beatstore.database.rows import Transaction
from beatstore.database.tables import AUDIT
from beatstore.definition import fields
from beatstore.errors import ScheduleError
from beatstore.records import Audit, Entry, Run
from beatstore.rules.due import DueTimes, accounted_for, jitter_offset, remaining_runs
from beatstore.rules.gate import run_timeout
from beatstore.rules.states import CANCELS_RUNS, LIVE
from beatstore.schedules import zone
from beatstore.schedules.instants import EPOCH
from beatstore.store import status
from beatstore.store.explain import stalls
from beatstore.store.explain.upstreams import (
    Upstream,
    changed_to,
    last_runs,
    readable,
    unfinished,
    unmet,
)
from beatstore.store.explain.wording import SILENT, Told, sentence

__all__ = ["Answer", "Explanation", "explain", "gone", "next_due", "owed_since"]

#: So many runs are told of, of each kind.
_RUNS_SHOWN = 3

#: An entry may be due for so long before anybody should worry.
_PATIENCE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an entry has or has not run, as facts and as `sentences`; `str()` joins those.

    Attributes:
        name: of the entry.
        now: when this was so, by the database's clock.
        state: the entry's; `removed` where it is gone.
        since: since when it is in that state, and
        by: who put it there, where the audit knows.
        error: why it is broken.
        next_due_at: when it is due next.
        overdue_since: since when something is due that no beat has looked at.
        waits_since: since when an occurrence waits.
        waits_due_at: which one; None for an entry without a clock.
        waits_for: the upstreams it waits for, 10 at most.
        waits_for_count: how many there are.
        waits_for_itself: whether it waits for its own run to end.
        unfinished: runs that have not ended, a few, the ones worked on first.
        runs: the last runs, a few, the newest first.
        beats_alive: how many beats were heard of in the last minute.
        at: the instant asked about.
        verdict: in a word, what became of that occurrence: `ran`, `late`, `coalesced`,
            `sending`, `sent`, `running`, `retrying`, `failed`, `lost`, `missed`,
            `skipped`, `cancelled`, `waiting`, `due`, `paused`, `future`, `removed`,
            `not created`, `not an occurrence`, `passed over` (by an edit), `unknown`,
            or the state of an entry that is out of service.
        run: the run that `at` became, or was folded into.
        sentences: all of that in words.
    """

    name: str
    now: datetime
    state: str
    since: datetime | None = None
    by: str | None = None
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
    answer = Answer(tx, entry, timezone)
    answer.tell_state()
    answer.tell_overdue()
    answer.tell_wait()
    answer.tell_unfinished()
    answer.tell_stalls()
    answer.tell_next()
    answer.tell_last()
    return answer.explanation()


def gone(tx: Transaction, name: str, timezone: str | None) -> Explanation:
    """Explain an entry that is not there any more.

    Raises:
        EntryNotFoundError: the audit does not know of it.
    """
    if not fields.storable(name):
        raise tx.missing(name)
    found = select(AUDIT).where(AUDIT.c.entry == name)
    page = found.order_by(AUDIT.c.at.desc(), AUDIT.c.id.desc()).limit(1)
    change = next(iter(tx.all(Audit, page)), None)
    if change is None:
        raise tx.missing(name)
    told = Told(timezone or tx.settings.default_timezone, tx.now())
    new_name = change.after.get("name") if isinstance(change.after, dict) else None
    became = "renamed" if new_name else "removed"
    to = f" to {new_name!r}" if new_name else ""
    said = f"{name!r} was {became}{to} at {told.moment(change.at)}, by {change.actor}."
    return Explanation(name, told.now, became, change.at, change.actor, sentences=[said])


class Answer:
    """What is found out about one entry, and told, a thing at a time."""

    def __init__(self, tx: Transaction, entry: Entry, timezone: str | None) -> None:
        self.tx = tx
        self.entry = readable(entry)
        own = _zone_name(tx, entry)
        asked = timezone not in (None, own)
        self.told = Told(timezone or own, tx.now(), own if asked else "UTC")
        self.now = self.told.now
        self.workers = status.workers(tx, self.now)
        self.facts: dict[str, Any] = {}
        self.said: list[str] = []
        self._told: set[int] = set()

    def explanation(self) -> Explanation:
        """Return what was found out."""
        entry = self.entry
        said = [self.told.retold(one) for one in self.said]
        return Explanation(entry.name, self.now, entry.state, **self.facts, sentences=said)

    def tell_state(self) -> None:
        """Tell what state the entry is in, since when, and by whom."""
        entry = self.entry
        change = changed_to(self.tx, entry.name, entry.state)
        since, by = (None, None) if change is None else (change.at, change.actor)
        error = entry.error if entry.state == "broken" else None
        self.facts |= {"since": since, "by": by, "error": error}
        self.said += self.told.state(entry, since, by)

    def tell_overdue(self) -> None:
        """Tell of a beat that should have looked, and of beats that are not there."""
        since = self._overdue_since() if self.entry.state == "active" else None
        if since is not None:
            self.facts["overdue_since"] = since
            self.said.append(self.told.overdue(since))
        self.tell_beats(always=since is not None)

    def tell_beats(self, *, always: bool = True) -> None:
        """Tell what the beats are doing; without `always`, only where they are missed."""
        beats = status.beats(self.tx, self.now)
        alive = self.facts["beats_alive"] = sum(beat.alive for beat in beats)
        if always or (not alive and self.entry.state == "active"):
            last = max(beats, key=lambda beat: beat.stopped_at or beat.heartbeat_at, default=None)
            self.said.append(self.told.beats(alive, last))

    def _overdue_since(self) -> datetime | None:
        """Return since when a beat should have looked at what is due, unless that is just now."""
        entry, until = self.entry, self.now - _PATIENCE
        if not isinstance(entry.wake_at, datetime) or entry.wake_at > until:
            return None
        if entry.wake_at > EPOCH + timedelta(days=1):
            return entry.wake_at
        if entry.pending_since is not None:
            return None  # it was woken just now, and `tell_wait` says so
        owed = owed_since(self.tx, entry)
        if owed is None or owed > self.now or entry.updated_at > until:
            return None
        return max(owed, entry.updated_at)

    # -- what waits ------------------------------------------------------------------------

    def tell_wait(self) -> None:
        """Tell what an occurrence waits for, and what that is doing."""
        entry = self.entry
        asleep = entry.kind == "after" and entry.state == "active"
        if entry.pending_since is None and not asleep:
            return
        self.facts |= {"waits_since": entry.pending_since, "waits_due_at": entry.pending_due_at}
        reason = entry.pending_reason or ""
        if entry.blocked_by == entry.id and not reason.startswith("waits for"):
            self.facts["waits_for_itself"] = True
            self.said.append(self.told.waits(entry, "for its own run to end (overlap: wait)"))
            return
        edges, count, ups = unmet(self.tx, entry, self.told)
        self.facts |= {"waits_for": tuple(ups), "waits_for_count": count}
        if count:
            self._tell_upstreams(edges, count, ups)
        elif isinstance(entry.wake_at, datetime) and entry.wake_at <= self.now:
            subject = self.told.subject(entry)
            self.said.append(f"Nothing holds {subject} back any more: a beat is about to look.")
        elif reason:
            words = reason.removeprefix("waits: ").removeprefix("waits ")
            because = "" if words.startswith("for ") else "because "
            self.said.append(self.told.waits(entry, because + words))

    def _tell_upstreams(self, edges: int, count: int, ups: list[Upstream]) -> None:
        entry, told = self.entry, self.told
        part = f"all its {edges:,}" if count == edges else f"{count:,} of its {edges:,}"
        what = "its upstream" if edges == 1 else f"{part} upstreams"
        self.said.append(told.waits(entry, f"for {what}"))
        self.said += [told.must(up.name, up.on, up.align, up.doing) for up in ups]
        if count > len(ups):
            self.said.append(f"And {count - len(ups):,} more.")
        ends_at = entry.wake_at if entry.pending_since is not None else None
        if isinstance(ends_at, datetime) and ends_at > self.now:
            self.said.append(f"It gives up at {told.moment(ends_at)}.")

    # -- runs ------------------------------------------------------------------------------

    def tell_unfinished(self) -> None:
        """Tell of the runs that have not ended, and why a worker may be silent."""
        more, runs = unfinished(self.tx, self.entry.id, _RUNS_SHOWN)
        self.facts["unfinished"] = tuple(runs)
        if not self.workers:
            # Nobody reports outcomes here: to have been sent is all that is known of a run.
            more, runs = False, [run for run in runs if run.state != "sent"]
        for run in runs:
            self._told.add(run.id)
            self.said.append(sentence(self.told.under_way(run, self.told.which(run))))
            if run.state == "claimed" and self.entry.state in CANCELS_RUNS:
                self.said += self.told.will_be_cancelled(self.entry, run)
        silent = [run for run in runs if run.state == "sent" and self._is_silent(run)]
        if silent:
            self.tell_silence(silent[0])
        if more:
            self.said.append("More of its runs have not ended.")

    def tell_stalls(self) -> None:
        """Tell why the entry stands still, if it does, and what to do."""
        if self.entry.state == "active":
            self.said += stalls.forgotten(self.tx, self.entry.id)
        self.said += stalls.stalls(self.tx, self.now, self.entry.id)

    def tell_silence(self, run: Run) -> None:
        """Tell why no worker may have reported a run."""
        if not self.workers:
            self.said.append(self.told.unreported(0))
            return
        options = self.entry.options
        queue = options.get("queue") if isinstance(options, dict) else None
        timeout_s = run_timeout(self.entry.run_timeout_s, self.entry.overlap, self.tx.settings)
        self.said += self.told.unheard(run, queue, timeout_s is not None)
        if not any(worker.alive for worker in self.workers):
            self.said.append(self.told.unreported(len(self.workers)))

    def _is_silent(self, run: Run) -> bool:
        return run.sent_at is not None and self.now - run.sent_at >= SILENT

    def tell_next(self) -> None:
        """Tell when the entry is due next."""
        at = next_due(self.tx, self.entry, self.now)
        if at is not None:
            offset = jitter_offset(self.entry.id, self.entry.jitter_s)
            self.facts["next_due_at"] = at
            self.said.append(self.told.next(self.entry, at, offset))

    def tell_last(self) -> None:
        """Tell what became of the last runs."""
        runs = last_runs(self.tx, self.entry.id, _RUNS_SHOWN + len(self._told))
        shown = [run for run in runs if run.id not in self._told][:_RUNS_SHOWN]
        self.facts["runs"] = tuple(runs[:_RUNS_SHOWN])
        if not runs:
            self.said.append(f"{self.entry.name!r} has never run.")
        self.said += [self.told.ended(run) for run in shown]
        if not self.workers and any(run.state == "sent" for run in shown):
            self.said.append(self.told.unreported(0))


def _zone_name(tx: Transaction, entry: Entry) -> str:
    name = entry.timezone or tx.settings.default_timezone
    try:
        zone(name)
    except ScheduleError:  # that may be why it is broken
        return "UTC"
    return name


# -- when it is due ------------------------------------------------------------------------


def owed_since(tx: Transaction, entry: Entry) -> datetime | None:
    """Return the first occurrence that is not accounted for, be it still to come."""
    return _after(tx, entry, accounted_for(entry))


def next_due(tx: Transaction, entry: Entry, now: datetime) -> datetime | None:
    """Return the next occurrence that an entry may run, or would if it were resumed."""
    if entry.state not in LIVE or remaining_runs(entry) == 0:
        return None
    return _after(tx, entry, now)


def _after(tx: Transaction, entry: Entry, after: datetime) -> datetime | None:
    if entry.kind == "after":
        return None
    try:
        return DueTimes.of(entry, tx.settings).next_after(after)
    except (ScheduleError, TypeError, AttributeError):  # a row written by hand
        return None
