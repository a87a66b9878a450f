"""Recurrences of several lines against a clock that is watched minute by minute."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import NamedTuple
from zoneinfo import ZoneInfo

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beatstore.schedules import RRule
from tests.property.test_schedules import CHANGES, MINUTE, Case, agrees, fires
from tests.support.thorough import tries

UTC = timezone.utc
HOUR = timedelta(hours=1)


class Recurrence(NamedTuple):
    """A rule with its start, and what is due within two days, as long as nothing ends it."""

    lines: str
    zone: str
    start: datetime
    end: datetime
    due: list[datetime]


@st.composite
def rules(draw: st.DrawFn, start: datetime) -> Case:
    """Return a rule of hours or of days that counts from the wall-clock time `start`."""
    interval = draw(st.sampled_from([1, 1, 2, 3]))
    minutes = draw(st.sets(st.sampled_from([0, 10, 15, 30, 45, 59]), min_size=1, max_size=3))
    by_minute = ",".join(map(str, minutes))
    if draw(st.booleans()):
        begun = start.replace(minute=0)

        def in_step(wall: datetime) -> bool:
            hours = (wall.replace(minute=0) - begun) // HOUR
            return wall.minute in minutes and hours % interval == 0

        text = f"FREQ=HOURLY;INTERVAL={interval};BYMINUTE={by_minute};BYSECOND=0"
        return Case(text, in_step, follows_the_clock=True)
    hours = draw(st.sets(st.integers(0, 4), min_size=1, max_size=5))

    def on_the_day(wall: datetime) -> bool:
        days = (wall.date() - start.date()).days
        return (
            wall >= start and days % interval == 0 and wall.hour in hours and wall.minute in minutes
        )

    by_hour = ",".join(map(str, hours))
    text = f"FREQ=DAILY;INTERVAL={interval};BYHOUR={by_hour};BYMINUTE={by_minute};BYSECOND=0"
    return Case(text, on_the_day, follows_the_clock=False)


@st.composite
def recurrences(draw: st.DrawFn) -> Recurrence:
    """Return recurrences that begin shortly before a clock change, or within it."""
    name, change = draw(st.sampled_from(CHANGES))
    tz = ZoneInfo(name)
    middle = datetime.fromisoformat(change).replace(tzinfo=UTC)
    wall = middle.astimezone(tz).replace(tzinfo=None, fold=0)
    wall -= draw(st.sampled_from([0, 0, 1, 24])) * HOUR + draw(st.integers(-90, 90)) * MINUTE
    rule = draw(rules(wall))
    at = middle - timedelta(hours=52)
    while at.astimezone(tz).replace(tzinfo=None, fold=0) < wall:
        at += MINUTE  # to the first instant at which the clock has come to the start
    end = middle + timedelta(days=2)
    due = fires(rule, tz, at, end, MINUTE)
    assume(len(due) > 2)
    lines = f"DTSTART;TZID={name}:{wall:%Y%m%dT%H%M%S}\nRRULE:{rule.text}"
    return Recurrence(lines, name, at, end, due)


def stamp(at: datetime) -> str:
    """Return an instant as RFC 5545 writes it."""
    return f"{at:%Y%m%dT%H%M%SZ}"


@settings(max_examples=tries(25), deadline=None)
@given(what=recurrences(), data=st.data())
def test_until_in_utc_is_an_instant(what: Recurrence, data: st.DataObject) -> None:
    """UNTIL in UTC includes what is due until that instant, whatever the clock shows then."""
    last = data.draw(st.sampled_from(what.due))
    until = last + data.draw(st.sampled_from([0, 1, 29])) * MINUTE
    schedule = RRule(f"{what.lines};UNTIL={stamp(until)}")
    agrees(schedule, [at for at in what.due if at <= until], what.start, what.end)


@settings(max_examples=tries(25), deadline=None)
@given(what=recurrences(), data=st.data())
def test_count_counts_what_is_due(what: Recurrence, data: st.DataObject) -> None:
    """COUNT ends a rule after so many occurrences, with each pass of a repeated hour counted."""
    count = data.draw(st.integers(1, len(what.due)))
    schedule = RRule(f"{what.lines};COUNT={count}")
    agrees(schedule, what.due[:count], what.start, what.end)


@settings(max_examples=tries(25), deadline=None)
@given(what=recurrences(), data=st.data())
def test_exdate_and_rdate_in_utc_are_instants(what: Recurrence, data: st.DataObject) -> None:
    """EXDATE in UTC removes one pass of a repeated hour, and RDATE in UTC adds one."""
    gone = data.draw(st.sets(st.sampled_from(what.due), min_size=1, max_size=len(what.due) - 1))
    minutes = st.integers(0, (what.end - what.start) // MINUTE)
    added = {what.start + minute * MINUTE for minute in data.draw(st.sets(minutes, max_size=5))}
    added -= gone
    lines = [what.lines, f"EXDATE:{','.join(map(stamp, gone))}"]
    lines += [f"RDATE:{','.join(map(stamp, added))}"] if added else []
    due = sorted({*what.due, *added} - gone)
    agrees(RRule("\n".join(lines)), due, what.start, what.end)
