"""The words of schedules against what they are due at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beatstore.schedules import Cron, RRule, Schedule, describe
from beatstore.schedules.rruletext import FREQUENCIES
from tests.property.test_schedules import fields
from tests.support.thorough import tries

UTC = timezone.utc
BERLIN = "Europe/Berlin"
#: Before both clock changes, a leap day, and the ends of years that a list may name.
ASKED = [
    datetime(2026, 3, 28, 12, tzinfo=UTC),
    datetime(2026, 10, 24, 12, tzinfo=UTC),
    datetime(2028, 2, 20, tzinfo=UTC),
    datetime(2029, 12, 30, tzinfo=UTC),
]
NEXT = 50
HOUR, MINUTE = 3600, 60
#: Only these leave something out, and say so.
SHORTENED = re.compile(
    r"…$|different seconds|\d minutes of|on \d+ days|in \d+ years|\d dates|given"
)

# Fields with many spellings of few sets, so that two schedules often have the same words.
MINUTES = ["*", "*/15", "0,15,30,45", "0-59/15", "0", "30", "0,30", "*/30", "*/25", "5/20", "1-5"]
HOURS = ["*", "0-23", "*/2", "0-23/2", "*/24", "0", "8-17", "8-17/3", "2", "2-3", "*/12", "0,12"]
DATES = ["*", "?", "1", "31", "L", "1,L", "15W", "31W", "1-7", "*/2", "1-31/2", "1-31", "1,15"]
MONTHS = ["*", "*", "1-12", "2", "jan,jul", "6-8", "*/3"]
DAYS = ["*", "*", "0-6", "7", "1-5", "mon-fri", "fri-mon", "L5", "5#5", "5#1", "1#1,1#3", "sat,sun"]
SECONDS = ["", "", "", " 0", " 30", " *", " */20", " 0,20,40", " 5,7"]
YEARS = ["", "", " *", " 2026-2028", " 2026,2028", " 2026/2", " 1970-2099"]


@st.composite
def crons(draw: st.DrawFn) -> list[str]:
    """Return six fields and a rule for days, most of them with many spellings."""
    pools = [MINUTES, HOURS, DATES, MONTHS, DAYS, SECONDS, YEARS, ["", " days=and"]]
    return [draw(st.sampled_from(pool)) for pool in pools]


def cron(parts: list[str]) -> Schedule:
    """Return the schedule of drawn fields."""
    *five, second, year, both = parts
    second = (second or " 0") if year else second
    return Cron.parse(f"{' '.join(five)}{second}{year}{both}", BERLIN)


def due(schedule: Schedule) -> list[datetime]:
    """Return what is due next, from several instants."""
    end = timedelta(days=800)
    return [at for t in ASKED for at in schedule.between(t, t + end, NEXT)]


def check(one: Schedule, other: Schedule) -> None:
    """Check that equal words mean equal due times, unless the words say what they leave out."""
    words = describe(one)
    assert len(words) <= 160
    if words == describe(other) and not SHORTENED.search(words):
        assert due(one) == due(other), (one.spec, other.spec, words)


@settings(max_examples=tries(400), deadline=None)
@given(one=crons(), other=crons(), kept=st.sets(st.integers(0, 7), min_size=5, max_size=7))
def test_crons_with_the_same_words_are_due_together(
    one: list[str], other: list[str], kept: set[int]
) -> None:
    """Two cron expressions that are told alike have the same next fifty due times."""
    mixed = [one[at] if at in kept else other[at] for at in range(8)]
    try:
        schedules = cron(one), cron(mixed)
    except ValueError:
        assume(False)
    check(*schedules)


@settings(max_examples=tries(100), deadline=None)
@given(minute=fields(0, 59), hour=fields(0, 23), weekday=fields(0, 6))
def test_a_rule_is_told_as_the_cron_that_it_equals(
    minute: tuple[str, set[int]], hour: tuple[str, set[int]], weekday: tuple[str, set[int]]
) -> None:
    """A daily recurrence and the cron expression of the same numbers have the same words."""
    names = ",".join(("SU", "MO", "TU", "WE", "TH", "FR", "SA")[day] for day in weekday[1])
    lists = [",".join(map(str, sorted(one[1]))) for one in (minute, hour, weekday)]
    rule = RRule(f"FREQ=DAILY;BYMINUTE={lists[0]};BYHOUR={lists[1]};BYDAY={names};BYSECOND=0")
    same = Cron(f"{lists[0]} {lists[1]} * * {lists[2]}")
    words = describe(same)
    assume(words != same.spec and not words.endswith("…"))
    assert describe(rule) == words
    assert due(rule) == due(same)


STARTS = ["", "DTSTART:20250106T090000\n", "DTSTART:20250106T093000\n", "DTSTART:20250104T000000\n"]
ENDS = ["", ";COUNT=400", ";COUNT=3000", ";UNTIL=20280225", ";UNTIL=20280225T090000Z"]
DATED = ["", "\nEXDATE:20260330T090000", "\nRDATE:20260330T090100", "\nRDATE:20260330T080100Z"]


PARTS = {
    "INTERVAL": ["1", "2", "7"],
    "BYMONTH": ["1", "6,7,8", "2,9", "1,2,3,4,5,6,7,8,9,10,11,12"],
    "BYMONTHDAY": ["1", "31", "-1", "28,29,30,31", "1,2,3,4,5,6,7,8,9"],
    "BYDAY": ["MO", "MO,TU,WE,TH,FR", "SU,FR,SA,MO", "MO,TU,WE,TH,FR,SA,SU", "1MO", "-1FR,2TU"],
    "BYYEARDAY": ["1,100,-1", "60"],
    "BYWEEKNO": ["1", "20,-1"],
    "BYHOUR": ["2", "9,17", "8,9,10,11,12,13", "0,2,4,6,8,10,12,14,16,18,20,22"],
    "BYMINUTE": ["0", "30", "0,15,30,45", "5,6"],
    "BYSECOND": ["0", "30", "0,20,40"],
    "BYSETPOS": ["1", "-1", "1,3"],
    "WKST": ["MO", "SU"],
}


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Return a rule of a few parts."""
    freq = draw(st.sampled_from(FREQUENCIES))
    names = draw(st.sets(st.sampled_from(sorted(PARTS)), max_size=4))
    parts = [f"{name}={draw(st.sampled_from(PARTS[name]))}" for name in PARTS if name in names]
    return ";".join([f"FREQ={freq}", *parts])


