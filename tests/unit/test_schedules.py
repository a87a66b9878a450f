"""What all schedules promise, and the kinds without a wall clock."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from datetime import date, datetime, timedelta, timezone

import pytest

from beatstore.errors import ScheduleError
from beatstore.schedules import (
    Cron,
    Every,
    Once,
    RRule,
    Schedule,
    Solar,
    as_schedule,
    daily,
    hourly,
    minutely,
    monthly,
    parse,
    weekly,
)
from beatstore.schedules.every import period_in_words

UTC = timezone.utc
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)
FIRST = datetime.min.replace(tzinfo=UTC)

SCHEDULES = [
    Once(NOON),
    Once(NOON + timedelta(microseconds=1)),
    Cron("*/5 * * * *"),
    Cron("0 9 13 * 5", "Europe/Berlin", day_or=False),
    Every(300),
    Every(0.5),
    Every(97.5, NOON),
    RRule("FREQ=DAILY;BYHOUR=9;BYMINUTE=0;BYSECOND=0", "Europe/Berlin"),
    RRule("DTSTART;TZID=Asia/Tokyo:20260225T090000\nRRULE:FREQ=WEEKLY;COUNT=5"),
    Solar("sunrise", 52.52, 13.405),
    Solar("solar_noon", -33, 151),
]
each = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.spec)


@each
def test_a_row_gives_the_same_schedule_back(schedule: Schedule) -> None:
    """Kind, spec and timezone are all there is to a schedule."""
    assert parse(schedule.kind, schedule.spec, schedule.timezone) == schedule


@each
def test_schedules_are_values(schedule: Schedule) -> None:
    """A schedule is equal, hashes and pickles by what it says, and can't be changed."""
    copy = pickle.loads(pickle.dumps(schedule))
    assert copy == schedule
    assert hash(copy) == hash(schedule)
    assert copy.next_after(NOON) == schedule.next_after(NOON)
    assert sum(other == schedule for other in SCHEDULES) == 1
    with pytest.raises(FrozenInstanceError):
        schedule.timezone = "UTC"


@each
def test_answers_are_in_utc(schedule: Schedule) -> None:
    """Whatever zone the question is in, the answer is an aware datetime in UTC."""
    asked = (NOON - timedelta(days=1)).astimezone(timezone(timedelta(hours=5)))
    found = schedule.next_after(asked)
    assert found is not None
    assert found.tzinfo is UTC
    assert found == schedule.next_after(asked.astimezone(UTC))


@each
@pytest.mark.parametrize(
    "moment", [FIRST, FIRST + timedelta(days=1), LAST - timedelta(days=1), LAST]
)
@pytest.mark.parametrize("hours", [-14, 0, 14])
def test_the_ends_of_the_calendar(schedule: Schedule, moment: datetime, hours: int) -> None:
    """At year 1 and year 9999, in any zone, the answer is at worst None, never an error."""
    asked = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    for found in (schedule.next_after(asked), schedule.latest_before(asked)):
        assert found is None or found.tzinfo is UTC
    assert len(schedule.between(asked, LAST, 3)) <= 3
    assert schedule.between(LAST, asked, 3) == []


@each
@pytest.mark.parametrize(
    "bad", [datetime(2026, 1, 1), date(2026, 1, 1), "2026-01-01T00:00:00Z", None]
)
def test_naive_questions_are_refused(schedule: Schedule, bad: object) -> None:
    """A datetime without a zone is refused by the name of its argument, with a way out."""
    questions = {
        "t": [lambda: schedule.next_after(bad), lambda: schedule.latest_before(bad)],
        "start": [lambda: schedule.between(bad, NOON, 1)],
        "end": [lambda: schedule.between(NOON, bad, 1)],
    }
    for name, calls in questions.items():
        for call in calls:
            with pytest.raises(ScheduleError, match=r"tzinfo=timezone\.utc") as caught:
                call()
            assert caught.value.field == name


@each
def test_between_is_open_at_its_start(schedule: Schedule) -> None:
    """The start is excluded and the end included, and the limit cuts the newest."""
    found = schedule.between(NOON - timedelta(days=3), NOON + timedelta(days=9), 4)
    if len(found) > 1:
        first, last = found[0], found[-1]
        assert schedule.between(first, last, 10) == found[1:]
        assert schedule.between(first - timedelta(microseconds=1), last, 2) == found[:2]
    assert schedule.between(NOON - timedelta(days=3), NOON, 0) == []


# -- once -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("2026-03-01T12:00:00+00:00", NOON),
        ("2026-03-01T12:00:00Z", NOON),
        ("2026-03-01T13:00+01:00", NOON),
        ("2026-03-01 13:00:00+01", NOON),
        ("2026-03-01 07:00:00.000000-0500", NOON),
        ("2026-03-01T12:00:00.25Z", NOON + timedelta(milliseconds=250)),
        ("20260301T120000Z", NOON),
        ("9999-12-31T23:59:59.999999+00:00", LAST),
    ],
)
def test_once_reads_what_databases_print(spec: str, expected: datetime) -> None:
    """Any ISO text with an offset is read, on every Python, to the microsecond."""
    schedule = parse("once", spec)
    assert schedule == Once(expected)
    assert schedule.next_after(FIRST) == expected
    assert schedule.next_after(expected) is None
    assert schedule.latest_before(expected) is None
    assert schedule.latest_before(LAST) == (None if expected == LAST else expected)


