"""Cron expressions with known answers: what they mean, and what clock changes do."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from beatstore.schedules import Cron

UTC = timezone.utc


def utc(text: str) -> datetime:
    """Return the instant of an ISO text without offset, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def due(schedule: Cron, start: str, count: int) -> list[str]:
    """Return the first occurrences after `start`."""
    found = schedule.between(utc(start), datetime.max.replace(tzinfo=UTC), count)
    return [at.strftime("%Y-%m-%dT%H:%M:%S") for at in found]


# 2026-02-28 is a Saturday.
@pytest.mark.parametrize(
    ("expression", "days"),
    [
        pytest.param("0 0 * * MON-MON", ["03-02", "03-09", "03-16"], id="equal names"),
        pytest.param("0 0 * * 01-1", ["03-02", "03-09", "03-16"], id="equal with a zero"),
        pytest.param("0 0 * * 2-2/3", ["03-03", "03-10", "03-17"], id="equal with a step"),
        pytest.param("0 0 1 apr-apr *", ["04-01"], id="equal months"),
        pytest.param("0 0 * * 7", ["03-01", "03-08"], id="seven is Sunday"),
        pytest.param("0 0 * * 7/1", ["03-01", "03-08"], id="seven with a step"),
        pytest.param("0 0 * * 7-2", ["03-01", "03-02", "03-03", "03-08"], id="from seven"),
        pytest.param("0 0 * * 7-0", ["03-01", "03-08"], id="from Sunday to Sunday"),
        pytest.param("0 0 * * 5-7", ["03-01", "03-06", "03-07", "03-08"], id="to seven"),
        pytest.param("0 0 * * 1-7/2", ["03-01", "03-02", "03-04", "03-06"], id="to seven by two"),
        pytest.param("0 0 * * 0-7", ["03-01", "03-02", "03-03"], id="the whole week"),
        pytest.param("0 0 * * fri-mon", ["03-01", "03-02", "03-06", "03-07"], id="wrapping"),
        pytest.param("0 0 1 11-2 *", ["11-01", "12-01", "01-01", "02-01"], id="wrapping months"),
        pytest.param("0 0 1 * MON#1", ["03-01", "03-02", "04-01", "04-06"], id="1st or 1st Monday"),
        pytest.param(
            "0 0 14 * L2", ["03-14", "03-31", "04-14", "04-28"], id="14th or last Tuesday"
        ),
        pytest.param("0 0 15W * 1", ["03-02", "03-09", "03-16", "03-23"], id="weekday or Monday"),
        pytest.param("0 0 13 * 5", ["03-06", "03-13", "03-20"], id="13th or Friday"),
        pytest.param("0 0 */2 * MON", ["03-09", "03-23"], id="a star makes it both"),
        pytest.param("0 0 10 * */2", ["03-10", "05-10"], id="a star on the weekday too"),
        pytest.param("0 0 1-31 * 1", ["03-01", "03-02", "03-03"], id="all days is no star"),
        pytest.param("0 0 ? * 5", ["03-06", "03-13"], id="a question mark is a star"),
        pytest.param("0 0 * * mon-wed#2", ["03-09", "03-10", "03-11", "04-08"], id="range of nths"),
        pytest.param("0 0 * * 7#5", ["03-29", "05-31"], id="fifth Sunday"),
        pytest.param("0 0 * * L5", ["03-27", "04-24"], id="last Friday"),
        pytest.param("0 0 L * *", ["03-31", "04-30", "05-31"], id="last day"),
        pytest.param("0 0 28-L 2 *", ["02-28", "02-28"], id="from the 28th to the last"),
        pytest.param("0 0 1W * *", ["03-02", "04-01", "05-01"], id="nearest, not before the 1st"),
        pytest.param("0 0 w31 * *", ["03-31", "04-30", "05-29"], id="nearest, not after the last"),
        pytest.param("0 0 29 2 *", ["02-29", "02-29"], id="leap days"),
        pytest.param("0 0 1 1 * 0 2030/2", ["01-01", "01-01"], id="years"),
        pytest.param(" @Monthly ", ["03-01", "04-01"], id="alias in any case"),
        pytest.param("0  0\t1 * *\n", ["03-01", "04-01"], id="any white space"),
    ],
)
def test_days(expression: str, days: list[str]) -> None:
    """The day fields mean what cron, or where it is silent croniter's layout, says."""
    found = due(
        Cron(expression),
        "2026-02-27T12:00:00" if "28" in expression else "2026-02-28T12:00:00",
        len(days),
    )
    assert [at[5:10] for at in found] == days
    assert {at[11:] for at in found} == {"00:00:00"}


