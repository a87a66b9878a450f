"""The tables, as typed SQLAlchemy classes; no queries and no rules.

Invariants:
    * `wake_at`, on entry and on run, is the one scheduling column: the instant at which
      a beat must look at the row next; NULL means never. The tick searches by nothing
      else.
    * A row inserted by plain SQL with only its obvious columns is complete: every other
      column has a default in the database, and `wake_at` defaults to an instant already
      past, so that the next tick plans it.
    * `(entry_id, due_at, attempt)` is unique on run. This key, not any lock, is what
      keeps an occurrence from running twice.

The migrations create the same tables; a test compares the two. They also create the
triggers that reset `wake_at` when a rule is edited by plain SQL.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ForeignKey,
    Index,
    MetaData,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from beatstore.database.columns import (
    Arguments,
    BigId,
    BigWhole,
    Instant,
    Json,
    Name,
    Note,
    Number,
    Whole,
)
from beatstore.database.dialects import table_options
from beatstore.database.functions import clock_default
from beatstore.schedules.instants import EPOCH

__all__ = [
    "REVISION",
    "AuditModel",
    "Base",
    "BeatModel",
    "DependencyModel",
    "EntryModel",
    "RunModel",
    "TagModel",
    "TokenModel",
    "WaitModel",
    "WorkerModel",
]

#: The Alembic revision whose tables these classes describe.
REVISION = "0007"

#: Where Alembic keeps that revision; a table of our own leaves the user's history alone.
VERSION_TABLE = "beatstore_version"

#: The edges that can end a wait by themselves; the index of them is partial.
ENDS_WAIT = "(on_upstream_failure = 'skip' OR timeout_s IS NOT NULL)"

#: Active entries that no beat looks at, though nothing may be going to wake them; the index of
#: them is partial. On MySQL and MariaDB it has all entries, and serves to count them.
ASLEEP = (
    "(wake_at IS NULL AND state = 'active' AND "
    "(kind <> 'after' OR pending_since IS NOT NULL OR pending_reason IS NOT NULL))"
)

_EPOCH_SQL = text("'1970-01-01 00:00:00.000000'")

_OPTIONS = table_options()


def _index_where(condition: str, *columns: str, name: str | None = None) -> Index:
    """Return an index of the rows that meet a condition; MySQL and MariaDB index all rows."""
    where = text(condition)
    return Index(name, *columns, postgresql_where=where, sqlite_where=where)


class Base(DeclarativeBase):
    """Base of beatstore's tables, with a naming rule for every constraint."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Instant()}  # noqa: RUF012  (SQLAlchemy's own idiom)
    __table_args__: Any = _OPTIONS


class EntryModel(Base):
    """A task, its arguments, the schedule it is sent by and the policies that apply.

    `kind` and `spec` hold the schedule (see `beatstore.schedules.parse`); `timezone`,
    `misfire` and `grace_s` may be NULL, which means the setting's default. `cursor_at`
    is the last occurrence accounted for, NULL before the first. `next_due_at` is a
    cache for people to read. `version` counts edits.

    `success_seq`, `failure_seq` and `done_seq` count the final outcomes of its runs. Of an
    entry that waits, `blocked_by` is the id of one upstream that it waits for, and whose
    completion wakes it: its own id, where it waits for its own run to end.

    `declared` is what the code that owns the entry (`source`) last said of it; what differs
    from it was edited since. NULL for what no code declares.
    """

    __tablename__ = "beatstore_entry"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(Name(255))
    task: Mapped[str] = mapped_column(Name(255))
    args: Mapped[list[Any]] = mapped_column(Arguments, default=list, server_default=text("('[]')"))
    kwargs: Mapped[dict[str, Any]] = mapped_column(
        Arguments, default=dict, server_default=text("('{}')")
    )
    options: Mapped[dict[str, Any]] = mapped_column(
        Arguments, default=dict, server_default=text("('{}')")
    )

    kind: Mapped[str] = mapped_column(Name(16))
    spec: Mapped[str] = mapped_column(Note, default="")
    timezone: Mapped[str | None] = mapped_column(Name(64))
    start_at: Mapped[datetime | None]
    end_at: Mapped[datetime | None]
    max_runs: Mapped[int | None] = mapped_column(Whole)
    jitter_s: Mapped[float] = mapped_column(Number, default=0.0, server_default="0")

    misfire: Mapped[str | None] = mapped_column(Name(16))
    grace_s: Mapped[float | None] = mapped_column(Number)
    overlap: Mapped[str] = mapped_column(Name(16), default="allow", server_default="allow")
    run_timeout_s: Mapped[float | None] = mapped_column(Number)
    max_retries: Mapped[int] = mapped_column(Whole, default=0, server_default="0")
    retry_delay_s: Mapped[float] = mapped_column(Number, default=300.0, server_default="300")
    retry_backoff: Mapped[float] = mapped_column(Number, default=1.0, server_default="1")
    retry_jitter_s: Mapped[float] = mapped_column(Number, default=0.0, server_default="0")

    state: Mapped[str] = mapped_column(Name(16), default="active", server_default="active")
    error: Mapped[str | None] = mapped_column(Note)
    description: Mapped[str | None] = mapped_column(Note)
    source: Mapped[str] = mapped_column(Name(255), default="api", server_default="api")
    declared: Mapped[dict[str, Any] | None] = mapped_column(Json)

    wake_at: Mapped[datetime | None] = mapped_column(default=EPOCH, server_default=_EPOCH_SQL)
    cursor_at: Mapped[datetime | None]
    next_due_at: Mapped[datetime | None]
    pending_due_at: Mapped[datetime | None]
    pending_since: Mapped[datetime | None]
    pending_reason: Mapped[str | None] = mapped_column(Note)
    blocked_by: Mapped[int | None] = mapped_column(BigWhole)

    success_seq: Mapped[int] = mapped_column(BigWhole, default=0, server_default="0")
    failure_seq: Mapped[int] = mapped_column(BigWhole, default=0, server_default="0")
    done_seq: Mapped[int] = mapped_column(BigWhole, default=0, server_default="0")
    run_count: Mapped[int] = mapped_column(BigWhole, default=0, server_default="0")
    last_run_at: Mapped[datetime | None]

    version: Mapped[int] = mapped_column(Whole, default=1, server_default="1")
    created_at: Mapped[datetime] = mapped_column(server_default=clock_default())
    updated_at: Mapped[datetime] = mapped_column(server_default=clock_default())

    __table_args__ = (
        UniqueConstraint("name"),
        _index_where("wake_at IS NOT NULL", "wake_at", "id"),
        _index_where("blocked_by IS NOT NULL", "blocked_by"),
        # What people ask for; of what they have added and is active, both have nothing.
        _index_where("state <> 'active'", "state", "name"),
        _index_where("source <> 'api'", "source", "name"),
        # What the status counts and warns of.
        _index_where("pending_since IS NOT NULL", "pending_since"),
        _index_where(ASLEEP, "id", name="ix_beatstore_entry_asleep"),
        {"sqlite_autoincrement": True, **_OPTIONS},
    )

    def __repr__(self) -> str:
        return f"<EntryModel {self.name!r}: {self.task}, {self.kind} {self.spec!r}, {self.state}>"


