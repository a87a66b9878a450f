"""Where the time of a message goes: by step of the tick, and by whose code it is.

The steps are timed while nothing else watches; the shares of the packages come from a
second burst under `cProfile`, scaled to what the first one took, since the profiler makes
many small calls look dearer than they are.
"""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beatstore import DBScheduler
from beatstore.tick.queue import Queue
from benchmarks.app import TASK
from benchmarks.beat import cpu_of, local_app, local_beat
from benchmarks.places import Places, fill, insert_due, reset
from benchmarks.report import Table
from benchmarks.throughput import Lap, burst, due_rows
from tests.support.brokers import Broker

__all__ = ["measure"]

KIND = "500 crons, 20 zones"

#: The steps that are timed; what is left of a burst is the sending.
STEPS = ("look", "plan", "mark")

#: Where a function's file lies, and whose it is; the first that fits counts.
OWNERS = (
    ("beatstore/schedules", "beatstore: schedules"),
    ("beatstore/rules", "beatstore: the rule"),
    ("beatstore/store", "beatstore: store"),
    ("beatstore/tick", "beatstore: store"),
    ("beatstore/database", "beatstore: store"),
    ("beatstore/", "beatstore: scheduler, sender"),
    ("celery/utils/saferepr", "celery: repr of the arguments, for monitors"),
    ("celery/utils/collections", "celery: looking up settings"),
    ("celery/", "celery: the rest"),
    ("kombu/abstract", "kombu: binding the queue, for each message"),
    ("kombu/entity", "kombu: binding the queue, for each message"),
    ("kombu/", "kombu: the rest"),
    ("redis/", "redis-py"),
    ("sqlalchemy/", "SQLAlchemy"),
    ("psycopg", "psycopg, and waiting for PostgreSQL"),
    ("json/", "json"),
)


def measure(places: Places) -> list[Table]:
    """Measure one burst by its steps, and one under the profiler."""
    count, stored = (2_000, 20_000) if places.quick else (10_000, 100_000)
    with places.database("postgresql") as url, places.broker("redis") as broker:
        fill(url, stored)
        app = local_app(broker, url, beatstore_default_grace=86400, beatstore_listen=False)
        with local_beat(app) as scheduler:
            burst(scheduler, url, broker, KIND, 200)
            steps, lap = _steps(scheduler, url, broker, count)
            owners = _owners(scheduler, url, broker, count, lap)
        app.close()
    return [steps, owners]


def _steps(scheduler: DBScheduler, url: str, broker: Broker, count: int) -> tuple[Table, Lap]:
    table = Table(
        f"A message's microseconds, by step ({count:,} due: {KIND})",
        ["step", "wall", "CPU of beat"],
    )
    with _timed(*STEPS) as spent:
        driver: Any = scheduler.queue._kept._driver
        pid = driver.info.backend_pid
        server = cpu_of(pid)
        lap = burst(scheduler, url, broker, KIND, count)
        server = cpu_of(pid) - server
    micro = 1e6 / count
    left = [lap.wall, lap.cpu]
    for step in STEPS:
        wall, cpu = spent[step]
        left = [left[0] - wall, left[1] - cpu]
        table.add(step, f"{wall * micro:.0f}", f"{cpu * micro:.0f}")
    table.add("send", f"{left[0] * micro:.0f}", f"{left[1] * micro:.0f}")
    table.add("all", f"{lap.wall * micro:.0f}", f"{lap.cpu * micro:.0f}")
    table.notes.append(f"PostgreSQL's process for it: {server * micro:.0f} us of CPU per message.")
    return table, lap


@contextmanager
def _timed(*names: str) -> Iterator[dict[str, list[float]]]:
    """Sum up the wall and CPU seconds of these methods of the queue."""
    spent = {name: [0.0, 0.0] for name in names}
    kept = {name: getattr(Queue, name) for name in names}

    def wrapped(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                spent[name][0] += time.perf_counter() - wall
                spent[name][1] += time.process_time() - cpu

        return call

    for name, method in kept.items():
        setattr(Queue, name, wrapped(name, method))
    try:
        yield spent
    finally:
        for name, method in kept.items():
            setattr(Queue, name, method)


def _owners(scheduler: DBScheduler, url: str, broker: Broker, count: int, lap: Lap) -> Table:
    reset(url)
    insert_due(url, due_rows(KIND, count), task=TASK)
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    while scheduler.tick() == 0.0:
        pass
    profile.disable()
    broker.purge()
    shares = _shares(profile)
    table = Table("The same CPU time, by whose code it is", ["whose", "share", "us per message"])
    for owner, share in sorted(shares.items(), key=lambda item: -item[1]):
        if share >= 0.005:
            table.add(owner, f"{share:.0%}", f"{share * lap.cpu * 1e6 / count:.0f}")
    table.notes.append("Time in built-in functions counts for whoever called them.")
    return table


def _shares(profile: cProfile.Profile) -> dict[str, float]:
    stats: Any = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    spent: dict[str, float] = {}
    for (file, _, _), (_, _, own, _, callers) in stats.items():
        if file == "~":
            for (caller, _, _), (_, _, part, _) in callers.items():
                _count(spent, caller, part)
        else:
            _count(spent, file, own)
    total = sum(spent.values())
    return {owner: seconds / total for owner, seconds in spent.items()}


def _count(spent: dict[str, float], file: str, seconds: float) -> None:
    path = Path(file).as_posix()
    owner = next((owner for part, owner in OWNERS if part in path), "Python itself")
    spent[owner] = spent.get(owner, 0.0) + seconds
