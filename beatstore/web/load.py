"""The load as columns: what ran in each half hour, and what is due in those to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from beatstore.rules.states import ERRORS
from beatstore.store.coming_load import UpcomingCounts
from beatstore.store.figures import RunCount

if TYPE_CHECKING:
    from beatstore.web.call import Call

__all__ = ["Column", "Load", "columns"]

#: The height of the highest column, and the width of each, in units of the drawing.
HEIGHT = 80
WIDTH = 16


@dataclass(frozen=True, slots=True)
class Column:
    """One step of time.

    Attributes:
        at: when it begins, as text.
        x: where it stands.
        fine: the height of what ran without an error.
        failed: the height of what failed, was lost or was missed, on top of that.
        coming: the height of what is due.
        text: the same in words.
    """

    at: str
    x: int
    fine: float
    failed: float
    coming: float
    text: str


@dataclass(frozen=True, slots=True)
class Load:
    """The columns, the oldest first.

    Attributes:
        columns: one for each step.
        now_x: where the line of now stands.
        most: the number that the highest column stands for.
        text: the whole in a sentence.
        cut: why numbers are missing; "" if none are.
    """

    columns: tuple[Column, ...]
    now_x: int
    most: int
    text: str
    cut: str


def columns(call: Call, past: Sequence[RunCount], coming: UpcomingCounts, middle: datetime) -> Load:
    """Return the load of runs in the past, and of due times to come.

    Args:
        call: the request, whose zone the times are in.
        past: how many runs were due in each step.
        coming: how many due times are in each step.
        middle: the beginning of the step that now is in.
    """
    counted: dict[datetime, list[int]] = {}
    for count in past:
        bad = sum(count.states.get(state, 0) for state in (*ERRORS, "missed"))
        counted[count.at] = [sum(count.states.values()) - bad, bad, 0]
    for number, due in enumerate(coming.counts):
        counted.setdefault(coming.start + number * coming.step, [0, 0, 0])[2] = due
    most = max([sum(numbers) for numbers in counted.values()] or [0])
    scale = HEIGHT / max(most, 1)
    drawn = tuple(
        _column(call, at, index * WIDTH, counted[at], scale)
        for index, at in enumerate(sorted(counted))
    )
    ran = sum(numbers[0] + numbers[1] for numbers in counted.values())
    due = sum(numbers[2] for numbers in counted.values())
    bad = sum(numbers[1] for numbers in counted.values())
    return Load(
        drawn,
        sum(1 for at in counted if at <= middle) * WIDTH,
        most,
        f"{ran:,} runs in the last 12 hours, {bad:,} of them failed, lost or missed; "
        f"{due:,} due in the next 12 hours",
        _cut(past, coming),
    )


def _cut(past: Sequence[RunCount], coming: UpcomingCounts) -> str:
    """Return what is missing from the numbers, in words."""
    said = []
    if not all(count.complete for count in past):
        said.append("The oldest columns are not complete: there are too many runs")
    if coming.cut:
        said.append(f"{coming.left_out:,} entries are left out of what is to come")
    return ". ".join(said)


def _column(call: Call, at: datetime, x: int, numbers: list[int], scale: float) -> Column:
    fine, failed, due = numbers
    said = [f"{fine + failed:,} runs" if fine or failed else ""]
    said += [f"{failed:,} failed, lost or missed" if failed else ""]
    said += [f"{due:,} due" if due else ""]
    text = ", ".join(filter(None, said)) or "nothing"
    local = call.plain(at)
    return Column(
        local[-5:],
        x,
        round(fine * scale, 2),
        round(failed * scale, 2),
        round(due * scale, 2),
        f"{local}: {text}",
    )
