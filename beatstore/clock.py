"""The clock that rules are given.

beatstore has one clock, the database's: every statement that needs the time reads it
there. A `Clock` handed to a `Store` replaces it, which is how tests and the
simulator move time by hand. Code above the database never asks the machine's clock
what time it is; durations are measured on the monotonic clock.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Protocol

__all__ = ["Clock", "ManualClock"]


class Clock(Protocol):
    """Anything that can say what time it is."""

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        ...


class ManualClock:
    """A clock that stands still until it is moved.

    Args:
        at: where it starts; an aware datetime.
    """

    def __init__(self, at: datetime) -> None:
        self._at = _utc(at)

    def now(self) -> datetime:
        """Return the instant the clock was last set to."""
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