@pytest.mark.parametrize(
    ("expression", "times"),
    [
        pytest.param("5-5 * * * *", ["00:05:00", "01:05:00"], id="equal bounds"),
        pytest.param("5-5/6 * * * *", ["00:05:00", "01:05:00"], id="equal bounds with a step"),
        pytest.param("5/15 0 * * *", ["00:05:00", "00:20:00", "00:35:00", "00:50:00"], id="start"),
        pytest.param("59/15 * * * *", ["00:59:00", "01:59:00"], id="start at the end"),
        pytest.param("0 22-2 * * *", ["01:00:00", "02:00:00", "22:00:00", "23:00:00"], id="wrap"),
        pytest.param("0 0 12 * * *", ["00:00:00", "00:00:01", "00:00:02"], id="six fields"),
        pytest.param("0 12 * * * */30", ["12:00:00", "12:00:30"], id="seconds last"),
        pytest.param("@hourly", ["01:00:00", "02:00:00"], id="alias"),
    ],
)
def test_times(expression: str, times: list[str]) -> None:
    """The fields within the day mean what cron says, with the second as the sixth field."""
    start = "2026-03-11T23:59:59" if "12 * * *" in expression else "2026-03-01T00:00:00"
    assert [at[11:] for at in due(Cron(expression), start, len(times))] == times


BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("expression", "timezone", "start", "expected"),
    [
        pytest.param(
            "30 2 * * *", BERLIN, "2026-03-28T12:00", ["29T01:00", "30T00:30"], id="gap, fixed"
        ),
        pytest.param(
            "*/15 2 * * *", BERLIN, "2026-03-28T12:00", ["30T00:00", "30T00:15"], id="gap, */15"
        ),
        pytest.param(
            "10 */2 * * *",
            BERLIN,
            "2026-03-28T22:00",
            ["28T23:10", "29T02:10", "29T04:10"],
            id="gap, every second hour",
        ),
        pytest.param(
            "15 0-23 * * *",
            BERLIN,
            "2026-03-28T23:30",
            ["29T00:15", "29T01:00", "29T01:15"],
            id="gap, all hours by number",
        ),
        pytest.param(
            "10,20,30 2 * * *",
            BERLIN,
            "2026-03-29T00:00",
            ["29T01:00", "30T00:10"],
            id="gap, several are one",
        ),
        pytest.param(
            "0,30 2,3 * * *",
            BERLIN,
            "2026-03-29T00:00",
            ["29T01:00", "29T01:30", "30T00:00"],
            id="gap, caught up when another is due",
        ),
        pytest.param(
            "30 2 * * *", BERLIN, "2026-10-24T12:00", ["25T00:30", "26T01:30"], id="fold, fixed"
        ),
        pytest.param(
            "*/30 2 * * *",
            BERLIN,
            "2026-10-24T12:00",
            ["25T00:00", "25T00:30", "25T01:00", "25T01:30", "26T01:00"],
            id="fold, wildcard",
        ),
        pytest.param(
            "10,20,40 * * * *",
            "Australia/Lord_Howe",
            "2026-04-04T14:30",
            ["04T14:40", "04T15:10", "04T15:40", "04T15:50"],
            id="fold of half an hour",
        ),
        pytest.param(
            "10,40 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-04T12:00",
            ["04T14:10", "04T14:40", "05T14:40"],
            id="fold of half an hour, fixed",
        ),
        pytest.param(
            "30 23 * * *",
            "America/St_Johns",
            "2010-11-06T12:00",
            ["07T02:00", "08T03:00"],
            id="fold across midnight",
        ),
        pytest.param(
            "0,30 * * * *",
            "America/St_Johns",
            "2010-11-07T01:30",
            ["07T02:00", "07T02:30", "07T03:00", "07T03:30", "07T04:00"],
            id="fold across midnight, wildcard",
        ),
        pytest.param(
            "0 0 * * *",
            "America/Havana",
            "2026-03-07T12:00",
            ["08T05:00", "09T04:00"],
            id="gap at midnight",
        ),
        pytest.param(
            "0 9 * * *",
            "Pacific/Apia",
            "2011-12-29T12:00",
            ["29T19:00", "30T10:00", "30T19:00"],
            id="a missing day",
        ),
        pytest.param(
            "0 * * * *",
            "Pacific/Apia",
            "2011-12-30T08:30",
            ["30T09:00", "30T10:00", "30T11:00"],
            id="a missing day, wildcard",
        ),
        pytest.param(
            "30 0,1,2 * * *",
            "Antarctica/Troll",
            "2026-10-24T22:00",
            ["24T22:30", "24T23:30", "25T00:30", "26T00:30"],
            id="fold of two hours",
        ),
        pytest.param(
            "5 0 1 1 *",
            "Asia/Kathmandu",
            "1985-06-01T00:00",
            ["31T18:30", "31T18:20"],
            id="gap of a quarter",
        ),
        pytest.param(
            "*/30 2 30 9 *",
            "Pacific/Kwajalein",
            "1969-09-29T15:00",
            ["29T15:30", "30T14:00", "30T14:30", "30T14:00"],
            id="a repeated day",
        ),
    ],
)
def test_clock_changes(expression: str, timezone: str, start: str, expected: list[str]) -> None:
    """Fixed times run once through a clock change; wildcards follow the clock."""
    found = due(Cron(expression, timezone), start, len(expected))
    assert [at[8:16] for at in found] == expected


