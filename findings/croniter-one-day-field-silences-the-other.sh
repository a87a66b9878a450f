#!/usr/bin/env bash
# Library: croniter 7.0.0.
#
# A good guess: with both day fields, an expression is due on days that match either of them, as in
# crontab(5). croniter says so too: that is its option `day_or`, which is True by default.
#
# What it does: that holds for plain fields and for L. As soon as one of the fields has W (the nearest
# working day) or # (the n-th weekday of the month), or a weekday has L (the last of the month), only
# one field counts, or both must match:
#   * `15W * fri`: Fridays are gone.
#   * `13 * fri#2`: the 13th is gone, unless it is the second Friday.
#   * `1 * fri#2`: both must match, which never happens, and the search ends in an error.
#
# Documented: the option is; that these fields ignore it is not, as far as we found.
#
# Why it matters to schedulers: an expression that is moved here from another cron is accepted, and
# loses most of its days in silence.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet croniter==7.0.0

timeout 50 venv/bin/python - <<'PYTHON'
from datetime import datetime

from croniter import CroniterBadDateError, croniter

BEGIN = datetime(2026, 3, 1)


def due(days):
    found = croniter(f"0 0 {days}", BEGIN)
    return [found.get_next(datetime).strftime("%a %d %b") for _ in range(4)]


plain, last = due("15 * fri"), due("L * fri")
print(f"15 * fri:   {plain}")
assert plain == ["Fri 06 Mar", "Fri 13 Mar", "Sun 15 Mar", "Fri 20 Mar"], "changed"
assert last == ["Fri 06 Mar", "Fri 13 Mar", "Fri 20 Mar", "Fri 27 Mar"], "changed"

nearest, second = due("15W * fri"), due("13 * fri#2")
print(f"15W * fri:  {nearest}")
print(f"13 * fri#2: {second}")
assert nearest == ["Mon 16 Mar", "Wed 15 Apr", "Fri 15 May", "Mon 15 Jun"], "changed"
assert second == ["Fri 13 Mar", "Fri 10 Apr", "Fri 08 May", "Fri 12 Jun"], "changed"
assert due("L * L5") == ["Fri 27 Mar", "Fri 24 Apr", "Fri 29 May", "Fri 26 Jun"], "changed"

try:
    raise SystemExit(f"changed: {due('1 * fri#2')}")
except CroniterBadDateError as error:
    print(f"1 * fri#2:  {type(error).__name__}: {error}")
PYTHON
