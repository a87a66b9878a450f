"""Schedules against slow and simple models of what they should do."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import islice, pairwise, takewhile
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from croniter import CroniterBadDateError, croniter
from dateutil.rrule import rrulestr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beatstore.errors import ScheduleError
from beatstore.schedules import Cron, Every, Once, RRule, Schedule, parse
from tests.support.thorough import tries

UTC = timezone.utc
DAY, MINUTE, SECOND = timedelta(days=1), timedelta(minutes=1), timedelta(seconds=1)
TICK = timedelta(microseconds=1)

# Where the clocks change: forwards, back, by half an hour, by two hours, by a day, at
# midnight, for Ramadan, from a winter time that is the exception, and once and for all.
CHANGES = [
    ("Europe/Berlin", "2026-03-29T01:00"),
    ("Europe/Berlin", "2026-10-25T01:00"),
    ("Europe/Dublin", "2026-03-29T01:00"),
    ("Europe/Dublin", "2026-10-25T01:00"),
    ("America/New_York", "2026-03-08T07:00"),
    ("America/New_York", "2026-11-01T06:00"),
    ("Australia/Lord_Howe", "2026-10-03T15:30"),
    ("Australia/Lord_Howe", "2026-04-04T15:00"),
    ("Pacific/Apia", "2011-12-30T10:00"),
    ("America/St_Johns", "2010-03-14T03:31"),
    ("America/St_Johns", "2010-11-07T02:31"),
    ("Antarctica/Troll", "2026-03-29T01:00"),
    ("Antarctica/Troll", "2026-10-25T01:00"),
    ("Africa/Casablanca", "2026-02-15T02:00"),
    ("Africa/Casablanca", "2026-03-22T02:00"),
    ("Asia/Kathmandu", "1985-12-31T18:30"),
    ("America/Sao_Paulo", "2018-11-04T03:00"),
    ("America/Sao_Paulo", "2019-02-17T02:00"),
    ("America/Havana", "2026-03-08T05:00"),
    ("America/Havana", "2026-11-01T05:00"),
    ("America/Caracas", "2007-12-09T07:00"),
    ("Pacific/Kwajalein", "1993-08-21T12:00"),
    ("Pacific/Kwajalein", "1969-09-30T13:00"),
    ("Asia/Gaza", "2040-10-20T00:00"),
    ("Asia/Kolkata", "2026-06-01T00:00"),
]
# Here the offset isn't a whole number of minutes.
TO_THE_SECOND = [*CHANGES[:12], ("Africa/Monrovia", "1972-01-07T00:44:30")]


class Case(NamedTuple):
    """A cron expression, and what it means said another way."""

    text: str
    matches: Callable[[datetime], bool]
    follows_the_clock: bool


@st.composite
def fields(draw: st.DrawFn, low: int, high: int) -> tuple[str, set[int]]:
    """Return the text of one field and the values it stands for."""
    form = draw(st.sampled_from(["*", "*/n", "a", "a-b", "a-b/n", "a/n", "list"]))
    a = draw(st.integers(low, high))
    b = draw(st.integers(a, high))
    n = draw(st.integers(1, high - low + 1))
    several = draw(st.sets(st.integers(low, high), min_size=1, max_size=5))
    return {
        "*": ("*", set(range(low, high + 1))),
        "*/n": (f"*/{n}", set(range(low, high + 1, n))),
        "a": (f"{a}", {a}),
        "a-b": (f"{a}-{b}", set(range(a, b + 1))),
        "a-b/n": (f"{a}-{b}/{n}", set(range(a, b + 1, n))),
        "a/n": (f"{a}/{n}", set(range(a, high + 1, n))),
        "list": (",".join(map(str, several)), several),
    }[form]


@st.composite
def crons(draw: st.DrawFn, *, seconds: bool = False) -> Case:
    """Return expressions that are due often enough to meet a clock change."""
    minute, minutes = draw(fields(0, 59))
    hour, hours = draw(fields(0, 23))
    day, days = draw(st.one_of(st.just(("*", set(range(1, 32)))), fields(1, 31)))
    weekday, weekdays = draw(st.one_of(st.just(("*", set(range(7)))), fields(0, 6)))
    second, moments = draw(fields(0, 59)) if seconds else ("", {0})
    union = day[0] != "*" and weekday[0] != "*"

    def matches(wall: datetime) -> bool:
        by_date, by_weekday = wall.day in days, wall.isoweekday() % 7 in weekdays
        return (
            wall.second in moments
            and wall.minute in minutes
            and wall.hour in hours
            and (by_date or by_weekday if union else by_date and by_weekday)
        )

    return Case(
        f"{minute} {hour} {day} * {weekday} {second}".strip(),
        matches,
        minute[0] == "*" or hour[0] == "*",
    )


def fires(
    case: Case, tz: ZoneInfo, start: datetime, end: datetime, step: timedelta
) -> list[datetime]:
    """Return what is due, by looking at the wall clock at every step from start to end."""
    found, at = [], start
    shown = (start - step).astimezone(tz).replace(tzinfo=None)
    while at <= end:
        local = at.astimezone(tz)
        wall = local.replace(tzinfo=None, fold=0)
        if case.follows_the_clock:
            due = case.matches(wall)
        else:
            due = local.fold == 0 and case.matches(wall)
            missing = shown + step
            while missing < wall and not due:
                due = case.matches(missing)
                missing += step
        if due:
            found.append(at)
        shown = wall
        at += step
    return found


def agrees(schedule: Schedule, found: list[datetime], start: datetime, end: datetime) -> None:
    """Check all three questions at, before and after everything that is due."""
    assert schedule.between(start - TICK, end, 10**6) == found
    for t in {moment + tick for moment in [start, *found, end] for tick in (-TICK, TICK * 0, TICK)}:
        after = bisect_right(found, t)
        if after < len(found) and t >= start - TICK:
            assert schedule.next_after(t) == found[after]
        before = bisect_left(found, t)
        if before and t <= end:
            assert schedule.latest_before(t) == found[before - 1]


@settings(max_examples=tries(100), deadline=None)
@given(case=crons(), change=st.sampled_from(CHANGES), back=st.integers(0, 2000))
def test_cron_is_due_when_the_wall_clock_says_so(
    case: Case, change: tuple[str, str], back: int
) -> None:
    """Around every kind of clock change, cron fires as a clock watched minute by minute does."""
    tz = ZoneInfo(change[0])
    middle = datetime.fromisoformat(change[1]).replace(tzinfo=UTC)
    start = middle - back * MINUTE
    end = start + timedelta(days=2)
    try:
        schedule = Cron(case.text, change[0])
    except ValueError:
        assume(False)
    agrees(schedule, fires(case, tz, start, end, MINUTE), start, end)


@settings(max_examples=tries(15), deadline=None)
@given(case=crons(seconds=True), change=st.sampled_from(TO_THE_SECOND), back=st.integers(0, 7200))
def test_seconds_are_due_when_the_wall_clock_says_so(
    case: Case, change: tuple[str, str], back: int
) -> None:
    """With a field for seconds the same holds, watched second by second."""
    tz = ZoneInfo(change[0])
    middle = datetime.fromisoformat(change[1]).replace(tzinfo=UTC)
    start = middle - back * SECOND
    end = start + timedelta(hours=3)
    try:
        schedule = Cron(case.text, change[0])
    except ValueError:
        assume(False)
    agrees(schedule, fires(case, tz, start, end, SECOND), start, end)


DATES = st.datetimes(datetime(1975, 1, 1), datetime(2090, 1, 1))
DAY_FIELDS = st.sampled_from(
    ["*", "1", "15", "29", "31", "L", "15,L", "20-31", "*/7", "1W", "15W", "31W", "30/1"]
)
MONTH_FIELDS = st.sampled_from(["*", "2", "2,4", "11-2", "*/5", "feb", "12"])
WEEKDAY_FIELDS = st.sampled_from(["*", "0", "7", "1-5", "fri-mon", "1#1", "5#5", "L5", "0#2,L3"])


@settings(max_examples=tries(200), deadline=None)
@given(
    day=DAY_FIELDS,
    month=MONTH_FIELDS,
    weekday=WEEKDAY_FIELDS,
    at=DATES,
    name=st.sampled_from(["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Europe/Berlin"]),
)
def test_days_are_croniters(day: str, month: str, weekday: str, at: datetime, name: str) -> None:
    """Both day fields together name the days that croniter finds, however far away."""
    tz = ZoneInfo(name)
    at = at.replace(hour=12)  # noon exists once on every day
    text = f"30 12 {day} {month} {weekday}"
    oracle = croniter(text, at, ret_type=datetime, day_or=False)
    try:
        after = oracle.get_next(start_time=at).replace(tzinfo=tz)
        before = oracle.get_prev(start_time=at).replace(tzinfo=tz)
    except CroniterBadDateError:
        with pytest.raises(ValueError, match="a date that exists"):
            Cron(text, day_or=False)
        return
    schedule = Cron(text, name, day_or=False)
    assert schedule.next_after(at.replace(tzinfo=tz)) == after
    assert schedule.latest_before(at.replace(tzinfo=tz)) == before


@settings(max_examples=tries(60), deadline=None)
@given(day=DAY_FIELDS, month=MONTH_FIELDS, weekday=WEEKDAY_FIELDS, at=DATES)
def test_either_day_field_is_enough(day: str, month: str, weekday: str, at: datetime) -> None:
    """Two restricted day fields mean the union of what each names alone."""
    assume(day[0] != "*" and weekday[0] != "*")
    t = at.replace(tzinfo=UTC)
    try:
        parts = [Cron(f"0 0 {day} {month} *")]
    except ValueError:
        parts = []  # a date that no month has
    parts.append(Cron(f"0 0 * {month} {weekday}"))
    union = Cron(f"0 0 {day} {month} {weekday}")
    assert union.next_after(t) == min(filter(None, (part.next_after(t) for part in parts)))
    assert union.latest_before(t) == max(filter(None, (part.latest_before(t) for part in parts)))


SCHEDULES = st.sampled_from(
    [
        Cron("*/7 * * * *", "Europe/Berlin"),
        Cron("30 2 * * *", "Europe/Berlin"),
        Cron("10,40 */3 * * *", "Australia/Lord_Howe"),
        Cron("5 0-23 * * *", "Pacific/Apia"),
        Every(613.5),
        Every(3600, datetime(2026, 3, 29, 0, 17, tzinfo=UTC)),
        RRule("FREQ=MINUTELY;INTERVAL=45", "America/St_Johns"),
        RRule("FREQ=DAILY;BYHOUR=1,2,3;BYMINUTE=30;BYSECOND=0", "America/New_York"),
        Once(datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ]
)
STARTS = st.sampled_from(
    [datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 20, tzinfo=UTC)]
)


@settings(max_examples=tries(150), deadline=None)
@given(schedule=SCHEDULES, start=STARTS, cuts=st.lists(st.integers(0, 3 * 86_400), max_size=8))
def test_cutting_the_time_line_changes_nothing(
    schedule: Schedule, start: datetime, cuts: list[int]
) -> None:
    """However the time line is cut into pieces, no occurrence is lost or doubled."""
    points = [start + cut * SECOND for cut in [0, *sorted(cuts), 3 * 86_400]]
    whole = schedule.between(points[0], points[-1], 10**6)
    pieces = [schedule.between(low, high, 10**6) for low, high in pairwise(points)]
    assert [at for piece in pieces for at in piece] == whole


@settings(max_examples=tries(150), deadline=None)
@given(schedule=SCHEDULES, at=st.datetimes(datetime(1950, 1, 1), datetime(2090, 1, 1)))
def test_next_and_latest_are_inverse(schedule: Schedule, at: datetime) -> None:
    """The latest before the next is never after the question, and back again."""
    t = at.replace(tzinfo=UTC)
    after, before = schedule.next_after(t), schedule.latest_before(t)
    if after is not None:
        assert after > t
        assert schedule.next_after(after - TICK) == after
        latest = schedule.latest_before(after)
        assert latest is None or latest <= t
    if before is not None:
        assert before < t
        assert schedule.latest_before(before + TICK) == before
        following = schedule.next_after(before)
        assert following is None or following >= t


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Return rules that dateutil handles."""
    freq = draw(
        st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY"])
    )
    parts = [f"FREQ={freq}", f"INTERVAL={draw(st.sampled_from([1, 2, 3, 5, 7, 40]))}"]
    options = {
        "BYMONTH": st.lists(st.integers(1, 12), min_size=3, max_size=5),
        "BYMONTHDAY": st.lists(st.sampled_from([1, 13, 28, 31, -1, -3]), min_size=1, max_size=3),
        "BYDAY": st.lists(st.sampled_from(["MO", "WE", "SU"]), min_size=1, max_size=3),
        "BYYEARDAY": st.lists(st.sampled_from([1, 60, 200, 366, -1]), min_size=1, max_size=3),
        "BYHOUR": st.lists(st.integers(0, 23), min_size=12, max_size=20),
        "BYMINUTE": st.lists(st.integers(0, 59), min_size=40, max_size=50),
        "BYSECOND": st.lists(st.integers(0, 59), min_size=1, max_size=2),
    }
    wanted = ["BYMONTH", "BYHOUR", "BYSECOND", draw(st.sampled_from(["BYMONTHDAY", "BYDAY"]))]
    if freq in ("YEARLY", "MONTHLY"):
        options["BYDAY"] = st.lists(st.sampled_from(["1MO", "-1FR", "3SU"]), min_size=1, max_size=3)
    if freq == "YEARLY":
        wanted.append("BYYEARDAY")
        options["BYWEEKNO"] = st.lists(st.integers(2, 51), min_size=1, max_size=4)
        wanted.append("BYWEEKNO")
    if freq in ("YEARLY", "MONTHLY", "DAILY"):
        options["BYSETPOS"] = st.sampled_from([[1], [-1], [1, 3], [2]])
        wanted.append("BYSETPOS")
    for name in draw(st.sets(st.sampled_from(wanted), max_size=2)):
        parts.append(f"{name}={','.join(map(str, draw(options[name])))}")
    if freq == "WEEKLY":
        parts.append(f"WKST={draw(st.sampled_from(['MO', 'SU', 'WE']))}")
    return ";".join(parts)


