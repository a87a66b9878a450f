"""How soon after its upstream's end is a downstream's message on the broker?

A real beat and a real worker. The upstream is triggered, and writes down when it ends; the
downstream goes to a queue that only this process reads.
"""

from __future__ import annotations

import random
import time
from statistics import median
from typing import Any

import redis

from beatstore import Store
from benchmarks.app import TASK
from benchmarks.beat import RealBeat, headers_of
from benchmarks.places import Places, fill, server_of
from benchmarks.report import Table, ms, verdict
from benchmarks.tracked import ENDS
from tests.support.project import Project

__all__ = ["measure"]

_QUEUE = "beatstore-bench-downstream"


def measure(places: Places) -> list[Table]:
    """Measure with PostgreSQL's LISTEN and without it."""
    samples, stored = (8, 20_000) if places.quick else (50, 100_000)
    table = Table(
        f"From an upstream's end to its downstream's message, {stored:,} entries stored",
        ["beatstore_listen", "median", "max", "samples", "target"],
    )
    with places.database("postgresql") as url:
        fill(url, stored)
        for listen, target in ((True, 0.05), (False, 1.1)):
            took = _run(places, url, listen, samples)
            met = f"median < {ms(target)}: {verdict(median(took), target)}"
            switch = "on" if listen else "off"
            table.add(switch, ms(median(took)), ms(max(took)), len(took), met)
        table.notes.append(f"{server_of(url)}; one worker process, Redis.")
    return [table]


def _run(places: Places, url: str, listen: bool, samples: int) -> list[float]:
    """Return the seconds of each sample."""
    directory = places.directory / f"hops-{listen}"
    up, down = f"up-{listen}", f"down-{listen}"
    store = Store(url)
    store.add(up, "bench.end", "0 0 29 2 *")
    store.add(down, TASK, after=[up], options={"queue": _QUEUE})
    took: list[float] = []
    with (
        places.broker("redis") as broker,
        redis.Redis.from_url(broker.url) as client,
        RealBeat(directory, broker, url, beatstore_listen=listen) as beat,
    ):
        project = Project(directory, broker, url, None, "benchmarks.tracked")
        worker = project.celery("worker", "--pool=prefork", "--concurrency=1", "-Q", broker.queue)
        beat.wait_for_ticks(3)
        for _ in range(samples):
            # At any moment of the beat's own rhythm.
            time.sleep(random.random())
            store.trigger(up)
            took.append(_hop(client, down))
        worker.terminate()
        project.close()
    store.close()
    return took


def _hop(client: Any, name: str) -> float:
    """Return how long after the upstream's end the downstream's message came."""
    popped = client.brpop(_QUEUE, timeout=60)
    came = time.time()
    assert popped is not None, f"{name} was not sent within 60 s"
    assert headers_of(popped[1])["beatstore_entry"] == name
    return came - float(client.lpop(ENDS))
