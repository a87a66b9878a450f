"""The state of a canvas: which tasks are running, and which final tasks have succeeded.

A part is identified by its name. "3/10" is the third of ten final tasks, which no task follows:
the run has succeeded when all ten have. Such a task may be replaced by a canvas, whose final
tasks are parts of it: "3/10.1/2". Any other name is a step: a task that other tasks follow.

The column `parts` of a run holds this as JSON until the run ends:

    {"open": {"3/10": "2026-01-15T12:00:00+00:00"}, "done": {"10": [1, 2]}, "until": "2026-…"}

A run that is not a canvas has no parts, only `until` after its message went back to the queue.

Invalid values are ignored.
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
    """The state of the parts of one run.

    Attributes:
        open: the running parts, each with its start time.
        done: the numbers of the final tasks that have succeeded, by their count. Those of a
            canvas that replaced the task "3/10" have the key "3/10/" and their count.
        until: since when a message of the run waits for a worker; in the future if it has an eta.
    """

    open: dict[str, datetime] = field(default_factory=dict)
    done: dict[str, list[int]] = field(default_factory=dict)
    until: datetime | None = None

    @classmethod
    def read(cls, given: Any) -> Parts:
        """Read the parts from the column's value."""
        value = given if isinstance(given, dict) else {}
        return cls(
            _instants(value.get("open")), _numbers(value.get("done")), _at(value.get("until"))
        )

    def as_json(self) -> dict[str, Any]:
        """Return the value to write into the column."""
        value: dict[str, Any] = {
            "open": {name: at.isoformat() for name, at in self.open.items()},
            "done": self.done,
        }
        if self.until is not None:
            value["until"] = self.until.isoformat()
        return value

    def start(self, name: str, at: datetime) -> bool:
        """Note that a part is running; return False if this start is outdated."""
        if self._is_done(name) or (name in self.open and self.open[name] > at):
            return False
        self.open[name] = at
        return True

    def leave(self, name: str, since: datetime) -> None:
        """Note that a part is no longer running, unless it was started after `since`."""
        if name in self.open and self.open[name] <= since:
            del self.open[name]

    def succeed(self, name: str) -> bool:
        """Note that a part has succeeded; return whether the whole run has."""
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
    """Return whether a name is that of a final task."""
    if not _LAST.fullmatch(name):
        return False
    pairs = (place.split("/") for place in name.split("."))
    return all(int(number) <= int(count) for number, count in pairs)


def nested(name: str | None, number: int, count: int) -> str:
    """Return the name of a final task of the canvas that replaces a task.

    Args:
        name: the name of the replaced part; None if the canvas is the whole run.
        number: the number of the final task.
        count: how many final tasks there are.
    """
    if name is None:
        return f"{number}/{count}"
    return name if count == 1 else f"{name}.{number}/{count}"


def _place(name: str) -> tuple[str, int, str]:
    """Split "3/10.1/2" into "3/10", 1, and the key of its siblings in `done`."""
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
