"""How many tasks a second a worker runs that reports them, beside one that does not.

Two real workers, prefork with two processes, which take the messages of no-op tasks by turns. The
messages are there before a worker may take them, and the clock stops when the last of them has run
and, of runs, when the database has its end.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from statistics import median
from typing import Any

import redis
import sqlalchemy as sa
from celery import Celery

from beatstore.headers import ATTEMPT, DUE_AT, ENTRY_NAME, RUN_ID, TASK_ID
from beatstore.models import EntryModel, RunModel
from benchmarks.places import Places, insert_due, reset, server_of
from benchmarks.report import Table, verdict
from benchmarks.tracked import SILENT
from tests.support.brokers import Broker
from tests.support.project import Project
from tests.support.wait import wait_until

__all__ = ["measure"]

_ENTRY: Any = EntryModel.__table__
_RUN: Any = RunModel.__table__

#: The task, the worker that gets it, and how its rate compares to that of one without reports.
_KINDS = {
    "without reports": ("bench.nothing", "silent", None),
    "with reports": ("bench.nothing", "reporting", 0.85),
    "with reports, start-once guard": ("bench.nothing_guarded", "reporting", 0.70),
}

#: How many entries the runs are of.
_ENTRIES = 500


@dataclass
class _Stage:
    """What one measurement needs."""

    url: str
    engine: sa.Engine
    client: redis.Redis
    names: dict[str, str]
    template: dict[str, Any]


def measure(places: Places) -> list[Table]:
    """Measure on each database, with and without the start-once guard."""
    rounds, count = (1, 500) if places.quick else (5, 2000)
    tables = []
    for kind in ("postgresql",) if places.quick else ("postgresql", "mariadb", "sqlite"):
        table = Table(
            f"A worker's no-op tasks a second, prefork with two processes, {kind}",
            ["", "tasks/s", "in turns", "ratio", "target"],
        )
        with places.database(kind) as url, places.broker("redis") as broker:
            with _stage(places, kind, url, broker) as stage:
                rates = _rates(stage, rounds, count)
            base = rates["without reports"]
            for label, (_, _, least) in _KINDS.items():
                ratio = median(a / b for a, b in zip(rates[label], base, strict=True))
                met = f">= {least}: {verdict(ratio, least, above=True)}" if least else ""
                turns = ", ".join(f"{rate:.0f}" for rate in rates[label])
                table.add(label, f"{median(rates[label]):.0f}", turns, f"{ratio:.2f}", met)
            table.notes.append(server_of(url))
        tables.append(table)
    return tables


@contextmanager
def _stage(places: Places, kind: str, url: str, broker: Broker) -> Iterator[_Stage]:
    """Start both workers, and store the entries."""
    names = {name: f"{broker.queue}-{name}" for name in ("silent", "reporting")}
    projects = []
    for name, queue in names.items():
        directory = places.directory / f"working-{kind}-{name}"
        directory.mkdir()
        project = Project(directory, broker, url, None, "benchmarks.tracked")
        projects.append(project)
        quick = ["--without-gossip", "--without-mingle", "--hostname", f"{name}@%h"]
        env = {SILENT: "1"} if name == "silent" else {}
        project.celery("worker", "--pool=prefork", "--concurrency=2", "-Q", queue, *quick, env=env)
    engine = sa.create_engine(url)
    with redis.Redis.from_url(broker.url) as client:
        try:
            yield _Stage(url, engine, client, names, _template(broker))
        finally:
            for project in projects:
                for process in project.processes:
                    process.terminate()
                project.close()
            engine.dispose()


def _rates(stage: _Stage, rounds: int, count: int) -> dict[str, list[float]]:
    """Return the tasks a second of each kind, by turns; a first round does not count."""
    rates: dict[str, list[float]] = {label: [] for label in _KINDS}
    for number in range(rounds + 1):
        for label, (task, worker, least) in _KINDS.items():
            rate = _rate(stage, task, worker, count if number else 200, tracked=least is not None)
            if number:
                rates[label].append(rate)
    return rates


def _rate(stage: _Stage, task: str, worker: str, count: int, *, tracked: bool) -> float:
    reset(stage.url)
    runs = _runs(stage, count) if tracked else [None] * count
    messages = [_message(stage.template, task, run) for run in runs]
    queue = stage.names[worker]
    began = time.perf_counter()
    stage.client.lpush(queue, *messages)
    wait_until(lambda: not stage.client.llen(queue), 120)
    done = sa.select(sa.func.count()).where(_RUN.c.state == "succeeded")
    if tracked:
        with stage.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            wait_until(lambda: connection.scalar(done) == count, 30)
    return count / (time.perf_counter() - began)


def _runs(stage: _Stage, count: int) -> list[dict[str, Any]]:
    """Store entries with runs that were sent, and return the runs."""
    names = [{"name": f"entry-{number}"} for number in range(_ENTRIES)]
    same = {"task": "bench.nothing", "kind": "cron", "spec": "0 0 29 2 *", "wake_at": None}
    insert_due(stage.url, names, **same)
    now = datetime.now(timezone.utc)
    with stage.engine.begin() as connection:
        entries = connection.execute(sa.select(_ENTRY.c.id, _ENTRY.c.name)).all()
        rows = [
            {
                "entry_id": entries[number % _ENTRIES].id,
                "entry_name": entries[number % _ENTRIES].name,
                "due_at": now + timedelta(seconds=number),
                "task_id": str(uuid.uuid4()),
                "state": "sent",
                "sent_at": now,
            }
            for number in range(count)
        ]
        connection.execute(sa.insert(_RUN), rows)
        found = connection.execute(sa.select(_RUN).order_by(_RUN.c.id)).mappings().all()
    return [dict(row) for row in found]


def _template(broker: Broker) -> dict[str, Any]:
    """Return a message as Celery writes it to Redis."""
    with Celery("benchmarks.working", set_as_current=False) as app:
        app.conf.update(broker.settings)
        name = f"{broker.queue}-template"
        app.send_task("bench.nothing", queue=name)
        with redis.Redis.from_url(broker.url) as client:
            message: dict[str, Any] = json.loads(client.rpop(name))
    return message


def _message(template: dict[str, Any], task: str, run: dict[str, Any] | None) -> str:
    task_id = str(uuid.uuid4()) if run is None else run["task_id"]
    own: dict[str, Any] = {"id": task_id, "root_id": task_id, "task": task}
    if run is not None:
        own |= {
            RUN_ID: run["id"],
            TASK_ID: task_id,
            ENTRY_NAME: run["entry_name"],
            DUE_AT: run["due_at"].isoformat(),
            ATTEMPT: 1,
        }
    body = base64.b64encode(json.dumps([[], {}, {}]).encode()).decode()
    properties = template["properties"] | {"delivery_tag": task_id, "correlation_id": task_id}
    headers = template["headers"] | own
    return json.dumps(template | {"body": body, "headers": headers, "properties": properties})
