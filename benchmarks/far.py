"""Tasks for the year 2525: how many can be stored in a second, and what they cost afterwards.

They are stored through `Task.schedule`, one after the other by one process: each in a
transaction of its own, and a thousand in one with `session=`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from statistics import median
from typing import Any

from sqlalchemy.orm import Session

import beatstore
from beatstore.store.shared import store_of
from benchmarks.beat import local_app, local_beat
from benchmarks.places import Places, optimize, server_of
from benchmarks.report import Table, ms, verdict
from tests.support.absent import Unavailable

__all__ = ["measure"]

FAR = datetime(2525, 11, 11, 9, 30, tzinfo=timezone.utc)
RATIO_TARGET = 1.5

#: How many are stored in one transaction with `session=`.
TOGETHER = 1_000


def measure(places: Places) -> list[Table]:
    """Measure on each database, and unless it is to be quick with 100,000 tasks."""
    stored = Table(
        "Storing far-future tasks, by one process",
        ["database", "Task.schedule", "with session=, 1,000 a commit"],
    )
    cost = Table(
        "What they cost, in the year 2525",
        ["database", "tasks stored", "idle tick", "over none", "ratio", "cancel by id", "target"],
    )
    for kind in ("sqlite", "postgresql", "mariadb"):
        try:
            _measure_one(places, kind, stored, cost)
        except Unavailable as reason:
            cost.notes.append(f"{kind} left out: {reason}")
    return [stored, cost]


def _measure_one(places: Places, kind: str, stored: Table, cost: Table) -> None:
    alone, many = (200, 5_000) if places.quick else (2_000, 100_000)
    with places.database(kind) as url, places.broker("redis") as broker:
        app = local_app(broker, url, beatstore_listen=False, result_expires=None)
        task = _task(app)
        with local_beat(app) as beat:
            none = _ticks(beat.tick, places.quick)
        one_by_one = _store(task, alone)
        together = _store_together(task, store_of(app), many - alone)
        optimize(url)
        with local_beat(app) as beat:
            over = _ticks(beat.tick, places.quick)
        assert broker.count() == 0
        stored.add(kind, f"{one_by_one:,.0f} / s", f"{together:,.0f} / s")
        ratio = over / none
        met = verdict(ratio, RATIO_TARGET)
        cost.add(
            *(kind, f"{many:,}", ms(over), ms(none), f"{ratio:.2f}"),
            *(ms(_cancel(task, store_of(app))), f"ratio < {RATIO_TARGET}: {met}"),
        )
        cost.notes.append(f"{server_of(url)}.")
        store_of(app).close()
        app.close()


def _task(app: Any) -> Any:
    @app.task(name="bench.remind", base=beatstore.Task, shared=False)
    def remind(number: int) -> None:
        """Do nothing."""

    return remind


def _store(task: Any, count: int) -> float:
    """Store tasks, each in a transaction of its own; return how many in a second."""
    began = time.perf_counter()
    for number in range(count):
        task.schedule((number,), eta=FAR + timedelta(seconds=number))
    return count / (time.perf_counter() - began)


def _store_together(task: Any, store: Any, count: int) -> float:
    """Store tasks, many in a transaction; return how many in a second."""
    began = time.perf_counter()
    for first in range(0, count, TOGETHER):
        with Session(store.database.engine) as session, session.begin():
            for number in range(first, min(first + TOGETHER, count)):
                task.schedule((number,), eta=FAR + timedelta(seconds=number), session=session)
    return count / (time.perf_counter() - began)


def _ticks(tick: Callable[[], float], quick: bool) -> float:
    """Return the median of the seconds of an idle tick."""
    for _ in range(20):
        tick()
    took = []
    for _ in range(100 if quick else 500):
        began = time.perf_counter()
        tick()
        took.append(time.perf_counter() - began)
    return median(took)


def _cancel(task: Any, store: Any) -> float:
    """Return the median of the seconds in which a task is cancelled by its id."""
    took = []
    for number in range(50):
        result = task.schedule((number,), eta=FAR)
        began = time.perf_counter()
        assert store.cancel(result.id)
        took.append(time.perf_counter() - began)
    return median(took)
