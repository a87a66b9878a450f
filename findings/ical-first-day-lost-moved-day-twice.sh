#!/usr/bin/env bash
# Libraries: ical 14.3.1, beside recurring-ical-events 3.8.2 with icalendar 7.3.2.
#
# A good guess: the timeline of a calendar has what the calendar says: an event's first day, further
# dates, and changes of single days or of all that follow, in any form that RFC 5545 has.
#
# What it does: three forms give other days, in silence.
#   * RDATE without RRULE: the event's own DTSTART is no day of it any more.
#   * RECURRENCE-ID in UTC, be DTSTART in UTC too or in a zone: the moved day comes, and the one that it
#     replaces stays. In a zone's time, one day replaces the other, and EXDATE in UTC removes its day.
#   * RANGE=THISANDFUTURE: only the day that is named moves, and all that follow stay as they were.
#
# Documented: RFC 5545 counts DTSTART to the set (3.8.5.2), has an example of a RECURRENCE-ID in
# UTC (3.8.4.4), and THISANDFUTURE for all that follow (3.2.13). ical's page says that it expands
# recurring events, and does not name these as missing.
#
# Why it matters to schedulers: the first run of a series is never made, and what was moved runs at the
# old time as well as at the new one.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv one
one/bin/pip install --quiet ical==14.3.1 python-dateutil==2.9.0.post0 tzdata==2026.6
"${PYTHON:-python3}" -m venv other
other/bin/pip install --quiet recurring-ical-events==3.8.2 icalendar==7.3.2 \
    python-dateutil==2.9.0.post0 tzdata==2026.6

cat >days.py <<'PYTHON'
import importlib.metadata
import sys


def event(day, hour, *lines, zone=";TZID=Europe/Berlin:", end=""):
    """Return the lines of an event of half an hour."""
    begin = f"{zone}202601{day:02}T{hour:02}"
    return [f"DTSTART{begin}0000{end}", f"DTEND{begin}3000{end}", *lines]


def in_utc(day, hour, *lines):
    return event(day, hour, *lines, zone=":", end="Z")


DAILY = "RRULE:FREQ=DAILY;COUNT=3"
DATES = "RDATE;TZID=Europe/Berlin:20260107T090000,20260109T090000"
ZONED, IN_UTC = "RECURRENCE-ID;TZID=Europe/Berlin:20260106T090000", "RECURRENCE-ID:20260106T080000Z"
FUTURE = "RECURRENCE-ID;RANGE=THISANDFUTURE;TZID=Europe/Berlin:20260106T090000"
FILES = {
    "more dates": [event(5, 9, DATES)],
    "moved, by the zone": [event(5, 9, DAILY), event(6, 15, ZONED)],
    "moved, by UTC": [event(5, 9, DAILY), event(6, 15, IN_UTC)],
    "moved, all in UTC": [in_utc(5, 8, DAILY), in_utc(6, 14, IN_UTC)],
    "left out, by UTC": [event(5, 9, DAILY, "EXDATE:20260106T080000Z")],
    "this and all that follow": [event(5, 9, DAILY), event(6, 15, FUTURE)],
}
RIGHT = {
    "more dates": ["5 09:00", "7 09:00", "9 09:00"],
    "moved, by the zone": ["5 09:00", "6 15:00", "7 09:00"],
    "moved, by UTC": ["5 09:00", "6 15:00", "7 09:00"],
    "moved, all in UTC": ["5 08:00", "6 14:00", "7 08:00"],
    "left out, by UTC": ["5 09:00", "7 09:00"],
    "this and all that follow": ["5 09:00", "6 15:00", "7 15:00"],
}
BY_ICAL = RIGHT | {
    "more dates": ["7 09:00", "9 09:00"],
    "moved, by UTC": ["5 09:00", "6 09:00", "6 15:00", "7 09:00"],
    "moved, all in UTC": ["5 08:00", "6 08:00", "6 14:00", "7 08:00"],
    "this and all that follow": ["5 09:00", "6 15:00", "7 09:00"],
}


def text(events):
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//finding//"]
    for one in events:
        lines += ["BEGIN:VEVENT", "UID:1", "DTSTAMP:20260101T000000Z", "SUMMARY:report", *one]
        lines += ["END:VEVENT"]
    return "".join(line + "\r\n" for line in [*lines, "END:VCALENDAR"])


def by_ical(file):
    from ical.calendar_stream import IcsCalendarStream

    return [found.start for found in IcsCalendarStream.calendar_from_ics(file).timeline]


def by_recurring_ical_events(file):
    import icalendar
    import recurring_ical_events

    calendar = icalendar.Calendar.from_ical(file)
    return [found.start for found in recurring_ical_events.of(calendar).between("20260101", "20260201")]


find, name, expected = {
    "ical": (by_ical, "ical", BY_ICAL),
    "other": (by_recurring_ical_events, "recurring-ical-events", RIGHT),
}[sys.argv[1]]
print(name, importlib.metadata.version(name), "finds for January 2026:")
for kind, events in FILES.items():
    days = [f"{start.day} {start:%H:%M}" for start in sorted(find(text(events)))]
    print(f"  {kind:25}", ", ".join(days))
    assert days == expected[kind], (days, expected[kind])
PYTHON
timeout 50 one/bin/python days.py ical
timeout 50 other/bin/python days.py other
