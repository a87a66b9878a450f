"""Recurrence rules: what they mean, what they are refused for, what they cost."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from beatstore.errors import ScheduleError
from beatstore.schedules import RRule, parse
from tests.support.cost import Cost

UTC = timezone.utc
LAST = datetime.max.replace(tzinfo=UTC)


def due(rule: RRule, count: int = 10, start: str = "2000-01-01T00:00:00") -> list[str]:
    """Return the first occurrences after `start`, in UTC."""
    found = rule.between(datetime.fromisoformat(start).replace(tzinfo=UTC), LAST, count)
    return [at.strftime("%Y-%m-%dT%H:%M") for at in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "DTSTART:20260101T090000\nRRULE:FREQ=DAILY;COUNT=2",
            ["2026-01-01T09:00", "2026-01-02T09:00"],
            id="COUNT",
        ),
        pytest.param(
            "DTSTART:20260101T090000 FREQ=DAILY;UNTIL=20260103T085959",
            ["2026-01-01T09:00", "2026-01-02T09:00"],
            id="UNTIL a time",
        ),
        pytest.param(
            "DTSTART:20260101T090000 FREQ=DAILY;UNTIL=20260102",
            ["2026-01-01T09:00", "2026-01-02T09:00"],
            id="UNTIL a date, included",
        ),
        pytest.param(
            "dtstart:20260131 freq=monthly;count=3;",
            ["2026-01-31T00:00", "2026-03-31T00:00", "2026-05-31T00:00"],
            id="any case; a date; months without a 31st",
        ),
        pytest.param(
            "DTSTART:20260101T090000\r\nRRULE:FREQ=WEEKLY;BYD\r\n AY=TH\r\n\t;COUNT=3\r\n"
            "EXDATE:20260101T090000,\r\n 20260108T090000",
            ["2026-01-15T09:00"],
            id="folded lines",
        ),
        pytest.param(
            "\n    DTSTART:20260101T090000\n RRULE:FREQ=DAILY;COUNT=1\n FREQ=MONTHLY;COUNT=2",
            ["2026-01-01T09:00", "2026-02-01T09:00"],
            id="indented lines",
        ),
        pytest.param(
            "DTSTART;VALUE=DATE:20260105 FREQ=WEEKLY;COUNT=3 EXDATE;VALUE=DATE:20260112",
            ["2026-01-05T00:00", "2026-01-19T00:00"],
            id="dates without a time, where DTSTART has none",
        ),
        pytest.param(
            "DTSTART:20260101T090000 FREQ=DAILY;COUNT=3 EXDATE:20260102T090000",
            ["2026-01-01T09:00", "2026-01-03T09:00"],
            id="EXDATE counts for COUNT",
        ),
        pytest.param(
            "DTSTART:20260101T090000 FREQ=DAILY;COUNT=1 RDATE:20251224T180000,20260105T000000",
            ["2025-12-24T18:00", "2026-01-01T09:00", "2026-01-05T00:00"],
            id="RDATE",
        ),
        pytest.param(
            "DTSTART:20260101T090000 RRULE:FREQ=DAILY;COUNT=2 RRULE:FREQ=YEARLY;COUNT=2",
            ["2026-01-01T09:00", "2026-01-02T09:00", "2027-01-01T09:00"],
            id="two rules",
        ),
        pytest.param("RDATE:20260101T090000", ["2026-01-01T09:00"], id="no rule at all"),
        pytest.param(
            "DTSTART:20260101T090000 FREQ=MONTHLY;BYDAY=MO,2TU;COUNT=5",
            [f"2026-01-{day:02}T09:00" for day in (5, 12, 13, 19, 26)],
            id="plain and nth weekdays are either",
        ),
        pytest.param(
            "DTSTART:20260101T090000 FREQ=YEARLY;BYWEEKNO=-1;BYDAY=SU;COUNT=2",
            ["2027-01-03T09:00", "2028-01-02T09:00"],
            id="the last week of the year ends in the next",
        ),
        pytest.param(
            "DTSTART:20260107T090000 FREQ=WEEKLY;BYDAY=MO,FR;BYSETPOS=-1;COUNT=2",
            ["2026-01-09T09:00", "2026-01-16T09:00"],
            id="the last of the week",
        ),
    ],
)
def test_meaning(text: str, expected: list[str]) -> None:
    """The lines mean what RFC 5545 says, where dateutil follows it and where it doesn't."""
    assert due(RRule(text)) == expected
    assert due(parse("rrule", RRule(text).spec)) == expected