# How far dateutil looks: it tries each step of these rules, up to the year 9999 if none fits, at
# some 500,000 a second.
REACH = {"SECONDLY": 5 * DAY, "MINUTELY": 300 * DAY, "HOURLY": 8000 * DAY, "DAILY": 12000 * DAY}


def refused_if_empty(text: str) -> RRule | None:
    """Return the schedule, or None for one that is refused since it is never due."""
    try:
        return RRule(text)
    except ScheduleError:
        return None


@settings(max_examples=tries(100), deadline=None)
@given(text=rules(), start=st.datetimes(datetime(1995, 1, 1), datetime(2030, 1, 1)))
def test_rules_are_dateutils(text: str, start: datetime) -> None:
    """Where dateutil soon has an answer, a recurrence rule has the same, from either end."""
    start = start.replace(microsecond=0)
    last = start.replace(year=start.year + 40)
    schedule = refused_if_empty(f"DTSTART:{start:%Y%m%dT%H%M%S} RRULE:{text}")
    t = start.replace(tzinfo=UTC) - TICK
    reach = REACH.get(text.removeprefix("FREQ=").partition(";")[0])
    if reach is not None:
        found = [] if schedule is None else schedule.between(t, t + reach, 25)
        assume(found)
        last = min(last, found[-1].replace(tzinfo=None) + SECOND)
    try:
        walk = takewhile(lambda at: at < last, rrulestr(text, dtstart=start))
        expected = [at.replace(tzinfo=UTC) for at in islice(walk, 25)]
    except ValueError:  # dateutil finds out that a rule is empty
        expected = []
    assume(expected)
    assert schedule is not None
    assert schedule.between(t, last.replace(tzinfo=UTC), len(expected)) == expected
    for earlier, later in pairwise(expected):
        assert schedule.latest_before(later) == earlier
    assert schedule.latest_before(expected[0]) is None


