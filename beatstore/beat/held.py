"""Messages that RabbitMQ was given while its alarm was on, and has not answered for.

RabbitMQ reads no more from a connection that publishes in an alarm, and takes what was
written to it when the alarm is over, even if the connection is closed by then. So these
messages are neither lost nor taken: sent again, they would be there twice. Their claims are
kept, and prolonged, until RabbitMQ answers for them, or the connection breaks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from beatstore.beat.confirms import Confirms, UnsureError
from beatstore.beat.publishing import BeatEntry
from beatstore.tick.claims import Claim, Outcome

__all__ = ["Held"]

#: For how long a claim is prolonged, in seconds; it is done again in half of that.
HOLD = 60.0


class Held:
    """The claims of one connection in an alarm."""

    def __init__(self, confirms: Confirms, messages: Sequence[tuple[BeatEntry, range]]) -> None:
        self._confirms = confirms
        self._messages = list(messages)
        self._prolong_at = 0.0

    def __len__(self) -> int:
        return len(self._messages)

    def answered(self) -> list[tuple[BeatEntry, Exception | None]]:
        """Take out and return what RabbitMQ has answered for, with its fate.

        Raises:
            Exception: what py-amqp raises for a closed channel or connection.
        """
        self._confirms.poll()
        answered = []
        for entry, numbers in self._messages:
            fate = self._confirms.fate(numbers)
            if not isinstance(fate, UnsureError):
                answered.append((entry, fate))
        known = {entry.claim.run_id for entry, _ in answered}
        self._messages = [one for one in self._messages if one[0].claim.run_id not in known]
        return answered

    def prolonged(self) -> list[Outcome]:
        """Return what keeps the claims, if it is time."""
        if time.monotonic() < self._prolong_at:
            return []
        self._prolong_at = time.monotonic() + HOLD / 2
        return [Outcome(entry.claim, "claimed", retry_in=HOLD) for entry, _ in self._messages]

    def given_up(self) -> list[Claim]:
        """Take out and return all of it: the connection broke, and nobody can say more."""
        messages, self._messages = self._messages, []
        return [entry.claim for entry, _ in messages]
