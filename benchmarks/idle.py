"""A beat with nothing to do: its ticks, its start and its memory, by stored entries.

Ticks are measured in this process, those over few and over many entries in turns; start
and memory on real `celery beat` processes.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from statistics import median

from beatstore import DBScheduler
from benchmarks.beat import RealBeat, local_app, local_beat, peak_mb
from benchmarks.places import Places, fill, server_of
from benchmarks.report import Table, ms, quantile, verdict
from tests.support.absent import Unavailable

__all__ = ["measure"]

TICK_TARGET, RATIO_TARGET = 0.005, 1.5
START_TARGET, MEMORY_TARGET = 1.5, 100.0


def measure(places: Places) -> list[Table]:
    """Measure on PostgreSQL, and unless it is to be quick on the others."""
    ticks = Table(
        "An idle tick",
        ["database", "stored entries", "median", "p99", "times that of few", "target"],
    )
    starts = Table(
        "Start of a real beat, nothing due",
        ["database", "stored entries", "spawn to end of first tick", "CPU until then",
         "peak memory", "CPU per idle tick", "target"],
    )  # fmt: skip
    sizes = {"postgresql": (1_000, 100_000 if places.quick else 1_000_000)}
    if not places.quick:
        sizes.update(sqlite=(1_000, 100_000), mariadb=(1_000, 100_000))
    for kind, (few, many) in sizes.items():
        try:
            _measure_one(places, kind, (few, many), ticks, starts)
        except Unavailable as reason:
            ticks.notes.append(f"{kind} left out: {reason}")
    return [ticks, starts]


def _measure_one(
    places: Places, kind: str, sizes: tuple[int, int], ticks: Table, starts: Table
) -> None:
    few, many = sizes
    with places.database(kind) as small, places.database(kind) as large:
        fill(small, few)
        fill(large, many)
        took = _ticks(places, [small, large])
        base = median(took[0])
        for count, seconds in zip((few, many), took, strict=True):
            middle = median(seconds)
            ratio = middle / base
            met = verdict(max(middle / TICK_TARGET, ratio / RATIO_TARGET), 1)
            ticks.add(
                kind,
                f"{count:,}",
                ms(middle),
                ms(quantile(seconds, 0.99)),
                f"{ratio:.2f}",
                f"< 5 ms, ratio < 1.5: {met}" if count == many else "",
            )
        ticks.notes.append(f"{server_of(large)}; {len(took[0])} ticks each, in turns.")
        for count, url in ((few, small), (many, large)):
            _start(places, kind, count, url, starts)


def _ticks(places: Places, urls: list[str]) -> list[list[float]]:
    """Return the seconds of idle ticks on each database."""
    turns = 200 if places.quick else 1_000
    took: list[list[float]] = [[] for _ in urls]
    with places.broker("redis") as broker, ExitStack() as stack:
        beats: list[DBScheduler] = []
        for url in urls:
            app = local_app(broker, url, beatstore_listen=False)
            beats.append(stack.enter_context(local_beat(app)))
        for turn in range(-20, turns):
            for beat, seconds in zip(beats, took, strict=True):
                started = time.perf_counter()
                beat.tick()
                if turn >= 0:
                    seconds.append(time.perf_counter() - started)
    return took


def _start(places: Places, kind: str, count: int, url: str, table: Table) -> None:
    """Start beats one after another, and leave the last one idle for a while."""
    wall, cpu, memory, idle = [], [], [], 0.0
    rounds = 2 if places.quick else 5
    for number in range(rounds):
        directory = places.directory / f"start-{kind}-{count}-{number}"
        enough = 1 if number < rounds - 1 else 10
        with (
            places.broker("redis") as broker,
            RealBeat(directory, broker, url, beatstore_listen=False) as beat,
        ):
            ticks = beat.wait_for_ticks(enough)
            wall.append(ticks[0][0] - beat.started_at)
            cpu.append(ticks[0][2])
            memory.append(peak_mb(beat.process.pid))
            idle = (ticks[-1][2] - ticks[0][2]) / max(1, len(ticks) - 1)
    met = verdict(max(median(wall) / START_TARGET, max(memory) / MEMORY_TARGET), 1)
    table.add(
        kind,
        f"{count:,}",
        f"{median(wall):.2f} s",
        f"{median(cpu):.2f} s",
        f"{max(memory):.0f} MB",
        ms(idle),
        f"< 1.5 s, < 100 MB: {met}",
    )
