"""A beat's background work: heartbeat, wake check, retention and notifications.

    heartbeat   every 10 s      the beat's own row, with its figures
    wake check  every 2 min     wake entries whose dependencies are met already
    zones       once, in pages  recompute entries with a zone after the time zone data changed
    retention   while idle      delete old finished rows, a page at a time
    listening   while it sleeps PostgreSQL wakes it early
    withdrawal  at shutdown     release the beat's claims, and write when it stopped

None of this delays a tick for longer than one page.

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
from beatstore.tick.beats import BeatFigures, Pruner, Upkeep
from beatstore.tick.claims import Look
from beatstore.version import __version__

__all__ = ["Housekeeping"]

logger = logging.getLogger(__name__)

#: Seconds between two heartbeats of a beat.
HEARTBEAT_S = 10.0

#: Seconds between two wake checks.
WAKE_CHECK_S = 120.0

#: Seconds between two pages of old rows, and between the last page and the next search.
PRUNE_PAUSE_S = 0.5
PRUNE_INTERVAL_S = 3600.0

#: How long shutdown may wait for the database, in seconds.
WITHDRAW_S = 5.0


class Housekeeping:
    """The housekeeping of one beat.

    Args:
        upkeep: the SQL.
        pruner: deletes old rows.
        listens: whether to listen for PostgreSQL's notifications.
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
        """Do the background work that is due, except pruning.

        Args:
            figures: the figures that the heartbeat reports.
        """
        now = time.monotonic()
        if now >= self._heartbeat_due:
            self._heartbeat_due = now + HEARTBEAT_S
            # If somebody deleted the row, write it again.
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
        """Prune and listen while nothing is due; return how many seconds are left to sleep.

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

    @property
    def is_listening(self) -> bool:
        """Say whether a notification ends `idle` early."""
        return self._listener is not None

    def stop_listening(self) -> None:
        """Close the listener. Safe to call more than once."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(Exception):
                listener.close()

    def withdraw(self, mark: Callable[[], None], *, keep: bool = True) -> bool:
        """Record the remaining outcomes, release the other claims, and mark this beat as stopped.

        This runs in a thread, since nothing else can interrupt waiting for a frozen server.

        Args:
            mark: writes the outcomes of claims.
            keep: whether to keep the row of the beat.

        Returns:
            Whether the database answered in time, or was not needed.

        Raises:
            Exception: under gevent, in its hub, where nothing may wait; the thread starts
                when the hub continues.
        """
        if self._introduced:
            self._introduced = False
            self._withdrawn = threading.Event()
            given = (mark, keep, self._withdrawn)
            threading.Thread(target=self._withdraw, args=given, daemon=True).start()
        return self._withdrawn is None or self._withdrawn.wait(WITHDRAW_S)

    def _withdraw(self, mark: Callable[[], None], keep: bool, done: threading.Event) -> None:
        with suppress(Exception):  # the connection may be cut any time
            mark()
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
    """Return `seconds` with jitter, so that beats started together don't run in step."""
    return seconds * random.uniform(0.5, 1.5)
