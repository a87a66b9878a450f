#!/usr/bin/env bash
# Library: icalendar 7.3.2, and recurring-ical-events 3.8.2, which reads calendars by it.
#
# A good guess: the time of an event is that of the VTIMEZONE in its own file. Two calendars that are
# read one after the other have nothing to do with each other.
#
# What it does: the first definition of a zone's name stays for the whole process, and later files that
# define the same name get the zone of the first. A meeting at 9:00 in New York is at 9:00 in Berlin,
# six hours early, where somebody else's calendar was read before. A file that is read again after its
# rules have changed keeps the old ones. A call of icalendar.use_zoneinfo() before each file forgets all
# definitions, and gives the right times.
#
# Documented: RFC 5545 (3.8.3.1) has a TZID identify its VTIMEZONE within one iCalendar object. The
# docstring of the method that keeps zones says that they are kept, and not that it is for all files.
#
# Why it matters to schedulers: names that are no zone's of IANA are common, such as "Customized Time
# Zone" or "Local". A worker that imports many people's calendars plans by the zone of whichever was
# first, and tests that read one file each are right.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet icalendar==7.3.2 recurring-ical-events==3.8.2 python-dateutil==2.9.0.post0 \
    tzdata==2026.6

cat >calendars.py <<'PYTHON'
import datetime
import importlib.metadata
import sys

import icalendar
import recurring_ical_events

FILE = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//finding//
BEGIN:VTIMEZONE
TZID:Customized Time Zone
BEGIN:STANDARD
DTSTART:19700101T000000
TZOFFSETFROM:{offset}
TZOFFSETTO:{offset}
END:STANDARD
END:VTIMEZONE
BEGIN:VEVENT
UID:1
DTSTAMP:20260101T000000Z
DTSTART;TZID=Customized Time Zone:20260115T090000
DTEND;TZID=Customized Time Zone:20260115T093000
RRULE:FREQ=DAILY;COUNT=2
END:VEVENT
END:VCALENDAR
"""


def read(offset):
    """Return when the event of a file that defines this offset begins, by both libraries."""
    calendar = icalendar.Calendar.from_ical(FILE.format(offset=offset))
    times = [calendar.walk("VEVENT")[0].start]
    events = recurring_ical_events.of(calendar).between("20260115", "20260118")
    times += [event.start for event in events]
    return [f"{time.astimezone(datetime.timezone.utc):%H:%M}" for time in times]


seen = {}
for name, offset in (("Berlin", "+0100"), ("New York", "-0500"), ("Tokyo", "+0900")):
    if "forget" in sys.argv:
        icalendar.use_zoneinfo()
    seen[name] = read(offset)
    print(f"  9:00 in {name:8} is in UTC:", *seen[name])

right = {"Berlin": ["08:00"] * 3, "New York": ["14:00"] * 3, "Tokyo": ["00:00"] * 3}
if "forget" in sys.argv:
    assert seen == right, seen
else:
    print("icalendar", importlib.metadata.version("icalendar"))
    assert seen == dict.fromkeys(right, ["08:00"] * 3), seen
PYTHON
echo "three files, one after the other:"
timeout 50 venv/bin/python calendars.py
echo "the same with use_zoneinfo() before each:"
timeout 50 venv/bin/python calendars.py forget
