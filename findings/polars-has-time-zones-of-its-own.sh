#!/usr/bin/env bash
# Libraries: polars 2.1.0; the IANA time zone data 2026f, as in tzdata 2026.6.
#
# A good guess: after `pip install -U tzdata`, or an update of the machine's zone files, all libraries
# of a process know the newest rules. That is what these packages are for.
#
# What it does: polars has zone data of its own in its binary, from the Rust library chrono-tz 0.10.4,
# and asks nobody else. 2.1.0 is of October 2026, and its data lacks what was decided this year.
# Vancouver, Edmonton and Winnipeg stay on their summer's offset from this winter on, Havana for this
# winter, and Casablanca is an hour less since autumn: 9:00 in Vancouver on 1 December 2026 is 16:00
# UTC with zoneinfo, and 17:00 UTC with polars. Since polars hands out Python datetimes whose tzinfo
# is zoneinfo's, 9:00 stays 9:00 as it leaves polars, and becomes another instant.
#
# Documented: the changes are in the NEWS file of the IANA data. polars' guide (Time zones) has names
# of the IANA database, and does not say which edition it has, nor that tzdata is not asked.
#
# Why it matters to schedulers: due times that are computed in a data frame are an hour off in these
# zones until polars itself is updated. A test with dates of last summer does not show it.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet polars==2.1.0 tzdata==2026.6

timeout 50 venv/bin/python - <<'PYTHON'
import datetime
import zoneinfo

import polars

zoneinfo.reset_tzpath(())  # the pinned package, not the machine's files
NINE = datetime.datetime(2026, 12, 1, 9)
ZONES = (
    "America/Vancouver",
    "America/Edmonton",
    "America/Winnipeg",
    "America/Havana",
    "Africa/Casablanca",
    "America/Toronto",
    "Europe/Berlin",
)


def by_zoneinfo(zone, local):
    return local.replace(tzinfo=zoneinfo.ZoneInfo(zone)).astimezone(datetime.timezone.utc)


def by_polars(zone, local):
    local = polars.Series([local]).dt.replace_time_zone(zone)
    return local.dt.convert_time_zone("UTC").to_list()[0]


def difference(zone, local):
    return (by_polars(zone, local) - by_zoneinfo(zone, local)) / datetime.timedelta(hours=1)


seen = {zone: difference(zone, NINE) for zone in ZONES}
print("9:00 on 1 December 2026, hours that polars is later than zoneinfo:")
for zone, hours in seen.items():
    print(f"  {zone:18} {hours:+.0f}")
july = {zone: difference(zone, NINE.replace(month=7)) for zone in ZONES}
inside = polars.Series([NINE]).dt.replace_time_zone("America/Vancouver")
print("in July all are equal:", not any(july.values()))
print("inside polars:", inside.dt.strftime("%H:%M %Z")[0], "as a Python object:", inside.to_list()[0])

assert seen == dict(zip(ZONES, (1, 1, 1, 1, -1, 0, 0))), seen
assert not any(july.values())
PYTHON