class DependencyModel(Base):
    """The edge "downstream runs after upstream".

    It is satisfied when the upstream's counter that `on` names is above `consumed_seq`,
    which takes the counter's value whenever the downstream is sent; -1 makes a first run
    free. `failure_seen` is the upstream's `failure_seq` at that moment.
    """

    __tablename__ = "beatstore_dependency"

    downstream_id: Mapped[int] = mapped_column(
        ForeignKey("beatstore_entry.id", ondelete="CASCADE"), primary_key=True
    )
    upstream_id: Mapped[int] = mapped_column(
        ForeignKey("beatstore_entry.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    on: Mapped[str] = mapped_column(Name(16), default="success", server_default="success")
    first_free: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    align: Mapped[str] = mapped_column(Name(16), default="latest", server_default="latest")
    consumed_seq: Mapped[int] = mapped_column(BigWhole, default=0, server_default="0")
    on_upstream_failure: Mapped[str] = mapped_column(
        Name(16), default="wait", server_default="wait"
    )
    timeout_s: Mapped[float | None] = mapped_column(Number)
    failure_seen: Mapped[int] = mapped_column(BigWhole, default=0, server_default="0")

    __table_args__ = (
        _index_where(
            ENDS_WAIT,
            "downstream_id",
            "on_upstream_failure",
            "timeout_s",
            name="ix_beatstore_dependency_ends_wait",
        ),
        _OPTIONS,
    )


class TokenModel(Base):
    """What an upstream has given a downstream with `align="same"`: how one due time ended.

    `outcome` is `success` or `failure`. It is deleted when the due time is accounted for.
    """

    __tablename__ = "beatstore_token"

    downstream_id: Mapped[int] = mapped_column(
        ForeignKey("beatstore_entry.id", ondelete="CASCADE"), primary_key=True
    )
    due_at: Mapped[datetime] = mapped_column(primary_key=True)
    upstream_id: Mapped[int] = mapped_column(BigWhole, primary_key=True)
    outcome: Mapped[str] = mapped_column(Name(16))

    __table_args__ = (_OPTIONS,)


class WaitModel(Base):
    """A due time that some upstream with `align="same"` has told of, and what became of it.

    `state` is `look` (a beat is to look at it), `waits` (for the upstream `blocked_by`), `met`
    (all such upstreams have ended as they should), `ahead` (accounted for, ahead of the cursor)
    or `taken` (accounted for, by an entry without a schedule). `since` is when the first upstream
    reported it, and `timeout_s` is how long it may wait from then.
    """

    __tablename__ = "beatstore_wait"

    downstream_id: Mapped[int] = mapped_column(
        ForeignKey("beatstore_entry.id", ondelete="CASCADE"), primary_key=True
    )
    due_at: Mapped[datetime] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(Name(16), default="look", server_default="look")
    since: Mapped[datetime] = mapped_column(server_default=clock_default())
    blocked_by: Mapped[int | None] = mapped_column(BigWhole)
    timeout_s: Mapped[float | None] = mapped_column(Number)

    __table_args__ = (
        Index(None, "downstream_id", "state", "due_at"),
        Index(None, "due_at"),
        _OPTIONS,
    )


class RunModel(Base):
    """What became of one occurrence, one row per attempt.

    `entry_id` is not a foreign key: history outlives its entry, whose name is kept here.
    `wake_at` is when its claim expires or the next attempt is due (`claimed`), when no
    report for so long is suspicious (`sent`), or no heartbeat (`started`). `parts` is what is
    known of the tasks of a canvas, and since when a message is back in the queue. `tries`
    counts the failed attempts to publish its message, and `expires_at` is when the broker or a
    worker drops that. `follow_up` says what of its end is left to do: `end` (a next attempt, or
    counting it), or `wake` (its downstreams).
    """

    __tablename__ = "beatstore_run"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    entry_id: Mapped[int] = mapped_column(BigWhole)
    entry_name: Mapped[str] = mapped_column(Name(255))
    due_at: Mapped[datetime]
    attempt: Mapped[int] = mapped_column(Whole, default=1, server_default="1")
    task_id: Mapped[str] = mapped_column(Name(155))
    state: Mapped[str] = mapped_column(Name(16))
    reason: Mapped[str | None] = mapped_column(Note)
    first_missed_at: Mapped[datetime | None]
    missed_count: Mapped[int] = mapped_column(Whole, default=0, server_default="0")
    claimed_by: Mapped[str | None] = mapped_column(Name(36))
    wake_at: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(Name(255))
    error: Mapped[str | None] = mapped_column(Note)
    traceback: Mapped[str | None] = mapped_column(Note)
    parts: Mapped[Any | None] = mapped_column(Json)
    tries: Mapped[int] = mapped_column(Whole, default=0, server_default="0")
    expires_at: Mapped[datetime | None]
    follow_up: Mapped[str | None] = mapped_column(Name(16))

    __table_args__ = (
        UniqueConstraint("entry_id", "due_at", "attempt"),
        _index_where("wake_at IS NOT NULL", "wake_at", "id"),
        Index(None, "due_at"),
        # What is unfinished, and what went wrong; the many that ended well are left out.
        _index_where("state <> 'succeeded'", "entry_id", "state", "due_at"),
        {"sqlite_autoincrement": True, **_OPTIONS},
    )

    def __repr__(self) -> str:
        return f"<RunModel of {self.entry_name!r}, due {self.due_at}, {self.state}>"


class TagModel(Base):
    """A word by which entries are listed, paused or run together."""

    __tablename__ = "beatstore_tag"

    entry_id: Mapped[int] = mapped_column(
        ForeignKey("beatstore_entry.id", ondelete="CASCADE"), primary_key=True
    )
    tag: Mapped[str] = mapped_column(Name(64), primary_key=True, index=True)


class AuditModel(Base):
    """One change of an entry: when, by whom, what it was before and after, and why."""

    __tablename__ = "beatstore_audit"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=clock_default())
    actor: Mapped[str] = mapped_column(Name(255))
    action: Mapped[str] = mapped_column(Name(32))
    entry: Mapped[str] = mapped_column(Name(255))
    before: Mapped[Any | None] = mapped_column(Json)
    after: Mapped[Any | None] = mapped_column(Json)
    reason: Mapped[str | None] = mapped_column(Note)

    __table_args__ = (Index(None, "entry", "at"), {"sqlite_autoincrement": True, **_OPTIONS})


class BeatModel(Base):
    """One beat process: its heartbeat, the figures of its last tick, and when it was stopped."""

    __tablename__ = "beatstore_beat"

    id: Mapped[str] = mapped_column(Name(36), primary_key=True)
    host: Mapped[str] = mapped_column(Name(255))
    pid: Mapped[int] = mapped_column(Whole)
    version: Mapped[str] = mapped_column(Name(64))
    tzdata: Mapped[str] = mapped_column(Name(32))
    started_at: Mapped[datetime] = mapped_column(server_default=clock_default())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=clock_default())
    stopped_at: Mapped[datetime | None]
    tick_s: Mapped[float | None] = mapped_column(Number)
    planned: Mapped[int] = mapped_column(BigWhole, default=0, server_default="0")
    sent: Mapped[int] = mapped_column(BigWhole, default=0, server_default="0")
    step: Mapped[str | None] = mapped_column(Note)


class WorkerModel(Base):
    """One worker that reports what becomes of runs: its heartbeat, and when it was stopped."""

    __tablename__ = "beatstore_worker"

    id: Mapped[str] = mapped_column(Name(36), primary_key=True)
    name: Mapped[str] = mapped_column(Name(255))
    pid: Mapped[int] = mapped_column(Whole)
    version: Mapped[str] = mapped_column(Name(64))
    started_at: Mapped[datetime] = mapped_column(server_default=clock_default())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=clock_default())
    stopped_at: Mapped[datetime | None]
    running: Mapped[int] = mapped_column(Whole, default=0, server_default="0")
