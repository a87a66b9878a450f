"""Why did 03:00 not run? Explain one occurrence of an entry from what is on record.

The search goes in this order: the run of that due time; a later run or record that covers it;
an occurrence that waits; one that no beat has picked up yet; and the change of the entry that
skipped it. The audit tells the schedule and the state of that time, as far as it reaches back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from beatstore.database.rows import Transaction
from beatstore.database.tables import AUDIT
from beatstore.database.together import ask
from beatstore.definition import fields
from beatstore.errors import ScheduleError
from beatstore.records import Audit, Entry, Run
from beatstore.rules.due import (
    DueTimes,
    accounted_for,
    counts_after,
    just_before,
    remaining_runs,
    sent_from,
)
from beatstore.rules.reasons import duration, is_triggered
from beatstore.rules.states import CANCELS_RUNS, RECORDS
from beatstore.store.ahead import UNREADABLE, Ahead
from beatstore.store.audit import is_of_run
from beatstore.store.explain.around import CHANGES_READ, Around, run_of_removed
from beatstore.store.explain.entry import Answer, Explanation, Facts, gone
from beatstore.store.explain.upstreams import addition, changed_to, changes, last_of_another
from beatstore.store.explain.wording import clause, maker, sentence

__all__ = ["explain_at", "explained_at"]

#: The columns that decide whether an instant is an occurrence and whether it may run.
_RULE = ("kind", "spec", "timezone", "start_at", "end_at", "max_runs", "state")

_INSTANTS = ("start_at", "end_at", "cursor_at")

#: The verdict on a run, by its state.
_VERDICTS = {
    "claimed": "sending",
    "sent": "sent",
    "started": "running",
    "succeeded": "ran",
}

_PHRASES = {
    "ran": "ran",
    "late": "ran",
    "failed": "failed",
    "sending": "is about to be sent",
    "running": "is running",
    "retrying": "failed, and will be retried",
    "lost": "was sent and lost",
}


def explain_at(tx: Transaction, name: str, at: object, timezone: str | None) -> Explanation:
    """Explain one occurrence; see `Store.explain`."""
    given = fields.instant("at", at)
    entry = tx.find(name)
    if entry is None:
        return _of_removed(tx, name, given, timezone)
    facts, around = Facts(tx, entry, at_present=False), Around(entry, given)
    facts.read(tx, around.questions)
    return explained_at(tx, facts, around, timezone)


def explained_at(
    tx: Transaction, facts: Facts, around: Around, timezone: str | None
) -> Explanation:
    """Return the explanation of an occurrence of which the facts were read."""
    answer = _Occurrence(tx, facts, around, timezone)
    for step in (
        answer.as_run,
        answer.as_folded,
        answer.as_unborn,
        answer.as_no_occurrence,
        answer.as_future,
        answer.as_waiting,
        answer.as_passed_over,
        answer.as_out_of_service,
        answer.as_due,
    ):
        if step():
            return answer.explanation()
    answer.as_unknown()
    return answer.explanation()


def _of_removed(tx: Transaction, name: str, at: datetime, timezone: str | None) -> Explanation:
    found = gone(tx, name, timezone)
    run = run_of_removed(tx, name, at)
    verdict, said = _recorded(run)
    return replace(found, at=at, verdict=verdict, run=run, sentences=found.sentences + said)


def _recorded(run: Run | None) -> tuple[str, list[str]]:
    """Return the verdict on an occurrence of a removed entry, and what is on record of it."""
    if run is None:
        return "removed", []
    said = f"Its run due then is on record: {run.state}."
    return _VERDICTS.get(run.state, run.state), [said]


class _Occurrence(Answer):
    """One occurrence of an entry; each `as_…` explains one case and returns whether it applies."""

    def __init__(self, tx: Transaction, facts: Facts, around: Around, timezone: str | None) -> None:
        super().__init__(tx, facts, timezone)
        self.at = at = around.meant(tx, self.entry)
        self.around = around
        self.subject = f"The occurrence of {self.entry.name!r} at {self.wording.when(at)}"
        self.facts["at"] = at
        self._later = around.changes_after(at)
        self.then = self._as_of(self._later)

    def _say(self, verdict: str, text: str) -> bool:
        self.facts["verdict"] = verdict
        self.sentences.append(sentence(text))
        return True

    # -- runs ------------------------------------------------------------------------------

    def as_run(self) -> bool:
        """The occurrence has a run or a record of its own."""
        attempts = self.around.runs_at(self.at)
        if not attempts:
            return False
        run, entry = attempts[-1], self.entry
        verdict = _VERDICTS.get(run.state, run.state)
        is_dropped = run.state == "claimed" and bool(self.wording.will_be_cancelled(entry, run))
        if run.state == "claimed" and run.attempt != 1:
            verdict = "retrying"
        if verdict == "ran" and self._is_late(run):
            verdict = "late"
        words = _PHRASES.get(verdict, f"was {verdict}")
        if is_dropped:
            words = "failed, and its retry" if run.attempt != 1 else "was to be sent, and"
            words += " will be cancelled"
        if run.sent_at is not None and verdict in ("late", "sent") and self._is_late(run):
            words += f", {duration(self.wording.lateness(run))} late"
        self.facts["run"] = run
        self._say(verdict, f"{self.subject} {words}")
        self.sentences += [self.wording.ended(one) for one in attempts]
        if is_dropped:
            self.sentences += self.wording.will_be_cancelled(entry, run)
        if run.reason and run.state == "succeeded" and not run.missed_count:
            self.sentences.append(f"Its record says: {run.reason}.")
        if run.state == "sent" and self._is_silent(run):
            self.describe_silence(run)
        return True

    def _is_late(self, run: Run) -> bool:
        grace_s = self.entry.grace_s
        grace_s = self.tx.settings.default_grace if grace_s is None else grace_s
        return self.wording.lateness(run).total_seconds() > grace_s

    def as_folded(self) -> bool:
        """A later run or record covers the occurrence."""
        following = self.around.runs_after(self.at)
        covers = [run for run in following if run.first_missed_at is not None]
        covers = [run for run in covers if cast(datetime, run.first_missed_at) <= self.at]
        if not covers or not self._is_occurrence():
            return False
        run = covers[0]
        self.facts["run"] = run
        if run.state in RECORDS:
            self._say(run.state, f"{self.subject} was {run.state}, together with others")
        else:
            which = self.wording.which(run)
            self._say("coalesced", f"{self.subject} was coalesced into {which}")
        self.sentences.append(self.wording.ended(run))
        return True

    # -- no occurrence ---------------------------------------------------------------------

    def as_unborn(self) -> bool:
        """The entry did not exist yet."""
        entry = self.entry
        if self.at > counts_after(entry):
            return False
        made = addition(self._later, entry.created_at)
        by = f", by {maker(made)}" if made is not None and made.action in _ADDING else ""
        added = f"was added at {self.wording.moment(entry.created_at)}{by}"
        last = last_of_another(self._later, entry.created_at)
        if last is None:
            return self._say("not created", f"{entry.name!r} did not exist then: it {added}")
        gone = self.wording.departure(last)
        run = self.facts["run"] = run_of_removed(self.tx, entry.name, self.at)
        verdict, said = _recorded(run)
        self._say(verdict, f"the {entry.name!r} of then was {gone}; another one {added}")
        self.sentences += said
        return True

    def as_no_occurrence(self) -> bool:
        """The schedule of that time is not due at the instant."""
        name = f"{self.entry.name!r}"
        at = self.wording.when(self.at)
        if self._waits_by_itself():
            return False
        if self.then.kind == "after":
            self._say("not an occurrence", f"{name} has no schedule: it was not due at {at}")
            return self._describe_neighbours(*self._runs_around())
        times = self._read(self.then)
        if times is None:
            why = f": {self.entry.error}" if self.entry.error else ""
            return self._say("broken", f"The schedule of {name} can't be read{why}")
        if self._is_occurrence():
            return False
        rule = self.wording.rule(cast(Entry, self.then))
        self._say("not an occurrence", f"{at} is not an occurrence of {name} ({rule})")
        self._describe_change_of_rule()
        self._describe_bounds()
        return self._describe_neighbours(*self._due_around(times))

    def _describe_bounds(self) -> None:
        """Say that the instant is before the entry's start or after its end."""
        start_at, end_at = self.then.start_at, self.then.end_at
        if start_at is not None and self.at < start_at:
            self.sentences.append(f"It is not due before {self.wording.when(start_at)}.")
        if end_at is not None and self.at > end_at:
            self.sentences.append(f"It is not due after {self.wording.when(end_at)}.")

    def _due_around(self, times: DueTimes) -> tuple[datetime | None, datetime | None]:
        """Return the occurrences before and after the instant; None where there is none."""
        begin = counts_after(self.entry)
        before = times.latest_until(just_before(self.at))
        after = times.next_after(max(self.at, begin))
        return None if before is None or before <= begin else before, after

    def _describe_neighbours(self, before: datetime | None, after: datetime | None) -> bool:
        if before is not None:
            self.sentences.append(f"The previous one is {self.wording.when(before)}.")
        if after is not None:
            self.sentences.append(f"The next one is {self.wording.when(after)}.")
        return True

    def _runs_around(self) -> tuple[datetime | None, datetime | None]:
        before, after = self.around.earlier.answer, self.around.runs_after(self.at)
        return before[0].due_at if before else None, after[0].due_at if after else None

    def _describe_change_of_rule(self) -> None:
        """Say who removed the occurrence, if an edit before that instant did."""
        for change in self._earlier_changes():
            before = change.before if isinstance(change.before, dict) else {}
            if not before.keys() & {"kind", "spec", "timezone", "start_at", "end_at"}:
                continue
            was = self._as_of([change], self.then)
            times = self._read(was)
            if times is not None and times.includes(self.at):
                when = self.wording.moment(change.at)
                rule = self.wording.rule(cast(Entry, was))
                self.sentences.append(
                    f"It was one ({rule}) until {change.actor} changed the entry at {when}."
                )
            return

    def as_future(self) -> bool:
        """The occurrence is still to come."""
        if self.at <= self.now:
            return self._is_put_off()
        if self._is_beyond_its_runs():
            return self._say(
                "not an occurrence",
                f"{self.subject} will not come: max_runs ends the entry before it",
            )
        coming = f"{self.subject} is still to come, in {self.wording.until(self.at)}"
        state = self.entry.state
        if state == "active":
            return self._say("future", coming)
        self._say("future", f"{coming}, but will not run while the entry is {state}")
        self.describe_state()
        return True

    def _is_put_off(self) -> bool:
        """The occurrence is due, and not sent yet because of jitter."""
        is_sent = sent_from(self.at, self.offset) <= self.now
        if is_sent or self.entry.state != "active" or self._is_passed():
            return False
        return self._say("future", f"{self.subject} {self.wording.put_off(self.at)}")

    def _is_beyond_its_runs(self) -> bool:
        """Return whether `max_runs` is used up before the occurrence."""
        entry = self.entry
        if entry.max_runs is None or entry.kind == "after":
            return False
        with suppress(*UNREADABLE):  # a row written by hand
            ahead = Ahead(entry, self.now, self.tx.settings)
            ahead.skip(just_before(self.at))
            return ahead.remaining == 0
        return False

    # -- no run ----------------------------------------------------------------------------

    def as_waiting(self) -> bool:
        """The occurrence waits, or will be coalesced with one that waits."""
        pending = self.entry.pending_due_at
        if pending is None or self.entry.state != "active":
            return False
        by_itself = self._waits_by_itself()
        if not by_itself and (self.entry.kind == "after" or self.at < pending):
            return False
        how = "as does" if by_itself else "together with"
        other = "" if self.at == pending else f", {how} the one due {self.wording.moment(pending)}"
        self._say("waiting", f"{self.subject} waits{other}")
        self.describe_wait()
        return True

    def _waits_by_itself(self) -> bool:
        """Return whether an entry without a schedule waits with this due time of its upstreams."""
        entry = self.entry
        waits = self.at in self.around.waits.answer
        return waits and entry.kind == "after" and entry.state == "active"

    def as_passed_over(self) -> bool:
        """A change moved the entry's cursor past the occurrence: a resume or an edit."""
        for change in reversed(self._later):
            before, after = self._cursor(change.before), self._cursor(change.after)
            if after is None or after < self.at:
                continue
            if before is not None and before >= self.at and not self._runs_were_used_up(change):
                continue
            if self.then.state != "active":
                return self._was_out_of_service(change)
            when = self.wording.moment(change.at)
            return self._say(
                "passed over",
                f"{self.subject} did not run: no beat had picked it up when {change.actor} "
                f"changed the entry at {when}, and a changed entry counts from its change",
            )
        return False

    def _was_out_of_service(self, ended: Audit) -> bool:
        """Explain the state, such as a pause, that a later change ended."""
        state = self.then.state
        put = changed_to(self._earlier_changes(), state)
        since = "" if put is None else f", since {self.wording.moment(put.at)}, by {maker(put)}"
        error = ended.before.get("error") if isinstance(ended.before, dict) else None
        since += f" ({clause(error)})" if state == "broken" and error else ""
        since += " (max_runs was used up)" if state == "finished" and self.then.max_runs else ""
        verb = "resumed" if ended.action == "resume" else "changed"
        until = f"{ended.actor} {verb} it at {self.wording.moment(ended.at)}"
        return self._say(state, f"{self.subject} did not run: it was {state} then{since}. {until}")

    def as_out_of_service(self) -> bool:
        """The entry sends nothing in its state, and did not then."""
        state = self.entry.state
        if state == "active" or (self._is_passed() and not self._runs_were_used_up()):
            return False
        why = ""
        if self.then.state == "active" and state in CANCELS_RUNS:
            why = f": no beat had picked it up when the entry was {state}"
        self._say(state, f"{self.subject} did not run{why}")
        self.describe_state()
        return True

    def _runs_were_used_up(self, until: Audit | None = None) -> bool:
        """Return whether `max_runs` had ended the entry, which beat finds at the next due time.

        It is so still, or was until a later change.
        """
        entry, runs = self.entry, self.around.runs_after(self.at)
        if until is None:
            is_over = entry.state == "finished" and remaining_runs(entry) == 0
        else:
            is_over = self.then.state == "finished" and self.then.max_runs is not None
            runs = [run for run in runs if run.due_at <= until.at]
        return is_over and not self._is_pruned() and all(is_triggered(run.reason) for run in runs)

    def _is_pruned(self) -> bool:
        """Return whether a run of the occurrence would have been deleted since."""
        return self.at < self.now - timedelta(seconds=self.tx.settings.retention)

    def _is_passed(self) -> bool:
        """Return whether the occurrence was run, recorded or skipped."""
        return accounted_for(self.entry) >= self.at

    def as_due(self) -> bool:
        """No beat has picked up the occurrence yet."""
        if self._is_passed():
            return False
        ago = self.wording.ago(sent_from(self.at, self.offset))
        self._say("due", f"{self.subject} has been overdue for {ago}: no beat has picked it up")
        self.describe_beats()
        return True

    def as_unknown(self) -> None:
        """Say that nothing is on record."""
        kept = timedelta(seconds=self.tx.settings.retention)
        self._say("unknown", f"{self.subject} has no record")
        if self._is_pruned():
            self.sentences.append(f"Records are kept for {duration(kept)}.")
        else:
            why = "its row was deleted, or the entry was renamed since, or edited without the API"
            self.sentences.append(sentence(why))

    # -- as it was -------------------------------------------------------------------------

    def _earlier_changes(self) -> list[Audit]:
        """Return the changes until the instant, newest first. Few answers need them."""
        # Before, another entry may have had the name.
        since = AUDIT.c.at >= self.entry.created_at
        found = changes(self.entry.name, AUDIT.c.at <= self.at, since, limit=CHANGES_READ)
        ask(self.tx, [found])
        return found.answer

    def _as_of(self, changes: Sequence[Audit], row: Any = None) -> SimpleNamespace:
        """Undo changes, the newest first, and return the entry as it was before them."""
        row = self.entry if row is None else row
        was = {name: getattr(row, name) for name in (*_RULE, "name", "created_at")}
        for change in changes:
            if isinstance(change.before, dict) and not is_of_run(change):
                known = {name: change.before[name] for name in _RULE if name in change.before}
                was |= {name: _read_instant(name, value) for name, value in known.items()}
        return SimpleNamespace(**was)

    def _read(self, row: SimpleNamespace) -> DueTimes | None:
        try:
            return DueTimes.of(cast(Any, row), self.tx.settings)
        except (ScheduleError, TypeError, AttributeError):  # a row written by hand
            return None

    def _is_occurrence(self) -> bool:
        times = self._read(self.then)
        return times is not None and times.includes(self.at)

    @staticmethod
    def _cursor(columns: Any) -> datetime | None:
        stored = columns.get("cursor_at") if isinstance(columns, dict) else None
        return cast("datetime | None", _read_instant("cursor_at", stored))


_ADDING = ("add", "put", "schedule")


def _read_instant(name: str, value: Any) -> Any:
    """Return the value of a column in the audit as the row holds it."""
    if name in _INSTANTS and isinstance(value, str):
        return datetime.fromisoformat(value)
    return value