@pytest.mark.parametrize(
    "spec",
    ["2026-03-01T12:00:00", "2026-03-01", "tomorrow", "", "9999-12-31T23:00-05:00", "9" * 65],
)
def test_once_refuses_text_without_offset(spec: str) -> None:
    """A text that isn't an instant in the years 1 to 9999 is refused by its column."""
    with pytest.raises(ScheduleError) as caught:
        parse("once", spec)
    assert caught.value.field == "spec"


# -- every ------------------------------------------------------------------------------


def test_every_counts_from_its_anchor() -> None:
    """The first occurrence is the anchor itself, and none is before it."""
    schedule = Every(90, NOON)
    assert schedule.next_after(FIRST) == NOON
    assert schedule.next_after(NOON) == NOON + timedelta(seconds=90)
    assert schedule.next_after(NOON + timedelta(seconds=90)) == NOON + timedelta(seconds=180)
    assert schedule.latest_before(NOON + timedelta(seconds=90)) == NOON
    assert schedule.latest_before(NOON) is None
    assert schedule.latest_before(NOON + timedelta(seconds=91)) == NOON + timedelta(seconds=90)


def test_every_takes_the_entrys_anchor_unless_it_has_its_own() -> None:
    """The anchor of the row counts where the spec names none, and isn't written into it."""
    free = parse("every", "300", None, NOON + timedelta(seconds=7))
    assert free.next_after(NOON) == NOON + timedelta(seconds=7)
    assert free.spec == "300"
    assert free != Every(300)
    own = parse("every", "300 from 2026-03-01T12:00:00+00:00", None, NOON + timedelta(seconds=7))
    assert own == Every(300, NOON)
    assert Every(300).next_after(NOON) == NOON + timedelta(seconds=300)


@pytest.mark.parametrize(
    ("seconds", "spec"),
    [
        (300, "300"),
        (300.0, "300"),
        (timedelta(minutes=5), "300"),
        (0.1, "0.1"),
        (1.000001, "1.000001"),
        (2.50, "2.5"),
    ],
)
def test_every_writes_its_period_exactly(seconds: float | timedelta, spec: str) -> None:
    """Equal periods are equal schedules, whatever type they were given in."""
    assert Every(seconds).spec == spec
    assert parse("every", spec) == Every(seconds)


@pytest.mark.parametrize(
    "seconds",
    [0, -5, 0.05, float("nan"), float("inf"), 10**400, True, "300", None, timedelta(days=40_000)],
)
def test_every_refuses_periods_out_of_range(seconds: object) -> None:
    """A period below a tenth of a second or beyond a century is refused."""
    with pytest.raises(ScheduleError) as caught:
        Every(seconds)
    assert caught.value.field == "seconds"


# -- shortcuts --------------------------------------------------------------------------


def test_shortcuts_mean_what_they_say() -> None:
    """The named schedules are the ones a person would have written."""
    assert daily(9, 30, timezone="Europe/Berlin") == Cron("30 9 * * *", "Europe/Berlin")
    assert weekly("mon", 9) == weekly("Monday", 9) == weekly(0, 9) == Cron("0 9 * * mon")
    assert weekly(6, 9).next_after(NOON) == datetime(2026, 3, 8, 9, tzinfo=UTC)
    assert monthly(28, 9) == Cron("0 9 28 * *")
    assert hourly(2) == Every(7200)
    assert minutely() == Every(60)


@pytest.mark.parametrize(
    ("day", "days"),
    [
        (28, [28, 28, 28, 28, 28]),
        (29, [29, 28, 29, 29, 29]),
        (30, [30, 28, 30, 30, 30]),
        (31, [31, 28, 31, 30, 31]),
    ],
)
def test_monthly_runs_in_every_month(day: int, days: list[int]) -> None:
    """In a month that is too short the run is on its last day."""
    schedule = monthly(day, 9, 15, timezone="Europe/Berlin")
    found = schedule.between(datetime(2026, 1, 1, tzinfo=UTC), LAST, 5)
    assert [at.day for at in found] == days
    assert {at.minute for at in found} == {15}
    leap = schedule.next_after(datetime(2028, 2, 1, tzinfo=UTC))
    assert leap is not None
    assert leap.day == min(day, 29)


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("hour", lambda: daily(24)),
        ("hour", lambda: daily(True)),
        ("minute", lambda: daily(9, 60)),
        ("day", lambda: weekly("Mo", 9)),
        ("day", lambda: weekly(7, 9)),
        ("day", lambda: weekly(None, 9)),
        ("day", lambda: monthly(0, 9)),
        ("day", lambda: monthly(32, 9)),
        ("every", lambda: hourly(0)),
        ("every", lambda: minutely(1.5)),
        ("timezone", lambda: daily(9, timezone="Berlin")),
    ],
)
def test_shortcuts_name_the_argument_at_fault(field: str, call: object) -> None:
    """What is out of range is refused by the name of its argument."""
    with pytest.raises(ScheduleError) as caught:
        call()
    assert caught.value.field == field


