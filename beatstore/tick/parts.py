"""The tasks of a canvas: which are under way, and which of the last ones have succeeded.

A part is known by its name. "3/10" is the third of ten tasks after which nothing comes: the
run has succeeded when all ten have. Such a task may go on as a canvas, whose last tasks are
parts of it: "3/10.1/2". Any other name is that of a step, a task after which others come.

The column `parts` of a run holds this as JSON, as long as the run is not over:

    {"open": {"3/10": "2026-01-15T12:00:00+00:00"}, "done": {"10": [1, 2]}, "until": "2026-…"}

A run that is no canvas has no parts; `until` stands there once its message went back to the
queue.

Whatever else stands there is read as nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

__all__ = ["Parts", "is_last", "nested"]

_LAST = re.compile(r"[1-9][0-9]{0,8}/[1-9][0-9]{0,8}(\.[1-9][0-9]{0,8}/[1-9][0-9]{0,8})*")


@dataclass(slots=True)
class Parts:
    """What is known of the parts of one run.

    Attributes:
        open: since when each part runs that is under way.
        done: the last tasks that have succeeded: their numbers, by how many they are. Those
            into which the task "3/10" was replaced stand under "3/10/" and their count.
        until: since when a message of the run waits for a worker; to come, while its own eta is.
    """

    open: dict[str, datetime] = field(default_factory=dict)
    done: dict[str, list[int]] = field(default_factory=dict)
    until: datetime | None = None

    @classmethod
    def read(cls, given: Any) -> Parts:
        """Return what a row says."""
        said = given if isinstance(given, dict) else {}
        return cls(_instants(said.get("open")), _numbers(said.get("done")), _at(said.get("until")))

    def as_json(self) -> dict[str, Any]:
        """Return what the row is to say."""
        said: dict[str, Any] = {
            "open": {name: at.isoformat() for name, at in self.open.items()},
            "done": self.done,
        }
        if self.until is not None:
            said["until"] = self.until.isoformat()
        return said

    def start(self, name: str, at: datetime) -> bool:
        """Note that a part is under way; say whether it is, since then."""
        if self._is_done(name) or (name in self.open and self.open[name] > at):
            return False
        self.open[name] = at
        return True

    def leave(self, name: str, since: datetime) -> None:
        """Note that a part is not under way any more, unless it was started after `since`."""
        if name in self.open and self.open[name] <= since:
            del self.open[name]

    def succeed(self, name: str) -> bool:
        """Note that a part has succeeded; say whether the run has, with it."""
        while is_last(name):
            above, number, level = _place(name)
            numbers = self.done.setdefault(level, [])
            if number not in numbers:
                numbers.append(number)
            if len(numbers) < int(level.rpartition("/")[2]):
                return False
            if not above:
                return True
            del self.done[level]
            name = above
        return False

    def _is_done(self, name: str) -> bool:
        while is_last(name):
            above, number, level = _place(name)
            if number in self.done.get(level, ()):
                return True
            name = above
        return False


def is_last(name: str) -> bool:
    """Say whether a name is that of a task after which nothing comes."""
    if not _LAST.fullmatch(name):
        return False
    pairs = (place.split("/") for place in name.split("."))
    return all(int(number) <= int(count) for number, count in pairs)


def nested(name: str | None, number: int, count: int) -> str:
    """Name one of the last tasks of the canvas that replaces a task.

    Args:
        name: the part that the task is, or None if it is a run by itself.
        number: which of the last tasks.
        count: how many they are.
    """
    if name is None:
        return f"{number}/{count}"
    return name if count == 1 else f"{name}.{number}/{count}"


def _place(name: str) -> tuple[str, int, str]:
    """Take "3/10.1/2" apart: "3/10", 1, and the key of its two siblings in `done`."""
    above, _, place = name.rpartition(".")
    number, count = place.split("/")
    return above, int(number), f"{above}/{count}" if above else count


def _instants(given: Any) -> dict[str, datetime]:
    found = {name: _at(at) for name, at in _items(given)}
    return {name: at for name, at in found.items() if at is not None}


def _numbers(given: Any) -> dict[str, list[int]]:
    return {
        name: [number for number in numbers if type(number) is int]
        for name, numbers in _items(given)
        if isinstance(numbers, list)
    }


def _items(given: Any) -> list[tuple[str, Any]]:
    return list(given.items()) if isinstance(given, Mapping) else []


def _at(given: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(given)
    except (TypeError, ValueError):
        return None
    return at if at.tzinfo is not None else None