@pytest.mark.parametrize(
    ("text", "timezone", "expected"),
    [
        pytest.param(
            "DTSTART;TZID=Asia/Tokyo:20260101T090000",
            "Europe/Berlin",
            "2026-01-01T00:00",
            id="TZID",
        ),
        pytest.param(
            'DTSTART;TZID="Asia/Tokyo":20260101T090000',
            "Europe/Berlin",
            "2026-01-01T00:00",
            id="TZID in quotes",
        ),
        pytest.param("DTSTART:20260101T090000Z", "Europe/Berlin", "2026-01-01T09:00", id="Z"),
        pytest.param("DTSTART:20260101T090000", "Europe/Berlin", "2026-01-01T08:00", id="neither"),
        pytest.param("DTSTART:20260101T090000", None, "2026-01-01T09:00", id="no zone at all"),
    ],
)
def test_zones(text: str, timezone: str | None, expected: str) -> None:
    """The zone DTSTART names counts, before the one given beside the text."""
    assert due(RRule(f"{text} FREQ=DAILY", timezone), 1) == [expected]


def test_a_zone_in_the_text_is_the_schedules_own() -> None:
    """A schedule whose text names a zone says so, and no other can be put on it."""
    rule = RRule("DTSTART;TZID=Asia/Tokyo:20260101T090000 FREQ=DAILY", "Europe/Berlin")
    assert rule.timezone == "Asia/Tokyo"
    assert rule.in_zone("UTC") is rule
    assert RRule("DTSTART:20260101T090000Z FREQ=DAILY").timezone == "UTC"


def test_other_dates_are_converted() -> None:
    """EXDATE, RDATE and UNTIL may be written in a zone of their own."""
    rule = RRule(
        "DTSTART;TZID=Europe/Berlin:20260101T090000 "
        "RRULE:FREQ=DAILY;UNTIL=20260103T080000Z "
        "EXDATE:20260102T080000Z RDATE;TZID=Asia/Tokyo:20260105T090000"
    )
    assert due(rule) == ["2026-01-01T08:00", "2026-01-03T08:00", "2026-01-05T00:00"]