@settings(max_examples=tries(60), deadline=None)
@given(hour=st.integers(0, 23), minute=st.integers(0, 59), change=st.sampled_from(CHANGES))
def test_a_daily_rule_is_a_daily_cron(hour: int, minute: int, change: tuple[str, str]) -> None:
    """Cron and recurrence rules go through clock changes in the same way."""
    middle = datetime.fromisoformat(change[1]).replace(tzinfo=UTC)
    start, end = middle - timedelta(days=3), middle + timedelta(days=3)
    rule = RRule(
        f"DTSTART:19600101T000000 FREQ=DAILY;BYHOUR={hour};BYMINUTE={minute};BYSECOND=0", change[0]
    )
    cron = Cron(f"{minute} {hour} * * *", change[0])
    assert rule.between(start, end, 100) == cron.between(start, end, 100)


@settings(max_examples=tries(200), deadline=None)
@given(
    micro=st.integers(100_000, 10**13),
    anchor=st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
    at=st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
)
def test_every_never_drifts(micro: int, anchor: datetime, at: datetime) -> None:
    """Every occurrence is a whole number of periods after the anchor, to the microsecond."""
    period, origin, t = (
        timedelta(microseconds=micro),
        anchor.replace(tzinfo=UTC),
        at.replace(tzinfo=UTC),
    )
    schedule = Every(period, origin)
    found = schedule.next_after(t)
    assert found is not None
    assert (found - origin) % period == timedelta(0)
    assert t < found
    assert found - period <= max(t, origin)
    latest = schedule.latest_before(t)
    assert latest == (
        None if t <= origin + period else found - period * (1 if found - period < t else 2)
    )


@settings(max_examples=tries(300), deadline=None)
@given(
    kind=st.sampled_from(["once", "cron", "every", "rrule", "solar"]),
    spec=st.one_of(
        st.text(max_size=40),
        st.text("0123456789*/-,#LWlw? @:TZ=;FREQDAILYBYOU.+from", max_size=60),
    ),
)
def test_no_text_in_a_row_is_more_than_refused(kind: str, spec: str) -> None:
    """Whatever the columns hold, `parse` gives a schedule that reads back, or a ValueError."""
    try:
        schedule = parse(kind, spec, "Europe/Berlin", datetime(2026, 1, 1, tzinfo=UTC))
    except ValueError:
        return
    again = parse(schedule.kind, schedule.spec, schedule.timezone, datetime(2026, 1, 1, tzinfo=UTC))
    assert again == schedule
    schedule.next_after(datetime(2026, 1, 1, tzinfo=UTC))
