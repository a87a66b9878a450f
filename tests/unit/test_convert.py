"""Between celery's schedules and beatstore's: carried exactly, or refused with the reason."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import celery
import pytest
from celery import Celery
from celery.schedules import BaseSchedule, crontab, maybe_schedule, schedule, solar
from hypothesis import given, settings
from hypothesis import strategies as st

from beatstore import Cron, Every, RRule, ScheduleError, Solar, as_schedule
from beatstore.discovery.convert import celery_schedule
from tests.support.processes import ROOT
from tests.support.thorough import tries

UTC = timezone.utc
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)

# -- outwards: what monitoring packages are shown ------------------------------------------


@pytest.mark.parametrize(
    "spec", ["0 2 * * *", "*/5 * * * *", "30 9 1,15 * mon-fri", "0 0 1 jan *", "5 4 * * sun"]
)
def test_five_fields_are_shown_as_a_crontab(spec: str) -> None:
    """A plain cron expression is shown field for field, as monitors print it."""
    shown: Any = celery_schedule("cron", spec, "Europe/Berlin")
    assert type(shown) is crontab
    fields = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
    assert " ".join(getattr(shown, f"_orig_{field}") for field in fields) == spec


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("0 0 * * 7", "0 0 * * 0"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("0 0 * * fri-mon", "0 0 * * 0,1,5,6"),
        ("0 0 * JAN-MAR MON", "0 0 * jan-mar mon"),
        ("0 22-2 * * *", "0 0,1,2,22,23 * * *"),
        ("5/15 9-17/4 * * *", "5,20,35,50 9,13,17 * * *"),
        ("5-5 * * * *", "5 * * * *"),
        ("0-59 0-23 1-31 1-12 ?", "* * * * *"),
        ("0 0 ? * mon", "0 0 * * mon"),
        ("0 0 1-31 * mon", "0 0 * * *"),
        ("0 0 1 * 0-6", "0 0 * * *"),
        ("0 0 * * mon days=and", "0 0 * * mon"),
        ("@daily", "0 0 * * *"),
        ("@Weekly", "0 0 * * 0"),
        ("0 1 * * * 0", "0 1 * * *"),
        ("0 1 * * * 30", "0 1 * * *"),
        ("0 0 1 1 * 0 *", "0 0 1 1 *"),
    ],
)
def test_a_crontab_is_written_as_monitors_read_it(spec: str, text: str) -> None:
    """Celery refuses a 7, and monitors a range that wraps: the same times are said by numbers."""
    shown: Any = celery_schedule("cron", spec, "UTC")
    assert type(shown) is crontab
    # What Sentry makes of it.
    said = "{0._orig_minute} {0._orig_hour} {0._orig_day_of_month} {0._orig_month_of_year} "
    assert (said + "{0._orig_day_of_week}").format(shown) == text
    ours, theirs = Cron.parse(spec), Cron(text)
    at = NEW_YEAR
    for _ in range(40):
        at, also = ours.next_after(at), theirs.next_after(at)
        assert at is not None
        assert also is not None
        assert at.replace(second=0) == also


def test_an_event_of_the_sun_is_shown_as_one() -> None:
    """A solar entry is shown as celery's own, of which Sentry makes no monitor."""
    shown: Any = celery_schedule("solar", "sunrise 52.5 13.4", None)
    assert type(shown) is solar
    assert (shown.event, shown.lat, shown.lon) == ("sunrise", 52.5, 13.4)


def test_a_crontab_is_shown_in_the_zone_of_its_entry() -> None:
    """Monitors compare with the entry's own zone, not with the app's."""
    shown: Any = celery_schedule("cron", "0 2 * * *", "Europe/Berlin")
    assert shown.tz == ZoneInfo("Europe/Berlin")
    assert str(shown.tz) == "Europe/Berlin"


def test_two_zones_do_not_share_what_is_shown() -> None:
    """What is kept for the next time is kept for each zone."""
    zones = ["Europe/Berlin", "Asia/Tokyo", "Europe/Berlin"]
    shown: list[Any] = [celery_schedule("cron", "0 3 * * *", name) for name in zones]
    assert [str(one.tz) for one in shown] == zones


