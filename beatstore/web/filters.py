"""What templates do with values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from math import isfinite
from shlex import quote
from typing import Any

from beatstore.records import Run
from beatstore.text.values import as_json, span, text

__all__ = ["FILTERS", "LETTERS", "duration"]

#: The letter of each state of a run in a strip, so that colour is never the only sign.
LETTERS: Mapping[str, str] = {
    "claimed": "c",
    "sent": "s",
    "started": "r",
    "succeeded": "✓",
    "failed": "F",
    "lost": "L",
    "cancelled": "X",
    "missed": "M",
    "skipped": "-",
}


def letter(state: object) -> str:
    """Return the sign of a run's state."""
    return LETTERS.get(str(state), "?")


def took(run: Run) -> str:
    """Return how long a run took; "" while it is unknown."""
    if not isinstance(run.started_at, datetime) or not isinstance(run.finished_at, datetime):
        return ""  # or a row written by hand
    return duration((run.finished_at - run.started_at).total_seconds())


def duration(seconds: float) -> str:
    """Return how long something took: to three digits below a minute, else in larger units."""
    if not isfinite(seconds):  # plain SQL wrote it
        return text(seconds)
    return f"{seconds:.3g} s" if seconds < 60 else span(seconds)  # noqa: PLR2004


def shortened(value: object, longest: int = 2000) -> str:
    """Return a text, and of a longer one the beginning and how long it is."""
    said = value if isinstance(value, str) else as_json(value)
    if len(said) <= longest:
        return said
    return f"{said[:longest]}… ({len(said):,} characters)"


def size(count: int | None) -> str:
    """Return a number of bytes in a unit of its own size."""
    if count is None:
        return "unknown"
    number, units = float(count), ["bytes", "kB", "MB", "GB"]
    while number >= 1000 and len(units) > 1:  # noqa: PLR2004
        number, units = number / 1000, units[1:]
    return f"{number:.3g} {units[0]}" if number < 1000 else f"{number:,.0f} {units[0]}"  # noqa: PLR2004


FILTERS: dict[str, Callable[..., Any]] = {
    "duration": duration,
    "letter": letter,
    "quoted": quote,
    "shortened": shortened,
    "size": size,
    "span": span,
    "text": text,
    "took": took,
}
