"""Schedules: when something is due. Pure: no clock, no database, no log.

A `Schedule` is one of five kinds, named in a row's `kind` column: `Once` (once), `Cron` (cron),
`Every` (every), `RRule` (rrule) and `Solar` (solar). `parse` makes one from a row, `as_schedule`
from an argument `schedule=`. All instants are aware datetimes in UTC. Wall-clock kinds have a
time zone; `wall.py` has the rules for clock changes.

A schedule that is invalid, or can never be due, raises a `ScheduleError` when it is made. After
that, only a naive datetime raises one. Each call has a bounded cost for any rule and any
instant.

    instants  integers for instants        wall       wall clock -> instants, DST
    grid      days x times of day          crontext   cron text -> numbers (croniter)
    base      Schedule                     cronhints  what to write instead of other dialects
    rruletext, rruletimes, rrulecount, rruleset   RFC 5545: text, times, COUNT, lines
    once, every, cron, rrule, solar        the five kinds
    shortcuts, reading                     daily() ...; parse, as_schedule
    timewords, daywords, rulewords, describe   schedules in English
    zones, tzversion                       names of zones; version of their data
"""

from __future__ import annotations

from beatstore.schedules.base import Schedule
from beatstore.schedules.cron import Cron
from beatstore.schedules.describe import describe
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
    "describe",
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
