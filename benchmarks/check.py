"""Has sending become slower? A short run that is compared with a recorded one.

Only ratios are compared, each of two measurements that take turns in this process: what a message
costs this process in a bare `apply_async` loop and in a burst of a beat, and an idle tick over few
entries to one over many. So other machines, and other work on them, move both sides. It is the CPU
that counts in a burst: the time would depend on how fast the machine's disk is beside its CPU, and
tests hold what the database has to do. What falls is measured again, longer and up to three times,
before it counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.beat import local_app, local_beat
from benchmarks.places import Places, fill
from benchmarks.report import Table, machine
from benchmarks.throughput import bare, burst
from tests.support.absent import Unavailable

__all__ = ["RECORDED", "check", "fallen", "record"]

#: What later runs are compared with.
RECORDED = Path(__file__).with_name("recorded.json")

#: A ratio may fall by this part of the recorded one.
MAY_FALL = 0.25

_DUE, _STORED = 500, 10_000
_KIND = "500 crons, 20 zones"

#: Measures a pair, and returns its ratio: more is better.
Pair = Callable[[], float]


def check(places: Places) -> tuple[Table, list[str]]:
    """Measure each ratio, and compare it with the recorded one.

    Returns:
        The table, and the names of the ratios that have fallen.
    """
    recorded: Mapping[str, float] = json.loads(RECORDED.read_text())["ratios"]
    table = Table("Ratios beside the recorded ones", ["ratio", "recorded", "now", "of it"])
    down = []
    for name, pairs in MEASURED.items():
        if name not in recorded:
            table.notes.append(f"{name}: not recorded; `python -m benchmarks --record` does it.")
            continue
        try:
            with pairs(places) as pair:
                ratio = _median(pair, 5.0)
                for _ in range(3):
                    if fallen(ratio, recorded[name]):
                        ratio = max(ratio, _median(pair, 20.0))
        except Unavailable as reason:
            table.notes.append(f"{name}: left out, {reason}")
            continue
        if fallen(ratio, recorded[name]):
            down.append(name)
        part = f"{ratio / recorded[name]:.2f}{' **fallen**' if name in down else ''}"
        table.add(name, f"{recorded[name]:.2f}", f"{ratio:.2f}", part)
        table.ratios[name] = ratio
    return table, down


def record(places: Places) -> Table:
    """Measure each ratio for longer, and write what later runs are compared with.

    Raises:
        Unavailable: a server is missing, so that the record would lack its ratio.
    """
    table = Table("Recorded ratios", ["ratio", "value"])
    for name, pairs in MEASURED.items():
        with pairs(places) as pair:
            table.ratios[name] = round(_median(pair, 20.0), 3)
        table.add(name, f"{table.ratios[name]:.2f}")
    found = {"machine": machine(), "ratios": table.ratios}
    RECORDED.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return table


def fallen(ratio: float, recorded: float) -> bool:
    """Say whether a ratio has fallen by more than it may."""
    return ratio < (1 - MAY_FALL) * recorded


def _median(pair: Pair, seconds: float) -> float:
    """Return the median of many pairs: of at least three, and for about so many seconds."""
    pair()
    deadline, ratios = time.monotonic() + seconds, [pair() for _ in range(3)]
    while time.monotonic() < deadline:
        ratios.append(pair())
    return median(ratios)


# -- what is measured ------------------------------------------------------------------------


@contextmanager
def _bursts(database: str, broker_kind: str, places: Places) -> Iterator[Pair]:
    """Yield what measures a burst and a bare loop, each first by turns."""
    with places.database(database) as url, places.broker(broker_kind) as broker:
        fill(url, _STORED)
        app = local_app(broker, url, beatstore_default_grace=86_400, beatstore_listen=False)
        with local_beat(app) as scheduler:
            first: list[Any] = [
                partial(burst, scheduler, url, broker, _KIND, _DUE),
                partial(bare, app, broker, _DUE),
            ]

            def pair() -> float:
                laps = {work.func: work() for work in first}
                first.reverse()
                return laps[bare].cpu / laps[burst].cpu

            yield pair
        app.close()


@contextmanager
def _ticks(places: Places) -> Iterator[Pair]:
    """Yield what measures idle ticks over few entries and over many."""
    with (
        places.database("postgresql") as small,
        places.database("postgresql") as large,
        places.broker("redis") as broker,
    ):
        fill(small, 100)
        fill(large, 5 * _STORED)
        apps = [local_app(broker, url, beatstore_listen=False) for url in (small, large)]
        with local_beat(apps[0]) as few, local_beat(apps[1]) as many:

            def pair() -> float:
                took: dict[Any, list[float]] = {few: [], many: []}
                for turn in range(100):
                    for beat in (few, many) if turn % 2 else (many, few):
                        began = time.perf_counter()
                        beat.tick()
                        took[beat].append(time.perf_counter() - began)
                return median(took[few]) / median(took[many])

            yield pair
        for app in apps:
            app.close()


_SERVERS = (
    ("postgresql", "redis", "PostgreSQL and Redis"),
    ("postgresql", "rabbitmq", "PostgreSQL and RabbitMQ"),
    ("mariadb", "redis", "MariaDB and Redis"),
    ("sqlite", "redis", "SQLite and Redis"),
)

#: What measures each ratio, given the servers.
MEASURED: dict[str, Callable[[Places], Any]] = {
    **{
        f"CPU of a message, a bare loop to a burst, {label}": partial(_bursts, database, broker)
        for database, broker, label in _SERVERS
    },
    "idle tick over 100 entries to one over 50,000": _ticks,
}
