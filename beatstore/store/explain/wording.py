"""The sentences that `explain` says: facts in, text out; no statements and no clock.

Due times are given in the zone that is asked for and in another, other instants in the one
alone, without the date where that is today's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING

from beatstore.records import Entry, Run
from beatstore.rules.decide import is_triggered
from beatstore.rules.due import has_one_run, remaining_runs
from beatstore.rules.gate import duration
from beatstore.rules.states import RECORDS, UNFINISHED
from beatstore.schedules import local_time, retold, shown_in, zone
from beatstore.schedules.every import period_in_words

if TYPE_CHECKING:
    from beatstore.store.status import BeatStatus

__all__ = ["Told", "clause", "sentence"]

#: A run that was sent may be unheard of for so long before that is worth a word.
SILENT = timedelta(seconds=60)

#: Later than this is late, and said.
_LATE = timedelta(seconds=1)

_MUST = {"success": "must succeed", "done": "must end", "failure": "must fail"}

#: How a run's row begins, by the state it is in.
_ENDED = {"succeeded": "succeeded", "failed": "failed", "lost": "was lost"}

_SETUP = "call beatstore.setup(app) in the module of the Celery app"


def sentence(text: str) -> str:
    """Return text as a sentence of its own."""
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?", ":")) else f"{text}."


@dataclass(frozen=True, slots=True)
class Told:
    """How things are told about one entry, at one moment.

    Attributes:
        zone_name: in which zone.
        now: that moment.
        also: the zone in which due times are given as well.
    """

    zone_name: str
    now: datetime
    also: str = "UTC"

    @property
    def _zone(self) -> tzinfo:
        return zone(self.zone_name)

    # -- instants --------------------------------------------------------------------------

    def when(self, at: datetime) -> str:
        """Return a due time, in both zones."""
        local = local_time(at, self._zone)
        name = "UTC" if local.tzinfo is timezone.utc else self.zone_name
        said = f"{local:%Y-%m-%d} {_time(local)} {name}"
        other = local_time(at, zone(self.also))
        if self.also == name or other.tzinfo is timezone.utc:
            return said
        date = "" if other.date() == local.date() else f"{other:%Y-%m-%d} "
        return f"{said} ({date}{_time(other)} {self.also})"

    def moment(self, at: datetime) -> str:
        """Return any other instant, in the zone."""
        (local, offset), now = shown_in(at, self._zone), local_time(self.now, self._zone)
        said = f"{local:%H:%M:%S}" if local.date() == now.date() else f"{local:%Y-%m-%d %H:%M:%S}"
        return f"{said}{offset}"

    def retold(self, text: str) -> str:
        """Return a text with the instants that are stored in it as due times are given."""
        return retold(text, self.when)

    def ago(self, at: datetime) -> str:
        """Return how long ago an instant is, in words."""
        return duration(max(timedelta(0), self.now - at))

    def until(self, at: datetime) -> str:
        """Return how far ahead an instant is, in words."""
        return duration(max(timedelta(0), at - self.now))

    def since(self, at: datetime | None, by: str | None) -> str:
        """Return since when something is so, and by whom, as far as that is known."""
        said = "" if at is None else f" since {self.moment(at)}"
        return said if by is None else f"{said}, by {by}"

    # -- the entry -------------------------------------------------------------------------

    def rule(self, entry: Entry) -> str:
        """Return an entry's schedule."""
        if entry.kind == "after":
            return "after its upstreams, without a clock"
        if entry.kind == "every":
            seconds, found, anchor = entry.spec.partition(" from ")
            return f"every {period_in_words(seconds)}{found}{anchor}"
        if entry.kind == "once":
            return f"once, at {entry.spec}"
        return f"{entry.kind} {entry.spec!r} in {entry.timezone or self.zone_name}"

    def state(self, entry: Entry, since: datetime | None, by: str | None) -> list[str]:
        """Return what state an entry is in, and what ends it."""
        name, so = repr(entry.name), self.since(since, by)
        if entry.state == "active":
            return [f"{name} is active: {self.rule(entry)}."]
        if entry.state == "paused":
            return [f"{name} is paused{so}. It sends nothing until store.resume({name})."]
        if entry.state == "broken":
            mend = f"Mend it with store.change({name}, …), or try again with store.resume({name})."
            return [f"{name} is broken: {clause(entry.error or 'nobody said why')}.", mend]
        if entry.state == "finished":
            return [f"{name} is finished{so}: {self._why_finished(entry)}."]
        if entry.state == "missed":
            return [f"{name} is missed{so}: its one run was not sent in time."]
        return [f"{name} is {entry.state}{so}."]

    def _why_finished(self, entry: Entry) -> str:
        if entry.run_count and has_one_run(entry.kind, entry.max_runs):
            return "its one run was sent"
        if remaining_runs(entry) == 0:
            return f"all its {entry.max_runs:,} runs were sent"
        if entry.end_at is not None:
            return f"nothing is due after its end, {self.when(entry.end_at)}"
        return "nothing more will be due"

    def overdue(self, since: datetime) -> str:
        """Say that nobody has looked at what is due."""
        ago = self.ago(since)
        return f"It has been due since {self.moment(since)} ({ago}), and no beat has looked at it."

    def beats(self, alive: int, last: BeatStatus | None) -> str:
        """Say what the beats are doing, of which one should have looked."""
        if alive:
            beats = "One beat is" if alive == 1 else f"{alive} beats are"
            return f"{beats} alive, but may be busy or stuck: see store.status()."
        if last is not None and last.stopped_at is not None:
            return f"No beat is alive: the last was stopped at {self.moment(last.stopped_at)}."
        if last is not None:
            return f"No beat is alive: the last was heard of at {self.moment(last.heartbeat_at)}."
        return (
            "No beat is alive, nor on record: start one with "
            "`celery -A … beat --scheduler beatstore:DBScheduler`."
        )

    def next(self, entry: Entry, at: datetime, offset: timedelta) -> str:
        """Say when an entry is due next."""
        later = f"; it is sent {offset.total_seconds():.3g} s later (jitter)" if offset else ""
        if entry.state == "paused":
            return f"If it were resumed now, it would be due next at {self.when(at)}{later}."
        return f"{entry.name!r} is due next at {self.when(at)}, in {self.until(at)}{later}."

    # -- what waits ------------------------------------------------------------------------

    def subject(self, entry: Entry) -> str:
        """Return what of an entry waits."""
        if entry.pending_due_at is None:
            return repr(entry.name)
        return f"its occurrence of {self.when(entry.pending_due_at)}"

    def waits(self, entry: Entry, what: str) -> str:
        """Say what an entry waits for, and since when."""
        since = entry.pending_since
        said = "" if since is None else f", since {self.moment(since)} ({self.ago(since)}),"
        return sentence(f"{self.subject(entry)} waits{said} {what}")

    def must(self, name: str, on: str, align: str, doing: str) -> str:
        """Say what is asked of an upstream, and what that one is doing."""
        same = ", for the same due time" if align == "same" else ""
        return f"{name!r} {_MUST.get(on, on)}{same}: {doing}."

    # -- runs ------------------------------------------------------------------------------

    def which(self, run: Run, its: str = "the run") -> str:
        """Return which run is meant."""
        attempt = f"attempt {run.attempt} of " if run.attempt > 1 else ""
        if is_triggered(run.reason):
            return f"{attempt}{its} asked for by hand at {self.moment(run.due_at)}"
        return f"{attempt}{its} due {self.moment(run.due_at)}"

    def under_way(self, run: Run, which: str) -> str:
        """Return what a run that has not ended is doing."""
        if run.state == "started" and run.started_at is not None:
            where = f", on {run.worker}" if run.worker else ""
            silent = ""
            if (run.claimed_by or "").startswith("suspected"):
                silent = ", which has fallen silent"
            at = run.started_at
            return f"{which} is running since {self.moment(at)} ({self.ago(at)}){where}{silent}"
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
            again = f"is tried again at {self.moment(run.wake_at)}"
            why = clause(run.reason or "")
            return f"{which} could not be sent in {tries}, and {again}: {why}"
        if run.wake_at is not None and run.claimed_by is None and run.wake_at > self.now:
            at = run.wake_at
            after = _after(run.reason)
            return f"{which} follows at {self.moment(at)}, in {self.until(at)}{after}"
        return f"{which} is about to be sent"

    def will_be_cancelled(self, entry: Entry, run: Run) -> list[str]:
        """Say of a run that is to be sent that it will not be, unless it was asked for by hand."""
        if is_triggered(run.reason):
            return []
        unless = f", unless store.resume({entry.name!r}) comes before"
        return [f"It is cancelled then{unless if entry.state == 'paused' else ''}."]

    def unheard(self, run: Run, queue: str | None, timeout: bool) -> list[str]:
        """Say what may have become of a run that was sent long ago."""
        listens = f"queue {queue!r}" if queue else "its queue"
        said = [
            f"Perhaps no worker listens to {listens}, or the one that took it lacks "
            "beatstore.setup(app)."
        ]
        if not timeout:
            said.append("It has no run_timeout, so nobody gives it up.")
        elif run.wake_at is not None:
            said.append(f"It is asked after, and given up, at {self.moment(run.wake_at)}.")
        return said

    def ended(self, run: Run) -> str:
        """Say what became of a run that has ended, or of occurrences that got none."""
        return f"{sentence(self.outcome(run))}{self._stands_for(run)}"

    def outcome(self, run: Run, its: str = "the run") -> str:
        """Return the same as a clause; `its` is what the run is called."""
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
        return f"{_count(run.missed_count)} occurrences, {span}, were {run.state}{why}"

    def _took(self, run: Run) -> str:
        said = []
        if self.late(run):
            assert run.sent_at is not None
            said.append(f"sent {duration(run.sent_at - run.due_at)} late")
        if run.started_at is not None and run.finished_at is not None:
            said.append(f"after {duration(run.finished_at - run.started_at)}")
        if run.worker:
            said.append(f"on {run.worker}")
        return "".join(f", {part}" for part in said)

    def late(self, run: Run) -> bool:
        """Say whether a run was sent noticeably after its due time."""
        return run.sent_at is not None and run.sent_at - run.due_at >= _LATE

    def _stands_for(self, run: Run) -> str:
        unsent = run.state in RECORDS
        if run.first_missed_at is None or not run.missed_count or unsent:
            return ""
        one = (
            "one occurrence" if run.missed_count == 1 else f"{_count(run.missed_count)} occurrences"
        )
        why = f": {clause(run.reason)}" if run.reason else ""
        return f" It stands for {one} before it too, from {self.moment(run.first_missed_at)}{why}."

    def unreported(self, workers: int) -> str:
        """Say why it is not known what became of what was sent."""
        if workers:
            return "No worker that reports outcomes is alive."
        return f"What became of what was sent is not known: no worker has ever reported; {_SETUP}."


def _time(at: datetime) -> str:
    return f"{at:%H:%M:%S}" if at.second or at.microsecond else f"{at:%H:%M}"


def clause(text: str) -> str:
    """Return the first line of a text that somebody else wrote, to stand inside a sentence."""
    lines = text.strip().splitlines() or [""]
    line = lines[0] if len(lines[0]) <= 300 else f"{lines[0][:300]}…"  # noqa: PLR2004
    return line.rstrip(".")


def _after(reason: str | None) -> str:
    """Return why there is another attempt, out of its row's reason."""
    _, found, why = (reason or "").partition("after: ")
    return f", after {clause(why)}" if found else ""


def _count(number: int) -> str:
    return f"{number:,}" if number <= 1000 else "1,000+"  # noqa: PLR2004
