#!/usr/bin/env bash
# Database: DuckDB 2.0.1.
#
# A good guess: `date_trunc('hour', t)` is at or before t, and less than an hour before it. Of a
# timestamptz it is the beginning of the hour on the wall clock, in the session's zone.
#
# What it does: in the hour that comes twice when clocks go back, it is the beginning of the second
# one, for both. Of 2:30 summer time it is 2:00 standard time, half an hour later than what was given.
# The two hours become one, and a job of the first is in an hour that has not begun. `minute` and
# `second` are right, and so is `time_bucket` with an hour. PostgreSQL keeps the two hours apart.
#
# Documented: DuckDB's manual (Timestamp with Time Zone Functions) says "truncate to specified
# precision", in the session's zone. The hour that comes twice is not there.
#
# Why it matters to schedulers: "once an hour" is often a unique key on (job, date_trunc('hour', t)).
# In that night the second hour's job is refused as one that has run. A report by the hour shows 120
# minutes in one hour and none in the other, and `date_trunc('hour', t) <= t` does not find all rows.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet duckdb==2.0.1

timeout 50 venv/bin/python - <<'PYTHON'
import duckdb

connection = duckdb.connect()


def in_utc(text):
    query = f"SELECT strftime({text} AT TIME ZONE 'UTC', '%H:%M') FROM run ORDER BY due"
    return [time for (time,) in connection.execute(query).fetchall()]


connection.execute("SET TimeZone = 'Europe/Berlin'")
connection.execute(
    "CREATE TABLE run AS SELECT TIMESTAMPTZ '2026-10-24 23:30:00+00' + n * INTERVAL 30 MINUTE AS due "
    "FROM range(6) AS numbers(n)"
)
seen = {
    "due": in_utc("due"),
    "hour": in_utc("date_trunc('hour', due)"),
    "minute": in_utc("date_trunc('minute', due)"),
    "time_bucket": in_utc("time_bucket(INTERVAL 1 HOUR, due)"),
}
later = connection.execute("SELECT count(*) FROM run WHERE date_trunc('hour', due) > due").fetchone()[0]
print("DuckDB", duckdb.__version__, "in Berlin, 25 October 2026, shown in UTC")
for name, times in seen.items():
    print(f"  {name:12}", *times)
print("hours that begin after the instant they are of:", later)

everywhere = {}
for zone in ("America/New_York", "Europe/London", "Australia/Sydney", "UTC"):
    connection.execute(f"SET TimeZone = '{zone}'")
    everywhere[zone] = connection.execute(
        "SELECT count(*) FILTER (WHERE date_trunc('hour', due) > due) FROM (SELECT TIMESTAMPTZ "
        "'2026-01-01 00:00:00+00' + n * INTERVAL 1 MINUTE AS due FROM range(525600) AS numbers(n))"
    ).fetchone()[0]
print("such minutes in 2026:", everywhere)

assert seen["due"] == seen["minute"] == ["23:30", "00:00", "00:30", "01:00", "01:30", "02:00"]
assert seen["hour"] == ["23:00", "01:00", "01:00", "01:00", "01:00", "02:00"]
assert seen["time_bucket"] == ["23:00", "00:00", "00:00", "01:00", "01:00", "02:00"]
assert later == 2
assert everywhere == {"America/New_York": 60, "Europe/London": 60, "Australia/Sydney": 60, "UTC": 0}
PYTHON
