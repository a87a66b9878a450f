"""The beats and the workers on record, as they last reported themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Table, select

from beatstore.database.columns import Unreadable
from beatstore.database.rows import Transaction
from beatstore.database.tables import BEAT, WORKER
from beatstore.database.together import Question, ask

__all__ = [
    "SILENCE",
    "BeatStatus",
    "WorkerStatus",
    "beats",
    "beats_asked",
    "workers",
    "workers_asked",
]

P = TypeVar("P", "BeatStatus", "WorkerStatus")

#: A beat or worker without a heartbeat for this long counts as dead.
SILENCE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class BeatStatus:
    """One beat process, as it last reported itself.

    Attributes:
        id: the id that its claims carry.
        host: the host it runs on.
        pid: its process id there.
        version: its version of beatstore.
        started_at: when it started.
        heartbeat_at: when it sent its last heartbeat.
        stopped_at: when it was shut down in order; None: it was not.
        alive: whether it was not shut down and sent a heartbeat in the last 60 s.
        tick_s: how long its last tick took, in seconds.
        planned: how many runs it has claimed since it started.
        sent: how many messages it has sent since it started.
        step: how it sent its latest batch of messages, and why not by a faster step, as in its
            log, such as "push: from templates, …"; None: it has not sent any.
    """

    id: str
    host: str
    pid: int
    version: str
    started_at: datetime
    heartbeat_at: datetime
    stopped_at: datetime | None
    alive: bool
    tick_s: float | None
    planned: int
    sent: int
    step: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker that reports the outcomes of runs, as it last reported itself.

    Attributes:
        name: its node name, such as `celery@host`.
        pid: the id of its main process.
        version: its version of beatstore.
        started_at: when it started.
        heartbeat_at: when it sent its last heartbeat.
        stopped_at: when it was shut down in order; None: it was not.
        alive: whether it was not shut down and sent a heartbeat in the last 60 s.
        running: how many runs it was working on then.
    """

    name: str
    pid: int
    version: str
    started_at: datetime
    heartbeat_at: datetime
    stopped_at: datetime | None
    alive: bool
    running: int


def beats(tx: Transaction, now: datetime) -> list[BeatStatus]:
    """Return the beats on record, the newest first."""
    found = beats_asked(now)
    ask(tx, [found])
    return found.answer


def workers(tx: Transaction, now: datetime) -> list[WorkerStatus]:
    """Return the workers on record, the newest first."""
    found = workers_asked(now)
    ask(tx, [found])
    return found.answer


def beats_asked(now: datetime) -> Question[list[BeatStatus]]:
    """Ask for the beats on record, the newest first."""
    return _processes(now, BEAT, BeatStatus)


def workers_asked(now: datetime) -> Question[list[WorkerStatus]]:
    """Ask for the workers on record, the newest first."""
    return _processes(now, WORKER, WorkerStatus)


def _processes(now: datetime, table: Table, kind: type[P]) -> Question[list[P]]:
    names = [field.name for field in fields(kind) if field.name != "alive"]
    columns = [table.c[name] for name in names]
    # The id breaks ties; of a worker, the name is what people know.
    by_id = [] if "id" in names else [table.c.id]

    def read(rows: Sequence[Any]) -> list[P]:
        known = [row for row in rows if Unreadable not in map(type, row)]
        known.sort(key=lambda row: row.id)
        known.sort(key=lambda row: row.started_at, reverse=True)
        found = [{name: getattr(row, name) for name in names} for row in known]
        return [
            kind(**one, alive=one["stopped_at"] is None and now - one["heartbeat_at"] <= SILENCE)
            for one in found
        ]

    return Question(select(*columns, *by_id), read)
