"""A run as a bar: from its due time to sending, to its start, to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from beatstore.records import Run
from beatstore.web.filters import duration

__all__ = ["Bar", "bars"]

#: The width of the longest bar, in units of the drawing.
_WIDTH = 200.0

#: The least width of a part that took any time, so that it is seen.
_LEAST = 1.0


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a bar.

    Attributes:
        name: "late": from due to sent; "queued": from sent to started; "ran": to the end.
        x: where it begins.
        width: how long it is.
        seconds: how long it took.
    """

    name: str
    x: float
    width: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One run with its bar.

    Attributes:
        run: the run; of several attempts the last.
        earlier: its earlier attempts, the newest first.
        parts: what is drawn.
    """

    run: Run
    earlier: tuple[Run, ...]
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The bar in words."""
        return ", ".join(f"{part.name} {duration(part.seconds)}" for part in self.parts)


def bars(runs: Sequence[Run]) -> list[Bar]:
    """Return a bar for each occurrence; its earlier attempts are folded into it.

    Args:
        runs: runs of one entry, the newest due time and attempt first.
    """
    folded: dict[object, list[Run]] = {}
    for run in runs:
        folded.setdefault(run.due_at, []).append(run)
    lengths = [_length(attempts[0]) for attempts in folded.values()]
    scale = _WIDTH / max([length for length in lengths if length] or [1.0])
    return [Bar(one[0], tuple(one[1:]), _parts(one[0], scale)) for one in folded.values()]


def _steps(run: Run) -> list[tuple[str, datetime, datetime]]:
    """Return the steps of which both ends are known; instants of a retry begin at its sending."""
    due = run.due_at if run.attempt == 1 else run.sent_at
    points = [due, run.sent_at, run.started_at, run.finished_at]
    names = ("late", "queued", "ran")
    return [
        (name, start, end)
        for name, start, end in zip(names, points, points[1:], strict=False)
        if isinstance(start, datetime) and isinstance(end, datetime) and end >= start
    ]


def _length(run: Run) -> float:
    return sum((end - start).total_seconds() for _, start, end in _steps(run))


def _parts(run: Run, scale: float) -> tuple[Part, ...]:
    parts, x = [], 0.0
    for name, start, end in _steps(run):
        seconds = (end - start).total_seconds()
        width = max(seconds * scale, _LEAST)
        parts.append(Part(name, round(x, 2), round(width, 2), seconds))
        x += width
    return tuple(parts)
