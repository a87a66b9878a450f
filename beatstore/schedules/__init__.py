"""When something is due: pure rules, without a clock, a database or a log.

A `Schedule` is one of five kinds, and a row's `kind` column names it: `Once` (once),
`Cron` (cron), `Every` (every), `RRule` (rrule) and `Solar` (solar). `parse` makes one
from a row, `as_schedule` from what a person passes. All instants are aware datetimes
in UTC; wall-clock kinds have a zone, and `wall.py` says what clock changes do to them.

What is invalid or can never be due is refused with a `ScheduleError`. A valid schedule
never raises afterwards, except for a naive datetime, and each of its answers has a
bounded cost whatever the rule and however far the instant.

    instants  integers for instants        wall       wall clock -> instants, DST
    grid      days x times of day          crontext   cron text -> numbers (croniter)
    base      Schedule                     cronhints  what to write instead of other dialects
    rruletext, rruletimes, rrulecount, rruleset   text, times, COUNT and lines of RFC 5545
    once, every, cron, rrule, solar        the five kinds
    shortcuts, reading                     daily() ...; parse, as_schedule
    zones, tzversion                       names of zones; version of their data
"""

from __future__ import annotations

from beatstore.schedules.base import Schedule
from beatstore.schedules.cron import Cron
from beatstore.schedules.every import Every
from beatstore.schedules.once import Once
from beatstore.schedules.reading import as_schedule, parse
from beatstore.schedules.rrule import RRule
from beatstore.schedules.shortcuts import daily, hourly, minutely, monthly, weekly
from beatstore.schedules.solar import Solar
from beatstore.schedules.tzversion import tzdata_version
from beatstore.schedules.zones import local_time, retold, shown_in, zone

__all__ = [
    "Cron",
    "Every",
    "Once",
    "RRule",
    "Schedule",
    "Solar",
    "as_schedule",
    "daily",
    "hourly",
    "local_time",
    "minutely",
    "monthly",
    "parse",
    "retold",
    "shown_in",
    "tzdata_version",
    "weekly",
    "zone",
]
