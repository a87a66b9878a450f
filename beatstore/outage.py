"""Log an outage once when it begins and once when it ends, and back off in between."""

from __future__ import annotations

import logging
import time

__all__ = ["MAX_WAIT_S", "Outage"]

logger = logging.getLogger(__name__)

#: The longest wait between two attempts, in seconds.
MAX_WAIT_S = 3.0


class Outage:
    """The state of something that may fail for a while.

    Args:
        failing: what to log when it begins to fail.
        recovered: what to log when it works again.

    Attributes:
        max_wait_s: the longest wait between two attempts, in seconds.
    """

    def __init__(self, failing: str, recovered: str) -> None:
        self._failing = failing
        self._recovered = recovered
        self.max_wait_s = MAX_WAIT_S
        self._since: float | None = None
        self._wait = 0.0

    @property
    def over(self) -> bool:
        """Return whether there is no outage."""
        return self._since is None

    def begin(self, error: BaseException) -> float:
        """Note a failure, and return how many seconds to wait before the next attempt."""
        if self._since is None:
            self._since = time.monotonic()
            self._wait = min(0.1, self.max_wait_s)
            first_line = str(error).partition("\n")[0]
            logger.error("%s, retrying: %s", self._failing, first_line)
        else:
            self._wait = min(self._wait * 2, self.max_wait_s)
            logger.debug("%s, still retrying: %s", self._failing, error)
        return self._wait

    def end(self) -> None:
        """Note a success."""
        if self._since is not None:
            seconds = time.monotonic() - self._since
            self._since = None
            logger.warning("%s after %.1f s", self._recovered, seconds)
