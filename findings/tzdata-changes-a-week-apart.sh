#!/usr/bin/env bash
# Data: the IANA time zone data 2026f, as in tzdata 2026.6, read with Python's zoneinfo.
#
# A good guess: zones change their offset twice a year at most, months apart (but for Morocco's
# Ramadan, which lasts a month), so comparing the offset at the first of each month finds all of them.
#
# What it does: the data has changes that are undone a week later.
#   * Asia/Gaza and Asia/Hebron, October 2040: summer time comes back for a week after Ramadan, then
#     ends for the year. 2054 has another such week.
#   * America/Recife, America/Noronha and America/Boa_Vista, October 2000: Brazil's summer time was
#     begun, and dropped a week later.
# Both lie inside one calendar month, with the same offset at its beginning and its end.
#
# Documented: in the comments of the data's own source files; the far dates are a forecast, which a
# later release of the data may move.
#
# Why it matters to schedulers: code that looks for the next offset change in coarse steps, or
# caches an offset for a month, runs daily entries an hour off for that week.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet tzdata==2026.6

timeout 50 venv/bin/python - <<'PYTHON'
import datetime
import importlib.metadata
import zoneinfo

zoneinfo.reset_tzpath(())  # the pinned package, not the machine's files
assert importlib.metadata.version("tzdata") == "2026.6"
UTC = datetime.timezone.utc


def offset(zone, moment):
    return moment.astimezone(zone).utcoffset()


def changes(zone, start, end, step):
    found = []
    while start < end:
        after = min(start + step, end)
        if offset(zone, start) != offset(zone, after):
            low, high = start, after
            while high - low > datetime.timedelta(minutes=1):
                middle = low + (high - low) / 2
                if offset(zone, middle) == offset(zone, start):
                    low = middle
                else:
                    high = middle
            found.append(high.replace(second=0, microsecond=0))
        start = after
    return found


for name, year in (
    ("Asia/Gaza", 2040),
    ("Asia/Hebron", 2040),
    ("America/Recife", 2000),
    ("America/Noronha", 2000),
    ("America/Boa_Vista", 2000),
):
    zone = zoneinfo.ZoneInfo(name)
    start = datetime.datetime(year, 10, 1, tzinfo=UTC)
    end = datetime.datetime(year, 11, 1, tzinfo=UTC)
    fine = changes(zone, start, end, datetime.timedelta(hours=6))
    coarse = changes(zone, start, end, end - start)
    print(f"{name}: October {year} has changes at", *(m.isoformat() for m in fine))
    print("   and a comparison of the month's two ends finds", len(coarse))
    assert len(fine) == 2 and coarse == []
    assert fine[1] - fine[0] < datetime.timedelta(days=8)
PYTHON
