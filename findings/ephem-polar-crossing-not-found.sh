#!/usr/bin/env bash
# Library: ephem (PyEphem) 4.2.1.
#
# A good guess: next_setting() raises AlwaysUpError only if the sun does not set at that place within
# the day or so that follows, so asking on each day of a year finds every sunset of that year.
#
# What it does: the search asks for the hour angle at which a body of the date's declination would
# cross the horizon, and gives up if there is none. Close to a pole the sun crosses the horizon by its
# declination, not by the earth's turning. At latitude -89.9, longitude 10, the sun sets on
# 22 March 2026, and next_setting() raises on all 365 days of the year, that day included. Stepping
# through the altitude finds the crossing.
#
# Documented: the errors are; that a real crossing can be missed is not, that we found.
#
# Why it matters to schedulers: "at sunset" entries at a polar place skip the one sunset of the
# year, and the error reads as if the sun had never moved.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet ephem==4.2.1

timeout 50 venv/bin/python - <<'PYTHON'
import ephem

place = ephem.Observer()
place.lat, place.lon = "-89.9", "10"
place.pressure = 0
place.horizon = "-0:34"
sun = ephem.Sun()
new_year = ephem.Date("2026/1/1")

found, refused = [], {}
for day in range(365):
    place.date = ephem.Date(new_year + day)
    try:
        found.append(place.next_setting(sun))
    except ephem.CircumpolarError as error:
        refused[type(error).__name__] = refused.get(type(error).__name__, 0) + 1
print("next_setting() on each day of 2026 found", found, "and raised", refused)


def is_up(date):
    place.date = date
    sun.compute(place)
    return sun.alt + sun.radius > place.horizon


settings = []
step = 1 / 96  # a quarter of an hour
for index in range(365 * 96):
    before, after = ephem.Date(new_year + index * step), ephem.Date(new_year + (index + 1) * step)
    if is_up(before) and not is_up(after):
        settings.append(after)
print("stepping through the altitude finds a sunset at", *map(str, settings))

day = ephem.Date("2026/3/22")
place.date = day
try:
    on_the_day = place.next_setting(sun)
except ephem.CircumpolarError as error:
    on_the_day = error
print("next_setting() asked on that day:", repr(on_the_day))

assert found == [] and sum(refused.values()) == 365
assert [str(moment).split()[0] for moment in settings] == ["2026/3/22"]
assert isinstance(on_the_day, ephem.CircumpolarError)
PYTHON