NIGHT = datetime(2026, 10, 24, 23, 30, tzinfo=UTC)
"""Berlin's clock shows 02:00 to 03:00 from 00:00Z to 01:00Z, and again until 02:00Z."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("20T023000 FREQ=DAILY;UNTIL=20261025T010000Z", [0.5], id="until before"),
        pytest.param("20T000000 FREQ=HOURLY;UNTIL=20261025T000000Z", [0], id="until the first"),
        pytest.param("20T000000 FREQ=HOURLY;UNTIL=20261025T010000Z", [0, 1], id="until the second"),
        pytest.param("20T000000 FREQ=HOURLY;UNTIL=20261025T020000", [0, 1], id="until both"),
        pytest.param("20T000000 FREQ=HOURLY EXDATE:20261025T000000Z", [1, 2, 3], id="first out"),
        pytest.param("20T000000 FREQ=HOURLY EXDATE:20261025T010000Z", [0, 2, 3], id="second out"),
        pytest.param("20T000000 FREQ=HOURLY EXDATE:20261025T020000", [2, 3], id="both out"),
        pytest.param(
            "20T000000 FREQ=HOURLY EXDATE;TZID=Asia/Tokyo:20261025T100000", [0, 2, 3], id="by Tokyo"
        ),
        pytest.param("20T120000 FREQ=DAILY RDATE:20261025T013000Z", [1.5], id="second in"),
        pytest.param("20T120000 FREQ=DAILY RDATE:20261025T003000Z", [0.5], id="first in"),
        pytest.param("20T120000 FREQ=DAILY RDATE:20261025T023000", [0.5], id="a fixed time once"),
        pytest.param("25T010000 FREQ=HOURLY;COUNT=3", [0, 1], id="COUNT counts both"),
        pytest.param("25T020000 FREQ=HOURLY;COUNT=2", [0, 1], id="a start in the first pass"),
        pytest.param("25T021500 FREQ=HOURLY;BYMINUTE=0;COUNT=2", [1, 2], id="back after the start"),
        pytest.param(
            "25T000000 FREQ=DAILY;BYHOUR=2;BYMINUTE=0,30;COUNT=2", [0, 0.5], id="fixed times once"
        ),
    ],
)
def test_utc_keeps_its_pass_of_a_repeated_hour(text: str, expected: list[float]) -> None:
    """UNTIL, EXDATE and RDATE in UTC are instants, and COUNT counts what is due."""
    rule = RRule(f"DTSTART;TZID=Europe/Berlin:202610{text}")
    found = rule.between(NIGHT, NIGHT + timedelta(hours=4), 20)
    assert [(at - NIGHT) / timedelta(hours=1) - 0.5 for at in found] == expected


def test_count_through_the_hour_that_does_not_exist() -> None:
    """What falls into the gap is not counted by a cadence, and once by fixed times."""
    start = "DTSTART;TZID=Europe/Berlin:20260329"
    assert due(RRule(f"{start}T000000 FREQ=HOURLY;COUNT=3")) == [
        "2026-03-28T23:00",
        "2026-03-29T00:00",
        "2026-03-29T01:00",
    ]
    assert due(RRule(f"{start}T000000 FREQ=DAILY;BYHOUR=2;BYMINUTE=0,30;COUNT=2")) == [
        "2026-03-29T01:00",
        "2026-03-30T00:00",
    ]


def test_through_clock_changes_once() -> None:
    """A time in the gap comes right after it, and one shown twice comes the first time."""
    rule = RRule("DTSTART;TZID=Europe/Berlin:20260101T023000 FREQ=DAILY")
    assert due(rule, 2, "2026-03-28T12:00") == ["2026-03-29T01:00", "2026-03-30T00:30"]
    assert due(rule, 2, "2026-10-24T12:00") == ["2026-10-25T00:30", "2026-10-26T01:30"]


def test_without_a_start_the_anchor_counts() -> None:
    """The row's anchor gives what the text leaves open, to the second; before it nothing is due."""
    anchor = datetime(2026, 1, 7, 12, 34, 56, tzinfo=UTC)
    following = datetime(2026, 1, 21, 12, 34, 56, tzinfo=UTC)
    early = datetime(1990, 1, 1, tzinfo=UTC)
    rule = parse("rrule", "FREQ=WEEKLY;INTERVAL=2", "Europe/Berlin", anchor)
    assert rule.next_after(anchor) == following
    assert rule.next_after(early) == anchor
    later = parse("rrule", "FREQ=WEEKLY;INTERVAL=2", "Europe/Berlin", anchor.replace(microsecond=1))
    assert later.next_after(early) == following
    assert rule.spec == "FREQ=WEEKLY;INTERVAL=2"
    alone = RRule("FREQ=WEEKLY").next_after(datetime(2026, 1, 8, 12, tzinfo=UTC))
    assert alone == datetime(2026, 1, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ("FREQ=MINUTELY;INTERVAL=2;BYMINUTE=1", "2026-01-01T00:01", "2026-01-01T00:02"),
        ("FREQ=YEARLY;INTERVAL=4;BYMONTH=2;BYMONTHDAY=29", "2028-01-01", "2026-01-01"),
        ("FREQ=YEARLY;BYMONTH=2", "2026-01-28", "2026-01-30"),
        ("FREQ=DAILY;UNTIL=20260301T000000Z", "2026-03-01", "2026-03-02"),
    ],
)
def test_without_dtstart_the_anchor_decides(text: str, good: str, bad: str) -> None:
    """A rule without DTSTART is valid, and refused only where its row's anchor does not fit."""
    rule = RRule(text)
    assert rule.anchored(datetime.fromisoformat(good).replace(tzinfo=UTC)).next_after(
        datetime(2000, 1, 1, tzinfo=UTC)
    )
    with pytest.raises(ScheduleError, match="DTSTART") as caught:
        parse("rrule", text, "UTC", datetime.fromisoformat(bad).replace(tzinfo=UTC))
    assert caught.value.field == "spec"


@pytest.mark.parametrize("seconds", [0, 0.5])
def test_count_begins_with_the_anchor(seconds: float) -> None:
    """COUNT counts what is due from the anchor on, and nothing that lies before it."""
    anchor = datetime(2026, 1, 7, 12, tzinfo=UTC) + timedelta(seconds=seconds)
    rule = parse("rrule", "FREQ=DAILY;COUNT=3", "UTC", anchor)
    assert due(rule)[0] == ("2026-01-08T12:00" if seconds else "2026-01-07T12:00")
    assert len(due(rule)) == 3


