"""The worker's half of the store: what its processes say of the runs they were given.

    start      may this message be worked on?                 1 transaction
    write      what became of runs                            1 transaction
    heartbeat  the worker lives, and with it what it runs     1 transaction

Invariants:
    * Writing the same reports twice changes nothing, so a caller who can't know whether a
      transaction was committed writes them again.
    * A run that has ended stays as it ended, whatever comes later.

On failure: as in `beatstore.store.database.connection`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, case, func, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.sql.expression import null

from beatstore.config import Settings
from beatstore.dialects import insert_ignore
from beatstore.store.database.connection import KeptConnection, read_now
from beatstore.store.database.engine import Database
from beatstore.store.tick.claims import ENTRY, RUN, WORKER, legible, timeout_of
from beatstore.store.tick.complete import ERROR_LENGTH, SUSPECTED, Ending, finish
from beatstore.version import __version__

__all__ = ["Report", "Reports"]

#: How many heartbeats may stay out before a worker is suspected, and then given up.
SILENT, SUSPICIOUS = 3, 2

#: Longer than a worker may be silent and be taken for alive.
_GONE = timedelta(seconds=61)

#: States in which a run has not begun to be worked on.
_WAITING = ("claimed", "sent")

#: Takes a suspicion back.
_NOT_SUSPECTED = case((RUN.c.claimed_by != SUSPECTED, RUN.c.claimed_by), else_=null())


#: Marks a run as started; made once, for a worker executes it for each of its tasks.
_START = (
    update(RUN)
    .where(RUN.c.id == bindparam("b_id"), RUN.c.state.in_(bindparam("b_states", expanding=True)))
    .values(
        state="started",
        finished_at=null(),
        claimed_by=_NOT_SUSPECTED,
        **{name: bindparam(f"b_{name}") for name in ("worker", "started_at", "wake_at")},
    )
)


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker has to say of one run.

    Attributes:
        run_id: which run.
        state: `started`; `sent`, when its message went back to the queue; or how it ended:
            `succeeded`, `failed`, `cancelled`.
        at: when that happened, by this process's monotonic clock, in seconds.
        worker: the worker's node name.
        started: when the run was started, by the same clock; with an end, where it is known.
        reason: why, in words.
        error: the exception, in one line.
        traceback: and where it came from.
        part: "3/10", of the third of ten tasks that must all succeed.
    """

    run_id: int
    state: str
    at: float
    worker: str
    started: float | None = None
    reason: str | None = None
    error: str | None = None
    traceback: str | None = None
    part: str | None = None


