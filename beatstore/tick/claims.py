"""The values that pass between the steps of a tick: looks, claims, outcomes and endings."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from sqlalchemy import Row

from beatstore.config import Settings
from beatstore.database.columns import Unreadable
from beatstore.rules.gate import run_timeout
from beatstore.schedules.instants import EPOCH, is_span

__all__ = [
    "CALL",
    "Claim",
    "Ending",
    "Look",
    "Outcome",
    "StaleRun",
    "call_of",
    "claim_of",
    "legible",
    "task_id_of",
    "timeout_of",
    "unreadable",
]


#: The columns of an entry that its message needs, in the order of `Claim`.
CALL = ("name", "task", "args", "kwargs", "options", "kind", "spec", "timezone")
call_of = attrgetter(*CALL)

#: Task ids are derived from the run's key, so that a second send has the same id. The key
#: includes the entry's creation time, which differs between databases that share a broker.
_NAMESPACE = uuid.UUID("6f2b6d6e-0d0c-5a55-9d4e-0b6f3f0a8d11")


@dataclass(frozen=True, slots=True)
class Look:
    """The database's time, and the earliest `wake_at` of entries and of runs, or None."""

    now: datetime
    entry_wake_at: datetime | None
    run_wake_at: datetime | None

    @property
    def is_entry_due(self) -> bool:
        """Return whether an entry is due."""
        return self.entry_wake_at is not None and self.entry_wake_at <= self.now

    @property
    def is_run_due(self) -> bool:
        """Return whether a run is due."""
        return self.run_wake_at is not None and self.run_wake_at <= self.now

    @property
    def due_in(self) -> float | None:
        """Return the seconds until a row is due (0 or less: now), or None if none will be."""
        instants = [at for at in (self.entry_wake_at, self.run_wake_at) if at is not None]
        return (min(instants) - self.now).total_seconds() if instants else None


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that this beat may send, with the data of its message.

    The run is marked lost if no worker reports within `run_timeout_s` of sending; None: never.
    """

    run_id: int
    task_id: str
    due_at: datetime
    attempt: int
    first_missed_at: datetime | None
    missed_count: int
    name: str
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    kind: str
    spec: str
    timezone: str | None
    run_timeout_s: float | None = field(default=None, kw_only=True)
    tries: int = field(default=0, kw_only=True)


@dataclass(frozen=True, slots=True)
class StaleRun:
    """A stale run: no worker reports on it any more.

    Attributes:
        run_id: the run's id.
        task_id: its id in the result backend.
        name: its entry's name.
        reason: why it is stale.
        wake_at: what the sweep that found it wrote to its row.
    """

    run_id: int
    task_id: str
    name: str
    reason: str
    wake_at: datetime

    @property
    def lost(self) -> Ending:
        """The ending of the run if nobody knows of another."""
        return Ending(
            self.run_id, self.task_id, "lost", self.reason, self.reason, wake_at=self.wake_at
        )


@dataclass(frozen=True, slots=True)
class Ending:
    """How one run ended.

    Attributes:
        run_id: the run's id.
        task_id: the run's task id, which tells it apart from a run of another database.
        state: succeeded, failed, lost or cancelled.
        reason: why, in words.
        error: the exception, in one line.
        traceback: the traceback of the exception.
        worker: the worker that reported it.
        age_s: how many seconds ago it ended.
        ran_s: its duration in seconds, if known.
        wake_at: of a lost run: that of its row as it was found stale. A row with another value was
            written since, and is not lost.
    """

    run_id: int
    task_id: str
    state: str
    reason: str | None = None
    error: str | None = None
    traceback: str | None = None
    worker: str | None = None
    age_s: float = 0.0
    ran_s: float | None = None
    wake_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of sending one claim.

    `state` is `sent`, `skipped` or `failed`; or `claimed`, if the broker may not have the
    message and it is to be sent again in `retry_in` seconds. `tries` counts the failed attempts
    to send it, including this one; it is 0 if sending did not fail. `expires` is when the message
    expires: seconds from now, or an instant. `ending` is how the run ended, if its task ran
    eagerly.
    """

    claim: Claim
    state: str
    reason: str | None = None
    retry_in: float = 0.0
    tries: int = 0
    expires: float | datetime | None = field(default=None, compare=False)
    ending: Ending | None = field(default=None, compare=False)


def task_id_of(entry_id: int, created_at: datetime, due_at: datetime, attempt: int) -> str:
    """Return the task id of a run: the same for the same occurrence and attempt."""
    key = f"{entry_id}/{_micros(created_at)}/{_micros(due_at)}/{attempt}"
    return str(uuid.uuid5(_NAMESPACE, key))


def timeout_of(seconds: object) -> timedelta | None:
    """Return seconds from a column as a timedelta; None for NULL and for invalid values."""
    return timedelta(seconds=seconds) if is_span(seconds) else None


def legible(text: str, most: int = 2000) -> str:
    """Return the first `most` characters of any text, in a form that every database can store."""
    encodable = text[:most].encode(errors="backslashreplace").decode()
    return encodable.replace("\0", "\\0")[:most]


def unreadable(row: Row[Any]) -> str | None:
    """Return which column of a row can't be read, and why; None if all can be read."""
    if Unreadable not in map(type, row):  # fast path: this runs for each row
        return None
    for name, value in zip(row._fields, row, strict=True):
        if isinstance(value, Unreadable):
            return f"{name}: {value.reason}, got {value.given!r:.200}"
    return None


def _micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def claim_of(run: Row[Any], entry: Any, settings: Settings) -> Claim:
    """Make a claim from a run's row and its entry's row."""
    return Claim(
        run.id,
        run.task_id,
        run.due_at,
        run.attempt,
        run.first_missed_at,
        run.missed_count,
        *call_of(entry),
        run_timeout_s=run_timeout(entry.run_timeout_s, entry.overlap, settings),
        tries=run.tries,
    )
