#!/usr/bin/env bash
# Library: aniso8601 10.0.1; beside it python-dateutil 2.9.0.post0.
#
# A good guess: a parser of ISO 8601 refuses `2026-11-30T24:00`, or knows what the standard says: it is
# the end of that day, 0:00 on 1 December.
#
# What it does: it takes hour 24, checks that minutes and seconds are zero, and returns 0:00 of the same
# day: the instant is 24 hours early. The interval `2026-11-30T00:00/2026-11-30T24:00`, a whole day, has
# no length, and one of `T18:00/T24:00` ends before it begins. A repeating interval begins a day
# early. dateutil's isoparse() returns the next day.
#
# Documented: ISO 8601 (2004, 4.2.3; dropped in 2019, and back with the amendment of 2022): 24:00 at the
# end of one calendar day is 00:00 of the next. The README of aniso8601 does not say what it returns.
#
# Why it matters to schedulers: "until 24:00" is how people write a window's end or a last day. A lease, a
# maintenance window or a subscription that is to end with the day is over before it has begun.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet aniso8601==10.0.1 python-dateutil==2.9.0.post0

timeout 60 venv/bin/python - <<'PYTHON'
import datetime
import itertools

import aniso8601
from dateutil.parser import isoparse

END = "2026-11-30T24:00Z"
early, right = aniso8601.parse_datetime(END), isoparse(END)
print(f"{END}: aniso8601 {early:%Y-%m-%d %H:%M}, dateutil {right:%Y-%m-%d %H:%M}")
lengths = {}
for text in ("2026-11-30T00:00Z/2026-11-30T24:00Z", "2026-11-30T18:00Z/2026-11-30T24:00Z"):
    begin, end = aniso8601.parse_interval(text)
    lengths[text] = (end - begin) / datetime.timedelta(hours=1)
    print(f"{text}: {lengths[text]:.0f} hours")
repeated = [time.day for time in itertools.islice(aniso8601.parse_repeating_interval(f"R/{END}/P1D"), 3)]
print(f"R/{END}/P1D: on the days", *repeated)

assert right - early == datetime.timedelta(days=1)
assert list(lengths.values()) == [0, -18], lengths
assert repeated == [30, 1, 2]
for text in ("2026-11-30T24:30Z", "2026-11-30T25:00Z"):
    try:
        aniso8601.parse_datetime(text)
    except ValueError as error:
        print(f"{text}: {error}")
    else:
        raise AssertionError(text)
PYTHON
