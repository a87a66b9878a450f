"""sqlalchemy-celery-beat: the tables of django-celery-beat, with SQLAlchemy's models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from benchmarks.peers.peer import TASK, Due, Peer, Writer

__all__ = ["PEER"]


class _Writer(Writer):
    def __init__(self, url: str) -> None:
        import sqlalchemy as sa
        from sqlalchemy_celery_beat import models
        from sqlalchemy_celery_beat.session import SessionManager

        manager = SessionManager()
        engine, self._session = manager.create_session(url)
        manager.prepare_models(engine)
        self._sa, self._models = sa, models

    def store_far(self, count: int) -> None:
        crontab, task = self._models.CrontabSchedule, self._models.PeriodicTask
        month = {"hour": "*", "day_of_month": "29", "month_of_year": "2", "timezone": "UTC"}
        with self._session() as session:
            crons = [crontab(minute=str(minute), **month) for minute in range(60)]
            session.add_all(crons)
            session.flush()
            ids = [cron.id for cron in crons]
            same = {"task": TASK, "discriminator": "crontabschedule"}
            for first in range(0, count, 10_000):
                rows = [
                    {**same, "name": f"far-{n}", "schedule_id": ids[n % 60]}
                    for n in range(first, min(first + 10_000, count))
                ]
                session.execute(self._sa.insert(task), rows)
            session.commit()

    def store_due(self, due: Sequence[Due]) -> None:
        task = self._models.PeriodicTask
        same = {"task": TASK, "discriminator": "intervalschedule"}
        with self._session() as session:
            session.execute(self._sa.delete(task).where(~task.name.like("far-%")))
            periods = {
                period: self._interval(session, period) for period in {d.period for d in due}
            }
            rows = [
                {
                    **same,
                    "name": f"due-{one.number}",
                    "args": json.dumps([one.number]),
                    "schedule_id": periods[one.period].id,
                    "last_run_at": one.last_at,
                }
                for one in due
            ]
            if rows:
                session.execute(self._sa.insert(task), rows)
            session.commit()

    def add(self, number: int) -> None:
        with self._session() as session:
            session.add(
                self._models.PeriodicTask(
                    name=f"new-{number}",
                    task=TASK,
                    args=json.dumps([number]),
                    schedule_model=self._interval(session, 36_000),
                    last_run_at=datetime.now(timezone.utc) - timedelta(seconds=36_000),
                )
            )
            session.commit()

    def _interval(self, session: Any, seconds: float) -> Any:
        interval = self._models.IntervalSchedule
        chosen = {"every": int(seconds), "period": self._models.Period.SECONDS}
        found = session.query(interval).filter_by(**chosen).first()
        if found is None:
            found = interval(**chosen)
            session.add(found)
            session.flush()
        return found


class _SQLAlchemyBeat(Peer):
    name = "sqlalchemy-celery-beat"
    requirements = ("sqlalchemy-celery-beat==0.9.1", "sqlalchemy==2.1.9")
    scheduler = "sqlalchemy_celery_beat.schedulers:DatabaseScheduler"

    def settings(self, where: str) -> dict[str, Any]:
        return {"beat_dburi": where}

    def writer(self, app: Any, where: str) -> Writer:
        return _Writer(where)


PEER = _SQLAlchemyBeat()
