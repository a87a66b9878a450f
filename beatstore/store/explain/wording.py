"""The sentences of `explain`: facts in, text out. Executes no SQL and reads no clock.

Due times are shown in the requested zone and in a second one. Other instants are shown in the
requested zone only, and without the date if it is today.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING

from beatstore.records import Audit, Entry, Run
from beatstore.rules.due import has_one_run, remaining_runs, sent_from
from beatstore.rules.reasons import duration, is_dropped, is_rerun, is_triggered
from beatstore.rules.states import RECORDS, UNFINISHED
from beatstore.schedules import local_time, retold, shown_in, zone
from beatstore.schedules.every import period_in_words
from beatstore.store.audit import is_departure, new_name
from beatstore.text.values import tally

if TYPE_CHECKING:
    from beatstore.store.processes import BeatStatus

__all__ = ["NO_REASON", "SILENT", "Wording", "clause", "maker", "sentence"]

#: A sent run that no worker has reported for this long is worth mentioning.
SILENT = timedelta(seconds=60)

#: A run that was sent later than this is called late.
_LATE = timedelta(seconds=1)

_MUST = {"success": "must succeed", "done": "must end", "failure": "must fail"}

#: The verb for the end of a run, by its state.
_ENDED = {"succeeded": "succeeded", "failed": "failed", "lost": "was lost"}

#: Stands for the reason that a row lacks.
NO_REASON = "no reason is on record"

_SETUP = "call beatstore.setup(app) in the module of the Celery app, or start a worker"


def sentence(text: str) -> str:
    """Return text with a capital letter at its start and a full stop at its end."""
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?", ":")) else f"{text}."


@dataclass(frozen=True, slots=True)
class Wording:
    """Words the facts about one entry, as they are at one moment.

    Attributes:
        zone_name: the zone that times are shown in.
        now: the moment.
        also: the second zone that due times are shown in.
        own: the zone of entries that have none of their own; None: `zone_name`.
        offset: how long after its due time an occurrence of the entry is sent (jitter).
    """

    zone_name: str
    now: datetime
    also: str = "UTC"
    own: str | None = None
    offset: timedelta = timedelta(0)

    @property
    def _zone(self) -> tzinfo:
        return zone(self.zone_name)

    # -- instants --------------------------------------------------------------------------

    def when(self, at: datetime) -> str:
        """Return a due time, in both zones."""
        local = local_time(at, self._zone)
        name = "UTC" if local.tzinfo is timezone.utc else self.zone_name
        text = f"{local:%Y-%m-%d} {_time(local)} {name}"
        other = local_time(at, zone(self.also))
        if self.also == name or other.tzinfo is timezone.utc:
            return text
        date = "" if other.date() == local.date() else f"{other:%Y-%m-%d} "
        return f"{text} ({date}{_time(other)} {self.also})"

    def moment(self, at: datetime) -> str:
        """Return any other instant, in the zone."""
        (local, offset), now = shown_in(at, self._zone), local_time(self.now, self._zone)
        text = f"{local:%H:%M:%S}" if local.date() == now.date() else f"{local:%Y-%m-%d %H:%M:%S}"
        return f"{text}{offset}"

    def retold(self, text: str) -> str:
        """Return a stored text with its instants shown as due times are."""
        return retold(text, self.when)

    def ago(self, at: datetime) -> str:
        """Return how long ago an instant was, in words."""
        return duration(max(timedelta(0), self.now - at))

    def until(self, at: datetime) -> str:
        """Return how far ahead an instant is, in words."""
        return duration(max(timedelta(0), at - self.now))

    def since(self, at: datetime | None, by: str | None) -> str:
        """Return since when something is so and who did it, as far as that is known."""
        text = "" if at is None else f" since {self.moment(at)}"
        return text if by is None else f"{text}, by {by}"

    # -- the entry -------------------------------------------------------------------------

    def departure(self, change: Audit) -> str:
        """Return what a change that took the name from an entry did, when, and who made it."""
        name = new_name(change)
        became = f"renamed to {name!r}" if name else "removed"
        return f"{became} at {self.moment(change.at)}, by {maker(change)}"

    def gone(self, change: Audit) -> str:
        """Say what became of an entry that has its name no more, by its last change on record."""
        name = repr(change.entry)
        if is_departure(change):
            return f"{name} was {self.departure(change)}."
        last = f"{change.action!r} at {self.moment(change.at)}, by {maker(change)}"
        return f"{name} was removed without the API; its last change on record was {last}."

    def rule(self, entry: Entry) -> str:
        """Return an entry's schedule."""
        if entry.kind == "after":
            return "after its upstreams, without a schedule"
        if entry.kind == "every":
            seconds, found, anchor = entry.spec.partition(" from ")
            return f"every {period_in_words(seconds)}{found}{anchor}"
        if entry.kind == "once":
            return f"once, at {entry.spec}"
        return f"{entry.kind} {entry.spec!r} in {entry.timezone or self.own or self.zone_name}"

    def state(self, entry: Entry, since: datetime | None, by: str | None) -> list[str]:
        """Say what state an entry is in and how to leave it."""
        name, so = repr(entry.name), self.since(since, by)
        if entry.state == "active":
            return [f"{name} is active: {self.rule(entry)}."]
        if entry.state == "paused":
            return [f"{name} is paused{so}. It sends nothing until store.resume({name})."]
        if entry.state == "broken":
            fix = f"Fix it with store.change({name}, …), or try again with store.resume({name})."
            return [f"{name} is broken: {clause(entry.error or NO_REASON)}.", fix]
        if entry.state == "finished":
            return [f"{name} is finished{so}: {self._why_finished(entry)}."]
        if entry.state == "missed":
            return [f"{name} is missed{so}: its only run was not sent in time."]
        return [f"{name} is {entry.state}{so}."]

    def _why_finished(self, entry: Entry) -> str:
        if entry.run_count and has_one_run(entry.kind, entry.max_runs):
            return "its only run was sent"
        if remaining_runs(entry) == 0:
            return f"all its {entry.max_runs:,} runs were sent"
        if entry.end_at is not None:
            return f"nothing more was due until its end, {self.when(entry.end_at)}"
        return "nothing more will be due"

    def overdue(self, since: datetime) -> str:
        """Say that no beat has picked up what is due."""
        at, ago = self.moment(since), self.ago(since)
        return f"It has been overdue since {at} ({ago}): no beat has picked it up."

    def beats(self, alive: int, last: BeatStatus | None) -> str:
        """Say how many beats are alive, or what happened to the last one."""
        if alive:
            beats = "One beat is" if alive == 1 else f"{alive} beats are"
            return f"{beats} alive, but may be busy or stuck: see store.status()."
        if last is not None and last.stopped_at is not None:
            return f"No beat is alive: the last one was stopped at {self.moment(last.stopped_at)}."
        if last is not None:
            return f"No beat is alive: the last heartbeat was at {self.moment(last.heartbeat_at)}."
        return (
            "No beat is alive, and none is on record: start one with "
            "`celery -A … beat --scheduler beatstore:DBScheduler`."
        )

    def next(self, entry: Entry, at: datetime) -> str:
        """Say when an entry is due next, or that what is due is put off."""
        if at <= self.now:
            return f"{entry.name!r} was due at {self.when(at)}, and {self.put_off(at)}."
        later = ""
        if self.offset:
            later = f"; it is sent {self.offset.total_seconds():.3g} s later (jitter)"
        if entry.state == "paused":
            return f"If it were resumed now, it would be due next at {self.when(at)}{later}."
        return f"{entry.name!r} is due next at {self.when(at)}, in {self.until(at)}{later}."

    def put_off(self, at: datetime) -> str:
        """Return when an occurrence is sent that has been put off by jitter."""
        send_at = sent_from(at, self.offset)
        return f"is sent at {self.moment(send_at)}, in {self.until(send_at)} (jitter)"

    # -- what waits ------------------------------------------------------------------------

    def subject(self, entry: Entry) -> str:
        """Return the subject of a sentence about what waits: the entry or its occurrence."""
        if entry.pending_due_at is None:
            return repr(entry.name)
        return f"its occurrence of {self.when(entry.pending_due_at)}"

    def waits(self, entry: Entry, what: str) -> str:
        """Say what an entry waits for, and since when."""
        since = entry.pending_since
        waits = "waits"
        if since is not None:
            waits = f"has been waiting since {self.moment(since)} ({self.ago(since)})"
        return sentence(f"{self.subject(entry)} {waits} {what}")

    def must(self, name: str, on: str, align: str, doing: str) -> str:
        """Say what an upstream must do and what it is doing."""
        same = ", for the same due time" if align == "same" else ""
        return f"{name!r} {_MUST.get(on, on)}{same}: {doing}."

    # -- runs ------------------------------------------------------------------------------

    def which(self, run: Run, its: str = "the run") -> str:
        """Return words that identify a run."""
        attempt = f"attempt {run.attempt} of " if run.attempt != 1 else ""
        if is_triggered(run.reason) and not is_rerun(run.reason):
            return f"{attempt}{its} triggered at {self.moment(run.due_at)}"
        return f"{attempt}{its} due {self.moment(run.due_at)}"

    def under_way(self, run: Run, which: str) -> str:
        """Return what a run that has not ended is doing."""
        if run.state == "started" and run.started_at is not None:
            where = f", on {run.worker}" if run.worker else ""
            silent = ""
            if (run.claimed_by or "").startswith("suspected"):
                silent = ", which has stopped reporting"
            at = run.started_at
            since = f"{self.moment(at)} ({self.ago(at)})"
            return f"{which} has been running since {since}{where}{silent}"
        if run.state == "sent" and run.sent_at is not None:
            at = run.sent_at
            if self.now - at < SILENT:
                return f"{which} was sent at {self.moment(at)}"
            return (
                f"{which} was sent at {self.moment(at)} ({self.ago(at)} ago), "
                "and no worker has reported it"
            )
        if run.state == "claimed" and run.tries and run.wake_at is not None:
            tries = "one try" if run.tries == 1 else f"{run.tries} tries"
            again = f"beat tries again at {self.moment(run.wake_at)}"
            why = clause(run.reason or "")
            return f"{which} could not be sent in {tries}, and {again}: {why}"
        if run.wake_at is not None and run.claimed_by is None and run.wake_at > self.now:
            at = run.wake_at
            after = _after(run.reason)
            return f"{which} will be sent at {self.moment(at)}, in {self.until(at)}{after}"
        return f"{which} is about to be sent"

    def will_be_cancelled(self, entry: Entry, run: Run) -> list[str]:
        """Say that an unsent run will be cancelled, if it will."""
        if not is_dropped(entry, run.reason):
            return []
        unless = f", unless you write store.resume({entry.name!r}) before"
        return [f"It will be cancelled then{unless if entry.state == 'paused' else ''}."]

    def unheard(self, run: Run, queue: str | None, timeout: bool) -> list[str]:
        """Say why a sent run may be unreported, and when it is marked lost."""
        listens = f"queue {queue!r}" if queue else "its queue"
        sentences = [
            f"Perhaps no worker listens to {listens}, or the one that took it lacks "
            "beatstore.setup(app)."
        ]
        if not timeout:
            sentences.append("It has no run_timeout, so it is never marked lost.")
        elif run.wake_at is not None:
            sentences.append(
                f"If no worker reports by {self.moment(run.wake_at)}, it is marked lost."
            )
        return sentences

    def ended(self, run: Run) -> str:
        """Say how a run ended, or why occurrences had no run."""
        return f"{sentence(self.outcome(run))}{self._stands_for(run)}"

    def outcome(self, run: Run, its: str = "the run") -> str:
        """Return how a run ended, as a clause; `its` is what the run is called."""
        if run.state in RECORDS:
            return self._unsent(run)
        which = self.which(run, its)
        if run.state in UNFINISHED:
            return self.under_way(run, which)
        at = "" if run.finished_at is None else f" at {self.moment(run.finished_at)}"
        if run.state == "succeeded":
            return f"{which} succeeded{at}{self._took(run)}"
        why = clause(run.error or run.reason or "")
        why = f": {why}" if why else ""
        return f"{which} {_ENDED.get(run.state, f'was {run.state}')}{at}{why}"

    def _unsent(self, run: Run) -> str:
        why = f": {clause(run.reason)}" if run.reason else ""
        first = run.first_missed_at
        if first is None or first == run.due_at or run.missed_count <= 1:
            return f"the occurrence of {self.moment(run.due_at)} was {run.state}{why}"
        span = f"from {self.moment(first)} to {self.moment(run.due_at)}"
        return f"{tally(run.missed_count)} occurrences, {span}, were {run.state}{why}"

    def _took(self, run: Run) -> str:
        parts = []
        if self.late(run):
            parts.append(f"sent {duration(self.lateness(run))} late")
        if run.started_at is not None and run.finished_at is not None:
            parts.append(f"after {duration(run.finished_at - run.started_at)}")
        if run.worker:
            parts.append(f"on {run.worker}")
        return "".join(f", {part}" for part in parts)

    def late(self, run: Run) -> bool:
        """Say whether a run was sent noticeably after it should have been."""
        return self.lateness(run) >= _LATE

    def lateness(self, run: Run) -> timedelta:
        """Return how long after its due time a run was sent, without jitter."""
        if run.sent_at is None:
            return timedelta(0)
        offset = timedelta(0) if is_triggered(run.reason) else self.offset
        return run.sent_at - sent_from(run.due_at, offset)

    def _stands_for(self, run: Run) -> str:
        unsent = run.state in RECORDS
        if run.first_missed_at is None or not run.missed_count or unsent:
            return ""
        earlier = "one earlier occurrence"
        if run.missed_count != 1:
            earlier = f"{tally(run.missed_count)} earlier occurrences"
        why = f": {clause(run.reason)}" if run.reason else ""
        return f" It also covers {earlier}, from {self.moment(run.first_missed_at)}{why}."

    def unreported(self, workers: int) -> str:
        """Say why the outcomes of sent runs are unknown."""
        if workers:
            return "No worker that reports outcomes is alive."
        return f"Outcomes of sent runs are unknown: no worker has ever reported one; {_SETUP}."


def _time(at: datetime) -> str:
    return f"{at:%H:%M:%S}" if at.second or at.microsecond else f"{at:%H:%M}"


def clause(text: str) -> str:
    """Return the first line of a foreign text, cut to fit inside a sentence."""
    lines = text.strip().splitlines() or [""]
    line = lines[0] if len(lines[0]) <= 300 else f"{lines[0][:300]}…"  # noqa: PLR2004
    return line.rstrip(".")


def maker(change: Audit) -> str:
    """Return who made a change, and the reason if one was noted."""
    if not isinstance(change.reason, str):  # none, or a row written by hand
        return change.actor
    return f"{change.actor}: {clause(change.reason)!r}"


def _after(reason: str | None) -> str:
    """Return why there is another attempt, as its row's reason says."""
    _, found, why = (reason or "").partition("after: ")
    return f", after {clause(why)}" if found else ""