@pytest.mark.parametrize("spec", ["90", "90 from 2026-01-01T00:00:00+00:00"])
def test_an_interval_is_shown_as_one(spec: str) -> None:
    """An entry that runs every so often is shown as celery's interval, with its seconds."""
    shown = celery_schedule("every", spec, None)
    assert type(shown) is schedule
    assert shown.seconds == 90


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("once", "2030-01-01T00:00:00+00:00"),
        ("rrule", "FREQ=DAILY"),
        ("after", ""),
        ("cron", "*/10 * * * * *"),
        ("cron", "0 0 1 1 * 0 2030"),
        ("cron", "0 1 * * * 0,30"),
        ("cron", "0 2 1 * mon days=and"),
        ("cron", "0 2 * * L5"),
        ("cron", "0 2 L * *"),
        ("cron", "0 2 * * mon#2"),
        ("cron", "0 2 15W * *"),
    ],
)
def test_anything_else_is_shown_as_nothing_in_particular(kind: str, spec: str) -> None:
    """What celery has no word for is a plain schedule, of which no monitor is made."""
    assert type(celery_schedule(kind, spec, "UTC")) is BaseSchedule


@pytest.mark.parametrize(
    ("kind", "spec", "zone"),
    [
        ("cron", "0 2 * * *", "Nowhere/Town"),
        ("cron", "0 2 * * *", "/etc/passwd"),
        ("cron", None, None),
        ("cron", "61 2 * * *", None),
        ("every", "", None),
        ("every", "abc", None),
        ("every", "nan", None),
        ("every", "1e400", None),
        (None, None, None),
    ],
)
def test_a_bad_row_is_shown_all_the_same(kind: Any, spec: Any, zone: Any) -> None:
    """A row that was broken after its run was claimed does not break the sending of others."""
    assert type(celery_schedule(kind, spec, zone)) is BaseSchedule


def test_celery_takes_what_is_shown() -> None:
    """An entry of celery can be made of every schedule shown."""
    app = Celery("shown", set_as_current=False)
    for kind, spec in (("cron", "0 2 * * *"), ("every", "90"), ("once", "2030-01-01T00:00:00Z")):
        shown = celery_schedule(kind, spec, "UTC")
        assert maybe_schedule(shown, app=app) is shown


# -- inwards: celery's schedules as beatstore's --------------------------------------------


def due_by_celery(value: crontab, start: datetime, days: int) -> list[datetime]:
    """Return when celery's crontab matches, found by asking its sets minute by minute."""
    found = []
    for day in (start + timedelta(days=n) for n in range(days)):
        if (
            day.day in value.day_of_month
            and day.month in value.month_of_year
            and day.isoweekday() % 7 in value.day_of_week
        ):
            found += [
                day.replace(hour=hour, minute=minute)
                for hour in sorted(value.hour)
                for minute in sorted(value.minute)
            ]
    return found


def due_by_cron(value: crontab, start: datetime, days: int) -> list[datetime]:
    """Return when the converted crontab is due, over the same days."""
    just_before = start - timedelta(microseconds=1)
    end = start + timedelta(days=days) - timedelta(microseconds=1)
    return as_schedule(value, "UTC").between(just_before, end, 100_000)


CRONTABS = [
    {"minute": 0, "hour": 4},
    {"minute": "*/15", "hour": "9-17"},
    {"minute": "0,30", "hour": "*/6", "day_of_week": "mon-fri"},
    {"minute": 0, "hour": 0, "day_of_month": "1-7", "day_of_week": "mon"},
    {"minute": 0, "hour": 0, "day_of_month": 13, "day_of_week": "fri"},
    {"minute": 0, "hour": 0, "day_of_month": "*/2", "day_of_week": "sun"},
    {"minute": 5, "hour": 1, "day_of_month": "31"},
    {"minute": 0, "hour": 12, "day_of_month": "29", "month_of_year": 2},
    {"minute": 0, "hour": 12, "month_of_year": "*/3", "day_of_month": 1},
    {"minute": 0, "hour": 12, "month_of_year": "jan-mar", "day_of_week": "sun,sat"},
    {"minute": "1-59/7", "hour": "22-2"},
    {"minute": 0, "hour": 0, "day_of_week": "5-1"},
    {"minute": "*/7", "hour": "*/5", "day_of_month": "2-31/5"},
    {"minute": {1, 2}, "hour": {3}},
]


@pytest.mark.parametrize("fields", CRONTABS, ids=map(repr, CRONTABS))
def test_a_crontab_keeps_its_times(fields: dict[str, Any]) -> None:
    """A crontab and what it becomes are due at the same minutes, over four years."""
    value = crontab(**fields)
    days = 1461 if len(value.minute) * len(value.hour) < 5 else 200
    expected = due_by_celery(value, NEW_YEAR, days)
    assert expected
    assert due_by_cron(value, NEW_YEAR, days) == expected


