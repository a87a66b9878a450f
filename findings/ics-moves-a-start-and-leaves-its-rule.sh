#!/usr/bin/env bash
# Library: ics 0.7.3, its calendars read by recurring-ical-events 3.8.2 (icalendar 7.3.2).
#
# A good guess: ics does not expand rules, but a calendar that it has read and written, with another
# summary say, has the same events at the same times. What it does not know it keeps as it was.
#
# What it does: it does keep the lines that it does not know: RRULE and EXDATE. The start it writes as an
# instant in UTC, and it leaves out the VTIMEZONE. The rule now counts in UTC. A weekly event of Berlin,
# each Monday at 0:30, which begins on Sunday at 23:30Z and still has BYDAY=MO, comes
#   * on the first day, as before;
#   * each Tuesday at 0:30, and in summer at 1:30, and on no Monday;
#   * also on the day that was taken out, which has no equal among the instants of the rule.
# Nothing is raised or logged. And where a file has no CALSCALE, since Gregorian is what it means then,
# ics writes `CALSCALE:GEORGIAN`, for which recurring-ical-events refuses the whole calendar.
#
# Documented: RFC 5545 (3.3.5) tells why a recurring event needs a local time with a zone. Issue 188 of
# ics has the hour of summer time, and was open at the time of writing; version 0.7.3 is the newest.
#
# Why it matters to schedulers: a program that adds an entry to a calendar file with ics, and writes the
# file, moves all recurring entries of it, in zones east of Greenwich to another day of the week.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet ics==0.7.3 recurring-ical-events==3.8.2 icalendar==7.3.2 tzdata==2026.6

timeout 60 venv/bin/python - <<'PYTHON'
import datetime
import zoneinfo

import ics
import icalendar
import recurring_ical_events

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
LINES = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//example//calendar//EN
CALSCALE:GREGORIAN
BEGIN:VTIMEZONE
TZID:Europe/Berlin
BEGIN:DAYLIGHT
DTSTART:19810329T020000
TZOFFSETFROM:+0100
TZOFFSETTO:+0200
RRULE:FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU
END:DAYLIGHT
BEGIN:STANDARD
DTSTART:19961027T030000
TZOFFSETFROM:+0200
TZOFFSETTO:+0100
RRULE:FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU
END:STANDARD
END:VTIMEZONE
BEGIN:VEVENT
UID:backup@example.org
DTSTAMP:20260101T000000Z
SUMMARY:Backup
DTSTART;TZID=Europe/Berlin:20260302T003000
DTEND;TZID=Europe/Berlin:20260302T013000
RRULE:FREQ=WEEKLY;BYDAY=MO
EXDATE;TZID=Europe/Berlin:20260316T003000
END:VEVENT
END:VCALENDAR
"""
before = LINES.replace("\n", "\r\n")


def times(text):
    """Return when the events of March and early April begin, on the clock in Berlin."""
    query = recurring_ical_events.of(icalendar.Calendar.from_ical(text))
    events = query.between(datetime.date(2026, 3, 1), datetime.date(2026, 4, 9))
    starts = sorted(event.start.astimezone(BERLIN) for event in events)
    return [start.strftime("%a %d.%m. %H:%M") for start in starts]


after = ics.Calendar(before).serialize()
plain = ics.Calendar(before.replace("CALSCALE:GREGORIAN\r\n", "")).serialize()
try:
    times(plain)
    refusal = None
except recurring_ical_events.InvalidCalendar as error:
    refusal = str(error)
print("a file without CALSCALE:", [line for line in plain.splitlines() if "CALSCALE" in line], refusal)
for line in after.splitlines():
    if line.startswith(("DTSTART", "RRULE", "EXDATE")):
        print(line)
seen = {"before": times(before), "after": times(after)}
for name, starts in seen.items():
    print(f"{name:6}", ", ".join(starts))

assert "CALSCALE:GEORGIAN" in plain and refusal
assert "VTIMEZONE" in before and "VTIMEZONE" not in after
assert all(start.startswith("Mon") and start.endswith("00:30") for start in seen["before"])
assert "Mon 16.03. 00:30" not in seen["before"]
first, *others = seen["after"]
assert first == "Mon 02.03. 00:30", first
assert all(start.startswith("Tue") for start in others), others
assert "Tue 17.03. 00:30" in others and "Tue 31.03. 01:30" in others, others
PYTHON
