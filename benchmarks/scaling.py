"""Several beats on one database: how much more they send, whose share it is, and what it costs.

Real beats wait until many one-shots are due at the same instant. In turns, there are one, two and
four of them, over the same rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from statistics import median
from typing import Any

import redis
import sqlalchemy as sa

from beatstore.models import EntryModel, RunModel
from benchmarks.app import TASK
from benchmarks.beat import RealBeat, cpu_of, local_app
from benchmarks.places import Places, fill, insert_due, reset, server_of
from benchmarks.report import Table
from benchmarks.throughput import bare
from tests.support.brokers import Broker

__all__ = ["Burst", "fairness", "measure"]

BEATS = (1, 2, 4)

_ENTRY: Any = EntryModel.__table__
_RUN: Any = RunModel.__table__
_BACKENDS = sa.text(
    "SELECT pid FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@dataclass(frozen=True)
class Burst:
    """What some beats did with a burst.

    Attributes:
        rate: messages per second, from due to the last.
        shares: the messages of each beat.
        beats_us: CPU of all beats, in microseconds a message.
        database_us: CPU of the database for them.
        bare_rate: messages per second of a bare loop beside, in the same turn.
    """

    rate: float
    shares: Sequence[int]
    beats_us: float
    database_us: float
    bare_rate: float


def fairness(shares: Sequence[int], beats: int) -> float:
    """Return the smallest share as a part of an equal one: 1 is fair, 0 is one left out."""
    if len(shares) < beats:
        return 0.0
    return min(shares) * beats / sum(shares)


def measure(places: Places) -> list[Table]:
    """Measure on PostgreSQL and Redis."""
    count, stored, turns = (2_000, 20_000, 2) if places.quick else (20_000, 100_000, 5)
    found: dict[int, list[Burst]] = {beats: [] for beats in BEATS}
    sizes: dict[str, float] = {}
    with places.database("postgresql") as url, places.broker("redis") as broker:
        fill(url, stored)
        sizes["bytes of an entry"] = _bytes_of(url, _ENTRY)
        for turn in range(turns):
            for beats in BEATS if turn % 2 == 0 else reversed(BEATS):
                directory = places.directory / f"scaling-{turn}-{beats}"
                directory.mkdir()
                found[beats].append(_burst(directory, url, broker, beats, count))
                sizes.setdefault("bytes of a run", _bytes_of(url, _RUN))
        table = _table(found, f"{count:,} due at once of {stored + count:,}")
        table.figures |= sizes
        table.notes.append(f"{server_of(url)}; the median of {turns} turns.")
    return [table]


def _table(found: dict[int, list[Burst]], what: str) -> Table:
    table = Table(
        f"Beats on one database, PostgreSQL and Redis, {os.cpu_count()} cores: {what}",
        ["beats", "messages per second", "to one beat", "to a bare loop",
         "smallest share, of an equal one", "CPU a message: beats", "database"],
    )  # fmt: skip
    for beats, bursts in found.items():
        pairs = zip(bursts, found[BEATS[0]], strict=True)
        to_one = median(some.rate / one.rate for some, one in pairs)
        to_bare = median(burst.rate / burst.bare_rate for burst in bursts)
        fair = median(fairness(burst.shares, beats) for burst in bursts)
        beats_us = median(burst.beats_us for burst in bursts)
        database_us = median(burst.database_us for burst in bursts)
        rate = median(burst.rate for burst in bursts)
        table.add(
            beats,
            f"{rate:,.0f}",
            f"{to_one:.2f}",
            f"{to_bare:.2f}",
            f"{fair:.2f}",
            f"{beats_us:.0f} µs",
            f"{database_us:.0f} µs",
        )
        table.ratios[f"{beats} beats to one"] = to_one
        table.ratios[f"{beats} beats to a bare loop"] = to_bare
        table.ratios[f"{beats} beats: smallest share to an equal one"] = fair
        table.figures[f"{beats} beats: messages per second"] = rate
        table.figures[f"{beats} beats: CPU of the beats, µs a message"] = beats_us
        table.figures[f"{beats} beats: CPU of the database, µs a message"] = database_us
    return table


def _burst(directory: Path, url: str, broker: Broker, beats: int, count: int) -> Burst:
    app = local_app(broker)
    bare_rate = bare(app, broker, min(count, 2_000)).rate
    app.close()
    reset(url)
    engine = sa.create_engine(url)
    with ExitStack() as stack:
        client = stack.enter_context(redis.Redis.from_url(broker.url))
        running = [
            stack.enter_context(
                RealBeat(
                    directory / str(number),
                    broker,
                    url,
                    beatstore_default_grace=86_400,
                )
            )
            for number in range(beats)
        ]
        for beat in running:
            beat.wait_for_ticks(2)
        at = datetime.now(timezone.utc) + timedelta(seconds=3 + count / 4_000)
        insert_due(url, _once(at, count), task=TASK, kind="once")
        time.sleep(max(0.0, at.timestamp() - 0.2 - time.time()))
        before = _cpu(running, engine)
        took = _until(client, broker.queue, count) - at.timestamp()
        after = _cpu(running, engine)
    shares = sa.select(sa.func.count()).where(_RUN.c.sent_at >= at).group_by(_RUN.c.claimed_by)
    with engine.connect() as connection:
        sent_by = list(connection.scalars(shares))
    engine.dispose()
    broker.purge()
    beats_us, database_us = (1e6 * (b - a) / count for a, b in zip(before, after, strict=True))
    return Burst(count / took, sent_by, beats_us, database_us, bare_rate)


def _bytes_of(url: str, table: Any) -> float:
    """Return the bytes of a row on the disk, with its part of the indexes."""
    engine = sa.create_engine(url)
    size = sa.func.pg_total_relation_size(table.name)
    rows = sa.select(sa.func.count()).select_from(table).scalar_subquery()
    with engine.connect() as connection:
        found = float(connection.scalar(sa.select(size / rows)) or 0)
    engine.dispose()
    return found


def _once(at: datetime, count: int) -> list[dict[str, Any]]:
    same = {"spec": at.isoformat(), "wake_at": at, "created_at": at - timedelta(hours=1)}
    return [
        {**same, "name": f"due-{n}", "args": [n], "kwargs": {"user_id": n}} for n in range(count)
    ]


def _until(client: Any, queue: str, count: int) -> float:
    """Wait until so many messages are there, and return when they were."""
    deadline = time.monotonic() + 300
    while client.llen(queue) < count:
        assert time.monotonic() < deadline, f"{client.llen(queue)} of {count} messages"
        time.sleep(0.003)
    return time.time()


def _cpu(beats: Sequence[RealBeat], engine: sa.Engine) -> tuple[float, float]:
    """Return the CPU seconds of the beats and of the database so far."""
    with engine.connect() as connection:
        pids = connection.scalars(_BACKENDS).all()
    return sum(cpu_of(beat.process.pid) for beat in beats), sum(map(cpu_of, pids))
