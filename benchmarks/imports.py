"""What code declares, synced: new, as it was, with a change each, and gone, by database.

Crontabs, cron expressions and intervals in equal parts, each with arguments and options.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from statistics import median

from celery.schedules import crontab

from beatstore import Declared, Store
from benchmarks.places import Places, fill, optimize, server_of
from benchmarks.report import Table, verdict
from tests.support.absent import Unavailable

__all__ = ["measure"]

COLD_TARGET, UNCHANGED_TARGET = 5.0, 1.0


def measure(places: Places) -> list[Table]:
    """Measure on all databases, beside 100,000 entries of others."""
    count, others = (2_000, 10_000) if places.quick else (10_000, 100_000)
    table = Table(
        f"A sync of {count:,} entries, beside {others:,} of others: wall, and CPU of the process",
        ["database", "new", "unchanged", "one field of each changed", "gone", "back", "target"],
    )
    for kind in ("postgresql", "sqlite", "mariadb"):
        try:
            with places.database(kind) as url:
                fill(url, others)
                table.add(kind, *_measure_one(url, count))
                table.notes.append(f"{server_of(url)}.")
        except Unavailable as reason:
            table.notes.append(f"{kind} left out: {reason}")
    return [table]


def _measure_one(url: str, count: int) -> list[str]:
    store = Store(url)
    store.sync(_declared(10), source="first")  # what is loaded and compiled once
    new = _timed(store, _declared(count))
    optimize(url)
    again = [_timed(store, _declared(count)) for _ in range(5)]
    changed = _timed(store, _declared(count, grace=5.0))
    gone = _timed(store, [])
    back = _timed(store, _declared(count, grace=5.0))
    store.close()
    same = (median(one[0] for one in again), median(one[1] for one in again))
    met = verdict(max(new[0] / COLD_TARGET, same[0] / UNCHANGED_TARGET) * 10_000 / count, 1)
    cells = [f"{wall:.2f} s ({cpu:.2f} s)" for wall, cpu in (new, same, changed, gone, back)]
    return [*cells, f"10,000 in < 5 s, < 1 s: {met}"]


def _timed(store: Store, declared: Sequence[Declared]) -> tuple[float, float]:
    """Return the seconds that a sync takes, and those of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    report = store.sync(declared, source="bench")
    took = time.perf_counter() - wall, time.process_time() - cpu
    assert not report.refused
    return took


def _declared(count: int, **given: float) -> Sequence[Declared]:
    """Make declarations anew, as a process that starts does."""
    chance = random.Random(count)
    schedules: list[Callable[[], object]] = [
        lambda: crontab(minute=chance.randrange(60), hour=chance.randrange(24)),
        lambda: crontab(minute=f"*/{chance.randrange(1, 30)}"),
        lambda: timedelta(seconds=chance.randrange(10, 9999)),
        lambda: f"{chance.randrange(60)} {chance.randrange(24)} * * {chance.randrange(7)}",
    ]
    return [
        Declared(
            f"entry-{count}-{number:05}",
            f"bench.tasks.work{number % 50}",
            schedules[number % 4](),
            args=[number],
            kwargs={"number": number},
            options={"queue": "bench"},
            **given,  # type: ignore[arg-type]
        )
        for number in range(count)
    ]
