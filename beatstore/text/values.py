"""Values as text: for people, and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any

__all__ = ["as_json", "span", "text"]

_UNITS = (("y", 31_557_600), ("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))

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
