"""Values as text: for people, and as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, is_dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any

__all__ = [
    "as_json",
    "away",
    "covered",
    "read_span",
    "runs_sent",
    "span",
    "tally",
    "text",
    "write_span",
]

_UNITS = (("y", 31_557_600), ("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))

#: A number with a unit, as people write spans.
_PART = re.compile(r"(?:(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)?\s*)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}

#: With fewer than this of the largest unit, the next unit is shown too.
_COARSE = 10


def text(value: object) -> str:
    """Return a value as text for people; "" for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    if isinstance(value, dict | list | tuple):
        return as_json(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def tally(due_times: object) -> str:
    """Return how many due times there are; beat counts them up to 1,000."""
    if not isinstance(due_times, int):
        return text(due_times)  # plain SQL wrote it
    return f"{due_times:,}" if due_times <= 1000 else "1,000+"  # noqa: PLR2004


def covered(due_times: int, *, is_record: bool) -> str:
    """Return how many due times a run covers besides its own; a record covers all it counts."""
    if not due_times or (is_record and due_times == 1):
        return ""
    what = "due time" if is_record else "earlier due time"
    return f"{tally(due_times)} {what}{'s' if due_times != 1 else ''}"


def runs_sent(max_runs: int) -> str:
    """Return that all runs were sent which an entry's `max_runs` allows."""
    if max_runs == 1:
        return "its only run (max_runs) was sent"
    return f"all its {max_runs:,} runs (max_runs) were sent"


def span(length: timedelta | float, *, rough: bool = False) -> str:
    """Return a span in its largest unit, and the next if that is small and not `rough`."""
    left = int(length.total_seconds() if isinstance(length, timedelta) else length)
    for at, (unit, size) in enumerate(_UNITS):
        if left < size:
            continue
        many, left = divmod(left, size)
        if not rough and many < _COARSE and at + 1 < len(_UNITS):
            smaller, step = _UNITS[at + 1]
            return f"{many} {unit} {left // step} {smaller}" if left // step else f"{many} {unit}"
        return f"{many:,} {unit}"
    return "0 s"


def away(apart: timedelta, *, rough: bool = False) -> str:
    """Return the time to an instant, or since one in the past: "in 5 min", "3 h 20 min ago"."""
    if abs(apart) < timedelta(seconds=1):
        return "now"
    period = span(abs(apart), rough=rough)
    return f"in {period}" if apart > timedelta(0) else f"{period} ago"


def read_span(given: str) -> float:
    """Read a span: seconds, or numbers with units in any order, such as 1h30m.

    Returns:
        The seconds.

    Raises:
        ValueError: it is neither; the message says what to write.
    """
    text = given.strip().lower()
    parts = _PART.findall(text)
    whole = re.sub(r"\s", "", "".join(f"{number}{unit}" for number, unit in parts))
    bare = [unit for _, unit in parts if not unit]
    if not parts or whole != re.sub(r"\s", "", text) or (bare and len(parts) > 1):
        raise ValueError(f"{given!r} is not a duration: write seconds, or 90s, 5m, 1h30m, 2d")
    return float(sum(float(number) * _SECONDS[unit or "s"] for number, unit in parts))


def write_span(seconds: float) -> str:
    """Return a span as `read_span` reads it, exactly: 1h30m, 90s, 0.5s."""
    left, parts = seconds, []
    for unit in ("d", "h", "m"):
        many, left = divmod(left, _SECONDS[unit])
        parts += [f"{many:.0f}{unit}"] if many else []
    return "".join(parts) + (f"{left!r}s".replace(".0s", "s") if left or not parts else "")


def as_json(value: object) -> str:
    """Return a value as JSON on one line: instants as ISO 8601 in UTC, spans in seconds."""
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    # Invalid JSON or instants in rows written by hand.
    return getattr(value, "given", None) or str(value)
