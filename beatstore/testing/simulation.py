"""The simulation: a beat without a broker and workers without tasks, on one manual clock.

It drives the same `Tick` as a real beat, which sends into a list. Runs whose worker stops
reporting are lost.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from beatstore.clock import ManualClock
from beatstore.schedules import tzdata_version
from beatstore.store import Store, virtual
from beatstore.testing.workers import Running, Sent, Workers
from beatstore.tick.beats import BeatFigures
from beatstore.tick.claims import Claim, Ending, Look, Outcome, StaleRun
from beatstore.tick.queue import Queue
from beatstore.tick.reports import Origin, Report, Reports
from beatstore.tick.tick import Tick
from beatstore.tick.watch import timeout_in_force
from beatstore.version import __version__

__all__ = ["Simulation"]

#: The most runs reported in one transaction: SQLite may accept only 999 values.
_REPORTED = 900

#: Heartbeat of the simulated worker, in seconds: so long that it needs none.
_FOREVER = 366 * 86400.0

#: More looks at the same instant mean a cycle.
_ROUNDS = 10_000

_WORKER = "simulated"


class Simulation:
    """One simulated span of time."""

    def __init__(
        self,
        store: Store,
        clock: ManualClock,
        workers: Workers,
        away: Sequence[tuple[datetime, datetime]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._workers = workers
        self._away = away
        database, settings = store.database, store.settings
        self._queue = Queue(database, settings, _WORKER)
        self._tick = Tick(self._queue, _send_all, _all_lost)
        self._reports = Reports(database, replace(settings, heartbeat=_FOREVER))
        self._dying = Reports(database, settings)

    def run(self, until: datetime) -> None:
        """Advance the clock to `until`, and do everything that is due."""
        try:
            self._write_heartbeats()
            self._resume()
            self._run(until)
            self._report_started(self._workers.unreported())
            self._clock.set(until)
            self._write_heartbeats()
        finally:
            for half in (self._queue, self._reports, self._dying):
                half.close()

    def _write_heartbeats(self) -> None:
        """Write heartbeats of beat and worker, for `Store.status` and `explain`."""
        now = self._clock.now()
        self._dying.heartbeat(_WORKER, _WORKER, 0, [])
        if self._when_up(now) == now:
            self._queue.upkeep.introduce(
                host=_WORKER, pid=0, version=__version__, tzdata=tzdata_version()
            )
            self._queue.upkeep.heartbeat(BeatFigures(None, 0, 0))

    def _run(self, until: datetime) -> None:
        look, rounds = self._tick.look(), 0
        while True:
            at = self._next(look)
            if at is None or at >= until:
                return
            rounds = rounds + 1 if at == self._clock.now() else 0
            if rounds > _ROUNDS:
                raise RuntimeError(
                    f"endless loop at {at.isoformat()}: entries keep triggering each other"
                )
            self._clock.set(at)
            if not self._end(at):
                self._fire(replace(look, now=at))
            look = self._tick.look()

    def _next(self, look: Look) -> datetime | None:
        """Return the next instant at which a run ends or beat has something to do."""
        due = [at for at in (look.entry_wake_at, look.run_wake_at) if at is not None]
        moments = [self._when_up(max(min(due), self._clock.now()))] if due else []
        end = self._workers.next_end()
        return min([*moments, *([] if end is None else [end])], default=None)

    def _when_up(self, at: datetime) -> datetime:
        """Return the first instant from `at` on at which beat is up."""
        for begin, end in self._away:
            if begin <= at < end:
                at = end
        return at

    def _end(self, now: datetime) -> bool:
        """End the runs that end by now; return True if there were any."""
        ended = self._workers.end(now)
        dead = [running for running in ended if running.outcome.state == "lost"]
        if dead:
            # Their worker reports nothing after this.
            self._dying.heartbeat(_WORKER, _WORKER, 0, [_origin(one) for one in dead])
        self._write([self._report(one) for one in ended if one.outcome.state != "lost"])
        if ended:
            self._begin(now)
        return bool(ended)

    def _report(self, running: Running) -> Report:
        outcome = running.outcome
        # Reports compute their age by the monotonic clock; an instant in the future has age 0.
        at = float(math.ceil(time.monotonic()) + 3600)
        took = (running.at - running.work.started_at).total_seconds()
        return Report(
            _origin(running), outcome.state, at, _WORKER, at - took, outcome.reason, outcome.error
        )

    def _write(self, reports: Sequence[Report]) -> None:
        for first in range(0, len(reports), _REPORTED):
            self._reports.write(reports[first : first + _REPORTED])

    def _begin(self, now: datetime) -> None:
        self._report_started(self._workers.begin(now))

    def _report_started(self, runs: Iterable[Running]) -> None:
        """Report the start of runs, each at its own instant."""
        by_start: dict[datetime, list[Running]] = {}
        for one in runs:
            by_start.setdefault(one.work.started_at, []).append(one)
        now = self._clock.now()
        for at, begun in sorted(by_start.items()):
            self._clock.set(at)
            self._write([replace(self._report(one), state="started") for one in begun])
        self._clock.set(now)

    def _resume(self) -> None:
        """Continue the unfinished runs of an earlier simulation."""
        now = self._clock.now()
        found = virtual.under_way(self._store.database)
        living = now + timedelta(seconds=_FOREVER)
        runs = [run for run in found if run.state == "sent" or (run.wake_at or now) > living]
        self._workers.take(
            Sent(
                *(run.id, run.entry_name, run.task or "", run.args or [], run.kwargs or {}),
                due_at=run.due_at,
                attempt=run.attempt,
                sent_at=run.sent_at,
                watched=timeout_in_force(run, self._store.settings) is not None,
                started_at=run.started_at,
                task_id=run.task_id,
            )
            for run in sorted(runs, key=lambda run: run.state != "started")
        )
        self._begin(now)

    def _fire(self, look: Look) -> None:
        """Send what is due, as beat does, and start runs on free workers."""
        fired = self._tick.fire(look)
        if not fired.found:
            raise RuntimeError("another beat holds a due row; simulate with a store of its own")
        # In an order that a later simulation can read from the rows.
        claims = sorted(
            (outcome.claim for outcome in fired.outcomes),
            key=lambda claim: (claim.due_at, claim.run_id),
        )
        if claims:
            self._workers.take(_sent(claim, look.now) for claim in claims)
            self._begin(look.now)


def _send_all(claims: Sequence[Claim], **_: object) -> Iterator[list[Outcome]]:
    """Report every message as sent."""
    yield [Outcome(claim, "sent") for claim in claims]


def _all_lost(stale_runs: Sequence[StaleRun]) -> list[Ending]:
    """Answer as without a result backend: the runs are lost."""
    return [run.lost for run in stale_runs]


def _sent(claim: Claim, now: datetime) -> Sent:
    return Sent(
        *(claim.run_id, claim.name, claim.task, claim.args, claim.kwargs),
        *(claim.due_at, claim.attempt, now, claim.run_timeout_s is not None),
        task_id=claim.task_id,
    )


def _origin(running: Running) -> Origin:
    return Origin(running.work.run_id, running.work.task_id)
