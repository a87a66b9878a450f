"""A burst: from the instant that many entries are due to the last message sent.

A lap of ours and a lap of the bare loop take turns, on the same broker and in the same
process, so that both meet the same noise; what counts is the ratio of each pair.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

from celery import Celery
from kombu import Producer

from beatstore import DBScheduler
from benchmarks.app import TASK
from benchmarks.beat import local_app, local_beat
from benchmarks.places import Places, fill, insert_due, reset, server_of
from benchmarks.report import Table, verdict
from tests.support.brokers import Broker
from tests.support.wait import wait_until

__all__ = ["KINDS", "Lap", "bare", "burst", "due_rows", "measure"]

_ZONES = (
    *("Africa/Cairo", "Africa/Lagos", "America/Bogota", "America/Chicago", "America/New_York"),
    *("America/Santiago", "America/Sao_Paulo", "Asia/Dhaka", "Asia/Kolkata", "Asia/Tokyo"),
    *("Australia/Adelaide", "Australia/Sydney", "Europe/Berlin", "Europe/Helsinki"),
    *("Europe/Lisbon", "Europe/London", "Pacific/Auckland", "Pacific/Chatham", "UTC"),
    "America/St_Johns",
)


@dataclass(frozen=True)
class Lap:
    """What some messages took: seconds on the wall, and of this process's CPU."""

    messages: int
    wall: float
    cpu: float

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.wall


def measure(places: Places) -> list[Table]:
    """Measure each kind of entry, and each broker."""
    count, stored, laps = (2_000, 20_000, 1) if places.quick else (10_000, 100_000, 3)
    table = Table(
        f"Throughput: {count:,} due of {stored + count:,}, PostgreSQL",
        ["entries", "broker", "beatstore, msgs/s", "bare apply_async, msgs/s", "ratio",
         "CPU us per message, ours / bare", "target"],
    )  # fmt: skip
    with places.database("postgresql") as url:
        fill(url, stored)
        for kind in KINDS:
            with places.broker("redis") as broker:
                _row(table, kind, "Redis", _compare(url, broker, kind, count, laps), target=1)
        with places.broker("redis") as broker, _without_pipelines():
            results = _compare(url, broker, "one cron", count, laps)
            _row(table, "one cron", "Redis, no pipeline (as kombu 5.6)", results)
        with places.broker("rabbitmq") as broker:
            results = _compare(url, broker, "one cron", count, laps)
            _row(table, "one cron", "RabbitMQ; ours with confirms, bare without", results)
        table.notes.append(
            f"{server_of(url)}. The median of {laps} pairs of laps, taken in turns; the ratio is "
            "the median of the pairs' ratios. Ours includes planning, run rows and their marks."
        )
        larger = _larger(
            url, (1_000, 10_000) if places.quick else (10_000, 100_000, 1_000_000), places
        )
    return [table, larger]


def _larger(url: str, counts: Sequence[int], places: Places) -> Table:
    """Measure whether a message costs the same in larger bursts, without the server's figures."""
    table = Table("500 crons in 20 zones, Redis, PostgreSQL", ["due", "messages a second"])
    with places.broker("redis") as broker:
        app = local_app(broker, url, beatstore_default_grace=86400, beatstore_listen=False)
        with local_beat(app) as scheduler:
            for count in counts:
                lap = burst(scheduler, url, broker, "500 crons, 20 zones", count)
                table.add(f"{count:,}", f"{lap.rate:,.0f}")
        app.close()
    return table


def _row(
    table: Table, kind: str, broker: str, pairs: list[tuple[Lap, Lap]], target: float | None = None
) -> None:
    ratio = median(ours.rate / plain.rate for ours, plain in pairs)
    cpu = [f"{1e6 * median(lap.cpu / lap.messages for lap in laps):.0f}" for laps in zip(*pairs)]  # noqa: B905
    table.ratios[f"{kind}, {broker}"] = ratio
    table.add(
        kind,
        broker,
        f"{median(ours.rate for ours, _ in pairs):,.0f}",
        f"{median(plain.rate for _, plain in pairs):,.0f}",
        f"{ratio:.2f}",
        " / ".join(cpu),
        "" if target is None else f"> {target}: {verdict(ratio, target, above=True)}",
    )


