"""What a cron expression is refused for, and what it may cost."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone

import pytest

from beatstore.errors import ScheduleError
from beatstore.schedules import Cron, parse
from tests.support.cost import Cost

UTC = timezone.utc
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "hint"),
    [
        pytest.param("* * * *", "5 fields", id="four fields"),
        pytest.param("* * * * * * * *", "5 fields", id="eight fields"),
        pytest.param("", "5 fields", id="empty"),
        pytest.param("@reboot", "@hourly", id="unknown alias"),
        pytest.param("60 * * * *", "0-59", id="minute"),
        pytest.param("* 24 * * *", "0-23", id="hour"),
        pytest.param("* * 0 * *", "1-31", id="day"),
        pytest.param("* * * 13 *", "1-12 or jan-dec", id="month"),
        pytest.param("* * * * 8", "0-7 or sun-sat", id="weekday"),
        pytest.param("* * * * * 60", "0-59", id="second"),
        pytest.param("* * * * * 0 1969", "1970-2099", id="year"),
        pytest.param("* * * january *", '"jan"', id="long month"),
        pytest.param("* * * * monday", '"mon"', id="long weekday"),
        pytest.param("* * * * 5L", '"L5"', id="L after the weekday"),
        pytest.param("H * * * *", "jitter= to spread entries", id="hashed"),
        pytest.param("R/5 * * * *", "jitter= to spread entries", id="random"),
        pytest.param("h(0-29) * * * *", "jitter= to spread entries", id="hashed range"),
        pytest.param("0 22-4/2 * * *", "doesn't wrap", id="wrapping with a step"),
        pytest.param("0 0 * * fri-mon/2", "doesn't wrap", id="wrapping weekdays with a step"),
        pytest.param("*,5 * * * *", "alone", id="star in a list"),
        pytest.param("0 0 1,? * *", "alone", id="question mark in a list"),
        pytest.param("? * * * *", "0-59", id="question mark for minutes"),
        pytest.param("*/0 * * * *", "at least 1", id="step nought"),
        pytest.param("5/00 * * * *", "at least 1", id="step noughts"),
        pytest.param("*-5 * * * *", "0-59", id="range from a star"),
        pytest.param("5-*/2 * * * *", "0-59", id="range to a star"),
        pytest.param("1,,2 * * * *", "0-59", id="empty member"),
        pytest.param("-5 * * * *", "0-59", id="negative"),
        pytest.param("1.5 * * * *", "0-59", id="fraction"),
        pytest.param("1#1 * * * *", "0-59", id="nth minute"),
        pytest.param("0 0 * * 1#0", "0-7", id="noughth"),
        pytest.param("0 0 * * 1#6", "0-7", id="sixth"),
        pytest.param("0 0 * * 1#2/2", "0-7", id="nth with a step"),
        pytest.param("0 0 * * 1#2,3", "all with # or L", id="nth beside a plain day"),
        pytest.param("0 0 * * L5,3", "all with # or L", id="last beside a plain day"),
        pytest.param("0 0 L-3 * *", "1-31", id="before the last"),
        pytest.param("0 0 32W * *", "one day from 1 to 31", id="nearest to no day"),
        pytest.param("0 0 15W,20 * *", "W alone", id="nearest in a list"),
        pytest.param("9" * 500 + " * * * *", "0-59", id="a long number"),
        pytest.param("0 0 31 2 *", "date that exists", id="never"),
        pytest.param("0 0 31 4,6,9,11 *", "date that exists", id="never in short months"),
        pytest.param("0 0 30 2 * 0 2024", "date that exists", id="never in that year"),
        pytest.param("0 0 29 2 * 0 2023,2025", "date that exists", id="no leap year"),
        pytest.param("* * * * *\0", "ASCII", id="NUL"),
        pytest.param("*\x1c* * * *", "ASCII", id="control character"),
        pytest.param("*\u00a0* * * *", "ASCII", id="no-break space"),
        pytest.param("٥ * * * *", "ASCII", id="other digits"),
        pytest.param(",".join(["1"] * 400) + " * * * *", "512", id="long list"),
        pytest.param(None, "str", id="None"),
        pytest.param(b"* * * * *", "str", id="bytes"),
    ],
)
def test_refusals(expression: object, hint: str) -> None:
    """What isn't understood or never comes is refused at once, with a way out."""
    with Cost() as cost, pytest.raises(ScheduleError) as caught:
        Cron(expression)
    assert cost.seconds < 0.5
    assert caught.value.field == "expression"
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("timezone", lambda: Cron("* * * * *", "Europe/Berlni")),
        ("timezone", lambda: Cron("* * * * *", 5)),
        ("day_or", lambda: Cron("* * * * *", day_or=None)),
        ("day_or", lambda: Cron("* * * * *", day_or=1)),
    ],
)
def test_other_arguments(field: str, call: object) -> None:
    """The other arguments are refused by their names."""
    with pytest.raises(ScheduleError) as caught:
        call()
    assert caught.value.field == field


