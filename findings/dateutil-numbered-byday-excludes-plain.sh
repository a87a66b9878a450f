#!/usr/bin/env bash
# Library: python-dateutil 2.9.0.post0.
#
# A good guess: `BYDAY=TU,-1SU` of a monthly rule is every Tuesday, and the last Sunday of the month.
# RFC 5545 calls BYDAY a list of days of the week, and a date that is one of them is in the set.
#
# What it does: a list of plain days works, and so does a list of numbered ones. Where both kinds
# stand in one list, a date must match one of each kind: `TU,-1SU` is never due, and `SU,-1SU` is the
# last Sunday alone.
#
# The same library, in a week that begins before DTSTART: BYSETPOS counts from DTSTART, and not from
# the beginning of the week. With `BYDAY=MO,WE,FR;BYSETPOS=1`, which is each Monday, the first
# occurrence is a Wednesday if DTSTART is one.
#
# Documented: dateutil names the parts in which it differs from the RFC on purpose, and not these.
#
# Why it matters to schedulers: rules that calendars export are accepted, and are due never, or once
# too often.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet python-dateutil==2.9.0.post0

timeout 50 venv/bin/python - <<'PYTHON'
from dateutil.rrule import rrulestr


def due(rule):
    found = list(rrulestr(f"DTSTART:20250115T090000\nRRULE:{rule};COUNT=4"))
    return [f"{at:%a %d %b}" for at in found]


tuesdays, mixed, sundays = (due(f"FREQ=MONTHLY;BYDAY={days}") for days in ("TU", "TU,-1SU", "SU,-1SU"))
print(f"BYDAY=TU:      {tuesdays}")
print(f"BYDAY=TU,-1SU: {mixed}")
print(f"BYDAY=SU,-1SU: {sundays}")
assert tuesdays == ["Tue 21 Jan", "Tue 28 Jan", "Tue 04 Feb", "Tue 11 Feb"], "changed"
assert due("FREQ=MONTHLY;BYDAY=1TU,-1SU")[:2] == ["Sun 26 Jan", "Tue 04 Feb"], "changed"
assert mixed == [], "changed"
assert sundays == ["Sun 26 Jan", "Sun 23 Feb", "Sun 30 Mar", "Sun 27 Apr"], "changed"

first = due("FREQ=WEEKLY;BYDAY=MO,WE,FR;BYSETPOS=1")
print(f"the first of Monday, Wednesday and Friday, each week: {first}")
assert first == ["Wed 15 Jan", "Mon 20 Jan", "Mon 27 Jan", "Mon 03 Feb"], "changed"
PYTHON