def _compare(url: str, broker: Broker, kind: str, count: int, laps: int) -> list[tuple[Lap, Lap]]:
    app = local_app(broker, url, beatstore_default_grace=86400, beatstore_listen=False)
    pairs = []
    with local_beat(app) as scheduler:
        burst(scheduler, url, broker, kind, 200)
        bare(app, broker, 200)
        for turn in range(laps):
            if turn % 2:
                plain = bare(app, broker, count)
                ours = burst(scheduler, url, broker, kind, count)
            else:
                ours = burst(scheduler, url, broker, kind, count)
                plain = bare(app, broker, count)
            pairs.append((ours, plain))
    app.close()
    return pairs


def burst(scheduler: DBScheduler, url: str, broker: Broker, kind: str, count: int) -> Lap:
    """Make `count` entries due, and tick until all their messages are sent."""
    reset(url)
    insert_due(url, due_rows(kind, count), task=TASK)

    def work() -> None:
        while scheduler.tick() == 0.0:
            pass

    lap = _timed(count, work)
    _check(broker, count)
    return lap


def bare(app: Celery, broker: Broker, count: int) -> Lap:
    """Send so many messages in a loop of `apply_async`, and remove them."""
    task = app.tasks[TASK]

    def work() -> None:
        for n in range(count):
            task.apply_async(args=(n,), kwargs={"user_id": n})

    lap = _timed(count, work)
    _check(broker, count)
    return lap


def _timed(count: int, work: Callable[[], None]) -> Lap:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Lap(count, time.perf_counter() - wall, time.process_time() - cpu)


def _check(broker: Broker, count: int) -> None:
    """Wait until all are there, since RabbitMQ confirms nothing to the bare loop; remove them."""

    def tell() -> str:
        return f"{broker.count()} messages of {count} arrived at {broker.url}"

    wait_until(lambda: broker.count() == count, 10, tell)
    broker.purge()


@contextmanager
def _without_pipelines() -> Iterator[None]:
    """Make kombu's producers what they were before they could write in batches."""
    producer: Any = Producer
    kept = vars(producer).get("supports_batch_publish")
    producer.supports_batch_publish = False
    try:
        yield
    finally:
        producer.supports_batch_publish = kept


# -- entries that are due now ----------------------------------------------------------------


def due_rows(kind: str, count: int) -> list[dict[str, Any]]:
    """Return entries that became due within the last minute, once each."""
    due_at = datetime.now(timezone.utc).replace(second=0, microsecond=0)
    before = due_at - timedelta(seconds=1)
    shapes = KINDS[kind](due_at)
    return [
        {
            "name": f"due-{n}",
            "args": [n],
            "kwargs": {"user_id": n},
            "wake_at": due_at,
            "cursor_at": None if kind == "one-shots" else before,
            "created_at": before,
            **shapes[n % len(shapes)],
        }
        for n in range(count)
    ]


def _once(due_at: datetime) -> list[dict[str, Any]]:
    return [{"kind": "once", "spec": due_at.isoformat(), "timezone": None}]


def _one_cron(due_at: datetime) -> list[dict[str, Any]]:
    spec = f"{due_at.minute} {due_at.hour} * * *"
    return [{"kind": "cron", "spec": spec, "timezone": "UTC"}]


def _many_crons(due_at: datetime) -> list[dict[str, Any]]:
    """Return 25 expressions in each of 20 zones, all due at the same instant."""
    found = []
    for name in _ZONES:
        wall = due_at.astimezone(ZoneInfo(name))
        for n in range(25):
            hours = f"{wall.hour},{(wall.hour + 2 + n % 5) % 24}"
            months = f"{wall.month},{(wall.month + n // 5) % 12 + 1}"
            spec = f"{wall.minute} {hours} * {months} *"
            found.append({"kind": "cron", "spec": spec, "timezone": name})
    return found


#: The kinds of entries that a burst is made of, by name.
KINDS: dict[str, Callable[[datetime], list[dict[str, Any]]]] = {
    "one-shots": _once,
    "one cron": _one_cron,
    "500 crons, 20 zones": _many_crons,
}