@pytest.mark.parametrize(
    ("expression", "asked", "expected"),
    [
        pytest.param("30 2 * * *", "2026-10-25T01:10", "2026-10-25T00:30", id="fixed"),
        pytest.param("*/40 2 25 10 *", "2026-10-25T01:10", "2026-10-25T01:00", id="second pass"),
        pytest.param("*/40 2 25 10 *", "2026-10-25T01:00", "2026-10-25T00:40", id="first pass"),
        pytest.param("30 2 * * *", "2026-03-29T01:00", "2026-03-28T01:30", id="before the gap"),
        pytest.param("30 2 * * *", "2026-03-29T01:01", "2026-03-29T01:00", id="caught up"),
    ],
)
def test_latest_before_at_clock_changes(expression: str, asked: str, expected: str) -> None:
    """Looking back finds what looking forward would have, pass by pass."""
    assert Cron(expression, BERLIN).latest_before(utc(asked)) == utc(expected)


def test_a_start_in_the_second_pass_goes_forward() -> None:
    """Asked from the second pass of a repeated hour, the answer is never in the first."""
    asked = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    assert Cron("30 2 * * *", BERLIN).next_after(asked) == utc("2026-10-26T01:30")


def test_the_offset_of_the_question_does_not_matter() -> None:
    """An instant written with a fixed offset is the same question; the zone decides."""
    asked = datetime(2026, 3, 28, 12, tzinfo=timezone(timedelta(hours=1)))
    found = Cron("0 9 * * *", BERLIN).next_after(asked)
    assert found == utc("2026-03-29T07:00")
    assert found.tzinfo is UTC


def test_after_a_repeated_day_the_search_goes_back_into_it() -> None:
    """A rare wildcard inside a repeated day is found from both sides of the change."""
    schedule = Cron("*/30 23 30 9 *", "Pacific/Kwajalein")
    assert schedule.latest_before(utc("1969-10-01T01:00")) == utc("1969-09-30T12:30")
    assert schedule.next_after(utc("1969-09-30T12:45")) == utc("1969-10-01T11:00")