@st.composite
def pairs(draw: st.DrawFn) -> list[RRule]:
    """Return two recurrences that differ in few parts."""
    rule = draw(texts())
    changed = [rule, rule, draw(texts()), *without_one(rule.split(";"))]
    first, end, date = (draw(st.sampled_from(pool)) for pool in (STARTS, ENDS, DATED))
    found = [f"{first}RRULE:{rule}{end}{date}"]
    if draw(st.booleans()):
        first, date = draw(st.sampled_from(STARTS)), draw(st.sampled_from(DATED))
    end = draw(st.sampled_from([end, *ENDS]))
    found.append(f"{first}RRULE:{draw(st.sampled_from(changed))}{end}{date}")
    try:
        return [RRule(text, BERLIN) for text in found]
    except ValueError:
        assume(False)
        raise


@settings(max_examples=tries(400), deadline=None)
@given(pair=pairs())
def test_rules_with_the_same_words_are_due_together(pair: list[RRule]) -> None:
    """Two recurrences that are told alike have the same next fifty due times."""
    check(*pair)


def without_one(parts: list[str]) -> Iterator[str]:
    """Yield a rule without each of its parts but the first."""
    for at in range(1, len(parts)):
        yield ";".join([*parts[:at], *parts[at + 1 :]])


@settings(max_examples=tries(400), deadline=None)
@given(minute=fields(0, 59), hour=fields(0, 23), second=st.one_of(st.none(), fields(0, 59)))
def test_the_times_of_day_read_back(
    minute: tuple[str, set[int]], hour: tuple[str, set[int]], second: tuple[str, set[int]] | None
) -> None:
    """Whoever takes the sentence at its word finds the times of day of the expression."""
    try:
        schedule = Cron(f"{minute[0]} {hour[0]} * * *" + (f" {second[0]}" if second else ""))
    except ValueError:
        assume(False)
    words = describe(schedule)
    seconds = second[1] if second else {0}
    expected = {h * HOUR + m * MINUTE + s for h in hour[1] for m in minute[1] for s in seconds}
    assume(not SHORTENED.search(words) and words != schedule.spec)
    assert read_times(words) == expected, words


@settings(max_examples=tries(400), deadline=None)
@given(
    date=st.one_of(st.just(("*", set(range(1, 32)))), fields(1, 31)),
    weekday=st.one_of(st.just(("*", set(range(7)))), fields(0, 6)),
    both=st.booleans(),
)
def test_the_days_read_back(
    date: tuple[str, set[int]], weekday: tuple[str, set[int]], both: bool
) -> None:
    """Whoever takes the sentence at its word finds the days of the expression."""
    try:
        schedule = Cron(f"0 9 {date[0]} * {weekday[0]}", day_or=not both)
    except ValueError:
        assume(False)
    words = describe(schedule)
    assume(not SHORTENED.search(words))
    either = not both and date[0][0] != "*" and weekday[0][0] != "*"
    for day in range(366):
        at = datetime(2026, 1, 1) + timedelta(days=day)
        named = at.day in date[1], at.isoweekday() % 7 in weekday[1]
        assert is_told(words, at) == (any(named) if either else all(named)), (words, at)


