"""One-time schedules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from dateutil.parser import isoparse

from beatstore.errors import ScheduleError
from beatstore.schedules.base import Schedule
from beatstore.schedules.instants import instant, micros

__all__ = ["Once", "read_instant"]

_EXAMPLE = '"2026-01-31T09:00:00+00:00"'
_LONGEST = 64


@dataclass(frozen=True, init=False)
class Once(Schedule):
    """Due once, at `at`; microseconds are kept.

    Args:
        at: an aware datetime in any zone, up to the year 9999 in UTC.

    Raises:
        ScheduleError: `at` is naive, or outside the years 1 to 9999 in UTC.
    """

    kind: ClassVar[str] = "once"

    at: datetime

    def __init__(self, at: datetime) -> None:
        utc = instant(micros("at", at))
        if utc is None:
            raise ScheduleError("at", at, "an instant in the years 1 to 9999 in UTC")
        vars(self).update(at=utc)

    @property
    def spec(self) -> str:
        """The instant in ISO 8601, in UTC."""
        return self.at.isoformat()

    def _after(self, count: int) -> int | None:
        at = micros("at", self.at)
        return at if at > count else None

    def _before(self, count: int) -> int | None:
        at = micros("at", self.at)
        return at if at < count else None

    @classmethod
    def parse(cls, spec: str) -> Once:
        """Parse ISO 8601 text with an offset from UTC."""
        return cls(read_instant("spec", spec.strip()))


def read_instant(field: str, text: str) -> datetime:
    """Parse ISO 8601 text that ends in an offset or Z.

    Python 3.10's `fromisoformat` does not read Z, nor the short offsets that databases print.

    Raises:
        ScheduleError: the text is invalid, or has no offset.
    """
    wanted = "an ISO 8601 date and time with its offset from UTC"
    try:
        at = isoparse(text) if len(text) <= _LONGEST else None
    except (ValueError, OverflowError) as error:
        raise ScheduleError(field, text, wanted, _EXAMPLE) from error
    if at is None or at.tzinfo is None:
        raise ScheduleError(field, text, wanted, _EXAMPLE)
    return at