def some_of(least: int, most: int) -> st.SearchStrategy[Any]:
    """Generate a field of a crontab: all, each n-th, or any set of values."""
    return st.one_of(
        st.just("*"),
        st.integers(1, most - least).map(lambda step: f"*/{step}"),
        st.sets(st.integers(least, most), min_size=1, max_size=4),
    )


@given(
    minute=some_of(0, 59),
    hour=some_of(0, 23),
    day_of_month=some_of(1, 28),
    month_of_year=some_of(1, 12),
    day_of_week=some_of(0, 6),
)
@settings(max_examples=tries(40), deadline=None)
def test_any_crontab_keeps_its_times(**fields: Any) -> None:
    """Whatever its fields, a crontab keeps its meaning: both day fields must match."""
    value = crontab(**fields)
    expected = due_by_celery(value, NEW_YEAR, 60)[:3000]
    try:
        found = due_by_cron(value, NEW_YEAR, 60)[:3000]
    except ScheduleError:
        assert not due_by_celery(value, NEW_YEAR, 1461 * 10)
    else:
        assert found == expected


def test_a_cadence_stays_one() -> None:
    """Every n-th minute is kept as that, not as a list: it has rules of its own for clocks."""
    value = crontab(minute="*/15", hour="*/2", day_of_week="1-5")
    assert as_schedule(value, "UTC").spec == "*/15 */2 * * 1,2,3,4,5"


def test_a_step_longer_than_its_field_is_kept() -> None:
    """What celery takes for hourly stays hourly, and a cadence, although it is refused here."""
    assert as_schedule(crontab(minute="*/90"), "UTC").spec == "*/60 * * * *"


def test_a_crontab_keeps_its_zone() -> None:
    """A zone on the crontab, or of the app it was made with, is stronger than the caller's."""
    app = Celery("zoned", set_as_current=False)
    app.conf.timezone = "Asia/Tokyo"
    plain, of_app, own = crontab(0, 4), crontab(0, 4, app=app), crontab(0, 4)
    own.tz = ZoneInfo("Europe/Berlin")
    zones = [as_schedule(one, "America/Lima").timezone for one in (plain, of_app, own)]
    assert zones == ["America/Lima", "Asia/Tokyo", "Europe/Berlin"]


@pytest.mark.parametrize("every", [30, 90.5, timedelta(hours=3), timedelta(days=1)])
def test_an_interval_keeps_its_seconds(every: Any) -> None:
    """An interval of celery is one here."""
    seconds = every.total_seconds() if isinstance(every, timedelta) else every
    assert as_schedule(schedule(every)) == Every(seconds)


@pytest.mark.parametrize(
    ("every", "expression"),
    [
        (timedelta(minutes=1), "* * * * *"),
        (timedelta(hours=1), "0 * * * *"),
        (timedelta(days=1), "0 0 * * *"),
    ],
)
def test_a_relative_interval_is_kept_where_cron_has_it(every: timedelta, expression: str) -> None:
    """`relative=True` rounds to the clock: a whole minute, hour or day is a cron expression."""
    value = schedule(every, relative=True)
    assert as_schedule(value, "Europe/Berlin") == Cron(expression, "Europe/Berlin")


def relative_by_celery(
    every: timedelta, tz: ZoneInfo, start: datetime, count: int, late: timedelta
) -> list[datetime]:
    """Return when celery's beat finds a relative interval due, so many times after `start`."""
    now = start.astimezone(tz)
    value = schedule(every, relative=True, nowfun=lambda: now)
    found = []
    for _ in range(count):
        due = now.astimezone(UTC) + value.remaining_estimate(now)
        now = due.astimezone(tz)
        assert value.is_due(found[-1].astimezone(tz) if found else start.astimezone(tz)).is_due
        found.append(due)
        now = (due + late).astimezone(tz)
    return found


RELATIVE = [
    *(timedelta(seconds=n) for n in (1, 2.5, 7, 30, 59)),
    *(timedelta(seconds=n) for n in (60, 90, 300, 3540)),
    *(timedelta(minutes=n) for n in (60, 90, 180, 400, 1439)),
    *(timedelta(hours=n) for n in (24, 36, 48, 7 * 24, 100)),
]


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize("every", RELATIVE, ids=str)
def test_a_relative_interval_keeps_its_times(every: timedelta, name: str) -> None:
    """One that rounds to the clock is due when celery's is, but for where its count begins."""
    tz, late = ZoneInfo(name), timedelta(milliseconds=40)
    found = as_schedule(schedule(every, relative=True), name)
    # Soon before both zones change their clocks; celery 5.6 moves hours by the change then.
    month = 3 if celery.VERSION >= (5, 7) else 5
    begin = datetime(2026, month, 7, 2, 37, 11, tzinfo=UTC)
    # Where celery's beat and this one have once been due together, they are for ever.
    first = found.in_zone(name).next_after(begin)
    assert first is not None
    expected = relative_by_celery(every, tz, first + late, 120, late)
    assert found.in_zone(name).between(first, expected[-1], 1000) == expected


