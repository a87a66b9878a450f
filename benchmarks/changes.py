"""How soon does a beat send what another process has just committed?

A one-shot that is due already is stored by this process, in turns through `Store.add` and
by a plain INSERT; what counts is from the return of the commit to the message's arrival.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import datetime, timezone
from statistics import median
from typing import Any

import redis
import sqlalchemy as sa

from beatstore import Once, Store
from benchmarks.app import TASK
from benchmarks.beat import RealBeat, headers_of
from benchmarks.places import Places, fill, server_of
from benchmarks.report import Table, ms, verdict
from tests.support.brokers import Broker

__all__ = ["measure"]

_INSERT = sa.text(
    "INSERT INTO beatstore_entry (name, task, kind, spec) VALUES (:name, :task, 'once', :spec)"
)


def measure(places: Places) -> list[Table]:
    """Measure with PostgreSQL's LISTEN and without it."""
    samples, stored = (8, 20_000) if places.quick else (30, 100_000)
    table = Table(
        f"From another process's commit to the message, {stored:,} entries stored",
        ["beatstore_listen", "written by", "median", "max", "samples", "target"],
    )
    with places.database("postgresql") as url:
        fill(url, stored)
        for listen, target in ((True, 0.05), (False, 1.0)):
            took = _run(places, url, listen, samples)
            for way, seconds in took.items():
                met = verdict(max(seconds), target)
                table.add(
                    "on" if listen else "off",
                    way,
                    ms(median(seconds)),
                    ms(max(seconds)),
                    len(seconds),
                    f"max < {ms(target)}: {met}",
                )
        table.notes.append(f"{server_of(url)}. A beat looks once a second by itself.")
    return [table]


def _run(places: Places, url: str, listen: bool, samples: int) -> dict[str, list[float]]:
    """Return the seconds of each sample, by how the entry was written."""
    took: dict[str, list[float]] = {"Store.add": [], "plain INSERT": []}
    directory = places.directory / f"changes-{listen}"
    store, engine = Store(url), sa.create_engine(url)
    with (
        places.broker("redis") as broker,
        redis.Redis.from_url(broker.url) as client,
        RealBeat(directory, broker, url, beatstore_listen=listen) as beat,
    ):
        beat.wait_for_ticks(3)
        for number in range(samples):
            for way, seconds in took.items():
                # At any moment of the beat's own rhythm.
                time.sleep(random.random())
                write, name = _writer(way, store, engine), f"{way}-{listen}-{number}"
                write(name, datetime.now(timezone.utc))
                committed = time.perf_counter()
                _wait_for(name, client, broker)
                seconds.append(time.perf_counter() - committed)
    store.close()
    engine.dispose()
    return took


def _wait_for(name: str, client: Any, broker: Broker) -> None:
    """Wait for the message of the entry of that name."""
    while True:
        popped = client.brpop(broker.queue, timeout=30)
        assert popped is not None, f"{name} was not sent within 30 s"
        if headers_of(popped[1])["beatstore_entry"] == name:
            return


def _writer(way: str, store: Store, engine: sa.Engine) -> Callable[[str, datetime], None]:
    def add(name: str, at: datetime) -> None:
        store.add(name, TASK, Once(at))

    def insert(name: str, at: datetime) -> None:
        with engine.begin() as connection:
            given = {"name": name, "task": TASK, "spec": at.isoformat()}
            connection.execute(_INSERT, given)

    return add if way == "Store.add" else insert
