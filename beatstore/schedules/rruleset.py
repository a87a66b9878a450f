"""Combine the lines of a recurrence into instants.

First, `wall.py` converts each rule's wall-clock times to instants; then the lines are merged. A
date in UTC, or in a zone of its own, is one instant: UNTIL ends a rule there, EXDATE removes it,
RDATE adds it, also within a repeated hour. A date in the zone of the recurrence is a wall-clock
time, which the clock may show twice: EXDATE removes both, UNTIL includes both, RDATE adds the
first.

A rule that is never due, and lines that contradict each other, raise a `ScheduleError`. Without
DTSTART and anchor, only errors that hold for every anchor are raised.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple
from zoneinfo import ZoneInfo

from beatstore.errors import ScheduleError
from beatstore.schedules.instants import DAY, LAST_DAY, SECOND, face, instant
from beatstore.schedules.rrulecount import Listed, end_of_count
from beatstore.schedules.rruletext import Moment, Recurrence, Rule
from beatstore.schedules.rruletimes import CENTURY, RuleTimes
from beatstore.schedules.wall import Fires, WallTimes, last_showing, showing
from beatstore.schedules.zones import zone

__all__ = ["Begin", "follow_the_clock", "occurrences"]

_CADENCES = ("HOURLY", "MINUTELY", "SECONDLY")
_MOST_LEAPS = 10_000  # in a search that EXDATE prolongs
_END = (LAST_DAY + 1) * DAY


class Begin(NamedTuple):
    """The start of a recurrence, as wall-clock time and as instant.

    `given` is its origin, "DTSTART" or "anchor"; None if neither is known yet.
    """

    wall: int
    at: int
    given: str | None


def occurrences(recurrence: Recurrence, begin: Begin, tz: ZoneInfo) -> WallTimes:
    """Return the instants of a recurrence, in seconds of UTC.

    Raises:
        ScheduleError: nothing is ever due, or the lines contradict each other.
    """
    ours, theirs = _split(recurrence.excluded, tz)
    hidden = {face(moment.wall) for moment in ours}
    gone = {at for moment in theirs for at in _showings(moment)}
    once = not follow_the_clock(recurrence.rules)
    lines = _Lines(recurrence, begin, tz, once=once, hidden=hidden)
    parts = [lines.of_rule(rule) for rule in recurrence.rules]
    added = _added(recurrence, tz, hidden, gone)
    whole: WallTimes = parts[0] if parts else Listed(added)
    if parts and (added or gone or len(parts) > 1):
        whole = _Merged([*parts, Listed(added)], gone)
    known = begin.given is not None and begin.wall + CENTURY < _END
    if known and recurrence.excluded and whole.first(begin.at) is None and not added:
        wanted = "an occurrence that EXDATE does not remove"
        raise _refusal(recurrence.rules[0].text, wanted, "fewer EXDATE values")
    return whole


class _Lines:
    """The rules of one recurrence, with what they share."""

    def __init__(
        self,
        recurrence: Recurrence,
        begin: Begin,
        tz: ZoneInfo,
        *,
        once: bool,
        hidden: Collection[int],
    ) -> None:
        self._begin = begin
        self._tz = tz
        self._once = once
        self._hidden = hidden
        self._again = 1 + len(recurrence.excluded)
        self._lines = len(recurrence.rules)
        # After a change, the clock may repeat times from before the start.
        self._low = begin.wall if once else begin.wall - DAY

    def of_rule(self, rule: Rule) -> WallTimes:
        """Return the instants of one rule, up to its UNTIL or COUNT, without EXDATE."""
        times = self._times(rule)
        self._check_is_ever_due(rule, times)
        end = self._end(rule, times)
        walls: WallTimes = _Without(times, self._hidden) if self._hidden else times
        if self._once and rule.until is not None and rule.until.timezone is None:
            walls = _Bounded(walls, self._low, _until(rule.until))
        fires = _Bounded(Fires(walls, self._tz, once=self._once), self._begin.at, end)
        if rule.until is not None and self._begin.given and fires.first(self._begin.at) is None:
            self._refuse_until(rule, Fires(times, self._tz, once=self._once))
        return fires

    def _times(self, rule: Rule) -> RuleTimes:
        return RuleTimes(rule, self._begin.wall, self._low, self._lines)

    def _check_is_ever_due(self, rule: Rule, times: RuleTimes) -> None:
        """Refuse a rule whose next occurrence no search would find."""
        if self._begin.given is None:
            rule = replace(rule, interval=1)
            times = self._times(rule)
        leaps = times.leaps_to_second()
        if leaps is not None and leaps * self._again > _MOST_LEAPS:
            raise _refusal(
                rule.text,
                "a rule with occurrences that a short search finds",
                "fewer EXDATE or BYxxx parts",
            )
        if leaps is None and self._begin.wall + CENTURY < _END:
            raise self._never(rule)

    def _never(self, rule: Rule) -> ScheduleError:
        wanted = "parts that all match at least once in a century"
        if rule.interval == 1 and self._begin.given != "anchor":
            return _refusal(rule.text, wanted, "fewer BYxxx parts")
        wanted += f", counted from {self._start()}"
        return _refusal(
            rule.text, wanted, "a DTSTART from which INTERVAL meets them, or fewer BYxxx parts"
        )

    def _start(self) -> str:
        """Return in words what the rule counts from."""
        at = instant(self._begin.at * SECOND)
        shown = "the end of the calendar" if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"
        if self._begin.given == "DTSTART":
            return f"DTSTART, {shown}"
        return f"{shown}, the start of the entry, as there is no DTSTART"

    def _end(self, rule: Rule, times: RuleTimes) -> int:
        """Return the last possible instant of a rule."""
        if rule.until is not None:
            if rule.until.timezone is not None:
                return _first_showing(rule.until)
            return _END if self._once else _shown_until(_until(rule.until), self._tz)
        if rule.count is None:
            return _END
        end = end_of_count(
            times.days(),
            self._tz,
            rule.count,
            start=self._begin.at,
            first=self._low,
            once=self._once,
        )
        if end is None and self._begin.given and self._begin.wall + 4 * CENTURY < _END:
            wanted = "a COUNT that a short search reaches within four centuries"
            raise _refusal(f"COUNT={rule.count}", wanted, "UNTIL with the last date")
        return _END if end is None else end

    def _refuse_until(self, rule: Rule, endless: WallTimes) -> None:
        first = _Bounded(endless, self._begin.at, _END).first(self._begin.at)
        at = None if first is None else instant(first * SECOND)
        if at is None:
            return  # the calendar ends first
        shown = f"{at:%Y-%m-%dT%H:%M:%SZ}"
        wanted = f"UNTIL at or after the first occurrence, {shown}, counted from {self._start()}"
        raise _refusal(rule.text, wanted, f"UNTIL={at:%Y%m%dT%H%M%SZ} or later")


class _Bounded:
    """The members of a set from `low` to `high`, both included; a `WallTimes`."""

    def __init__(self, times: WallTimes, low: int, high: int) -> None:
        self._times = times
        self._low = low
        self._high = high

    def first(self, low: int) -> int | None:
        low = max(low, self._low)
        found = self._times.first(low) if low <= self._high else None
        return found if found is not None and found <= self._high else None

    def last(self, high: int) -> int | None:
        high = min(high, self._high + 1)
        found = self._times.last(high) if high > self._low else None
        return found if found is not None and found >= self._low else None


class _Without:
    """A set without some exceptions; a `WallTimes`."""

    def __init__(self, times: WallTimes, without: Collection[int]) -> None:
        self._times = times
        self._without = without

    def first(self, low: int) -> int | None:
        found = self._times.first(low)
        while found in self._without and found is not None:
            found = self._times.first(found + 1)
        return found

    def last(self, high: int) -> int | None:
        found = self._times.last(high)
        while found in self._without and found is not None:
            found = self._times.last(found)
        return found


class _Cached:
    """A set that caches its last answers; a `WallTimes`.

    When several sets are merged, one has the next time, and the others get the same question
    again.
    """

    def __init__(self, times: WallTimes) -> None:
        self._times = times
        # The last question and its answer; one tuple, replaced as a whole, as in `Days`.
        self._first: tuple[int, int] | None = None
        self._last: tuple[int, int] | None = None

    def first(self, low: int) -> int | None:
        if self._first is not None:
            asked, found = self._first
            if asked <= low <= found:
                return found
        answer = self._times.first(low)
        # None may only mean none within a century.
        self._first = None if answer is None else (low, answer)
        return answer

    def last(self, high: int) -> int | None:
        if self._last is not None:
            asked, found = self._last
            if asked >= high > found:
                return found
        answer = self._times.last(high)
        self._last = None if answer is None else (high, answer)
        return answer


class _Merged:
    """The union of several sets, without some exceptions; a `WallTimes`."""

    def __init__(self, parts: Sequence[WallTimes], without: Collection[int]) -> None:
        left = [_Without(part, without) for part in parts] if without else parts
        self._parts = [_Cached(part) for part in left]

    def first(self, low: int) -> int | None:
        found = (part.first(low) for part in self._parts)
        return min((at for at in found if at is not None), default=None)

    def last(self, high: int) -> int | None:
        found = (part.last(high) for part in self._parts)
        return max((at for at in found if at is not None), default=None)


def follow_the_clock(rules: Sequence[Rule]) -> bool:
    """Return True for rules of hours, minutes or seconds, which repeat with a repeated hour."""
    return bool(rules) and all(rule.freq in _CADENCES for rule in rules)


def _added(
    recurrence: Recurrence, tz: ZoneInfo, hidden: Collection[int], gone: Collection[int]
) -> list[int]:
    """Return the instants of RDATE.

    Raises:
        ScheduleError: EXDATE removes one of them.
    """
    found = set()
    for moment in recurrence.added:
        ours = moment.timezone in (None, tz.key)
        at = _first_showing(moment._replace(timezone=tz.key) if ours else moment)
        if at in gone or _face_at(at, tz) in hidden or (ours and face(moment.wall) in hidden):
            shown = f"{moment.wall:%Y%m%dT%H%M%S}{'Z' if moment.timezone == 'UTC' else ''}"
            raise _refusal(f"RDATE:{shown}", "an RDATE that no EXDATE removes", "one of the two")
        found.add(at)
    return sorted(found)


def _split(moments: Iterable[Moment], tz: ZoneInfo) -> tuple[list[Moment], list[Moment]]:
    """Split moments into those in the zone of the recurrence, and those in other zones."""
    ours: list[Moment] = []
    theirs: list[Moment] = []
    for moment in moments:
        (ours if moment.timezone in (None, tz.key) else theirs).append(moment)
    return ours, theirs


def _until(moment: Moment) -> int:
    """Return the last wall-clock time that UNTIL includes; a date includes its whole day."""
    return face(moment.wall) + (DAY - 1 if moment.dated else 0)


def _showings(moment: Moment) -> set[int]:
    """Return the instants at which the clock in the moment's zone shows it."""
    last = last_showing(face(moment.wall), zone(moment.timezone or "UTC"))
    return {_first_showing(moment)} | ({last} if last is not None else set())


def _first_showing(moment: Moment) -> int:
    return showing(face(moment.wall), zone(moment.timezone or "UTC"))


def _shown_until(wall: int, tz: ZoneInfo) -> int:
    """Return the last instant before the clock shows a time after `wall`."""
    last = last_showing(wall, tz)
    return showing(wall, tz) - 1 if last is None else last


def _face_at(at: int, tz: ZoneInfo) -> int:
    """Return the wall-clock time in `tz` at an instant."""
    utc = instant(at * SECOND)
    try:
        return -1 if utc is None else face(utc.astimezone(tz))
    except OverflowError:
        return -1  # beyond the calendar


def _refusal(given: object, expected: str, write: str | None = None) -> ScheduleError:
    return ScheduleError("text", given, expected, write)
