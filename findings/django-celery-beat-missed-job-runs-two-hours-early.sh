#!/usr/bin/env bash
# Library: django-celery-beat 2.9.0, with celery 5.7.0 and Django 5.2.19; time-machine 3.6.0 as the clock.
#
# A good guess: a crontab job that was missed while beat was down is sent as soon as beat is up again, as
# with Celery's own scheduler. Or it is not made up for, and runs at its next time.
#
# What it does: neither. Jobs whose hour is a plain number are read from the database only when the hour
# of the day is at most two away from it. A nightly job of 3:00 that was missed is not known at 9:00, and
# so it is not sent. At 1:00 of the next night beat reads it, finds that it is overdue, and sends it, two
# hours before its time; at 3:00 it sends it again. Written as `3,23` the same job is made up for at
# once. So is one of 4:00, since the hour of Celery's own clean-up is always read.
#
# Documented: not in the manual, nor that we found. The comments of the scheduler's source have the
# window, as a measure for speed. Issue 956 is about jobs that older versions never read at all.
#
# Why it matters to schedulers: after a night without beat, the reports of that night are missing all
# day. In the next night they are made before the data of the day is complete, and two hours later once
# more.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet django-celery-beat==2.9.0 celery==5.7.0 Django==5.2.19 time-machine==3.6.0

timeout 120 venv/bin/python - <<'PYTHON'
import datetime

import celery
import django
import time_machine
from celery.signals import before_task_publish
from django.conf import settings
from django.core.management import call_command

settings.configure(
    INSTALLED_APPS=["django_celery_beat"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    USE_TZ=True,
    TIME_ZONE="UTC",
)
django.setup()
call_command("migrate", verbosity=0)

from django_celery_beat.models import CrontabSchedule, PeriodicTask  # noqa: E402
from django_celery_beat.schedulers import DatabaseScheduler  # noqa: E402

HOURS = {"at 3": "3", "at 3 and 23": "3,23", "at 4": "4"}
app = celery.Celery(broker="memory://")
app.conf.timezone = "UTC"
sent = {name: [] for name in HOURS}


@app.task(name="report")
def report():
    pass


@before_task_publish.connect(weak=False)
def note(headers=None, **_):
    if headers["task"] == "report":
        sent[headers["periodic_task_name"]].append(datetime.datetime.now(datetime.timezone.utc))


def beat(clock, begin, end):
    """Run a beat from one time to another, awake once a minute."""
    clock.move_to(begin)
    scheduler = DatabaseScheduler(app=app)
    while (now := datetime.datetime.now(datetime.timezone.utc)) < end:
        while scheduler.tick() == 0:  # one job for each call
            pass
        clock.move_to(now + datetime.timedelta(minutes=1))
    scheduler.sync()


def at(day, hour):
    return datetime.datetime(2026, 12, day, hour, tzinfo=datetime.timezone.utc)


with time_machine.travel(at(1, 0), tick=False) as clock:
    for name, hour in HOURS.items():
        crontab = CrontabSchedule.objects.create(minute="0", hour=hour, timezone="UTC")
        PeriodicTask.objects.create(name=name, task="report", crontab=crontab)
    beat(clock, at(1, 0), at(2, 1))
    print("beat is down from 1:00 to 9:00 on 2 December")
    beat(clock, at(2, 9), at(4, 6))

seen = {name: [time.strftime("%-d %-H:%M") for time in times] for name, times in sent.items()}
for name, times in seen.items():
    print(f"{name:12}", ", ".join(times))
hours = {name: [(time.day, time.hour) for time in times] for name, times in sent.items()}
assert hours["at 3"] == [(1, 3), (3, 1), (3, 3), (4, 3)], hours
assert hours["at 4"] == [(1, 4), (2, 9), (3, 4), (4, 4)], hours
assert hours["at 3 and 23"][:3] == [(1, 3), (1, 23), (2, 9)], hours
PYTHON
