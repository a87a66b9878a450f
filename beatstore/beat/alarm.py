"""RabbitMQ's alarm: what was sent while it was on, until RabbitMQ answers or the connection breaks.

RabbitMQ processes it after the alarm, so it is not sent again. Until then beat extends its claims.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from kombu import Connection

from beatstore.beat.attempt import Attempt, Sent, refusal
from beatstore.beat.confirms import EXTENSION_S, Unconfirmed
from beatstore.errors import UnroutableError
from beatstore.tick.claims import Outcome

__all__ = ["Alarm"]

logger = logging.getLogger(__name__)


class Alarm:
    """What one scheduler has sent during alarms, and has no answer for yet.

    Args:
        scheduler: has the connection to RabbitMQ.
        declare_anew: has queues declared once more.
    """

    def __init__(self, scheduler: Any, declare_anew: Callable[[], None]) -> None:
        self._scheduler = scheduler
        self._declare_anew = declare_anew
        self._unconfirmed: Unconfirmed[Sent] | None = None

    def hold(self, attempt: Attempt) -> list[Outcome]:
        """Hold what was sent in an attempt; return outcomes that extend the claims of all."""
        before, self._unconfirmed = self._unconfirmed, attempt.unconfirmed()
        given_up = []
        if before and not self._unconfirmed.join(before):
            given_up = _given_up(before)
        return given_up + self._extended_claims()

    def late_outcomes(self) -> list[Outcome]:
        """Return the outcomes of what RabbitMQ has answered, and those that extend the claims."""
        if not self._unconfirmed:
            return []
        try:
            connection = self._scheduler.producer.connection
            answered = self._unconfirmed.answered()
            known = [self._outcome(connection, entry, fate) for entry, fate in answered]
        except Exception as error:  # noqa: BLE001  (of py-amqp, or of the socket)
            logger.debug("lost the connection while RabbitMQ's alarm was on: %r", error)
            self._scheduler.disconnect()
            return _given_up(self._unconfirmed)
        return known + self._extended_claims()

    def _outcome(self, connection: Connection, entry: Sent, fate: Exception | None) -> Outcome:
        if isinstance(fate, UnroutableError):  # as for others: first, its queue is declared again
            self._declare_anew()
            return Outcome(entry.claim, "claimed")
        refused = None if fate is None else refusal(connection, entry.claim, fate)
        return refused or entry.outcome()

    def _extended_claims(self) -> list[Outcome]:
        """Return outcomes that extend the claims of unconfirmed messages, if it is time."""
        assert self._unconfirmed is not None
        entries = self._unconfirmed.to_extend()
        return [Outcome(entry.claim, "claimed", retry_in=EXTENSION_S) for entry in entries]


def _given_up(unconfirmed: Unconfirmed[Sent]) -> list[Outcome]:
    """Return the outcomes of messages when their connection or channel is gone.

    What RabbitMQ confirmed before that is sent; all others are sent again.
    """
    return [
        entry.outcome() if fate is None else Outcome(entry.claim, "claimed")
        for entry, fate in unconfirmed.given_up()
    ]