def test_an_anchor_in_the_second_pass() -> None:
    """An anchor in the second pass of a repeated hour begins there, and not an hour before."""
    anchor = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    rule = parse("rrule", "FREQ=HOURLY;COUNT=2", "Europe/Berlin", anchor)
    assert due(rule) == ["2026-10-25T01:30", "2026-10-25T02:30"]


def test_an_anchor_changes_nothing_where_the_text_has_its_own() -> None:
    """Two rows with the same DTSTART are the same schedule, whenever they were made."""
    text = "DTSTART:20260101T090000 FREQ=DAILY"
    anchor = datetime(2026, 5, 5, tzinfo=UTC)
    assert parse("rrule", text, "UTC", anchor) == parse("rrule", text, "UTC", None)


def test_a_start_near_the_end_of_the_calendar() -> None:
    """Where the calendar ends before a rule comes again, it is over, not an error."""
    assert due(RRule("DTSTART:99980101 FREQ=YEARLY;COUNT=5")) == [
        "9998-01-01T00:00",
        "9999-01-01T00:00",
    ]
    assert due(RRule("DTSTART:99980101 FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;COUNT=5")) == []
    assert due(RRule("DTSTART:99990101 FREQ=SECONDLY;BYHOUR=23"), 1) == ["9999-01-01T23:00"]


