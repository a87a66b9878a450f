"""How many entries can an application write in a second, one by one and many at once?

What is stored one by one is compared with `apply_async` to Redis, in turns in the same run: both
are a call that an application makes where it wants a task to run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any

import beatstore
from beatstore import Declared
from beatstore.store.shared import store_of
from benchmarks.beat import local_app
from benchmarks.places import Places, server_of
from benchmarks.report import Table, verdict
from tests.support.absent import Unavailable

__all__ = ["measure"]

FAR = datetime(2525, 11, 11, 9, 30, tzinfo=timezone.utc)
RATIO_TARGET = 0.6
MANY_TARGET = 5.0


def measure(places: Places) -> list[Table]:
    """Measure on each database."""
    single = Table(
        "Entries stored one by one, by one process",
        ["database", "call", "a second", "to apply_async", "target"],
    )
    many = Table(
        "Many entries in one call and one transaction",
        ["database", "call", "entries", "seconds", "us each", "target for 100,000"],
    )
    for kind in ("postgresql", "mariadb", "sqlite"):
        try:
            _measure_one(places, kind, single, many)
        except Unavailable as reason:
            single.notes.append(f"{kind} left out: {reason}")
    return [single, many]


def _measure_one(places: Places, kind: str, single: Table, many: Table) -> None:
    alone, together = (200, 5_000) if places.quick else (2_000, 100_000)
    numbers = count()
    with places.database(kind) as url, places.broker("redis") as broker:
        app = local_app(broker, url, beatstore_listen=False, result_expires=None)

        @app.task(name="bench.remind", base=beatstore.Task, shared=False)
        def remind(number: int) -> None:
            """Do nothing."""

        task: Any = remind
        store = store_of(app)
        calls: dict[str, Callable[[int], Any]] = {
            "apply_async": lambda n: task.apply_async((n,)),
            "schedule": lambda n: store.schedule(task.s(n), at=FAR),
            "Task.schedule": lambda n: task.schedule((n,), eta=FAR),
            "add": lambda n: store.add(f"every-{n}", task.s(n), 3600),
        }
        rates = _rates(calls, alone, numbers)
        for call, rate in rates.items():
            ratio = rate / rates["apply_async"]
            met = verdict(ratio, RATIO_TARGET, above=True)
            met = "" if call == "apply_async" else f"> {RATIO_TARGET}: {met}"
            single.add(kind, call, f"{rate:,.0f}", f"{ratio:.2f}", met)
        pairs = ((task.s(n), FAR + timedelta(seconds=n)) for n in range(together))
        _add(many, kind, "schedule_many", together, lambda: store.schedule_many(pairs))
        new = (Declared(f"many-{n}", task.s(n), 3600) for n in range(together))
        _add(many, kind, "add_many", together, lambda: store.add_many(new))
        single.notes.append(f"{server_of(url)}.")
        store.close()
        app.close()


def _rates(calls: dict[str, Callable[[int], Any]], each: int, numbers: Any) -> dict[str, float]:
    """Return how many calls of each kind can be made in a second, taking turns."""
    took = dict.fromkeys(calls, 0.0)
    rounds = 10
    for _ in range(rounds):
        for name, call in calls.items():
            call(next(numbers))
            began = time.perf_counter()
            for _ in range(each // rounds):
                call(next(numbers))
            took[name] += time.perf_counter() - began
    return {name: each / seconds for name, seconds in took.items()}


def _add(table: Table, kind: str, name: str, entries: int, write: Callable[[], Any]) -> None:
    began = time.perf_counter()
    report = write()
    took = time.perf_counter() - began
    assert len(report.names) == entries, report.refused[:3]
    met = verdict(took * 100_000 / entries, MANY_TARGET) if kind == "postgresql" else ""
    target = f"< {MANY_TARGET:g} s: {met}" if met else ""
    table.add(kind, name, f"{entries:,}", f"{took:.2f}", f"{took / entries * 1e6:.0f}", target)
