"""One tick: claim what is due, send it, and mark it as sent.

    look    write pending outcomes, and read what is due
    claim   the queue's sweep and plan turn due rows into committed claims
    send    the driver turns claims into messages, and returns an outcome for each
    mark    the queue's mark writes the outcomes to the runs

Beat, `beatstore tick` and the simulation use this class. They differ in how they send, how they
find out about stale runs, and what they do between two ticks.

Invariants:
    * Only committed claims are sent.
    * However sending ends, even by a signal, each claim gets an outcome: sent runs are marked,
      and the others are free for the next sweep at once.
    * Outcomes that can't be written now are kept, and the next look writes them.

On failure: errors of the queue (`UnavailableError`) and of `send` are raised.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from beatstore.tick.claims import Claim, Ending, Look, Outcome, StaleRun
from beatstore.tick.queue import FIRST_BATCH, Queue

__all__ = ["BATCH", "Fired", "Tick", "contended_pause"]

#: How many messages are sent together, and how many sent ones may be unmarked at a time.
BATCH = 500

#: The share of `claim_ttl` during which a claim may be sent.
TRUSTED = 0.75


#: How long to wait if other beats have locked all due rows, in seconds.
CONTENDED_S = 0.05

#: The shares of `claim_ttl` in which a tick is quick, so that the next one may claim twice as
#: much; and slow, so that it claims half as much.
QUICK, SLOW = 0.1, 0.25


class Send(Protocol):
    """Sends claims."""

    def __call__(
        self, claims: Sequence[Claim], *, now: datetime, until: float
    ) -> Iterable[Sequence[Outcome]]:
        """Send claims in order, and yield their outcomes in groups.

        Args:
            claims: the committed claims of this tick.
            now: the database's time.
            until: when to stop, on the monotonic clock: other beats may take the claims then.
        """
        ...


class Ask(Protocol):
    """Asks how stale runs ended."""

    def __call__(self, stale_runs: Sequence[StaleRun], /) -> Sequence[Ending]:
        """Ask about these runs; return the outcomes that have arrived since the last call."""
        ...


@dataclass(frozen=True, slots=True)
class Fired:
    """The result of a tick.

    Attributes:
        found: the number of due rows that were handled; 0: other beats have locked all.
        outcomes: the outcome of each claim, in the order of arrival.
    """

    found: int
    outcomes: list[Outcome]


class Tick:
    """Ticks on one queue: call `look`, then `fire` if something is due.

    Args:
        queue: the queue of one beat.
        send: sends claims.
        ask: asks how stale runs ended.
        after_batch: called after each batch is sent and marked; may raise to end the tick.
    """

    def __init__(
        self, queue: Queue, send: Send, ask: Ask, *, after_batch: Callable[[], None] | None = None
    ) -> None:
        self._queue = queue
        self._send = send
        self._ask = ask
        self._after_batch = after_batch
        self._outcomes: list[Outcome] = []
        self._endings: list[Ending] = []
        self._in_doubt = False
        self._looked_at = 0.0

    def look(self, late: Sequence[Outcome] = ()) -> Look:
        """Write pending outcomes, and return what is due.

        Args:
            late: outcomes of messages that were sent in an earlier tick.
        """
        self._endings += self._ask(())
        self.mark(late)
        if self._in_doubt:
            # Otherwise a claim whose commit got no answer would wait until it expires.
            self._queue.upkeep.release()
            self._in_doubt = False
        self._looked_at = time.monotonic()
        return self._queue.look()

    def fire(self, look: Look) -> Fired:
        """Claim what is due, send it, and mark it as sent.

        Args:
            look: the latest result of `look`.
        """
        self._in_doubt = True
        claims, found = self._claim(look)
        self._in_doubt = False
        now = look.now + timedelta(seconds=time.monotonic() - self._looked_at)
        until = self._looked_at + self._queue.settings.claim_ttl * TRUSTED
        fired = Fired(found, self._send_and_mark(claims, now, until))
        self._fit(found)
        return fired

    def mark(self, outcomes: Sequence[Outcome] = ()) -> None:
        """Write outcomes of claims and ends of runs, including those kept from before."""
        self._outcomes += outcomes
        self._endings += [outcome.ending for outcome in outcomes if outcome.ending is not None]
        if self._endings:
            self._queue.end(self._endings)
            self._endings = []
        if self._outcomes:
            self._outcomes = self._queue.mark(self._outcomes)

    def _fit(self, found: int) -> None:
        """Say how much the next tick claims: the first of a burst little, so that it is sent soon.

        The others claim more, since each transaction has a price of its own; but no more than
        what is sent long before a claim expires.
        """
        queue, settings = self._queue, self._queue.settings
        took = time.monotonic() - self._looked_at
        first = min(FIRST_BATCH, settings.batch_size)
        if took > settings.claim_ttl * SLOW:
            queue.limit = max(queue.limit // 2, first)
        elif found < queue.limit:
            queue.limit = first
        elif took < settings.claim_ttl * QUICK:
            queue.limit = min(2 * queue.limit, settings.batch_size)

    def _claim(self, look: Look) -> tuple[list[Claim], int]:
        """Return the claims to send, and the number of due rows that were handled."""
        claims: list[Claim] = []
        found = 0
        if look.is_run_due:
            swept = self._queue.sweep(look.now)
            claims += swept.claims
            found += swept.count
            if swept.stale_runs:
                self._endings += self._ask(swept.stale_runs)
                self.mark()
        if look.is_entry_due:
            planned, count = self._queue.plan(look.now)
            claims += planned
            found += count
        return claims, found

    def _send_and_mark(self, claims: Sequence[Claim], now: datetime, until: float) -> list[Outcome]:
        """Send, mark batch by batch, and return the outcome of each claim.

        One look can claim thousands of runs if entries catch up on missed occurrences.
        """
        left = {claim.run_id: claim for claim in claims}
        outcomes: list[Outcome] = []
        marked = 0
        try:
            for known in self._send(claims, now=now, until=until):
                outcomes += known
                for outcome in known:
                    left.pop(outcome.claim.run_id, None)
                if len(outcomes) - marked >= BATCH:
                    self.mark(outcomes[marked:])
                    marked = len(outcomes)
                    if self._after_batch is not None:
                        self._after_batch()
        finally:
            outcomes += [Outcome(claim, "claimed") for claim in left.values()]
            self.mark(outcomes[marked:])
        return outcomes


def contended_pause() -> float:
    """Return how many seconds to wait for rows that other beats have locked.

    It is random, so that two beats do not collide again.
    """
    return random.uniform(0.5, 1.5) * CONTENDED_S
