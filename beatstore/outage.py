"""Something that is away for a while: said once, and waited for with growing patience."""

from __future__ import annotations

import logging
import time

__all__ = ["PATIENCE", "Outage"]

logger = logging.getLogger(__name__)

#: The longest wait between two attempts, in seconds.
PATIENCE = 3.0


class Outage:
    """Whether something is away: logged once when it goes, and once when it is back.

    Args:
        what: is away, for the log.

    Attributes:
        patience: the longest wait between two attempts, in seconds.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self.patience = PATIENCE
        self._since: float | None = None
        self._wait = 0.0

    @property
    def over(self) -> bool:
        """Say whether there is none."""
        return self._since is None

    def begin(self, error: BaseException) -> float:
        """Note a failure, and return how many seconds to wait before the next attempt."""
        if self._since is None:
            self._since = time.monotonic()
            self._wait = min(0.1, self.patience)
            first_line = str(error).partition("\n")[0]
            logger.error("%s is away, waiting for it: %s", self._what, first_line)
        else:
            self._wait = min(self._wait * 2, self.patience)
            logger.debug("%s is still away: %s", self._what, error)
        return self._wait

    def end(self) -> None:
        """Note a success."""
        if self._since is not None:
            away = time.monotonic() - self._since
            self._since = None
            logger.warning("%s is back after %.1f s", self._what, away)
