#!/usr/bin/env bash
# Library: croniter 7.0.0; beside it cronsim 2.8, APScheduler 3.11.3 and celery 5.7.0.
#
# A good guess: `9-9` is a range with one value, so `0 9-9 * * *` is due at nine. Programs that make the
# expression of two numbers, the first and the last hour, write it so when both are equal.
#
# What it does: to croniter a range whose bounds are equal is the whole cycle. `0 9-9 * * *` is due at
# each hour, `0 0 15-15 * *` and `0 0 * * 3-3` on each day, and `5-5 * * * *` in each minute. In a list it
# takes the list with it: `3-3,5` is every day. `9-10` is two hours, so the range does not shrink: from
# two values it goes to all of them. The three others take it for its one value.
#
# Documented: croniter's README says so under "Note about Ranges", with January and Sunday as its
# examples, as a deviation from cron. crontab(5) has ranges as "inclusive".
#
# Why it matters to schedulers: Airflow, RQ, Procrastinate and others ask croniter. A form with "from" and
# "to" makes a job of once a day one of 24 times a day when somebody enters the same hour twice, and the
# same line in a crontab is right.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet croniter==7.0.0 cronsim==2.8 apscheduler==3.11.3 celery==5.7.0

timeout 60 venv/bin/python - <<'PYTHON'
import datetime

from apscheduler.triggers.cron import CronTrigger
from celery.schedules import crontab
from croniter import croniter
from cronsim import CronSim

BEGIN = datetime.datetime(2026, 11, 30, tzinfo=datetime.timezone.utc)  # a Monday
END = BEGIN + datetime.timedelta(days=28)
SPECS = ("0 9-10 * * *", "0 9-9 * * *", "0 0 15-15 * *", "0 0 * * 3-3", "0 0 * * 3-3,5")


def by_croniter(spec):
    times = croniter(spec, BEGIN - datetime.timedelta(seconds=1))
    return list(iter(lambda: min(times.get_next(datetime.datetime), END), END))


def by_cronsim(spec):
    times = CronSim(spec, BEGIN - datetime.timedelta(seconds=1))
    return list(iter(lambda: min(next(times), END), END))


def by_apscheduler(spec):
    names = "minute", "hour", "day", "month", "day_of_week"
    fields = dict(zip(names, spec.replace("3-3,5", "wed-wed,fri").replace("3-3", "wed-wed").split()))
    trigger = CronTrigger(**fields, timezone=datetime.timezone.utc)
    due, found = trigger.get_next_fire_time(None, BEGIN), []
    while due < END:
        found.append(due)
        due = trigger.get_next_fire_time(due, due + datetime.timedelta(seconds=1))
    return found


def by_celery(spec):
    names = "minute", "hour", "day_of_month", "month_of_year", "day_of_week"
    schedule = crontab(**dict(zip(names, spec.split())))
    hours = (BEGIN + datetime.timedelta(hours=hour) for hour in range(28 * 24))
    return [
        due
        for due in hours
        if due.hour in schedule.hour
        and due.day in schedule.day_of_month
        and due.isoweekday() % 7 in schedule.day_of_week
    ]


seen = {spec: len(by_croniter(spec)) for spec in SPECS}
for ask in (by_cronsim, by_apscheduler, by_celery):
    others = {spec: len(ask(spec)) for spec in SPECS}
    print(f"{ask.__name__:14}", others)
    assert list(others.values()) == [56, 28, 1, 4, 8], others
print(f"{'by_croniter':14}", seen)
assert list(seen.values()) == [56, 28 * 24, 28, 28, 28], seen
assert croniter.expand("5-5 * * * *")[0][0] == ["*"]
PYTHON
