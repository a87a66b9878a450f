"""The load as columns: what ran in each half hour, and what is due in those to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from beatstore.store.today import Load, LoadStep

if TYPE_CHECKING:
    from beatstore.web.call import Call

__all__ = ["Column", "Columns", "columns"]

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
class Columns:
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


def columns(call: Call, load: Load) -> Columns:
    """Return the load as columns.

    Args:
        call: the request, whose zone the times are in.
        load: what ran, and what is due.
    """
    scale = HEIGHT / max(load.most, 1)
    return Columns(
        tuple(_column(call, step, index * WIDTH, scale) for index, step in enumerate(load.steps)),
        sum(1 for step in load.steps if step.at <= load.middle) * WIDTH,
        load.most,
        load.text,
        load.cut,
    )


def _column(call: Call, step: LoadStep, x: int, scale: float) -> Column:
    ran = step.fine + step.failed
    said = [f"{ran:,} run{'s' if ran > 1 else ''}" if ran else ""]
    said += [f"{step.failed:,} failed, lost or missed" if step.failed else ""]
    said += [f"{step.coming:,} due" if step.coming else ""]
    text = ", ".join(filter(None, said)) or "nothing"
    return Column(
        call.clock(step.at),
        x,
        round(step.fine * scale, 2),
        round(step.failed * scale, 2),
        round(step.coming * scale, 2),
        f"{call.plain(step.at)}: {text}",
    )
