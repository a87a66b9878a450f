#!/usr/bin/env bash
# Library: arrow 1.4.0.
#
# A good guess: `t.shift(minutes=5)` is later than t. It moves the clock on the wall, so a shift across
# a change of clocks may be an hour off; within an hour there is nothing to get wrong.
#
# What it does: the result of a shift is always the first of two equal times on the clock. In the second
# hour, when clocks have gone back, `shift(minutes=5)` is 55 minutes ago, and `shift(minutes=0)` an hour.
# `floor` and `span` do the same, so as an instant t is not in its own hour or minute. A range
# by minutes from such a t has t first, and then an hour that is over. `+ timedelta` is as `shift` is.
# In UTC all of this is right, so shift first, and then go to the zone.
#
# Documented: the docstring of shift speaks of times that are skipped, and not of those that come twice.
# Issue 1067 has a shift of no seconds that is an hour off; it was open at the time of writing.
#
# Why it matters to schedulers: `arrow.now(zone).shift(minutes=5)` is the usual "try again in five
# minutes". For an hour a year it is due at once, however often the job fails. A lease of ten minutes
# has run out before it begins.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet arrow==1.4.0 python-dateutil==2.9.0.post0 tzdata==2026.6

timeout 50 venv/bin/python - <<'PYTHON'
import datetime

import arrow

UTC = arrow.get(2026, 10, 25, 1, 30)  # in Berlin, clocks went back from 3:00 to 2:00 half an hour ago
t = UTC.to("Europe/Berlin")


def minutes(later, begin=t):
    """Return how many minutes lie between the two, as instants."""
    return (later.timestamp() - begin.timestamp()) / 60


shifts = {count: minutes(t.shift(minutes=count)) for count in (0, 5, 29, 30, 60)}
in_utc = {count: minutes(UTC.shift(minutes=count).to("Europe/Berlin")) for count in shifts}
added = minutes(t + datetime.timedelta(minutes=5))
floors = {frame: minutes(t.floor(frame)) for frame in ("hour", "minute")}
within = {frame: t.span(frame)[0] <= t <= t.span(frame)[1] for frame in floors}
instants = {}
for frame in floors:
    begin, end = (side.timestamp() for side in t.span(frame))
    instants[frame] = begin <= t.timestamp() <= end
steps = [minutes(step) for step in arrow.Arrow.range("minute", t, limit=4)]

print("arrow", arrow.__version__)
print("t is", t.isoformat())
print("five minutes later is", t.shift(minutes=5).isoformat())
print("shift(minutes=n) is later by:  ", shifts)
print("the same, shifted in UTC:      ", in_utc)
print("t + timedelta(minutes=5):      ", added)
print("floor is later by:             ", floors)
print("t is in its span, as an instant:", instants, "as arrow compares:", within)
print("a range by minutes, from t:    ", steps)

assert shifts == {0: -60, 5: -55, 29: -31, 30: 30, 60: 60}, shifts
assert in_utc == {count: count for count in shifts}, in_utc
assert added == -55
assert floors == {"hour": -90, "minute": -60}, floors
assert instants == {"hour": False, "minute": False}, instants
assert steps == [0, -59, -58, -57], steps
PYTHON
