"""celery-redbeat: a sorted set and hashes in Redis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from benchmarks.peers.peer import TASK, Due, Peer, Writer

__all__ = ["PEER"]


class _Writer(Writer):
    def __init__(self, app: Any) -> None:
        from redbeat import RedBeatSchedulerEntry
        from redbeat.schedulers import ensure_conf, get_redis

        ensure_conf(app)
        self._app, self._redis, self._entry = app, get_redis(app), RedBeatSchedulerEntry
        self._stored: list[str] = []

    def store_far(self, count: int) -> None:
        from celery.schedules import crontab

        crons = [crontab(minute=m, day_of_month=29, month_of_year=2) for m in range(60)]
        shapes = [self._entry("", TASK, cron, app=self._app) for cron in crons]
        now = self._app.now()
        for one in shapes:
            one.last_run_at = now
        scores = [one.score for one in shapes]
        for first in range(0, count, 5_000):
            with self._redis.pipeline(transaction=False) as pipe:
                for n in range(first, min(first + 5_000, count)):
                    shapes[n % 60].name = f"far-{n}"
                    self._save(pipe, shapes[n % 60], scores[n % 60])
                pipe.execute()

    def store_due(self, due: Sequence[Due]) -> None:
        # A beat that was killed leaves its lock; what is measured begins without one.
        self._redis.delete(self._app.redbeat_conf.lock_key)
        for first in range(0, len(self._stored), 5_000):
            keys = self._stored[first : first + 5_000]
            self._redis.zrem(self._app.redbeat_conf.schedule_key, *keys)
            self._redis.delete(*keys)
        self._stored = []
        with self._redis.pipeline(transaction=False) as pipe:
            for one in due:
                every = timedelta(seconds=one.period)
                entry = self._entry(
                    f"due-{one.number}", TASK, every, args=[one.number], app=self._app
                )
                entry.last_run_at = one.last_at
                self._save(pipe, entry, int(one.at))
                self._stored.append(entry.key)
            pipe.execute()

    def add(self, number: int) -> None:
        every = timedelta(seconds=36_000)
        entry = self._entry(f"new-{number}", TASK, every, args=[number], app=self._app)
        entry.last_run_at = None  # so that it is due at once
        entry.save()
        self._stored.append(entry.key)

    def _save(self, pipe: Any, entry: Any, score: float) -> None:
        """Do what `entry.save()` does, many in one round trip."""
        from redbeat.decoder import RedBeatJSONEncoder

        fields = ("name", "task", "args", "kwargs", "options", "schedule", "enabled")
        definition = {field: getattr(entry, field) for field in fields}
        meta = {"last_run_at": entry.last_run_at}
        parts = {"definition": definition, "meta": meta}
        written = {key: json.dumps(part, cls=RedBeatJSONEncoder) for key, part in parts.items()}
        pipe.hset(entry.key, mapping=written)
        pipe.zadd(self._app.redbeat_conf.schedule_key, {entry.key: score})


class _RedBeat(Peer):
    name = "celery-redbeat"
    requirements = ("celery-redbeat==2.4.2",)
    scheduler = "redbeat.RedBeatScheduler"
    # Its default of 300 s is how late a change may be seen, and its lock lasts five times as long.
    options = ("--max-interval", "5")
    databases = ("redis",)

    def settings(self, where: str) -> dict[str, Any]:
        return {"redbeat_redis_url": where}

    def writer(self, app: Any, where: str) -> Writer:
        return _Writer(app)


PEER = _RedBeat()
