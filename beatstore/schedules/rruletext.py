"""Parse the text of a recurrence rule (RFC 5545).

The text has RRULE, DTSTART, RDATE and EXDATE lines, in any order and any case, separated by white
space, and folded as calendars do it. Every value is checked against its range in the RFC, since a
value that can't match (BYMONTH=13) is a mistake. Lines that are deprecated (EXRULE) or have no
clear meaning here are refused by name, never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from beatstore.errors import ScheduleError
from beatstore.schedules.zones import zone

__all__ = ["FREQUENCIES", "Moment", "Recurrence", "Rule", "lines", "read_recurrence"]

FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY")

_LONGEST = 8_192
_MOST_RULES = 10
_MOST_OCCURRENCES = 10_000
_MOST_TOGETHER = 20_000  # of all rules
_MOST_WEEKS = 53
_WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_EXAMPLE = '"FREQ=WEEKLY;BYDAY=MO,WE;BYHOUR=9;BYMINUTE=0;BYSECOND=0"'

_STAMP = re.compile(r"(?P<date>\d{8})(?:T(?P<time>\d{6})(?P<utc>Z)?)?", re.ASCII)
_BYDAY = re.compile(r"([+-]?\d{1,2})?(MO|TU|WE|TH|FR|SA|SU)", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d{1,9}", re.ASCII)
_LINE = re.compile(r"(?P<name>[A-Z]+)(?P<parameters>(;[^:]*)?):(?P<value>.*)", re.IGNORECASE)

# Where a line is folded (RFC 5545, section 3.1), and not where the next one is indented.
_NEXT = r"\s|(?:RRULE|DTSTART|RDATE|EXDATE|EXRULE)[;:]|FREQ="
_FOLD = re.compile(rf"\r?\n[ \t](?!{_NEXT})", re.IGNORECASE)


class _Range(NamedTuple):
    low: int
    high: int
    signed: bool = False


_LISTS = {
    "BYMONTH": _Range(1, 12),
    "BYWEEKNO": _Range(1, 53, signed=True),
    "BYYEARDAY": _Range(1, 366, signed=True),
    "BYMONTHDAY": _Range(1, 31, signed=True),
    "BYHOUR": _Range(0, 23),
    "BYMINUTE": _Range(0, 59),
    "BYSECOND": _Range(0, 59),
    "BYSETPOS": _Range(1, 366, signed=True),
}
# A hundred years, in each frequency's own unit: a longer step is a mistake.
_LONGEST_INTERVAL = dict(
    zip(FREQUENCIES, (100, 1_200, 5_218, 36_525, 876_600, 52_596_000, 3_155_760_000), strict=True)
)


class Moment(NamedTuple):
    """A date and time as written: its wall-clock time, and its zone if it names one."""

    wall: datetime
    timezone: str | None
    dated: bool  # whether only the date was given


@dataclass(frozen=True)
class Rule:
    """One RRULE.

    `by` has the BYxxx lists of numbers that were given, without duplicates. `byday` has
    pairs (n, weekday), n = 0 for every such day, and weekdays from Monday = 0.
    """

    text: str
    freq: str
    interval: int
    count: int | None
    until: Moment | None
    week_start: int
    by: Mapping[str, Sequence[int]]
    byday: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Recurrence:
    """All lines of a recurrence."""

    start: Moment | None
    rules: Sequence[Rule]
    added: Sequence[Moment]
    excluded: Sequence[Moment]


def read_recurrence(text: str) -> Recurrence:
    """Parse the lines of a recurrence.

    Raises:
        ScheduleError: a line is invalid; the error shows the invalid part.
    """
    start: Moment | None = None
    rules: list[Rule] = []
    added: list[Moment] = []
    excluded: list[Moment] = []
    dated: list[str] = []
    for line in lines(text):
        match = _LINE.fullmatch(line if ":" in line else f"RRULE:{line}")
        name = match["name"].upper() if match else ""
        if match is None or (name == "RRULE" and match["parameters"]):
            raise _refusal(line, "NAME:value lines", _EXAMPLE)
        if name == "RRULE":
            rules.append(_rule(match["value"].upper()))
        elif name == "DTSTART" and start is None:
            start = _moment(match["value"], match["parameters"])
        elif name in ("RDATE", "EXDATE"):
            moments = [_moment(value, match["parameters"]) for value in match["value"].split(",")]
            dated += [line] if any(moment.dated for moment in moments) else []
            (added if name == "RDATE" else excluded).extend(moments)
        else:
            raise _refusal(line, "RRULE, RDATE and EXDATE lines, and one DTSTART at most")
    if dated and not (start and start.dated):
        raise _refusal(dated[0], "dates with their time", "20260131T090000")
    if not rules and not added:
        raise _refusal(text, "at least one RRULE", _EXAMPLE)
    if len(rules) > _MOST_RULES:
        raise _refusal(text, f"at most {_MOST_RULES} RRULE lines", "several entries")
    counted = sum(rule.count or 0 for rule in rules)
    if counted > _MOST_TOGETHER:
        wanted = f"COUNT parts that add up to at most {_MOST_TOGETHER}"
        raise _refusal(f"COUNT={counted}", wanted, "UNTIL with the last date")
    return Recurrence(start, rules, added, excluded)


def lines(text: str) -> list[str]:
    """Return the lines of a recurrence, unfolded."""
    if not isinstance(text, str):
        raise _refusal(text, "a recurrence rule as a str", _EXAMPLE)
    if len(text) > _LONGEST:
        raise _refusal(text, f"at most {_LONGEST} characters", "fewer RDATE and EXDATE values")
    if not text.isascii() or any(c < " " and c not in "\t\r\n" for c in text):
        raise _refusal(text, "printable ASCII", _EXAMPLE)
    return _FOLD.sub("", text).split()


def _rule(value: str) -> Rule:
    parts: dict[str, str] = {}
    for part in value.removesuffix(";").split(";"):
        name, _, given = part.partition("=")
        if not given or name in parts:
            raise _refusal(part, "NAME=value parts, each name once", _EXAMPLE)
        parts[name] = given
    freq = parts.pop("FREQ", None)
    if freq not in FREQUENCIES:
        raise _refusal(f"FREQ={freq}", f"FREQ={', '.join(FREQUENCIES)}", _EXAMPLE)
    if "COUNT" in parts and "UNTIL" in parts:
        raise _refusal(value, "either COUNT or UNTIL", "one of them")
    until = parts.pop("UNTIL", None)
    rule = Rule(
        text=value,
        freq=freq,
        interval=_count(parts, "INTERVAL", _LONGEST_INTERVAL[freq]) or 1,
        count=_count(parts, "COUNT", _MOST_OCCURRENCES),
        until=_moment(until) if until else None,
        week_start=_weekday(parts.pop("WKST", "MO")),
        byday=_byday(parts.pop("BYDAY", None), freq),
        by={name: _numbers(name, parts.pop(name)) for name in _LISTS if name in parts},
    )
    if parts:
        raise _refusal(next(iter(parts)), f"FREQ, INTERVAL, COUNT, UNTIL, WKST, {_by_names()}")
    if "BYSETPOS" in rule.by and FREQUENCIES.index(freq) > FREQUENCIES.index("DAILY"):
        raise _refusal(value, "BYSETPOS with FREQ=DAILY or slower")
    return rule


def _count(parts: dict[str, str], name: str, most: int) -> int | None:
    text = parts.pop(name, None)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= most:
        hint = "UNTIL with the last date" if name == "COUNT" else None
        raise _refusal(f"{name}={text}", f"{name} from 1 to {most}", hint)
    return int(text)


def _numbers(name: str, text: str) -> Sequence[int]:
    low, high, signed = _LISTS[name]
    found = set()
    for item in text.split(","):
        number = int(item) if _NUMBER.fullmatch(item) else high + 1
        if not low <= (abs(number) if signed else number) <= high:
            sign = f", or -{high} to -{low} from the end" if signed else ""
            raise _refusal(f"{name}={item}", f"{name} values from {low} to {high}{sign}")
        found.add(number)
    return tuple(sorted(found))


def _byday(text: str | None, freq: str) -> Sequence[tuple[int, int]]:
    """Return the (n, weekday) pairs of BYDAY."""
    found = set()
    for item in text.split(",") if text else ():
        match = _BYDAY.fullmatch(item)
        n = int(match[1] or 0) if match else 0
        if match is None or abs(n) > _MOST_WEEKS or (match[1] and not n):
            raise _refusal(f"BYDAY={item}", "BYDAY values such as MO, 2TU or -1FR")
        if n and freq not in ("MONTHLY", "YEARLY"):
            raise _refusal(f"BYDAY={item}", f"plain weekdays with FREQ={freq}", match[2])
        found.add((n, _WEEKDAYS.index(match[2])))
    return tuple(sorted(found))


def _weekday(text: str) -> int:
    if text not in _WEEKDAYS:
        raise _refusal(f"WKST={text}", f"WKST={', '.join(_WEEKDAYS)}")
    return _WEEKDAYS.index(text)


def _moment(text: str, parameters: str = "") -> Moment:
    """Parse 20260131, 20260131T090000 or 20260131T090000Z, with or without a TZID parameter."""
    match = _STAMP.fullmatch(text.upper())
    try:
        digits = match["date"] + (match["time"] or "000000") if match else ""
        wall = datetime.strptime(digits, "%Y%m%d%H%M%S")  # noqa: DTZ007 - what a wall shows
    except ValueError as error:
        raise _refusal(text, "a date and time", "20260131T090000") from error
    timezone = "UTC" if match and match["utc"] else None
    for parameter in filter(None, parameters.split(";")):
        name, _, value = parameter.partition("=")
        if name.upper() == "TZID" and timezone is None:
            timezone = _zone_name(value.strip('"'))
        elif name.upper() != "VALUE" or value.upper() not in ("DATE", "DATE-TIME"):
            raise _refusal(parameter, "TZID=zone, without a Z after the time")
    return Moment(wall, timezone, dated=bool(match and match["time"] is None))


def _zone_name(name: str) -> str:
    try:
        return zone(name).key
    except ScheduleError as error:
        raise _refusal(f"TZID={name}", error.expected, error.write) from error


def _by_names() -> str:
    return ", ".join(["BYDAY", *_LISTS])


def _refusal(given: object, expected: str, write: str | None = None) -> ScheduleError:
    return ScheduleError("text", given, expected, write)
