"""Sunrise, sunset, noon and the twilights, computed with ephem.

The events and their definitions are those of `celery.schedules.solar`, with one difference:
ephem's result depends by fractions of a second on where its search starts, so searches from two
instants would find one event twice. This module computes each event once per turn of the sun,
from the midnight before it, and rounds it to a whole second. So an event is always the same
instant.

Invariants: a turn of the sun, from midnight to midnight, has each event at most once. A search
looks at most a year ahead or back; every event happens within the year, even at the poles, so
the cost is bounded. Neither this module nor ephem reads the clock. Without ephem, the
constructor raises `ScheduleError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib import import_module
from math import degrees, pi, radians
from typing import Any, ClassVar, NamedTuple

from beatstore.errors import ScheduleError
from beatstore.schedules.base import Schedule
from beatstore.schedules.instants import DAY, SECOND, UTC, instant, micros

__all__ = ["Solar"]

_TURNS = 368  # a year, and the turns at its ends
_HALF = SECOND // 2
_SURE = 1.0  # degrees; more than the error of an estimate
_DRIFT = 0.45  # the largest change of declination in a turn, in degrees
_POLAR = 80.0  # degrees of latitude
_STEPS = 48  # of a turn there
_PRECISE = 0.1 / DAY  # days


class _Event(NamedTuple):
    """How ephem finds an event: its search, the sun's altitude, and centre or upper edge.

    `altitude` is that of the centre, in degrees, for an estimate; None: every turn has the
    event.
    """

    search: str
    horizon: str
    centre: bool
    altitude: float | None


_EVENTS = {
    "dawn_astronomical": _Event("next_rising", "-18", True, -18.0),
    "dawn_nautical": _Event("next_rising", "-12", True, -12.0),
    "dawn_civil": _Event("next_rising", "-6", True, -6.0),
    "sunrise": _Event("next_rising", "-0:34", False, -0.8),
    "solar_noon": _Event("next_transit", "0", False, None),
    "sunset": _Event("next_setting", "-0:34", False, -0.8),
    "dusk_civil": _Event("next_setting", "-6", True, -6.0),
    "dusk_nautical": _Event("next_setting", "-12", True, -12.0),
    "dusk_astronomical": _Event("next_setting", "-18", True, -18.0),
}


@dataclass(frozen=True, init=False)
class Solar(Schedule):
    """Due at an event of the sun, as seen from a place.

    There is no occurrence on days without the event, such as in a polar night.

    Args:
        event: dawn_astronomical, dawn_nautical, dawn_civil, sunrise, solar_noon,
            sunset, dusk_civil, dusk_nautical or dusk_astronomical.
        lat: latitude in degrees, north positive, -90 to 90.
        lon: longitude in degrees, east positive, -180 to 180.

    Raises:
        ScheduleError: an argument is out of range, or ephem isn't installed.
    """

    kind: ClassVar[str] = "solar"

    event: str
    lat: float
    lon: float

    def __init__(self, event: str, lat: float, lon: float) -> None:
        if not isinstance(event, str) or event not in _EVENTS:
            raise ScheduleError("event", event, f"one of {', '.join(_EVENTS)}", '"sunrise"')
        vars(self).update(event=event, lat=_degrees("lat", lat, 90), lon=_degrees("lon", lon, 180))
        _ephem()

    @property
    def spec(self) -> str:
        """The event, the latitude and the longitude, separated by spaces."""
        return f"{self.event} {self.lat!r} {self.lon!r}"

    def _after(self, count: int) -> int | None:
        turn = self._turn(count) - 1
        found = (self._at(one) for one in self._turns(turn, 1))
        return next((at for at in found if at is not None and at > count), None)

    def _before(self, count: int) -> int | None:
        turn = self._turn(count) + 1
        found = (self._at(one) for one in self._turns(turn, -1))
        return next((at for at in found if at is not None and at < count), None)

    def _turns(self, turn: int, step: int) -> Iterator[int]:
        """Yield the turns of a year from `turn`, except those that can't have the event."""
        left = _TURNS
        while left > 0:
            idle = _idle(self.event, self.lat, self.lon, turn)
            if not idle:
                yield turn
            left -= idle or 1
            turn += (idle or 1) * step

    def _turn(self, count: int) -> int:
        """Return the number of the turn of the mean sun that contains an instant."""
        return (count // SECOND + round(self.lon * DAY / 360)) // DAY

    def _at(self, turn: int) -> int | None:
        return _event_at(self.event, self.lat, self.lon, turn)

    @classmethod
    def parse(cls, spec: str) -> Solar:
        """Parse "sunrise 52.52 13.405"."""
        parts = spec.split()
        try:
            event, lat, lon = parts
            place = float(lat), float(lon)
        except ValueError as error:
            wanted = "an event, a latitude and a longitude"
            raise ScheduleError("spec", spec, wanted, '"sunrise 52.52 13.405"') from error
        return cls(event, *place)


def _degrees(field: str, given: float, most: int) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not abs(given) <= most:
        raise ScheduleError(field, given, f"degrees from {-most} to {most}", "52.52")
    return float(given)


def _ephem() -> Any:
    try:
        return import_module("ephem")
    except ImportError as error:
        write = 'pip install "beatstore[solar]"'
        raise ScheduleError("kind", "solar", "the ephem package", write) from error


def _idle(event: str, lat: float, lon: float, turn: int) -> int:
    """Return for how many turns, ahead or back, the sun certainly stays above or below.

    The estimate uses the declination, which changes by less than `_DRIFT` per turn. The sun is
    highest at noon, 90 degrees less its distance from the latitude, and lowest at midnight.
    """
    how, noon = _EVENTS[event], _noon(lon, turn)
    if how.altitude is None or noon is None:
        return 0
    sun = _ephem().Sun()
    sun.compute(noon)
    declination = degrees(sun.g_dec)
    above = abs(lat + declination) - 90 - how.altitude
    below = how.altitude - (90 - abs(lat - declination))
    missed = max(above, below) - _SURE
    return 1 + int(missed / _DRIFT) if missed > 0 else 0


def _noon(lon: float, turn: int) -> datetime | None:
    """Return the mean noon of a turn; None beyond the calendar."""
    return instant((turn * DAY + DAY // 2 - round(lon * DAY / 360)) * SECOND)


@lru_cache(maxsize=4096)
def _event_at(event: str, lat: float, lon: float, turn: int) -> int | None:
    """Return the event of one turn of the sun, in microseconds; None if it has none."""
    ephem = _ephem()
    how = _EVENTS[event]
    observer = ephem.Observer()
    observer.lat, observer.lon, observer.elev = str(lat), str(lon), 0
    observer.horizon, observer.pressure = how.horizon, 0
    sun = ephem.Sun()
    noon = _noon(lon, turn)
    if noon is None:
        return None  # beyond the calendar; ephem would use the current time
    try:
        observer.date = noon
        start = observer.previous_antitransit(sun)
        end = observer.next_antitransit(sun)
        at = _found(observer, sun, how, start, end)
        if at is None or not start <= at < end:
            return None
        moment: datetime = at.datetime()
    except (ValueError, OverflowError, TypeError):
        return None  # the date is outside ephem's calendar
    count = micros("t", moment.replace(tzinfo=UTC))
    return (count + _HALF) // SECOND * SECOND


def _found(observer: Any, sun: Any, how: _Event, start: float, end: float) -> Any:
    """Return the time of the event in ephem's days; None if it is not in this turn."""
    if abs(observer.lat) > radians(_POLAR) and how.search != "next_transit":
        return _crossing(observer, sun, how, start, end)
    options = {"use_center": True} if how.centre else {}
    try:
        return getattr(observer, how.search)(sun, start=start, **options)
    except _ephem().CircumpolarError:
        return None  # the sun stays above or below


def _crossing(observer: Any, sun: Any, how: _Event, start: float, end: float) -> Any:
    """Return the first instant of a turn at which the sun crosses the horizon near a pole.

    There the sun may take days to cross it: its altitude changes more with the date than with
    the hour. ephem's search follows the hour angle, and misses the crossing.
    """
    sign = 1 if how.search == "next_rising" else -1

    def height(at: float) -> float:
        observer.date = at
        sun.compute(observer)
        altitude = sun.alt if how.centre else sun.alt + sun.radius
        return sign * float(altitude - observer.horizon)

    # In a turn, the altitude changes by twice the distance from the pole plus half a degree.
    if abs(height((start + end) / 2)) > 2 * (pi / 2 - abs(observer.lat)) + radians(0.5):
        return None
    step = (end - start) / _STEPS
    times = [start + step * number for number in range(_STEPS + 1)]
    heights = [height(at) for at in times]
    for low, high, before, after in zip(times, times[1:], heights, heights[1:], strict=False):
        if before < 0 <= after:
            return _ephem().Date(_zero(height, low, high))
    return None


def _zero(height: Callable[[float], float], low: float, high: float) -> float:
    """Return where a height that is negative at `low` becomes positive, by bisection."""
    while high - low > _PRECISE:
        middle = (low + high) / 2
        if height(middle) < 0:
            low = middle
        else:
            high = middle
    return high
