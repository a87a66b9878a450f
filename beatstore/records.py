"""Entries, runs and changes as values: what `Store` returns.

    entry = store.get("nightly")
    entry.schedule.next_after(now), entry.tags, entry.after

Each value has the columns of its table (see `beatstore.models`) as they were when it was read.
It belongs to no session, never reads the database again, and can be kept, compared, copied and
pickled. It can't be changed; `Store.change` edits an entry.

The types describe what beatstore writes. A row written by hand may hold any other word; an
unreadable cell is returned as its text, a `str` whose attribute `reason` says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from beatstore.config import Settings
from beatstore.definition.edges import After
from beatstore.errors import NotReadError, ScheduleError
from beatstore.rules.due import schedule_of
from beatstore.schedules import Schedule
from beatstore.types import EntryExtra, EntryKind, EntryState, Misfire, Overlap, RunState

__all__ = ["Audit", "Entry", "EntryExtras", "Run", "entry_of", "with_extras"]


@dataclass(frozen=True, slots=True)
class EntryExtras:
    """What was read with an entry besides its columns; None for what was not read.

    Attributes:
        default_timezone: the time zone if the entry names none.
        tags: its tags, sorted.
        after: its upstreams, sorted by name.
        edited: the fields that differ from the code that declares it.
    """

    default_timezone: str = "UTC"
    tags: tuple[str, ...] | None = None
    after: tuple[After, ...] | None = None
    edited: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Entry:
    """An entry: a task, its arguments, its schedule and its policies.

    `Store.get` also reads `tags`, `after` and `edited`; `Store.entries` reads those named in
    `include`. Without them, the attributes raise `NotReadError`.

    Attributes:
        id: id of the row; ids are not reused.
        name: unique name.
        task: name of the task to send.
        args: positional arguments of the task.
        kwargs: keyword arguments of the task.
        options: options of the message: queue, priority, ….
        kind: kind of its schedule; "after": no schedule, it runs after its upstreams.
        spec: the schedule as text.
        timezone: time zone of the schedule; None: the setting's default.
        start_at: it is not due before this instant.
        end_at: it is not due after this instant.
        max_runs: it is finished after this many runs.
        jitter_s: each send is delayed by a fixed offset below this many seconds.
        misfire: misfire policy; None: the setting's default.
        grace_s: seconds that an occurrence may be late before it is a misfire; None: the
            setting's default.
        overlap: overlap policy.
        run_timeout_s: a run is lost if no worker reports within this many seconds of sending.
        max_retries: number of further attempts after a failure.
        retry_delay_s: seconds before the first retry.
        retry_backoff: multiplier for each further delay.
        retry_jitter_s: each retry is delayed by up to this many more seconds.
        state: "active", or why it is not sent.
        error: why it is broken.
        description: free text.
        source: its owner: "api", or the code that declares it.
        declared: the last declaration of that code.
        wake_at: when a beat looks at it next; None: never.
        cursor_at: the last due time that is accounted for.
        next_due_at: the next due time, for display.
        pending_due_at: the oldest due time that waits for an upstream or for its last run.
        pending_since: when that wait began.
        pending_reason: why it waits.
        blocked_by: the id of an entry that it waits for.
        success_seq: number of runs that succeeded.
        failure_seq: number of runs that failed.
        done_seq: number of runs that ended.
        run_count: number of runs.
        last_run_at: when a beat last planned a run, or a user last triggered one.
        version: increases with each edit.
        created_at: when it was added.
        updated_at: when it was last edited.
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
        """Its schedule, in its time zone or the default one; None for an entry without one.

        Raises:
            ScheduleError: the row, written by hand, holds no valid schedule.
        """
        if self.kind == "after":
            return None
        try:
            return schedule_of(self, Settings(default_timezone=self._extras.default_timezone))
        except (TypeError, AttributeError) as error:  # a cell is unreadable
            given = f"{self.kind} {self.spec}"
            write = f"store.change({self.name!r}, schedule=…)"
            raise ScheduleError(
                "schedule", given, "columns that describe a schedule", write
            ) from error

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags, sorted.

        Raises:
            NotReadError: they were not read.
        """
        return self._read("tags", self._extras.tags)

    @property
    def after(self) -> tuple[After, ...]:
        """Its upstreams, sorted by name.

        Raises:
            NotReadError: they were not read.
        """
        return self._read("after", self._extras.after)

    @property
    def edited(self) -> tuple[str, ...]:
        """The fields that differ from the code that declares it, none if no code does.

        They have the names that `Store.add` has for them; `state` is one if somebody paused,
        resumed or cancelled the entry.

        Raises:
            NotReadError: they were not read.
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
    """One attempt to run one occurrence of an entry, or the record of a missed or skipped one.

    Attributes:
        id: id of the row.
        entry_id: id of its entry.
        entry_name: name of the entry when the run was planned.
        due_at: its due time.
        attempt: 1 for the first attempt, higher for retries.
        task_id: id of its task, and of its message.
        state: its state.
        reason: why it was missed, skipped, cancelled or triggered, in words.
        first_missed_at: the oldest missed due time that this run covers.
        missed_count: the number of other due times that it covers; of a missed or skipped
            record, the number of all. 1,001 means more than 1,000.
        claimed_by: id of the beat that sends it.
        wake_at: when a beat looks at it next; None: never.
        sent_at: when its message was sent.
        started_at: when a worker started it.
        finished_at: when it ended.
        worker: the worker that ran it (`celery@host`).
        error: the exception of a failed run, in one line.
        traceback: the traceback; the end of a long one.
        parts: the states of the tasks of a chain, group or chord.
        tries: how often sending its message has failed.
        expires_at: when the broker or a worker drops its message.
        follow_up: what beat still has to do after its end.
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
        # `parts` has no hash.
        return hash((self.id, self.state))

    def __repr__(self) -> str:
        return f"<Run {self.id} of {self.entry_name!r}, due {self.due_at}, {self.state}>"


@dataclass(frozen=True, slots=True, repr=False)
class Audit:
    """One change of an entry that was made through the API.

    Attributes:
        id: id of the row.
        at: when it was made.
        actor: who made it.
        action: the verb: "add", "change", "pause", ….
        entry: name of the entry at that time.
        before: the old values of the changed columns; None: the entry was added.
        after: the new values; None: the entry was removed.
        reason: why, as noted by `Store.by`; None if nothing was noted.
    """

    id: int
    at: datetime
    actor: str
    action: str
    entry: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    reason: str | None = None

    def __hash__(self) -> int:
        # The columns have no hash.
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<Audit {self.id}: {self.action} {self.entry!r} by {self.actor}, at {self.at}>"


def entry_of(columns: Sequence[Any], settings: Settings) -> Entry:
    """Return the entry of a row; `columns` are those of the table, in their order."""
    make: Callable[..., Entry] = Entry
    return make(*columns, EntryExtras(settings.default_timezone))


def with_extras(
    entry: Entry,
    *,
    tags: Sequence[str] | None = None,
    after: Sequence[After] | None = None,
    edited: Sequence[str] | None = None,
) -> Entry:
    """Return an entry with what was read besides its columns; None for what was not read."""
    extras = EntryExtras(
        entry._extras.default_timezone,
        None if tags is None else tuple(tags),
        None if after is None else tuple(after),
        None if edited is None else tuple(edited),
    )
    return replace(entry, _extras=extras)
