"""One tick: from what is due to what was sent.

    look    see what is due, after everything that is still to be written was written
    claim   the queue's sweep and plan: due rows become claims, each committed
    send    the driver's: claims become messages, and each message has an outcome
    mark    the queue's settle: outcomes are written to the rows of their runs

Beat, `beatstore tick` and the simulation drive this one class. They differ in what sends,
in what knows how silent runs have ended, and in what they do between two ticks.

Invariants:
    * Nothing is sent that is not committed.
    * However sending ends, by a signal too, each claim has an outcome then: what was sent
      is marked, and what was not is free for the next sweep at once.
    * What can't be written now is kept, and written by the next look.

On failure: what the queue raises (`UnavailableError`) and what `send` raises come through.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from beatstore.tick.claims import Claim, Ending, Look, Outcome, Suspect
from beatstore.tick.queue import Queue

__all__ = ["BATCH", "Fired", "Tick", "contended_pause"]

#: How many messages may be with the broker, and not be marked.
BATCH = 100

#: The share of a claim's life after which nothing more is sent under it.
TRUSTED = 0.75


#: How long to leave rows alone that other beats hold, in seconds.
CONTENDED_S = 0.05


class Send(Protocol):
    """Sends claims."""

    def __call__(
        self, claims: Sequence[Claim], *, now: datetime, until: float
    ) -> Iterable[Sequence[Outcome]]:
        """Send claims in their order, and yield their outcomes, those that are known together.

        Args:
            claims: committed, and held by this tick.
            now: the database's time.
            until: when to stop, on the monotonic clock: others may take the claims then.
        """
        ...


class Ask(Protocol):
    """Asks how runs ended that no worker speaks of."""

    def __call__(self, suspects: Sequence[Suspect], /) -> Sequence[Ending]:
        """Ask about more runs, if any are given; return what is known since the last call."""
        ...


@dataclass(frozen=True, slots=True)
class Fired:
    """What a tick did.

    Attributes:
        found: how many due rows it has looked at; 0: others hold all of them.
        outcomes: what became of each claim, in the order in which it was known.
    """

    found: int
    outcomes: list[Outcome]


class Tick:
    """Ticks on one queue; `look`, then `fire` if something is due.

    Args:
        queue: the claims of one beat.
        send: sends what was claimed.
        ask: asks how silent runs ended.
        after_batch: called whenever a batch is sent and marked; it may raise to end the tick.
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
        """Write what is still to be written, and return what is due.

        Args:
            late: what became of messages that were sent in an earlier tick.
        """
        self._endings += self._ask(())
        self.settle(late)
        if self._in_doubt:
            # A claim whose commit was never answered would wait until it expires.
            self._queue.upkeep.release()
            self._in_doubt = False
        self._looked_at = time.monotonic()
        return self._queue.look()

    def fire(self, look: Look) -> Fired:
        """Claim what is due, send it, and mark it as sent.

        Args:
            look: what `look` has just returned.
        """
        self._in_doubt = True
        claims, found = self._claim(look)
        self._in_doubt = False
        now = look.now + timedelta(seconds=time.monotonic() - self._looked_at)
        until = self._looked_at + self._queue.settings.claim_ttl * TRUSTED
        return Fired(found, self._send_and_mark(claims, now, until))

    def settle(self, outcomes: Sequence[Outcome] = ()) -> None:
        """Write what became of claims, and how runs ended, with what is left from before."""
        self._outcomes += outcomes
        self._endings += [outcome.ending for outcome in outcomes if outcome.ending is not None]
        if self._endings:
            self._queue.end(self._endings)
            self._endings = []
        if self._outcomes:
            self._outcomes = self._queue.settle(self._outcomes)

    def _claim(self, look: Look) -> tuple[list[Claim], int]:
        """Return what is to be sent, and how many due rows were looked at."""
        claims: list[Claim] = []
        found = 0
        if look.is_run_due:
            swept = self._queue.sweep(look.now)
            claims += swept.claims
            found += swept.count
            if swept.suspects:
                self._endings += self._ask(swept.suspects)
                self.settle()
        if look.is_entry_due:
            planned, count = self._queue.plan(look.now)
            claims += planned
            found += count
        return claims, found

    def _send_and_mark(self, claims: Sequence[Claim], now: datetime, until: float) -> list[Outcome]:
        """Send, mark batch by batch, and return what became of each claim.

        One look can claim thousands of runs, where entries make up for what they missed.
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
                    self.settle(outcomes[marked:])
                    marked = len(outcomes)
                    if self._after_batch is not None:
                        self._after_batch()
        finally:
            outcomes += [Outcome(claim, "claimed") for claim in left.values()]
            self.settle(outcomes[marked:])
        return outcomes


def contended_pause() -> float:
    """Return for how many seconds to leave rows to the others that hold them.

    It differs from call to call, so that two beats do not meet again.
    """
    return random.uniform(0.5, 1.5) * CONTENDED_S