@given(seconds=st.integers(1, 40 * 86400), name=st.sampled_from(["UTC", "Asia/Kathmandu"]))
@settings(max_examples=tries(60), deadline=None)
def test_any_relative_interval_keeps_its_times(seconds: int, name: str) -> None:
    """Whatever its length, what is cut off and what is kept is as celery does it."""
    every, late = timedelta(seconds=seconds), timedelta(milliseconds=40)
    found = as_schedule(schedule(every, relative=True), name).in_zone(name)
    first = found.next_after(NEW_YEAR)
    assert first is not None
    expected = relative_by_celery(every, ZoneInfo(name), first + late, 5, late)
    assert found.between(first, expected[-1], 10) == expected


def test_a_relative_interval_does_not_move() -> None:
    """It is counted from a fixed instant, in two processes and after a restart the same."""
    value = schedule(timedelta(hours=5), relative=True)
    assert as_schedule(value, "Asia/Kolkata").spec == "18000 from 2023-12-31T18:30:00+00:00"
    days = as_schedule(schedule(timedelta(days=3), relative=True))
    assert days == RRule("DTSTART:20240101T000000 RRULE:FREQ=DAILY;INTERVAL=3")


@pytest.mark.parametrize(
    ("every", "name", "reason"),
    [
        (timedelta(seconds=0.5), "UTC", "a second or more"),
        (timedelta(hours=3), None, "the time zone is unknown"),
        (timedelta(hours=3), "Australia/Lord_Howe", "part of an hour"),
        (timedelta(hours=3), "No/Where", "No/Where"),
        (timedelta(0), "UTC", "a second or more"),
    ],
)
def test_a_relative_interval_that_can_not_be_kept_is_refused(
    every: timedelta, name: str | None, reason: str
) -> None:
    """Where no schedule has celery's times, the interval is refused with the reason."""
    with pytest.raises(ScheduleError, match=reason):
        as_schedule(schedule(every, relative=True), name)


def test_the_sun_is_carried() -> None:
    """An event of the sun keeps its name and place."""
    pytest.importorskip("ephem")
    assert as_schedule(solar("sunset", -37.8, 144.9)) == Solar("sunset", -37.8, 144.9)


class Weekdays(crontab):
    """A schedule of somebody's own."""

    def is_due(self, last_run_at):
        return super().is_due(last_run_at)


class Business(schedule):
    """Another one."""

    def is_due(self, last_run_at):
        return super().is_due(last_run_at)


class Later(crontab):
    """One that leaves `is_due` alone, and changes what that asks."""

    def remaining_estimate(self, last_run_at, *args):
        return super().remaining_estimate(last_run_at, *args) + timedelta(hours=1)


class Holidays(BaseSchedule):
    """One that is nothing of celery's."""


@pytest.mark.parametrize(
    "value",
    [
        Weekdays(0, 4),
        Business(60),
        crontab(0, 4, nowfun=lambda: datetime.now(UTC)),
        schedule(60, nowfun=lambda: datetime.now(UTC)),
        BaseSchedule(),
        Later(0, 4),
        Holidays(),
    ],
    ids=[
        *("crontab subclass", "schedule subclass", "crontab clock", "schedule clock", "base"),
        *("crontab estimate", "own class"),
    ],
)
def test_what_computes_its_own_times_is_refused(value: BaseSchedule) -> None:
    """A schedule with code of its own can't be stored, and is refused at once."""
    with pytest.raises(ScheduleError):
        as_schedule(value)


def test_a_plain_subclass_is_carried() -> None:
    """A subclass that changes nothing about when it is due is as good as its base."""

    class Named(crontab):
        """Only a name."""

    assert as_schedule(Named(0, 4), "UTC") == as_schedule(crontab(0, 4), "UTC")


def test_celery_is_imported_only_when_it_is_met() -> None:
    """`import beatstore` does not import celery; the first celery schedule teaches the rest."""
    program = (
        "import sys, beatstore\n"
        "assert 'celery' not in sys.modules\n"
        "from celery.schedules import crontab\n"
        "assert 'beatstore.discovery.convert' not in sys.modules\n"
        "print(beatstore.as_schedule(crontab(0, 4), 'UTC').spec)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "0 4 * * *"
