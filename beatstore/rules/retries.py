"""When the next attempt of a failed run is due. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from beatstore.rules.due import jitter_offset
from beatstore.schedules.instants import is_span

__all__ = ["grown", "retry_delay"]

#: The longest delay that `retry_backoff` reaches, in seconds.
_LONGEST_S = 86400.0


def grown(delay_s: float, backoff: float, times: int) -> float:
    """Return a delay after so many times of backoff: at most a day, or as long as it was."""
    longest = max(_LONGEST_S, delay_s)
    try:
        return min(longest, delay_s * backoff**times)
    except OverflowError:
        return longest


def retry_delay(entry: Any, run_id: int, attempt: int) -> timedelta | None:
    """Return the delay from a failed attempt to the next one; None if there is none.

    Args:
        entry: has the columns `max_retries` and `retry_*`.
        run_id: selects the delay within `retry_jitter_s`.
        attempt: the number of the failed attempt, from 1.
    """
    columns = (entry.max_retries, entry.retry_delay_s, entry.retry_backoff, entry.retry_jitter_s)
    if not all(map(is_span, columns)):
        return None  # a row written by hand
    if attempt > entry.max_retries:
        return None
    seconds = grown(entry.retry_delay_s, entry.retry_backoff, attempt - 1)
    longest = max(_LONGEST_S, entry.retry_delay_s)
    spread = jitter_offset(run_id, min(longest, entry.retry_jitter_s))
    return timedelta(seconds=seconds) + spread
