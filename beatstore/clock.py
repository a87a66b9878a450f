"""Clocks.

beatstore has one clock, the database's: every statement that needs the time reads it
there. A `Clock` given to a `Store` replaces it; tests and the simulator move time that way.
No other code reads the machine's clock, and durations use the monotonic clock.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Protocol

__all__ = ["Clock", "ManualClock"]


class Clock(Protocol):
    """Anything that returns the current time."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""
        ...


class ManualClock:
    """A clock that moves only by `set` and `advance`.

    Args:
        at: its first time, an aware datetime.
    """

    def __init__(self, at: datetime) -> None:
        self._at = _utc(at)

    def now(self) -> datetime:
        """Return the time of the clock."""
        return self._at

    def set(self, at: datetime) -> None:
        """Move to `at`, forwards or backwards."""
        self._at = _utc(at)

    def advance(self, seconds: float) -> None:
        """Move by `seconds`; a negative number moves backwards."""
        self._at += timedelta(seconds=seconds)


def _utc(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError(
            f"expected an aware datetime, got {at!r}; write it with tzinfo=timezone.utc"
        )
    return at.astimezone(timezone.utc)