def read_times(words: str) -> set[int]:
    """Return the seconds of the day that a sentence about every day names."""
    words = re.sub(r" \((once each|not in a).*\)$", "", words).removeprefix("every day ")
    if match := re.fullmatch(r"every( \d+)? hours? from (\d\d):(\d\d) to (\d\d):\3", words):
        hours = range(int(match[2]), int(match[4]) + 1, int(match[1] or 1))
        return {hour * HOUR + int(match[3]) * MINUTE for hour in hours}
    if re.fullmatch(r"at \d\d:\d\d.*", words):
        return {clock(item) for item in re.findall(r"\d\d:\d\d(?::\d\d)?", words)}
    if match := re.fullmatch(r"every( \d+)? (minute|second)s?, from (\S+) to (\S+)", words):
        unit = MINUTE if match[2] == "minute" else 1
        return set(range(clock(match[3]), clock(match[4]) + 1, unit * int(match[1] or 1)))
    if match := re.fullmatch(r"every( \d+)? (hour|minute|second)s?", words):
        unit = {"hour": HOUR, "minute": MINUTE, "second": 1}[match[2]]
        return set(range(0, 24 * HOUR, unit * int(match[1] or 1)))
    return read_parts(words)


def read_parts(words: str) -> set[int]:
    """Return the seconds of the day where minutes, seconds and hours are told one by one."""
    if match := re.fullmatch(r"(.* seconds?\b.*?) past (\d\d:\d\d|every minute)", words):
        starts = range(0, 24 * HOUR, MINUTE) if "every" in match[2] else [clock(match[2])]
        return {start + second for start in starts for second in numbers(match[1])}
    seconds = [0]
    if match := re.fullmatch(r"(.*\bseconds?\b.*?) of (.*\bminutes?\b.* of .*)", words):
        seconds, words = numbers(match[1]), match[2]
    found = re.fullmatch(r"(.*minutes?\b.*?) (?:past|in|of) (.*)", words)
    assert found, words
    return {
        hour * HOUR + minute * MINUTE + second
        for hour in hours_in(found[2])
        for minute in numbers(found[1])
        for second in seconds
    }


def clock(text: str) -> int:
    """Return the seconds since midnight of "09:30" or "09:30:15"."""
    hour, minute, second = [*map(int, text.split(":")), 0][:3]
    return hour * HOUR + minute * MINUTE + second


def hours_in(text: str) -> list[int]:
    """Return the hours that a part of a sentence names."""
    return [int(text[:2])] if re.fullmatch(r"\d\d:\d\d", text) else numbers(text)


def numbers(text: str) -> list[int]:
    """Return the numbers below 60, or of hours below 24, that a part of a sentence names."""
    top = 24 if "hour" in text else 60
    if match := re.fullmatch(r"(?:each|every)( \d+)?\S* \w+(?: from (\d+) to (\d+))?", text):
        return list(range(int(match[2] or 0), int(match[3] or top - 1) + 1, int(match[1] or 1)))
    found: list[int] = []
    for first, last in re.findall(r"(\d+)(?: to (\d+))?", text):
        found += range(int(first), int(last or first) + 1)
    return found


NAMES = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]


def is_told(words: str, at: datetime) -> bool:
    """Return whether a sentence says that a day has the time of day 09:00."""
    days = re.sub(r",? at 09:00$", "", words)
    if days == "every day":
        return True
    if match := re.fullmatch(r"(.*), if it is (.*)", days):
        return on_date(match[1], at) and on_weekday(match[2], at)
    if match := re.fullmatch(r"(on .* of every month(?: that has it)?)(?: and also (.*))?", days):
        return on_date(match[1], at) or (match[2] is not None and on_weekday(match[2], at))
    if days.startswith("on "):
        return on_date(days, at)
    return on_weekday(days, at)


def on_date(text: str, at: datetime) -> bool:
    """Return whether "on the 1st, 3rd to 5th of every month" names a day."""
    if match := re.match(r"on every (\d+)\S* day from the (\d+)\S* to the (\d+)", text):
        step, first, last = map(int, match.groups())
        return at.day in range(first, last + 1, step)
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)[a-z]+(?: to (\d+))?", text):
        found |= set(range(int(first), int(last or first) + 1))
    return at.day in found


def on_weekday(text: str, at: datetime) -> bool:
    """Return whether "Monday to Friday" or "every Sunday and Monday" names a day."""
    day = at.isoweekday() % 7
    if match := re.fullmatch(r"(\w+) to (\w+)", text):
        first, last = NAMES.index(match[1]), NAMES.index(match[2])
        return (day - first) % 7 <= (last - first) % 7
    return NAMES[day] in text
