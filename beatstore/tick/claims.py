"""What passes between the tick and the tables: looks, claims, outcomes and endings."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Row
from sqlalchemy.engine import Dialect

from beatstore.database.columns import Unreadable
from beatstore.schedules.instants import EPOCH

__all__ = [
    "CALL",
    "BeatFigures",
    "Claim",
    "Ending",
    "Executes",
    "Look",
    "Outcome",
    "Suspect",
    "Swept",
    "claim_of",
    "legible",
    "task_id_of",
    "timeout_of",
    "unreadable",
]


#: The columns of an entry that a message is made of, in the order of `Claim`.
CALL = ("name", "task", "args", "kwargs", "options", "kind", "spec", "timezone")

#: Task ids are made from the run's key, so that a second send has the same id. The
#: entry's time of creation tells apart two databases that share one broker.
_NAMESPACE = uuid.UUID("6f2b6d6e-0d0c-5a55-9d4e-0b6f3f0a8d11")


#: Some thirty years: more seconds are a mistake, and beyond what dates can hold.
_FOREVER_S = 1e9


class Executes(Protocol):
    """A connection, or the API's transaction."""

    @property
    def dialect(self) -> Dialect:
        """What the database speaks."""
        ...

    def execute(self, statement: Any, rows: Any = None, /) -> Any:
        """Execute a statement; with `rows`, for each of them."""
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """The database's time, and the earliest `wake_at` of all rows (None: there is none)."""

    now: datetime
    entry_wake_at: datetime | None
    run_wake_at: datetime | None

    @property
    def is_entry_due(self) -> bool:
        """Say whether an entry is due."""
        return self.entry_wake_at is not None and self.entry_wake_at <= self.now

    @property
    def is_run_due(self) -> bool:
        """Say whether a run is due."""
        return self.run_wake_at is not None and self.run_wake_at <= self.now

    @property
    def due_in(self) -> float | None:
        """Return in how many seconds a row is due (0 or less: one is), or None if none ever is."""
        instants = [at for at in (self.entry_wake_at, self.run_wake_at) if at is not None]
        return (min(instants) - self.now).total_seconds() if instants else None


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that this beat may send, with what its message is made of.

    `run_timeout_s` is how long it may go unheard of once it was sent; None: for ever.
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
class Suspect:
    """A run that no worker speaks of any more.

    Attributes:
        run_id: which run.
        task_id: by which a result backend knows it.
        name: its entry's name.
        reason: what is suspicious about it.
    """

    run_id: int
    task_id: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found.

    Attributes:
        claims: runs to send.
        suspects: runs to ask a result backend about, and then to end.
        count: how many rows were looked at.
    """

    claims: list[Claim]
    suspects: list[Suspect]
    count: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How one run ended.

    Attributes:
        run_id: which run.
        task_id: of that run; without it this would end the same number's in another database.
        state: succeeded, failed, lost or cancelled.
        reason: why, in words.
        error: the exception, in one line.
        traceback: and where it came from.
        worker: who says so.
        age_s: how long ago it was, in seconds.
        ran_s: how long it took, in seconds, where that is known.
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one claim.

    `state` is `sent`, `skipped` or `failed`; or `claimed`, when it is not known to have
    reached the broker and is to be sent again, in `retry_in` seconds. `tries` counts the
    failed attempts to publish it, with this one, and is 0 where this is none. `expires` is
    when the message is dropped: so many seconds from now, or an instant. `ending` is how the
    run ended, if its task ran while it was sent.
    """

    claim: Claim
    state: str
    reason: str | None = None
    retry_in: float = 0.0
    tries: int = 0
    expires: float | datetime | None = field(default=None, compare=False)
    ending: Ending | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class BeatFigures:
    """A beat's own account: seconds of its last working tick, and totals since its start."""

    tick_s: float | None
    planned: int
    sent: int


def task_id_of(entry_id: int, created_at: datetime, due_at: datetime, attempt: int) -> str:
    """Return the task id of a run: the same for the same occurrence and attempt."""
    key = f"{entry_id}/{_micros(created_at)}/{_micros(due_at)}/{attempt}"
    return str(uuid.uuid5(_NAMESPACE, key))


def timeout_of(seconds: object) -> timedelta | None:
    """Return a column of seconds as a span; None for none, and for what a hand has spoiled."""
    if isinstance(seconds, int | float) and 0 <= seconds < _FOREVER_S:
        return timedelta(seconds=seconds)
    return None


def legible(text: str, most: int = 2000) -> str:
    """Return text that comes from anywhere as every database can hold it, its beginning."""
    encodable = text[:most].encode(errors="backslashreplace").decode()
    return encodable.replace("\0", "\\0")[:most]


def unreadable(row: Row[Any]) -> str | None:
    """Say which column of a row can't be read, and why, if there is one."""
    if Unreadable not in map(type, row):  # quick: this is asked of each row
        return None
    for name, value in zip(row._fields, row, strict=True):
        if isinstance(value, Unreadable):
            return f"{name}: {value.reason}, got {value.given!r:.200}"
    return None


def _micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def claim_of(run: Row[Any], entry: Any, run_timeout_s: float | None) -> Claim:
    """Put a run row and its entry's row together, and the timeout in force."""
    return Claim(
        run.id,
        run.task_id,
        run.due_at,
        run.attempt,
        run.first_missed_at,
        run.missed_count,
        *(getattr(entry, name) for name in CALL),
        run_timeout_s=run_timeout_s,
        tries=run.tries,
    )
