"""The heat map of an entry's last 90 days: one cell a day, by the worst that happened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from beatstore.store.figures import RunCount
from beatstore.types import RunState

if TYPE_CHECKING:
    from beatstore.web.call import Call

__all__ = ["Day", "days"]

#: What a day is called, and its letter, by the first of these states that a run of it has.
_WORST: tuple[tuple[RunState, str, str], ...] = (
    ("failed", "failed", "F"),
    ("lost", "failed", "L"),
    ("missed", "missed", "M"),
    ("skipped", "skipped", "-"),
    ("cancelled", "skipped", "X"),
)


@dataclass(frozen=True, slots=True)
class Day:
    """One day.

    Attributes:
        at: its first instant.
        kind: "ok", "late", "failed", "missed", "skipped" or "none".
        letter: the sign in its cell.
        text: what happened, in words.
    """

    at: datetime
    kind: str
    letter: str
    text: str


def days(call: Call, counts: Iterable[RunCount]) -> list[Day]:
    """Return the days, the oldest first."""
    return [_day(call, count) for count in counts]


def _day(call: Call, count: RunCount) -> Day:
    said = ", ".join(f"{number:,} {state}" for state, number in sorted(count.states.items()))
    text = f"{call.plain(count.at)[:5]}: {said or 'no runs'}"
    if count.late:
        text += f", {count.late:,} late"
    for state, kind, letter in _WORST:
        if count.states.get(state):
            return Day(count.at, kind, letter, text)
    if count.late:
        return Day(count.at, "late", "l", text)
    return Day(count.at, "ok" if said else "none", "✓" if said else "", text)
