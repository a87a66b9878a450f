"""Entries in words."""

from __future__ import annotations

from beatstore.errors import ScheduleError
from beatstore.records import Entry
from beatstore.schedules import describe

__all__ = ["in_words"]


def in_words(entry: Entry) -> str:
    """Return when an entry runs, in words; its columns as they stand if they are no schedule."""
    if entry.kind == "after":
        return "after its upstreams"
    try:
        schedule = entry.schedule
    except ScheduleError:
        return f"{entry.kind} {entry.spec}"
    return describe(schedule) if schedule is not None else ""
