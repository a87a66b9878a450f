"""Write a worker's reports on its runs.

    start      mark a run started, if it may start            1 transaction
    write      write reports                                  1 transaction
    heartbeat  keep the worker and its runs alive             1 transaction

Invariants:
    * A report changes only its own run: the row with its id and its task id.
    * Writing the same reports twice changes nothing, so a caller who does not know whether a
      transaction was committed writes them again.
    * A run never goes back. Its end is final, and a report that its message went back to the
      queue does not undo a later start. Reports of two workers arrive in any order.

On failure: as in `beatstore.database.connection`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, and_, bindparam, case, or_, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.sql.expression import null

from beatstore.config import Settings
from beatstore.database.connection import KeptConnection, read_now
from beatstore.database.dialects import dialect_of
from beatstore.database.engine import Database
from beatstore.database.faults import contended
from beatstore.database.tables import ENTRY, RUN
from beatstore.database.transaction import explained
from beatstore.errors import HeldError, UnavailableError
from beatstore.rules.states import NOT_STARTED, UNFINISHED
from beatstore.tick import workers
from beatstore.tick.complete import finish, finish_alone
from beatstore.tick.dropped import without_dropped
from beatstore.tick.endings import TAKEN_FOR_UNSENT, is_reported
from beatstore.tick.guard import is_followed, start_free
from beatstore.tick.locks import LOCK_WAIT_MS, LOCK_WAIT_S, NO_WAIT_S, lock_runs
from beatstore.tick.parts import Parts
from beatstore.tick.report import (
    Report,
    Unwritten,
    columns_of,
    each_run_once,
    ending_of,
    expiry_of,
    is_end,
    only_ends,
    seconds_since,
    until,
)
from beatstore.tick.watch import next_check_at, timeout_in_force
from beatstore.tick.workers import NOT_SUSPECTED, Origin

__all__ = ["Origin", "Report", "Reports", "Unwritten"]

#: How many heartbeats may be missed before a run is stale, and then how many until it is lost.
MISSED_UNTIL_STALE, MISSED_UNTIL_LOST = 3, 2

_THIS = and_(RUN.c.id == bindparam("b_id"), RUN.c.task_id == bindparam("b_task_id"))

#: Marks a run as started. Compiled once, since a worker executes it for each task.
_START = (
    update(RUN)
    .where(_THIS)
    .values(
        state="started",
        finished_at=null(),
        claimed_by=NOT_SUSPECTED,
        **{name: bindparam(f"b_{name}") for name in ("worker", "started_at", "wake_at")},
    )
)

#: The same for the start-once guard, and for reports, which may arrive after a later start.
_MAY_START = _START.where(RUN.c.state.in_(bindparam("b_states", expanding=True)))
_STARTED = _START.where(
    or_(
        RUN.c.state.in_(NOT_STARTED),
        and_(
            RUN.c.state == "started",
            or_(RUN.c.started_at.is_(None), RUN.c.started_at <= bindparam("b_started_at")),
        ),
        TAKEN_FOR_UNSENT,
    )
)

#: The columns that the timeout depends on; as subqueries, since a join would lock the entry too.
_POLICIES = [
    select(ENTRY.c[name]).where(ENTRY.c.id == RUN.c.entry_id).scalar_subquery().label(name)
    for name in ("run_timeout_s", "overlap")
]

_COLUMNS = (
    *("id", "state", "parts", "wake_at", "expires_at", "started_at"),
    *("claimed_by", "worker", "reason"),
)

#: Locks the row of a run, and reads whether beat took it for unsent.
_RUN = (
    select(*(RUN.c[name] for name in _COLUMNS), *_POLICIES)
    .add_columns(case((TAKEN_FOR_UNSENT, 1), else_=0).label("believed"))
    .where(_THIS)
    .with_for_update()
)


class Reports:
    """Writes the reports of one process on one connection. Not thread-safe.

    Args:
        database: the database.
        settings: the heartbeat interval, and the default timeouts.

    Attributes:
        max_wait_s: the longest wait between two attempts in an outage, in seconds: short
            enough for a report to arrive before its run is marked lost.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._kept = KeptConnection(database)
        self._settings = settings
        self._silence = timedelta(seconds=settings.heartbeat * MISSED_UNTIL_STALE)
        self.max_wait_s = settings.heartbeat * MISSED_UNTIL_LOST / 4
        #: The start times that this process has written.
        self._begun: dict[Origin, datetime] = {}
        self._no_wait_until = 0.0

    def write(self, reports: Sequence[Report]) -> Unwritten:
        """Write reports in the given order.

        Transaction: opens and commits its own.

        Raises:
            StoreError: the database did not answer, or a right or a table is missing; write them
                again.
        """
        with explained(self._database):
            unwritten = self._kept.claiming_again(lambda given: self._write(given, reports))
        held = {report.of for report in unwritten.held}
        for report in reports:
            if report.state != "started" and report.of not in held:
                self._begun.pop(report.of, None)
        return unwritten

    def start(self, report: Report, *, again: bool) -> str | None:
        """Mark a run as started, unless it must not start: the start-once guard.

        Args:
            report: of state `started`.
            again: whether a second start is allowed, since the broker delivered the message
                again after a worker died.

        Returns:
            None, or why the run must not start.

        Transaction: opens and commits its own.

        Raises:
            HeldError: another transaction has locked the run.
            UnavailableError: the database did not answer.
        """
        return self.start_and_end(report, (), again=again)[0]

    def start_and_end(
        self, report: Report, reports: Sequence[Report], *, again: bool
    ) -> tuple[str | None, list[Report]]:
        """Mark a run as started, as `start` does, and write the ends among other reports with it.

        Args:
            report: of state `started`.
            reports: the others.
            again: as in `start`.

        Returns:
            None, or why the run must not start; and those of `reports` that were written: ends from
            which nothing follows, of runs that nobody has locked.

        Transaction: opens and commits its own; a start alone is one statement, where that can
        commit by itself.

        Raises:
            HeldError: another transaction has locked the run that starts; nothing was written.
            UnavailableError: the database did not answer.
        """
        ends = [one for one in only_ends([report, *reports]) if one is not report]
        at_once = not ends and self._kept.may_write_at_once
        if at_once and self._kept.writing_at_once(lambda given: self._start_free(given, report)):
            return None, []

        def write(connection: Connection) -> tuple[str | None, set[int]]:
            answer = None
            if at_once or not self._start_free(connection, report):
                answer = self._start(connection, report, again)
            given = [ending_of(one) for one in ends]
            return answer, finish_alone(connection, self._database, given, patience=0.0)

        try:
            answer, written = self._kept.claiming_again(write)
        except UnavailableError as error:
            if contended(error.__cause__):
                raise HeldError(
                    f"run {report.of.run_id} is locked by another transaction"
                ) from error
            raise
        done = [one for one in ends if one.of.run_id in written]
        for one in done:
            self._begun.pop(one.of, None)
        return answer, done

    def heartbeat(self, worker_id: str, name: str, pid: int, running: Sequence[Origin]) -> None:
        """Update the heartbeat of a worker and of the runs that it executes.

        Args:
            worker_id: the id of this start of the worker; at most 36 characters.
            name: its node name.
            pid: the id of its main process.
            running: the runs and parts that it is executing.

        Transaction: opens and commits its own.

        Raises:
            SchemaError: the tables are missing, or of another version.
            UnavailableError: the database did not answer.
        """

        def beat(connection: Connection) -> None:
            now = read_now(connection, self._database)
            workers.keep_alive(connection, running, now + self._silence)
            workers.heartbeat(connection, worker_id, now, name=name, pid=pid, running=len(running))

        with explained(self._database):
            self._kept.claiming_again(beat)

    def withdraw(self, worker_id: str) -> None:
        """Mark a worker as stopped.

        Transaction: opens and commits its own.
        """

        def write(connection: Connection) -> None:
            workers.withdraw(connection, worker_id, read_now(connection, self._database))

        self._kept.claiming_again(write)

    def close(self) -> None:
        """Release the connection; the next call opens another."""
        self._kept.drop(orderly=True)

    # -- steps -----------------------------------------------------------------------------

    def _write(self, connection: Connection, reports: Sequence[Report]) -> Unwritten:
        patience = LOCK_WAIT_S if time.monotonic() >= self._no_wait_until else 0.0
        given = [ending_of(report) for report in only_ends(reports)]
        written = finish_alone(connection, self._database, given, patience=patience)
        reports = [report for report in reports if report.of.run_id not in written]
        if not reports:
            return Unwritten()
        held = lock_runs(connection, {report.of.run_id for report in reports}, patience)
        unwritten = Unwritten(held=[report for report in reports if report.of.run_id in held])
        reports = [report for report in reports if report.of.run_id not in held]
        for batch in each_run_once(reports):
            some = without_dropped(connection, self._database, batch, self._silence)
            ends = [report for report in some if report.of.part is None and is_end(report)]
            others = [report for report in some if report.of.part or not is_end(report)]
            now = read_now(connection, self._database) if others else None
            # Two workers that have parts of the same runs lock them in the same order.
            for report in sorted(others, key=lambda report: report.of.run_id):
                assert now is not None
                if report.of.part is not None:
                    found, ended = self._write_part(connection, report, now)
                    ends += [report] if ended else []
                elif report.state == "started":
                    found = self._write_start(connection, report, now)
                else:
                    found = self._write_sent(connection, report, now)
                if not found:
                    unwritten.unknown.append(report)
            if ends:
                self._write_ends(connection, ends, patience, unwritten)
        if unwritten.held:
            self._no_wait_until = time.monotonic() + NO_WAIT_S
        return unwritten

    def _write_ends(
        self,
        connection: Connection,
        ends: Sequence[Report],
        patience: float,
        unwritten: Unwritten,
    ) -> None:
        by_run = {(report.of.run_id, report.of.task_id): report for report in ends}
        given = [ending_of(report) for report in ends]
        left = finish(connection, self._database, given, patience=patience)
        unwritten.held += [by_run[one.run_id, one.task_id] for one in left.held]
        unknown = [by_run[one.run_id, one.task_id] for one in left.unknown]
        unwritten.unknown += [one for one in unknown if _run(connection, one.of) is None]

    def _start_free(self, connection: Connection, report: Report) -> bool:
        """Mark a run as started by one statement; return whether it is."""
        at = start_free(connection, self._database, report, self._silence)
        if at is not None:
            self._begun[report.of] = at
        return at is not None

    def _start(self, connection: Connection, report: Report, again: bool) -> str | None:
        dialect_of(connection.dialect).limit_lock_wait(connection, LOCK_WAIT_MS)
        now = read_now(connection, self._database)
        if self._mark_started(connection, report, now, _MAY_START, b_states=list(NOT_STARTED)):
            return None
        this = {"b_id": report.of.run_id, "b_task_id": report.of.task_id}
        run = connection.execute(select(RUN).where(_THIS), this).first()
        if run is None:
            return None  # its row was deleted, or it belongs to another database
        if run.state == "started":
            if again and self._mark_started(
                connection, report, now, _MAY_START, b_states=["started"]
            ):
                return None
            return f"{run.worker} started it at {run.started_at.isoformat()}"
        if run.state == "lost" and not is_followed(connection, run):
            return None  # its message was only late; its end will be written
        if run.state == "cancelled" and run.worker is None:
            # Tells the beat that is sending it that a worker dropped it; see `Queue.mark`.
            connection.execute(update(RUN).where(_THIS).values(worker=report.worker[:255]), this)
        return f"the run is {run.state}" + (f": {run.reason}" if run.reason else "")

    def _mark_started(
        self, connection: Connection, report: Report, now: datetime, marking: Any, **given: Any
    ) -> bool:
        at = now - timedelta(seconds=seconds_since(report.at))
        given |= {
            "b_id": report.of.run_id,
            "b_task_id": report.of.task_id,
            "b_worker": report.worker[:255],
            "b_started_at": at,
            "b_wake_at": now + self._silence,
        }
        if connection.execute(marking, given).rowcount != 1:
            return False
        self._begun[report.of] = at
        return True

    def _write_start(self, connection: Connection, report: Report, now: datetime) -> bool:
        """Mark a run started; return whether it is in this database."""
        if self._mark_started(connection, report, now, _STARTED):
            return True
        return _run(connection, report.of) is not None

    def _write_sent(self, connection: Connection, report: Report, now: datetime) -> bool:
        """Mark a run whose message went back to the queue, e.g. by Celery's own retry.

        Returns:
            Whether the run is in this database.
        """
        run = _run(connection, report.of)
        if run is None:
            return False
        later = run.started_at is not None and run.started_at > self._since(report, now)
        if run.state in NOT_STARTED or run.believed or (run.state == "started" and not later):
            values = {"state": "sent", "finished_at": null(), **columns_of(report)}
            parts = Parts.read(run.parts)
            parts.until = max(now, until(report, now))
            values["expires_at"] = expiry_of(report, now, run.expires_at)
            values["wake_at"] = self._look_at(run, parts.until, values["expires_at"], now)
            _change(connection, run, **values, parts=parts.as_json())
        return True

    def _write_part(
        self, connection: Connection, report: Report, now: datetime
    ) -> tuple[bool, bool]:
        """Write a report on one task of a canvas.

        Returns:
            Whether the run is in this database, and whether this task ends it.
        """
        run = _run(connection, report.of)
        if run is None:
            return False, False
        live = run.state in UNFINISHED or bool(run.believed)
        # A lost run may still succeed when its other tasks do.
        if not live and run.state != "lost" and is_reported(run):
            return True, is_end(report)
        parts, name = Parts.read(run.parts), report.of.part or ""
        since, succeeded = now - timedelta(seconds=seconds_since(report.at)), False
        if report.state == "started":
            if not (live and parts.start(name, since)):
                return True, False
            self._begun[report.of] = since
        else:
            since = self._since(report, now)
            parts.leave(name, since)
            if report.delay:
                parts.until = max(filter(None, (parts.until, until(report, now))))
            succeeded = report.state == "succeeded" and parts.succeed(name)
        # An end that beat has counted is written when the entry is free; it needs the parts then.
        values: dict[str, Any] = {"parts": null() if succeeded and live else parts.as_json()}
        values["expires_at"] = expires_at = expiry_of(report, now, run.expires_at)
        if run.started_at is None:
            values["started_at"] = since
        if live:
            canvas = self._canvas_columns(run, parts, report, now, expires_at=expires_at)
            values |= {**columns_of(report), **canvas}
        _change(connection, run, **values)
        return True, succeeded or is_end(report)

    def _canvas_columns(
        self, run: Row[Any], parts: Parts, report: Report, now: datetime, *, expires_at: Any
    ) -> Any:
        """Return the state columns of a canvas that has not ended."""
        if not parts.open:
            parts.until = max(filter(None, (now, parts.until)))
            wake_at = self._look_at(run, parts.until, expires_at, now)
            return {"state": "sent", "wake_at": wake_at, "finished_at": null()}
        if report.state == "started" or run.state != "started":
            return {"state": "started", "wake_at": now + self._silence, "finished_at": null()}
        # Other workers run the other tasks, and must send their heartbeats.
        return {"claimed_by": run.claimed_by}

    def _look_at(
        self, run: Row[Any], since: datetime, expires_at: datetime | None, now: datetime
    ) -> datetime | None:
        """Return when a run is stale or expired whose message waits for a worker since `since`."""
        return next_check_at(since, timeout_in_force(run, self._settings), expires_at, now)

    def _since(self, report: Report, now: datetime) -> datetime:
        """Return the start time that a report belongs to; later starts are not affected by it."""
        begun = self._begun.get(report.of)
        if begun is not None:
            return begun
        since = report.at if report.started is None else report.started
        return now - timedelta(seconds=seconds_since(since))


def _run(connection: Connection, of: Origin) -> Row[Any] | None:
    """Lock the row of a run; None if it is not in this database."""
    return connection.execute(_RUN, {"b_id": of.run_id, "b_task_id": of.task_id}).first()


def _change(connection: Connection, run: Row[Any], **values: Any) -> None:
    connection.execute(update(RUN).where(RUN.c.id == run.id).values(**values))