@pytest.mark.parametrize("expression", ["0 0 8 * 1#1", "0 0 1-7 * 1#5", "0 0 L 2 0#1"])
def test_both_days_that_never_meet(expression: str) -> None:
    """Day fields that exclude each other are refused when both are asked for."""
    Cron(expression)
    with Cost() as cost, pytest.raises(ScheduleError, match="a date that exists"):
        Cron(expression, day_or=False)
    assert cost.seconds < 0.5


def test_a_year_that_is_over() -> None:
    """An expression whose years have passed is valid, has had its runs, and has no more."""
    schedule = Cron("0 0 1 1 * 0 2020-2024/2")
    assert schedule.next_after(NOW) is None
    assert schedule.latest_before(NOW) == datetime(2024, 1, 1, tzinfo=UTC)
    assert schedule.next_after(datetime(1990, 1, 1, tzinfo=UTC)) == datetime(2020, 1, 1, tzinfo=UTC)
    assert schedule.latest_before(datetime(1990, 1, 1, tzinfo=UTC)) is None


def test_a_year_far_away_is_found() -> None:
    """A year far in the future is waited for, however far."""
    schedule = Cron("0 0 1 1 * 0 2099")
    assert schedule.next_after(NOW) == datetime(2099, 1, 1, tzinfo=UTC)


def test_the_longest_wait_there_is() -> None:
    """A leap day on a given weekday, across the leap year that 2100 isn't, is found."""
    schedule = Cron("0 0 29 2 4", day_or=False)
    earlier, later = datetime(2080, 2, 29, tzinfo=UTC), datetime(2120, 2, 29, tzinfo=UTC)
    assert schedule.next_after(earlier) == later
    assert schedule.latest_before(later) == earlier


def test_spec_keeps_what_was_written() -> None:
    """The spec is the expression with single spaces, and says so when both days count."""
    schedule = Cron("  0 9\t13  *  FRI ", "UTC", day_or=False)
    assert schedule.spec == "0 9 13 * FRI days=and"
    assert parse("cron", " 0 9 13 * FRI   days=and ", "UTC") == schedule
    longest = Cron(",".join(["10"] * 168) + " 0 1 1 1", day_or=False)
    assert parse("cron", longest.spec) == longest
    assert parse("cron", "0 9 13 * FRI", "UTC") == Cron("0 9 13 * FRI", "UTC")


@pytest.mark.parametrize(
    ("expression", "timezone", "start"),
    [
        ("* * * * * *", "Europe/Berlin", datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC)),
        ("* * * * * *", "Pacific/Apia", datetime(2011, 12, 30, 9, 59, 59, tzinfo=UTC)),
        ("0 0 29 2 1", "Europe/Berlin", NOW),
        ("0 0 L1 2 * 0 2099", "Europe/Berlin", NOW),
        (",".join(map(str, range(60))) + " 0-23 1-31 1-12 0-6", "Europe/Berlin", NOW),
    ],
)
def test_every_answer_is_cheap(expression: str, timezone: str, start: datetime) -> None:
    """Gaps, leap days and long lists cost a fraction of a second, most of it once."""
    with Cost() as cost:
        schedule = Cron(expression.replace("L1", "L"), timezone)
        schedule.next_after(start)
        schedule.latest_before(start)
    assert cost.seconds < 0.25


def test_listing_is_cheap() -> None:
    """A thousand minutes are listed in milliseconds, and a year of outage costs nothing."""
    schedule = Cron("* * * * *", "Europe/Berlin")
    with Cost() as cost:
        assert len(schedule.between(NOW, NOW + timedelta(days=365), 1001)) == 1001
        assert schedule.latest_before(NOW + timedelta(days=365)) is not None
    assert cost.seconds < 0.25


def test_threads_may_share_a_schedule() -> None:
    """Threads that ask one schedule about different times get their own answers."""
    schedule = Cron("0 12 1,15 * *", "Europe/Berlin")
    starts = [NOW + timedelta(days=days) for days in range(0, 400, 40)]
    expected = [schedule.next_after(start) for start in starts]
    found: dict[int, bool] = {}

    def ask(index: int) -> None:
        answers = {schedule.next_after(starts[index]) for _ in range(300)}
        found[index] = answers == {expected[index]}

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(starts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found.values())
    assert len(found) == len(starts)