class Reports:
    """One connection for the reports of one process; for one thread at a time.

    Args:
        database: where the rows are.
        settings: give the heartbeat.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._kept = KeptConnection(database)
        self._silence = timedelta(seconds=settings.heartbeat * SILENT)

    def write(self, reports: Sequence[Report]) -> None:
        """Write what became of runs, in the order given.

        Transaction: opens and commits its own.

        Raises:
            UnavailableError: the database did not answer; write them again.
        """
        self._kept.claiming_again(lambda connection: self._write(connection, reports))

    def start(self, report: Report, *, again: bool) -> str | None:
        """Mark a run as started, unless it must not start: the start-once guard.

        Args:
            report: of state `started`.
            again: whether this may be the second start, since the broker delivered the
                message again after a worker had died.

        Returns:
            None, or why the run must not start.

        Transaction: opens and commits its own.

        Raises:
            UnavailableError: the database did not answer.
        """
        return self._kept.claiming_again(lambda connection: self._start(connection, report, again))

    def heartbeat(self, worker_id: str, name: str, pid: int, running: Sequence[int]) -> None:
        """Say that a worker lives, and that it still runs what it was given.

        Args:
            worker_id: the same for one start of one worker; at most 36 characters.
            name: its node name.
            pid: of its main process.
            running: the ids of the runs it has started and not ended.

        Transaction: opens and commits its own.

        Raises:
            UnavailableError: the database did not answer.
        """
        self._kept.claiming_again(
            lambda connection: self._heartbeat(connection, worker_id, name, pid, running)
        )

    def withdraw(self, worker_id: str) -> None:
        """Say that a worker has ended in order.

        Transaction: opens and commits its own.
        """
        with self._kept.claiming() as connection:
            # The row stays, as the sign that outcomes are reported here; it is just silent.
            silent_since = read_now(connection, self._database) - max(self._silence, _GONE)
            of_worker = update(WORKER).where(WORKER.c.id == worker_id)
            connection.execute(of_worker.values(heartbeat_at=silent_since, running=0))

    def close(self) -> None:
        """Give the connection back; the next call opens another."""
        self._kept.drop(orderly=True)

    # -- steps -----------------------------------------------------------------------------

    def _write(self, connection: Connection, reports: Sequence[Report]) -> None:
        for part in _each_run_once(reports):
            ends = [report for report in part if report.state not in ("started", "sent")]
            ends = [report for report in ends if self._is_last(connection, report)]
            others = [report for report in part if report.state in ("started", "sent")]
            if others:
                now = read_now(connection, self._database)
                for report in others:
                    if report.state == "started":
                        self._mark_started(connection, report, now, (*_WAITING, "started"))
                    else:
                        self._mark_sent(connection, report, now)
            if ends:
                finish(connection, self._database, [_ending(report) for report in ends])

    def _is_last(self, connection: Connection, report: Report) -> bool:
        """Say whether a run ends with this report: not while other members of a group are left."""
        if report.part is None or report.state != "succeeded":
            return True
        number, count = (int(word) for word in report.part.split("/"))
        of_run = RUN.c.id == report.run_id
        found = select(RUN.c.parts).where(of_run).with_for_update()
        parts = connection.scalar(found)
        left = parts if isinstance(parts, list) else list(range(1, count + 1))
        left = [part for part in left if part != number]
        connection.execute(update(RUN).where(of_run).values(parts=left))
        return not left

    def _start(self, connection: Connection, report: Report, again: bool) -> str | None:
        now = read_now(connection, self._database)
        if self._mark_started(connection, report, now, _WAITING):
            return None
        run = connection.execute(select(RUN).where(RUN.c.id == report.run_id)).first()
        if run is None:
            return None  # its row was cleared; nobody knows better than the message
        if run.state == "started":
            if again and self._mark_started(connection, report, now, ("started",)):
                return None
            return f"{run.worker} has started it at {run.started_at.isoformat()}"
        if run.state == "lost" and not _followed(connection, run):
            return None  # its message was only late; how it ends is written then
        if run.state == "cancelled" and run.worker is None:
            # Seen by the beat that was sending it meanwhile; see `Queue.settle`.
            connection.execute(
                update(RUN).where(RUN.c.id == run.id).values(worker=report.worker[:255])
            )
        return f"the run is {run.state}" + (f": {run.reason}" if run.reason else "")

    def _mark_started(
        self, connection: Connection, report: Report, now: datetime, states: Sequence[str]
    ) -> bool:
        given = {
            "b_id": report.run_id,
            "b_states": list(states),
            "b_worker": report.worker[:255],
            "b_started_at": now - timedelta(seconds=_age(report)),
            "b_wake_at": now + self._silence,
        }
        return connection.execute(_START, given).rowcount == 1

    def _mark_sent(self, connection: Connection, report: Report, now: datetime) -> None:
        """Mark a run whose message went back to the queue: celery's own retry, or a requeue."""
        timeout_s = connection.scalar(
            select(ENTRY.c.run_timeout_s)
            .join(RUN, RUN.c.entry_id == ENTRY.c.id)
            .where(RUN.c.id == report.run_id)
        )
        timeout = timeout_of(timeout_s)
        wake_at = None if timeout is None else now + timeout
        values: dict[str, Any] = {
            "state": "sent",
            "worker": report.worker[:255],
            "claimed_by": _NOT_SUSPECTED,
            "wake_at": wake_at,
        }
        for name, text in (("reason", report.reason), ("error", report.error)):
            if text:
                values[name] = legible(text, ERROR_LENGTH)
        of_run = update(RUN).where(RUN.c.id == report.run_id)
        connection.execute(of_run.where(RUN.c.state.in_((*_WAITING, "started"))).values(values))

    def _heartbeat(
        self, connection: Connection, worker_id: str, name: str, pid: int, running: Sequence[int]
    ) -> None:
        now = read_now(connection, self._database)
        if running:
            alive = update(RUN).where(RUN.c.id.in_(list(running)), RUN.c.state == "started")
            connection.execute(alive.values(wake_at=now + self._silence, claimed_by=_NOT_SUSPECTED))
        values = {"heartbeat_at": now, "running": len(running)}
        beat = update(WORKER).where(WORKER.c.id == worker_id).values(values)
        if not connection.execute(beat).rowcount:
            connection.execute(
                insert_ignore(WORKER, connection.dialect).values(
                    id=worker_id,
                    name=name[:255],
                    pid=pid,
                    version=__version__,
                    started_at=now,
                    **values,
                )
            )


def _each_run_once(reports: Sequence[Report]) -> Iterator[list[Report]]:
    """Cut reports into parts in which no run occurs twice, in their order."""
    part: list[Report] = []
    seen: set[int] = set()
    for report in reports:
        if report.run_id in seen:
            yield part
            part, seen = [], set()
        part.append(report)
        seen.add(report.run_id)
    if part:
        yield part


def _ending(report: Report) -> Ending:
    return Ending(
        report.run_id,
        report.state,
        report.reason,
        report.error,
        report.traceback,
        report.worker,
        _age(report),
        None if report.started is None else report.at - report.started,
    )


def _age(report: Report) -> float:
    return max(0.0, time.monotonic() - report.at)


def _followed(connection: Connection, run: Any) -> bool:
    """Say whether there is a later attempt of the same occurrence."""
    later = select(func.count()).select_from(RUN)
    same = (RUN.c.entry_id == run.entry_id, RUN.c.due_at == run.due_at)
    return bool(connection.scalar(later.where(*same, RUN.c.attempt > run.attempt)))
