"""Writes django-celery-beat's tables through its own models, in a process of its own.

The argument is JSON: `url` of the database (SQLAlchemy's), and perhaps `settings` of Django;
`tasks`, each with its `schedule` (a kind, and its fields) and the fields of a PeriodicTask;
`run`, names of tasks that are run as its beat would; `ask`, an instant. It prints, as JSON,
for each task the seconds that its own schedule has left at that instant.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import pymysql

GIVEN: dict[str, Any] = json.loads(sys.argv[1])
INSTANTS = ("start_time", "expires", "last_run_at", "clocked_time")


def database(url: str) -> dict[str, Any]:
    """Return a URL as Django's settings have it."""
    if url.startswith("sqlite"):
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": url.partition("///")[2]}
    parts = urlsplit(url)
    kind = "postgresql" if url.startswith("postgresql") else "mysql"
    return {
        "ENGINE": f"django.db.backends.{kind}",
        "NAME": parts.path.strip("/"),
        "HOST": parts.hostname,
        "PORT": parts.port or "",
        "USER": parts.username or "",
        "PASSWORD": parts.password or "",
    }


def fields(given: dict[str, Any]) -> dict[str, Any]:
    """Return fields with instants where they belong."""
    read = {name: datetime.fromisoformat(given[name]) for name in INSTANTS if given.get(name)}
    return {**given, **read}


def main() -> None:
    pymysql.install_as_MySQLdb()
    import django
    from django.conf import settings

    given = {"DATABASES": {"default": database(GIVEN["url"])}, "USE_TZ": True}
    given |= {"INSTALLED_APPS": ["django_celery_beat"], **GIVEN.get("settings", {})}
    if GIVEN["url"].startswith("sqlite"):
        # The same tables straight from the models, in a quarter of the time.
        given["MIGRATION_MODULES"] = {"django_celery_beat": None}
    settings.configure(**given)
    django.setup()
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)
    from celery import Celery
    from django_celery_beat import models
    from django_celery_beat.schedulers import ModelEntry

    app = Celery("theirs", broker="memory://")
    kinds = {
        "interval": models.IntervalSchedule,
        "crontab": models.CrontabSchedule,
        "solar": models.SolarSchedule,
        "clocked": models.ClockedSchedule,
    }
    for task in GIVEN.get("tasks", ()):
        kind, rule = task.pop("schedule")
        schedule, _ = kinds[kind].objects.get_or_create(**fields(rule))
        models.PeriodicTask.objects.create(**{kind: schedule}, **fields(task))
    for name in GIVEN.get("run", ()):
        entry = ModelEntry(models.PeriodicTask.objects.get(name=name), app=app)
        following = next(entry)
        following.save()
        following.is_due()  # which disables what runs once
    left = {}
    if "ask" in GIVEN:
        at = datetime.fromisoformat(GIVEN["ask"])
        for task in models.PeriodicTask.objects.filter(clocked=None, solar=None):
            schedule = task.schedule
            # As is_due does it: in the zone of a crontab.
            here = at.astimezone(task.crontab.timezone) if task.crontab else at
            schedule.nowfun = lambda here=here: here
            last = here if task.crontab else task.last_run_at
            left[task.name] = schedule.remaining_estimate(last).total_seconds()
    print(json.dumps(left))


main()