def test_over_is_over() -> None:
    """A rule whose end has passed is valid and has no more occurrences."""
    rule = RRule("DTSTART:20200101T000000 FREQ=DAILY;UNTIL=20200103")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert rule.next_after(now) is None
    assert rule.latest_before(now) == datetime(2020, 1, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        pytest.param("", "RRULE", id="empty"),
        pytest.param("DTSTART:20260101T090000", "RRULE", id="no rule"),
        pytest.param("INTERVAL=2", "FREQ", id="no FREQ"),
        pytest.param("FREQ=FORTNIGHTLY", "WEEKLY", id="unknown FREQ"),
        pytest.param("FREQ=DAILY;FREQ=DAILY", "once", id="a part twice"),
        pytest.param("FREQ=DAILY;BYFOO=1", "BYSETPOS", id="unknown part"),
        pytest.param("FREQ=DAILY;BYEASTER=1", "BYSETPOS", id="dateutil's own part"),
        pytest.param("FREQ=DAILY;INTERVAL=0", "from 1", id="INTERVAL=0"),
        pytest.param("FREQ=YEARLY;INTERVAL=101", "from 1 to 100", id="more than a century"),
        pytest.param("FREQ=DAILY;COUNT=0", "from 1", id="COUNT=0"),
        pytest.param("FREQ=DAILY;COUNT=10001", "UNTIL", id="a long COUNT"),
        pytest.param("FREQ=DAILY;COUNT=1;UNTIL=20260101", "either", id="COUNT and UNTIL"),
        pytest.param("FREQ=DAILY;UNTIL=soon", "date and time", id="UNTIL"),
        pytest.param("FREQ=DAILY;UNTIL=20261301", "date and time", id="no such date"),
        pytest.param("FREQ=YEARLY;BYMONTH=13", "1 to 12", id="month"),
        pytest.param("FREQ=YEARLY;BYMONTH=-1", "1 to 12", id="month from the end"),
        pytest.param("FREQ=MONTHLY;BYMONTHDAY=0", "-31 to -1", id="day nought"),
        pytest.param("FREQ=DAILY;BYHOUR=24", "0 to 23", id="hour"),
        pytest.param("FREQ=DAILY;BYSECOND=60", "0 to 59", id="leap second"),
        pytest.param("FREQ=WEEKLY;BYDAY=MONDAY", "2TU", id="long weekday"),
        pytest.param("FREQ=WEEKLY;BYDAY=2TU", "plain weekdays", id="nth of a week"),
        pytest.param("FREQ=MONTHLY;BYDAY=0TU", "2TU", id="noughth"),
        pytest.param("FREQ=WEEKLY;WKST=XX", "MO", id="week start"),
        pytest.param("FREQ=HOURLY;BYMINUTE=0,30;BYSETPOS=1", "DAILY", id="positions in an hour"),
        pytest.param("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "once in a century", id="never"),
        pytest.param(
            "FREQ=MONTHLY;BYMONTHDAY=1;BYSETPOS=2", "once in a century", id="no such position"
        ),
        pytest.param(
            "DTSTART:20260101 FREQ=MINUTELY;INTERVAL=2;BYMINUTE=1", "century", id="out of step"
        ),
        pytest.param(
            "DTSTART:20260101 FREQ=SECONDLY;INTERVAL=2;BYSECOND=1", "DTSTART", id="odd seconds"
        ),
        pytest.param(
            "DTSTART:20260101 FREQ=SECONDLY;INTERVAL=86399;BYHOUR=0;BYMINUTE=0;BYSECOND=0",
            "century",
            id="drifting",
        ),
        pytest.param("FREQ=DAILY EXRULE:FREQ=WEEKLY", "EXDATE", id="EXRULE"),
        pytest.param("FREQ=DAILY EXDATE:20260101", "time", id="EXDATE without time"),
        pytest.param(
            "DTSTART:20260101 DTSTART:20260102 FREQ=DAILY", "one DTSTART", id="two starts"
        ),
        pytest.param("DTSTART:10 FREQ=DAILY", "date and time", id="a vague start"),
        pytest.param(
            "DTSTART:20260101 FREQ=DAILY;UNTIL=20251231",
            "UNTIL=20260101",
            id="UNTIL before DTSTART",
        ),
        pytest.param(
            "DTSTART:20260101 FREQ=YEARLY;BYMONTH=6;UNTIL=20260301",
            "first occurrence, 2026-06-01",
            id="UNTIL before the first",
        ),
        pytest.param(
            "DTSTART:20260101 FREQ=DAILY RDATE:20260101T120000 EXDATE:20260101T120000",
            "RDATE that no EXDATE removes",
            id="RDATE that EXDATE removes",
        ),
        pytest.param(
            "DTSTART;TZID=Europe/Berlin:20260101T090000 FREQ=DAILY "
            "RDATE:20260101T110000Z EXDATE:20260101T120000",
            "RDATE:20260101T110000Z",
            id="RDATE that EXDATE removes, in another zone",
        ),
        pytest.param(
            "DTSTART:20260101T090000 FREQ=DAILY;COUNT=2 EXDATE:20260101T090000,20260102T090000",
            "EXDATE does not remove",
            id="nothing left",
        ),
        pytest.param(
            "DTSTART:20260101 FREQ=MONTHLY;COUNT=9000", "UNTIL", id="COUNT beyond four centuries"
        ),
        pytest.param(
            "DTSTART:20260101 "
            + " ".join(f"FREQ=DAILY;BYHOUR={at};COUNT=9000" for at in (1, 2, 3)),
            "add up to at most 20000",
            id="several long COUNTs",
        ),
        pytest.param("DTSTART;TZID=UTC:20260101T000000Z FREQ=DAILY", "without a Z", id="two zones"),
        pytest.param("RRULE;X=1:FREQ=DAILY", "NAME:value", id="a parameter"),
        pytest.param(" ".join(["FREQ=DAILY"] * 11), "at most 10", id="many rules"),
        pytest.param("FREQ=DAILY;BYHOUR=" + "1," * 9000, "8192", id="long"),
        pytest.param("FREQ=DAILY\0", "ASCII", id="NUL"),
        pytest.param(None, "str", id="None"),
    ],
)
def test_refusals(text: object, hint: str) -> None:
    """What isn't understood or never comes is refused at once, with a way out."""
    with Cost() as cost, pytest.raises(ScheduleError) as caught:
        RRule(text)
    assert cost.seconds < 0.5
    assert caught.value.field == "text"
    assert hint in str(caught.value)


@pytest.mark.parametrize(("rule", "hours"), [("FREQ=HOURLY", 4), ("FREQ=DAILY;BYHOUR=1,2,3,4", 3)])
def test_a_cadence_keeps_its_distance_through_a_repeated_hour(rule: str, hours: int) -> None:
    """An hourly rule runs each real hour of the night with two 02:00; a daily one once."""
    schedule = RRule(f"{rule};BYMINUTE=0;BYSECOND=0", "Europe/Berlin")
    start = datetime(2026, 10, 24, 23, 30, tzinfo=timezone.utc)
    found = schedule.between(start, start + timedelta(hours=3, minutes=59), 10)
    assert len(found) == hours


def test_a_cadence_skips_the_hour_that_does_not_exist() -> None:
    """An hourly rule has no extra run for 02:00 in the night that has none."""
    schedule = RRule("FREQ=HOURLY;BYMINUTE=0;BYSECOND=0", "Europe/Berlin")
    start = datetime(2026, 3, 28, 23, 30, tzinfo=timezone.utc)
    found = schedule.between(start, start + timedelta(hours=3), 10)
    assert [at.hour for at in found] == [0, 1, 2]
