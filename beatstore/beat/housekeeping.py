"""What a beat does beside sending: it reports that it lives, searches, prunes and listens.

    heartbeat   every 10 s      the beat's own row, with its figures
    wake check  every 2 min     entries that wait for what is there already
    zones       once, in pages  entries with a zone, after the time zone data has changed
    retention   while idle      rows that are over and old, a page at a time
    listening   while it sleeps PostgreSQL wakes it early
    withdrawal  at its end      the beat's claims are free, and its row says when it stopped

Nothing here is in the way of a tick for longer than one page.

On failure: as in `beatstore.tick.queue`. Without a listener, polling goes on.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from beatstore.errors import UnavailableError
from beatstore.schedules import tzdata_version
from beatstore.tick.beats import Pruner, Upkeep
from beatstore.tick.claims import BeatFigures, Look
from beatstore.version import __version__

__all__ = ["Housekeeping"]

logger = logging.getLogger(__name__)

#: Seconds between two heartbeats of a beat.
HEARTBEAT_S = 10.0

#: Seconds between two searches for entries that wait for what is there already.
WAKE_CHECK_S = 120.0

#: Seconds between two pages of old rows, and between the last page and the next search.
PRUNE_PAUSE_S = 0.5
PRUNE_INTERVAL_S = 3600.0

#: How long the end of a beat may wait for its database, in seconds.
WITHDRAW_S = 5.0


class Housekeeping:
    """The housekeeping of one beat.

    Args:
        upkeep: does it in the database.
        pruner: what deletes old rows.
        listens: whether PostgreSQL may wake it.
    """

    def __init__(self, upkeep: Upkeep, pruner: Pruner, *, listens: bool) -> None:
        self._upkeep = upkeep
        self._pruner = pruner
        self._listens = listens
        self._listener: Any = None
        self._introduced = False
        self._withdrawn: threading.Event | None = None
        self._heartbeat_due = self._wake_check_due = 0.0
        self._prune_due = time.monotonic() + _about(WAKE_CHECK_S)
        self._replan_after: int | None = None

    def keep(self, figures: BeatFigures) -> None:
        """Do what is due, apart from pruning.

        Args:
            figures: what the heartbeat reports.
        """
        now = time.monotonic()
        if now >= self._heartbeat_due:
            self._heartbeat_due = now + HEARTBEAT_S
            # A row that somebody has deleted comes back.
            if not (self._introduced and self._upkeep.heartbeat(figures)):
                self._introduce()
            if self._listener is None and self._listens:
                with suppress(UnavailableError):  # polling goes on without
                    self._listener = self._upkeep.listener()
        if now >= self._wake_check_due:
            self._wake_check_due = now + _about(WAKE_CHECK_S)
            self._upkeep.wake_forgotten()
        if self._replan_after is not None:
            self._replan_after = self._upkeep.replan_zones(self._replan_after)

    def idle(self, look: Look, longest: float) -> float:
        """Use the time until something is due; return how many seconds are left to sleep.

        Args:
            look: the last look, which found nothing due.
            longest: the most seconds to sleep.
        """
        now = time.monotonic()
        if now >= self._prune_due:
            more = self._upkeep.prune(self._pruner, look.now)
            self._prune_due = now + (PRUNE_PAUSE_S if more else _about(PRUNE_INTERVAL_S))
        wait = longest if look.due_in is None else min(look.due_in, longest)
        if self._listener is None:
            return wait
        try:
            self._listener.wait(min(wait, 1.0))
        except Exception as error:  # noqa: BLE001  (of the driver; polling goes on without)
            logger.debug("stopped listening for notifications, polling instead: %s", error)
            self.stop_listening()
        return 0.0

    def stop_listening(self) -> None:
        """Close the listener; again is fine."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(Exception):
                listener.close()

    def withdraw(self, settle: Callable[[], None], *, keep: bool = True) -> bool:
        """Settle what is left, free the other claims, and write that this beat was stopped.

        In a thread, since nothing else would end the wait for a server that stands still.

        Args:
            settle: writes what became of claims.
            keep: keep the row of the beat.

        Returns:
            Whether the database has answered in time, if it was to be asked.

        Raises:
            Exception: under gevent, in its hub, where nothing may wait; the thread begins
                when that goes on.
        """
        if self._introduced:
            self._introduced = False
            self._withdrawn = threading.Event()
            given = (settle, keep, self._withdrawn)
            threading.Thread(target=self._withdraw, args=given, daemon=True).start()
        return self._withdrawn is None or self._withdrawn.wait(WITHDRAW_S)

    def _withdraw(self, settle: Callable[[], None], keep: bool, done: threading.Event) -> None:
        with suppress(Exception):  # the connection may be cut any time
            settle()
            self._upkeep.withdraw(keep=keep)
        done.set()

    def _introduce(self) -> None:
        changed = self._upkeep.introduce(
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            tzdata=tzdata_version(),
        )
        self._introduced = True
        if changed:
            logger.info(
                "the time zone data changed, recomputing the due times of entries with a time zone"
            )
            self._replan_after = 0


def _about(seconds: float) -> float:
    """Return a span that differs between beats that were started at once."""
    return seconds * random.uniform(0.5, 1.5)
