"""A steady load: how late are the runs, on the database's clock and on arrival?

A real beat sends intervals of 10 s whose phases are spread evenly, while this process
takes the messages off the broker.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any

import redis
import sqlalchemy as sa

from beatstore.models import RunModel
from benchmarks.app import TASK
from benchmarks.beat import RealBeat, cpu_of, headers_of
from benchmarks.places import Places, fill, insert_due, server_of
from benchmarks.report import Table, ms, quantile, verdict
from tests.support.brokers import Broker

__all__ = ["measure"]

PERIOD = 10
TARGET = 0.25

_RUN: Any = RunModel.__table__


def measure(places: Places) -> list[Table]:
    """Measure 500 a second, and for comparison less and more."""
    rates, seconds, stored = [50, 200, 500, 1_000, 4_300], 12, 100_000
    if places.quick:
        rates, seconds, stored = [500], 10, 20_000
    table = Table(
        f"Lateness of a steady load, PostgreSQL and Redis, {stored:,} further entries stored",
        ["due per second", "seconds", "sent", "sent_at - due_at: p50", "p99", "max",
         "arrival - due_at: p50", "p99", "max", "CPU of beat", "target"],
    )  # fmt: skip
    for rate in rates:
        with places.database("postgresql") as url, places.broker("redis") as broker:
            fill(url, stored)
            sent, arrived, cpu = _run(places, url, broker, rate, seconds)
            if not table.notes:
                table.notes.append(f"{server_of(url)}.")
        p99 = quantile(sent, 0.99)
        table.add(
            rate,
            seconds,
            f"{len(sent):,} of {rate * seconds:,}",
            *_three(sent),
            *_three(arrived),
            f"{cpu:.0%}",
            f"p99 < 250 ms: {verdict(p99, TARGET)}" if rate == 500 else "",
        )
    return [table]


def _three(values: list[float]) -> list[str]:
    return [ms(quantile(values, 0.5)), ms(quantile(values, 0.99)), ms(max(values))]


def _run(
    places: Places, url: str, broker: Broker, rate: int, seconds: int
) -> tuple[list[float], list[float], float]:
    """Return how late the runs were sent and arrived, and the share of a CPU that beat took."""
    directory = places.directory / f"lateness-{rate}"
    with RealBeat(directory, broker, url) as beat:
        beat.wait_for_ticks(1)
        count = rate * PERIOD
        first = datetime.now(timezone.utc) + timedelta(seconds=3 + count / 10_000)
        insert_due(url, _intervals(first, count), task=TASK, kind="every")
        end = first + timedelta(seconds=seconds)
        began: tuple[float, float] | None = None
        arrived: list[float] = []
        with redis.Redis.from_url(broker.url) as client:
            while time.time() < end.timestamp() + 0.5:
                arrived += _arrivals(client, broker.queue, end)
                if began is None and time.time() >= first.timestamp():
                    began = time.time(), cpu_of(beat.process.pid)
        assert began is not None
        cpu = (cpu_of(beat.process.pid) - began[1]) / (time.time() - began[0])
    return _sent(url, end), arrived, cpu


def _intervals(first: datetime, count: int) -> list[dict[str, Any]]:
    """Return intervals that are due from `first` on, evenly spread over one period."""
    rows = []
    for n in range(count):
        due_at = first + timedelta(seconds=PERIOD * n / count)
        anchor = due_at - timedelta(seconds=PERIOD)
        spec = f"{PERIOD} from {anchor.isoformat()}"
        call = {"args": [n], "kwargs": {"user_id": n}}
        rows.append(
            {**call, "name": f"due-{n}", "spec": spec, "wake_at": due_at, "created_at": anchor}
        )
    return rows


def _arrivals(client: Any, queue: str, end: datetime) -> list[float]:
    """Wait a little for messages, take them, and return how late each is."""
    popped = client.brpop(queue, timeout=0.1)
    if popped is None:
        return []
    found = [popped[1], *(client.rpop(queue, 1000) or [])]
    now = datetime.now(timezone.utc)
    due = [datetime.fromisoformat(headers_of(one)["beatstore_due_at"]) for one in found]
    return [(now - due_at).total_seconds() for due_at in due if due_at < end]


def _sent(url: str, end: datetime) -> list[float]:
    """Return how late each run was sent, by the run rows."""
    engine = sa.create_engine(url)
    sent = sa.select(_RUN.c.due_at, _RUN.c.sent_at).where(_RUN.c.sent_at.is_not(None))
    with engine.connect() as connection:
        rows = connection.execute(sent.where(_RUN.c.due_at < end)).all()
    engine.dispose()
    return [(row.sent_at - row.due_at).total_seconds() for row in rows]
