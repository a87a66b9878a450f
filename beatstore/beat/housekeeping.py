"""What a beat does beside sending: it says that it lives, searches, clears and listens.

    heartbeat   every 10 s      the beat's own row, with its figures
    patrol      every 2 min     entries that wait for what is there already
    zones       once, in pages  entries with a zone, after the time zone data has changed
    retention   in breaks       rows that are over and old, a page at a time
    listening   while it sleeps PostgreSQL wakes it early

The tick calls in here with its queue; nothing here is in its way for longer than one page.

On failure: as in `beatstore.tick.queue`. Without a listener, polling goes on.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import time
from contextlib import suppress
from typing import Any

from beatstore.errors import UnavailableError
from beatstore.schedules import tzdata_version
from beatstore.tick.claims import BeatFigures, Look
from beatstore.tick.queue import Pruner, Queue
from beatstore.version import __version__

__all__ = ["Housekeeping"]

logger = logging.getLogger(__name__)

#: Seconds between two heartbeats of a beat.
HEARTBEAT = 10.0

#: Seconds between two searches for entries that wait for what is there already.
PATROL = 120.0

#: Seconds between two pages of old rows that are deleted, and from one clearing to the next.
BREATH, REST = 0.5, 3600.0


class Housekeeping:
    """The housekeeping of one beat.

    Args:
        pruner: what deletes old rows.
        listens: whether PostgreSQL may wake it.

    Attributes:
        introduced: whether the beat's row was written, and is to be withdrawn.
    """

    def __init__(self, pruner: Pruner, *, listens: bool) -> None:
        self._pruner = pruner
        self._listens = listens
        self._listener: Any = None
        self.introduced = False
        self._heartbeat_due = self._patrol_due = 0.0
        self._prune_due = time.monotonic() + _about(PATROL)
        self._replan_after: int | None = None

    def keep(self, queue: Queue, figures: BeatFigures) -> None:
        """Do what is due, apart from clearing."""
        now = time.monotonic()
        if now >= self._heartbeat_due:
            self._heartbeat_due = now + HEARTBEAT
            # A row that somebody has deleted comes back.
            if not (self.introduced and queue.heartbeat(figures)):
                self._introduce(queue)
            if self._listener is None and self._listens:
                with suppress(UnavailableError):  # polling goes on without
                    self._listener = queue.listener()
        if now >= self._patrol_due:
            self._patrol_due = now + _about(PATROL)
            queue.wake_forgotten()
        if self._replan_after is not None:
            self._replan_after = queue.replan_zones(self._replan_after)

    def prune(self, queue: Queue, look: Look) -> None:
        """Clear a page of old rows, if it is time."""
        now = time.monotonic()
        if now >= self._prune_due:
            more = queue.clear(self._pruner, look.now)
            self._prune_due = now + (BREATH if more else _about(REST))

    def sleep(self, seconds: float) -> float:
        """Return how long to sleep; where PostgreSQL can wake this beat, do it here."""
        if self._listener is None:
            return seconds
        try:
            self._listener.wait(min(seconds, 1.0))
        except Exception as error:  # noqa: BLE001  (of the driver; polling goes on without)
            logger.debug("no longer listening: %s", error)
            self.close()
        return 0.0

    def close(self) -> None:
        """Stop listening; again is fine."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(Exception):
                listener.close()

    def _introduce(self, queue: Queue) -> None:
        changed = queue.introduce(
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            tzdata=tzdata_version(),
        )
        self.introduced = True
        if changed:
            logger.info("the time zone data changed; looking at all entries with a zone again")
            self._replan_after = 0


def _about(seconds: float) -> float:
    """Return a span that differs between beats that were started at once."""
    return seconds * random.uniform(0.5, 1.5)
