"""The reasons that the tick writes to entries and runs.

A reason is text for people. Code recognises only the beginnings that are named here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from beatstore.rules.states import CANCELS_RUNS

__all__ = [
    "BY_HAND",
    "MISFIRE",
    "NOTES",
    "OVERLAP",
    "RERUN",
    "RERUN_ANYWAY",
    "TRIGGERED",
    "UPSTREAM",
    "WAITED",
    "duration",
    "is_by_hand",
    "is_dropped",
    "is_rerun",
    "is_triggered",
    "never_due",
    "reworded",
    "waited",
]

#: The reason of a run that a user triggered begins so.
TRIGGERED = "triggered"

#: The reason of a next attempt that a user asked for begins so.
RERUN = f"{TRIGGERED}: rerun"

#: The reason of a rerun of an entry that was cancelled before begins so.
RERUN_ANYWAY = f"{RERUN} although its entry is cancelled"

#: What a run's reason may begin with if a user asked for the run; the most special comes first.
NOTES = (RERUN_ANYWAY, RERUN, TRIGGERED)

#: The reason of a run that waited begins so.
WAITED = "waited"

#: The reason of a record that an unfinished run of the same entry caused begins so.
OVERLAP = "overlap:"

#: The reason of a run that a user ended begins so, or so after `TRIGGERED` or `RERUN`.
BY_HAND = "ended by hand"

#: The reason of a run or record that a misfire policy made begins so.
MISFIRE = "misfire:"

#: The reason of a record that a failed upstream caused begins so.
UPSTREAM = "upstream "


def is_triggered(reason: str | None) -> bool:
    """Return True if a user triggered the run with this reason."""
    return (reason or "").startswith(TRIGGERED)


def is_by_hand(reason: str | None) -> bool:
    """Return True if a user ended the run with this reason."""
    note, reason = _note_of(reason), reason or ""
    return (reason if note is None else reason.removeprefix(f"{note}; ")).startswith(BY_HAND)


def is_rerun(reason: str | None) -> bool:
    """Return whether a user asked for the next attempt with this reason.

    The attempt before it has been counted already, so that nothing is counted if this one is
    cancelled. A next attempt that beat makes after a failure takes the place of that failure.
    """
    return (reason or "").startswith(RERUN)


def is_dropped(entry: Any, reason: str | None) -> bool:
    """Return whether an unsent run with this reason is cancelled, because of its entry's state.

    A run that a user has triggered is sent though its entry is paused, but not once it is
    cancelled. A rerun of an entry that was cancelled before is sent. It is not if the entry was
    made active meanwhile, and cancelled again: `beatstore.tick.endings.cancel_unsent` takes its
    note away. If plain SQL did that, no beat has looked at the entry yet, and `wake_at` wakes it.

    Args:
        entry: with `state` and `wake_at`.
        reason: of the run.
    """
    if entry.state == "cancelled":
        return not ((reason or "").startswith(RERUN_ANYWAY) and entry.wake_at is None)
    return entry.state in CANCELS_RUNS and not is_triggered(reason)


def reworded(reason: str | None, words: str) -> str:
    """Return a new reason for a run, which keeps the note that a user asked for it.

    `beatstore.tick.endings.reworded_reason` is the same in SQL.
    """
    note = _note_of(reason)
    return words if note is None else f"{note}; {words}"


def _note_of(reason: str | None) -> str | None:
    return next((note for note in NOTES if (reason or "").startswith(note)), None)


def waited(span: timedelta, reason: str | None) -> str:
    """Return the reason of a run that waited for `span`, and may have had a reason before."""
    words = f"{WAITED} {duration(span)}"
    return f"{words}; {reason}" if reason else words


def never_due(at: datetime, start_at: datetime | None, end_at: datetime | None) -> str:
    """Return why a one-shot at the instant `at` was never due."""
    if start_at is not None and at < start_at:
        return "its time is before start_at"
    if end_at is not None and at > end_at:
        return "its time is after end_at"
    return "its time passed while the entry was paused or edited"


def duration(span: timedelta) -> str:
    """Return a span as text, in its two largest units."""
    seconds = int(span.total_seconds())
    parts: Sequence[tuple[int, str]] = (
        (seconds // 86400, "d"),
        (seconds // 3600 % 24, "h"),
        (seconds // 60 % 60, "min"),
        (seconds % 60, "s"),
    )
    shown = [f"{value} {unit}" for value, unit in parts if value]
    return " ".join(shown[:2]) or "0 s"
