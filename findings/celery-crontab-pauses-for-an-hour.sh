#!/usr/bin/env bash
# Library: celery 5.7.0.
#
# A good guess: `crontab(minute="*/5")` runs every five minutes on each day of the year. On the day on
# which clocks go back, a fixed time may be the hard case, and a wildcard is the easy one.
#
# What it does: it compares wall-clock times. Of the hour that comes twice it has had each minute after
# the first time, so beat sends nothing until the wall clock is past that hour. With a timezone that has
# summer time, every crontab with wildcards pauses for more than an hour: twelve runs of `*/5` are
# missing, and nothing is logged. `schedule(300)`, in the same app, goes on.
#
# Documented: cron(8), as Debian has it, excepts jobs with a wildcard in the hour or the minute from
# what it does on such a day: they run by the new time at once. Celery's user guide (Periodic Tasks,
# Crontab schedules and Time Zones) says nothing; its issue 10107 has the hourly case.
#
# Why it matters to schedulers: what is polled, renewed or watched each few minutes is left alone for
# an hour once a year, at night. Leases run out, and the jobs that are due in that hour wait.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet celery==5.7.0 tzdata==2026.6

timeout 50 venv/bin/python - <<'PYTHON'
import datetime
import zoneinfo

from celery import Celery
from celery.beat import ScheduleEntry
from celery.schedules import crontab, schedule

UTC = datetime.timezone.utc
MINUTE = datetime.timedelta(minutes=1)


def runs(zone, start, make):
    """Ask an entry each minute for five hours whether it is due; return the instants at which it is."""
    app = Celery(set_as_current=False)
    app.conf.timezone = zone
    zone = zoneinfo.ZoneInfo(zone)
    now = start

    def clock():
        return now.astimezone(zone)

    entry = ScheduleEntry(
        name="poll", task="poll", schedule=make(app, clock), app=app, last_run_at=clock()
    )
    sent = []
    while now < start + datetime.timedelta(hours=5):
        now += MINUTE
        if entry.is_due().is_due:
            sent.append(now)
            entry = next(entry)
    return sent


def pause(sent):
    gap, end = max((after - before, after) for before, after in zip(sent, sent[1:]))
    return f"{len(sent)} runs, at most {gap} apart, before {end:%H:%M} UTC"


seen = {}
for zone, start in (
    ("Europe/Berlin", datetime.datetime(2026, 10, 24, 22, tzinfo=UTC)),
    ("America/New_York", datetime.datetime(2026, 11, 1, 3, tzinfo=UTC)),
    ("UTC", datetime.datetime(2026, 10, 24, 22, tzinfo=UTC)),
):
    for name, make in (
        ("crontab */5", lambda app, clock: crontab(minute="*/5", nowfun=clock, app=app)),
        ("crontab hourly", lambda app, clock: crontab(minute=0, nowfun=clock, app=app)),
        ("schedule 300", lambda app, clock: schedule(300, nowfun=clock, app=app)),
    ):
        seen[zone, name] = pause(runs(zone, start, make))
        print(f"{zone:17}{name:15}{seen[zone, name]}")

assert seen["Europe/Berlin", "crontab */5"] == "48 runs, at most 1:05:00 apart, before 02:00 UTC"
assert seen["America/New_York", "crontab */5"] == "48 runs, at most 1:05:00 apart, before 07:00 UTC"
assert seen["Europe/Berlin", "crontab hourly"] == "4 runs, at most 2:00:00 apart, before 02:00 UTC"
assert seen["UTC", "crontab */5"].startswith("60 runs, at most 0:05:00")
assert seen["Europe/Berlin", "schedule 300"].startswith("60 runs, at most 0:05:00")
PYTHON
