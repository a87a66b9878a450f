"""A beat without a broker: ticks that plan, sweep and mark as sent, and workers in a word."""

from __future__ import annotations

import time
from collections.abc import Sequence

from beatstore import Store
from beatstore.store import BeatStatus
from beatstore.tick.claims import Claim, Outcome, Suspect
from beatstore.tick.endings import Ending
from beatstore.tick.queue import Queue
from beatstore.tick.reports import Origin, Report, Reports

__all__ = ["report", "running_beats", "tick"]


def tick(queue: Queue) -> list[Claim]:
    """Plan and sweep until nothing is due, send all, and return what was sent.

    Runs that nobody reports on are lost, as where there is no result backend.
    """
    claims: list[Claim] = []
    while True:
        now = queue.look().now
        planned, count = queue.plan(now)
        swept = queue.sweep(now)
        if swept.suspects:
            queue.end([_lost(suspect) for suspect in swept.suspects])
        found = [*planned, *swept.claims]
        if found:
            queue.settle([Outcome(claim, "sent") for claim in found])
        claims += found
        if not count and not swept.count:
            return claims


def report(store: Store, state: str, claims: Sequence[Claim], error: str | None = None) -> None:
    """Let a worker say that these runs have come to `state`."""
    reports = Reports(store.database, store.settings)
    now = time.monotonic()
    reports.write(
        [
            Report(Origin(claim.run_id, claim.task_id), state, now, "worker@test", error=error)
            for claim in claims
        ]
    )
    reports.close()


def _lost(suspect: Suspect) -> Ending:
    return Ending(suspect.run_id, suspect.task_id, "lost", suspect.reason)


def running_beats(store: Store) -> list[BeatStatus]:
    """Return the beats on record that were not stopped in order."""
    return [beat for beat in store.status().beats if beat.stopped_at is None]
