#!/usr/bin/env bash
# Libraries: python-dateutil 4.0.0, and 2.9.0.post0 as recurring-ical-events 3.8.2 (icalendar 7.3.2)
# uses it.
#
# A good guess: a rule with FREQ=MINUTELY;INTERVAL=30 and a start in a time zone gives one instant each
# half hour, and later ones after earlier ones.
#
# What it does: it adds to the wall clock, and keeps times that a zone skips. On the day on which clocks
# go forward from 2:00 to 3:00, it gives 2:00 and 2:30, which do not exist and are the instants of 3:00
# and 3:30, and then 3:00 and 3:30. So two instants come twice, and the list goes back by half an hour
# in the middle. COUNT counts both. A calendar that recurring-ical-events reads has the same events.
#
# Documented: RFC 5545 (3.3.10) wants instances with a nonexistent local time to be ignored, and not to
# be counted. dateutil's manual has tz.datetime_exists() for such times; its page on rrule does not say
# that a rule gives them.
#
# Why it matters to schedulers: who turns a rule into rows, one a due time, runs two jobs twice, or has
# a unique key refuse the rest. Who goes on from the last instant of the list steps back in time.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv new
new/bin/pip install --quiet python-dateutil==4.0.0 tzdata==2026.6
"${PYTHON:-python3}" -m venv old
old/bin/pip install --quiet python-dateutil==2.9.0.post0 recurring-ical-events==3.8.2 \
    icalendar==7.3.2 tzdata==2026.6

cat >rules.py <<'PYTHON'
import datetime
import importlib.metadata
import sys
import zoneinfo

from dateutil import tz
from dateutil.rrule import rrulestr

ICS = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//finding//
BEGIN:VEVENT
UID:1
DTSTAMP:20260101T000000Z
DTSTART;TZID=Europe/Berlin:20260329T010000
RRULE:FREQ=MINUTELY;INTERVAL=30;COUNT=8
END:VEVENT
END:VCALENDAR
"""


def in_utc(times):
    return [f"{time.astimezone(datetime.timezone.utc):%H:%M}" for time in times]


start = datetime.datetime(2026, 3, 29, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
rule = list(rrulestr("FREQ=MINUTELY;INTERVAL=30;COUNT=8", dtstart=start))
missing = [f"{time:%H:%M}" for time in rule if not tz.datetime_exists(time)]
hourly = list(rrulestr("FREQ=HOURLY;COUNT=4", dtstart=start))
print("python-dateutil", importlib.metadata.version("python-dateutil"))
print("each half hour, in Berlin:", *(f"{time:%H:%M}" for time in rule))
print("of these do not exist:    ", *missing)
print("the same in UTC:          ", *in_utc(rule))
print("each hour, in UTC:        ", *in_utc(hourly))

assert missing == ["02:00", "02:30"]
back = ["00:00", "00:30", "01:00", "01:30", "01:00", "01:30", "02:00", "02:30"]
assert in_utc(rule) == back
assert in_utc(hourly) == ["00:00", "01:00", "01:00", "02:00"]

if "calendar" in sys.argv:
    import icalendar
    import recurring_ical_events

    calendar = icalendar.Calendar.from_ical(ICS)
    events = recurring_ical_events.of(calendar).between("20260329", "20260330")
    starts = in_utc(event["DTSTART"].dt for event in events)
    print("by recurring-ical-events: ", *starts)
    assert starts == back
PYTHON
timeout 50 new/bin/python rules.py
timeout 50 old/bin/python rules.py calendar
