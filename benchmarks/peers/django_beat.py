"""django-celery-beat: Django's models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from benchmarks.peers.peer import TASK, Due, Peer, Writer

__all__ = ["PEER"]


def _database(url: str) -> dict[str, Any]:
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
        "OPTIONS": dict(parse_qsl(parts.query)),
    }


class _Writer(Writer):
    def __init__(self) -> None:
        from django.core.management import call_command
        from django_celery_beat import models

        call_command("migrate", verbosity=0)
        self._models = models

    def store_far(self, count: int) -> None:
        create = self._models.CrontabSchedule.objects.create
        month = {"hour": "*", "day_of_month": "29", "month_of_year": "2", "timezone": "UTC"}
        crons = [create(minute=str(minute), **month) for minute in range(60)]
        task = self._models.PeriodicTask
        for first in range(0, count, 10_000):
            task.objects.bulk_create(
                [
                    task(name=f"far-{n}", task=TASK, crontab=crons[n % 60])
                    for n in range(first, min(first + 10_000, count))
                ]
            )

    def store_due(self, due: Sequence[Due]) -> None:
        task = self._models.PeriodicTask
        task.objects.exclude(name__startswith="far-").delete()
        task.objects.bulk_create(
            [
                task(
                    name=f"due-{one.number}",
                    task=TASK,
                    args=json.dumps([one.number]),
                    interval=self._interval(one.period),
                    last_run_at=one.last_at,
                )
                for one in due
            ],
            batch_size=5_000,
        )

    def add(self, number: int) -> None:
        self._models.PeriodicTask.objects.create(
            name=f"new-{number}",
            task=TASK,
            args=json.dumps([number]),
            interval=self._interval(36_000),
            last_run_at=datetime.now(timezone.utc) - timedelta(seconds=36_000),
        )

    def _interval(self, seconds: float) -> Any:
        interval = self._models.IntervalSchedule
        return interval.objects.get_or_create(every=int(seconds), period="seconds")[0]


class _DjangoBeat(Peer):
    name = "django-celery-beat"
    requirements = ("django-celery-beat==2.9.0", "django==5.2.19")
    scheduler = "django_celery_beat.schedulers:DatabaseScheduler"

    def settings(self, where: str) -> dict[str, Any]:
        return {}

    def configure(self, app: Any, where: str) -> None:
        import django
        import pymysql
        from django.conf import settings

        pymysql.install_as_MySQLdb()
        settings.configure(
            DATABASES={"default": _database(where)},
            INSTALLED_APPS=["django_celery_beat"],
            USE_TZ=True,
            TIME_ZONE="UTC",
        )
        django.setup()

    def writer(self, app: Any, where: str) -> Writer:
        return _Writer()


PEER = _DjangoBeat()
