"""Entries, runs and changes as values: what `Store` returns.

    entry = store.get("nightly")
    entry.schedule.next_after(now), entry.tags, entry.after

Each has the columns of its table (see `beatstore.models`), and was true when it was read. A
value belongs to no session, never reads the database again, and can be kept, compared, copied
and pickled. Changing one changes no row: `Store.change` edits an entry.

The types are those of what beatstore writes. In a row written by hand a word may be any other,
and a cell that could not be read holds its text, a `str` that says why in `reason`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from beatstore.config import Settings
from beatstore.definition.edges import After
from beatstore.errors import NotReadError, ScheduleError
from beatstore.rules.due import schedule_of
from beatstore.schedules import Schedule
from beatstore.types import EntryExtra, EntryKind, EntryState, Misfire, Overlap, RunState

__all__ = ["Audit", "Entry", "EntryExtras", "Run", "with_extras"]


@dataclass(frozen=True, slots=True)
class EntryExtras:
    """What an entry is told beside its own columns; None for what was not asked for.

    Attributes:
        default_timezone: the zone of a schedule whose entry names none.
        tags: sorted.
        after: its upstreams, by name.
        edited: the fields that differ from what its code declares.
    """

    default_timezone: str = "UTC"
    tags: tuple[str, ...] | None = None
    after: tuple[After, ...] | None = None
    edited: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Entry:
    """A task, its arguments, the schedule it is sent by and the policies that apply.

    `Store.get` reads `tags`, `after` and `edited` too, and `Store.entries` those that its
    `include` names; of any other entry they raise `NotReadError`.

    Attributes:
        id: of the row; it is never used again.
        name: unique.
        task: the name of the task that is sent.
        args: its arguments.
        kwargs: its keyword arguments.
        options: of the message: queue, priority, ….
        kind: of its schedule; "after": it runs whenever its upstreams have ended.
        spec: the schedule as text.
        timezone: of the schedule; None: the setting's default.
        start_at: not due before this instant.
        end_at: not due after this instant.
        max_runs: it is finished after so many runs.
        jitter_s: it is sent up to so many seconds late.
        misfire: what happens to due times that were missed; None: the setting's default.
        grace_s: how late a due time may be before it counts as missed, in seconds; None: the
            setting's default.
        overlap: what happens when it is due while its last run has not ended.
        run_timeout_s: a run of which nothing was heard for so many seconds is lost.
        max_retries: how often a failed run is tried again.
        retry_delay_s: seconds before the first retry.
        retry_backoff: each further delay is the one before, times this.
        retry_jitter_s: each retry is up to so many seconds later.
        state: "active", or why it is not sent.
        error: why it is broken.
        description: for people.
        source: who owns it: "api", or the code that declares it.
        declared: what that code said last.
        wake_at: when a beat looks at it next; None: never.
        cursor_at: the last due time that is accounted for.
        next_due_at: when it is due next, for people.
        pending_due_at: the due time that waits, for an upstream or for its own last run.
        pending_since: since when that waits.
        pending_reason: what for.
        blocked_by: the id of an upstream that it waits for.
        success_seq: how many of its runs have succeeded.
        failure_seq: how many have failed.
        done_seq: how many have ended.
        run_count: how many there are.
        last_run_at: when a beat last planned one, or somebody asked for one.
        version: grows with each edit.
        created_at: when it was added.
        updated_at: when it was edited last.
    """

    id: int
    name: str
    task: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]
    kind: EntryKind
    spec: str
    timezone: str | None
    start_at: datetime | None
    end_at: datetime | None
    max_runs: int | None
    jitter_s: float
    misfire: Misfire | None
    grace_s: float | None
    overlap: Overlap
    run_timeout_s: float | None
    max_retries: int
    retry_delay_s: float
    retry_backoff: float
    retry_jitter_s: float
    state: EntryState
    error: str | None
    description: str | None
    source: str
    declared: Mapping[str, Any] | None
    wake_at: datetime | None
    cursor_at: datetime | None
    next_due_at: datetime | None
    pending_due_at: datetime | None
    pending_since: datetime | None
    pending_reason: str | None
    blocked_by: int | None
    success_seq: int
    failure_seq: int
    done_seq: int
    run_count: int
    last_run_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime
    _extras: EntryExtras = field(default=EntryExtras(), compare=False)

    @property
    def schedule(self) -> Schedule | None:
        """When it is due, in its own zone or the default one; None: whenever its upstreams end.

        Raises:
            ScheduleError: the row holds no schedule (it was written by hand).
        """
        if self.kind == "after":
            return None
        try:
            return schedule_of(self, Settings(default_timezone=self._extras.default_timezone))
        except (TypeError, AttributeError) as error:  # of a cell that can't be read
            given = f"{self.kind} {self.spec}"
            write = f"store.change({self.name!r}, schedule=…)"
            raise ScheduleError("schedule", given, "columns that can be read", write) from error

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags, sorted.

        Raises:
            NotReadError: they were not asked for.
        """
        return self._read("tags", self._extras.tags)

    @property
    def after(self) -> tuple[After, ...]:
        """What it waits for, by the names of its upstreams.

        Raises:
            NotReadError: they were not asked for.
        """
        return self._read("after", self._extras.after)

    @property
    def edited(self) -> tuple[str, ...]:
        """In which fields it differs from what its code declares; see `Store.edited`.

        Raises:
            NotReadError: that was not asked for.
        """
        return self._read("edited", self._extras.edited)

    def _read(self, name: EntryExtra, value: tuple[Any, ...] | None) -> tuple[Any, ...]:
        if value is None:
            raise NotReadError(self.name, name)
        return value

    def __hash__(self) -> int:
        # The arguments have no hash.
        return hash((self.id, self.version))

    def __repr__(self) -> str:
        return f"<Entry {self.name!r}: {self.task}, {self.kind} {self.spec!r}, {self.state}>"


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """What became of one occurrence of an entry: one for each attempt.

    Attributes:
        id: of the row.
        entry_id: whose run it is.
        entry_name: what the entry was called then.
        due_at: when it was due.
        attempt: 1, and more for its retries.
        task_id: the id of its message.
        state: what became of it so far.
        reason: why it was missed, skipped, cancelled or asked for, in words.
        first_missed_at: the first of the due times that it stands for beside its own.
        missed_count: how many those are, and one more where nothing was sent; 1,001 means more
            than 1,000.
        claimed_by: the id of the beat that sends it.
        wake_at: when a beat looks at it next; None: never.
        sent_at: when its message was sent.
        started_at: when a worker began with it.
        finished_at: when it ended.
        worker: which worker took it (`celery@host`).
        error: of a run that failed, in a line.
        traceback: cut to its end where it is long.
        parts: what is known of the tasks of a chain, group or chord.
        tries: how often sending its message has failed.
        expires_at: when the broker or a worker drops its message.
        follow_up: what of its end beat has yet to do.
    """

    id: int
    entry_id: int
    entry_name: str
    due_at: datetime
    attempt: int
    task_id: str
    state: RunState
    reason: str | None
    first_missed_at: datetime | None
    missed_count: int
    claimed_by: str | None
    wake_at: datetime | None
    sent_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    error: str | None
    traceback: str | None
    parts: Any | None
    tries: int
    expires_at: datetime | None
    follow_up: Literal["end", "wake"] | None

    def __hash__(self) -> int:
        # What is known of its parts has no hash.
        return hash((self.id, self.state))

    def __repr__(self) -> str:
        return f"<Run {self.id} of {self.entry_name!r}, due {self.due_at}, {self.state}>"


@dataclass(frozen=True, slots=True, repr=False)
class Audit:
    """One change of an entry that was made through the API.

    Attributes:
        id: of the row.
        at: when.
        actor: who made it.
        action: the verb: "add", "change", "pause", ….
        entry: what the entry was called then.
        before: the columns that changed, as they were; None: the entry is new.
        after: the columns as they are since; None: the entry was removed.
    """

    id: int
    at: datetime
    actor: str
    action: str
    entry: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None

    def __hash__(self) -> int:
        # The columns have no hash.
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<Audit {self.id}: {self.action} {self.entry!r} by {self.actor}, at {self.at}>"


def with_extras(
    entry: Entry,
    *,
    tags: Sequence[str] | None = None,
    after: Sequence[After] | None = None,
    edited: Sequence[str] | None = None,
) -> Entry:
    """Return an entry with what was read beside its columns; None for what was not."""
    extras = EntryExtras(
        entry._extras.default_timezone,
        None if tags is None else tuple(tags),
        None if after is None else tuple(after),
        None if edited is None else tuple(edited),
    )
    return replace(entry, _extras=extras)