# -- parse and as_schedule --------------------------------------------------------------


@pytest.mark.parametrize(
    "spec", [None, 5, b"* * * * *", [], "x" * 10_000_000, "\0", "é * * * *", ""]
)
@pytest.mark.parametrize("kind", ["once", "cron", "every", "rrule", "solar"])
def test_parse_refuses_anything_else(kind: str, spec: object) -> None:
    """Whatever a row holds, the only error is one that names the column."""
    with pytest.raises(ScheduleError) as caught:
        parse(kind, spec, "UTC", NOON)
    assert caught.value.field == "spec"


@pytest.mark.parametrize(
    ("field", "row"),
    [
        ("kind", ("after", "", None, None)),
        ("kind", (None, "", None, None)),
        ("kind", (["cron"], "", None, None)),
        ("timezone", ("cron", "* * * * *", "Mars/Olympus", None)),
        ("timezone", ("cron", "* * * * *", 5, None)),
        ("timezone", ("rrule", "FREQ=DAILY", "", None)),
        ("spec", ("rrule", "DTSTART;TZID=Nowhere:20260101T000000 FREQ=DAILY", None, None)),
        ("anchor", ("every", "300", None, NOON.replace(tzinfo=None))),
        ("anchor", ("every", "300", None, "2026-01-01")),
        ("spec", ("every", "5 minutes", None, None)),
        ("spec", ("every", "0", None, None)),
        ("spec", ("every", "300 from yesterday", None, None)),
        ("spec", ("cron", "0 25 * * *", None, None)),
        ("spec", ("solar", "sunrise 91 0", None, None)),
        ("spec", ("solar", "sunrise 52", None, None)),
        ("spec", ("solar", "moonrise 52 13", None, None)),
        ("spec", ("solar", "sunrise nan 13", None, None)),
    ],
)
def test_parse_names_the_column(field: str, row: tuple[object, ...]) -> None:
    """An unusable row is refused by the name of the column at fault."""
    with pytest.raises(ScheduleError) as caught:
        parse(*row)
    assert caught.value.field == field


def test_parse_remembers() -> None:
    """Rows that say the same share one schedule, whatever anchor or zone doesn't matter."""
    assert parse("cron", "1 2 * * *", "UTC", NOON) is parse("cron", "1 2 * * *", "UTC", None)
    assert parse("every", "60 from 2026-01-01T00:00Z", "UTC") is not parse("every", "60")
    assert parse("once", "2026-01-01T00:00Z", "UTC") is parse("once", "2026-01-01T00:00Z", None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0 9 * * *", Cron("0 9 * * *", "Europe/Berlin")),
        ("0 9 13 * 5 days=and", Cron("0 9 13 * 5", "Europe/Berlin", day_or=False)),
        (Cron("0 9 * * *"), Cron("0 9 * * *", "Europe/Berlin")),
        (Cron("0 9 * * *", "UTC"), Cron("0 9 * * *", "UTC")),
        (RRule("FREQ=DAILY"), RRule("FREQ=DAILY", "Europe/Berlin")),
        (NOON, Once(NOON)),
        (timedelta(minutes=5), Every(300)),
        (300, Every(300)),
        (0.5, Every(0.5)),
        (Every(5), Every(5)),
    ],
)
def test_as_schedule(value: object, expected: Schedule) -> None:
    """What people pass becomes the schedule it stands for, in their zone if it has none."""
    assert as_schedule(value, "Europe/Berlin") == expected


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("2026-01-01T09:00:00Z", "Once"),
        ("20260101", "Once"),
        ("FREQ=DAILY", "RRule"),
        (True, "Cron"),
        (None, "Cron"),
        (b"* * * * *", "Cron"),
        (date(2026, 1, 1), "Cron"),
    ],
)
def test_as_schedule_says_what_to_write(value: object, hint: str) -> None:
    """What is no schedule is refused with what it may have been meant to be."""
    with pytest.raises(ScheduleError) as caught:
        as_schedule(value)
    assert caught.value.field == "schedule"
    assert hint in str(caught.value.write)


def test_as_schedule_learns_types() -> None:
    """Another module can teach it a type of its own."""

    class Odd:
        pass

    as_schedule.register(Odd, lambda value, timezone=None: Cron("1-59/2 * * * *", timezone))
    assert as_schedule(Odd(), "UTC") == Cron("1-59/2 * * * *", "UTC")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ("1", "1 s"),
        ("90", "1 min 30 s"),
        ("3600", "1 h"),
        ("90061", "1 d 1 h 1 min 1 s"),
        ("604800", "7 d"),
        ("0.5", "0.5 s"),
        ("5400.25", "5400.25 s"),
        ("0", "0 s"),
        ("nonsense", "nonsense s"),
        ("9" * 5000, "9" * 5000 + " s"),
    ],
)
def test_a_period_in_words_is_exact(seconds: str, words: str) -> None:
    """People read a period in all its units, so that none of it is lost."""
    assert period_in_words(seconds) == words
