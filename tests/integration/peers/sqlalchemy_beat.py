"""Writes sqlalchemy-celery-beat's tables through its own models, in a process of its own.

The argument is JSON, and what is printed too; see `django_beat`. `schema` is the schema.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

from celery import Celery
from sqlalchemy_celery_beat import models
from sqlalchemy_celery_beat.schedulers import ModelEntry
from sqlalchemy_celery_beat.session import SessionManager

GIVEN: dict[str, Any] = json.loads(sys.argv[1])
INSTANTS = ("start_time", "expires", "last_run_at", "clocked_time")
KINDS = {
    "interval": models.IntervalSchedule,
    "crontab": models.CrontabSchedule,
    "solar": models.SolarSchedule,
    "clocked": models.ClockedSchedule,
}


def fields(given: dict[str, Any]) -> dict[str, Any]:
    """Return fields with instants where they belong."""
    read = {name: datetime.fromisoformat(given[name]) for name in INSTANTS if given.get(name)}
    return {**given, **read}


def main() -> None:
    app: Any = Celery("theirs", broker="memory://")
    manager = SessionManager()
    engine, Session = manager.create_session(GIVEN["url"], schema=GIVEN.get("schema"))  # noqa: N806
    manager.prepare_models(engine, schema=GIVEN.get("schema"))
    with Session() as session:
        for task in GIVEN.get("tasks", ()):
            kind, rule = task.pop("schedule")
            schedule = KINDS[kind](**fields(rule))
            session.add(schedule)
            session.flush()
            session.add(models.PeriodicTask(schedule_model=schedule, **fields(task)))
        session.commit()
        for name in GIVEN.get("run", ()):
            model = session.query(models.PeriodicTask).filter_by(name=name).one()
            following = next(ModelEntry(model, Session=Session, app=app))
            following.save()
            following.is_due()  # which disables what runs once
            session.rollback()
        left = {}
        if "ask" in GIVEN:
            at = datetime.fromisoformat(GIVEN["ask"])
            for task in session.query(models.PeriodicTask):
                if task.discriminator in ("solarschedule", "clockedschedule"):
                    continue
                schedule = task.schedule
                is_crontab = task.discriminator == "crontabschedule"
                # As is_due does it: in the zone of a crontab.
                here = at.astimezone(schedule.tz) if is_crontab else at
                schedule.nowfun = lambda here=here: here
                last = here if is_crontab else task.last_run_at
                left[task.name] = schedule.remaining_estimate(last).total_seconds()
    print(json.dumps(left))


main()
