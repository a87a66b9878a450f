"""A beat without a broker: ticks that send to nobody, and workers in a word."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from beatstore import Store
from beatstore.store import BeatStatus
from beatstore.tick.claims import Claim, Ending, Outcome, StaleRun
from beatstore.tick.queue import Queue
from beatstore.tick.reports import Origin, Report, Reports
from beatstore.tick.tick import Tick
from tests.support.wait import wait_until

__all__ = [
    "MakeQueue",
    "lost",
    "plan",
    "report",
    "running_beats",
    "sent",
    "sweep",
    "taken",
    "tick",
    "wait_for_beats",
]

#: Makes the queue of one more beat, with these settings.
MakeQueue = Callable[..., Queue]


def tick(queue: Queue) -> list[Claim]:
    """Tick until nothing is due, send all, and return what was sent.

    Runs that nobody reports on are lost, as where there is no result backend.
    """
    claims: list[Claim] = []
    one = Tick(queue, taken, lost)
    while True:
        fired = one.fire(one.look())
        claims += [outcome.claim for outcome in fired.outcomes]
        if not fired.found:
            return claims


def taken(claims: Sequence[Claim], **_: object) -> Iterator[list[Outcome]]:
    """Send at once, to a broker that takes everything."""
    yield [Outcome(claim, "sent") for claim in claims]


def lost(stale_runs: Sequence[StaleRun]) -> list[Ending]:
    """Answer as where there is no result backend."""
    return [one.lost for one in stale_runs]


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


def running_beats(store: Store) -> list[BeatStatus]:
    """Return the beats on record that were not stopped in order."""
    return [beat for beat in store.status().beats if beat.stopped_at is None]


def plan(queue: Queue) -> list[Claim]:
    """Look and plan once."""
    return queue.plan(queue.look().now)[0]


def sweep(queue: Queue) -> list[Claim]:
    """Look and sweep once."""
    return queue.sweep(queue.look().now).claims


def sent(claims: list[Claim]) -> list[Outcome]:
    """Return the outcomes of claims that all reached the broker."""
    return [Outcome(claim, "sent") for claim in claims]


def wait_for_beats(store: Store, count: int = 1) -> None:
    """Wait until so many beats have written their rows."""
    wait_until(lambda: len(running_beats(store)) == count, 30, f"{count} beats")
