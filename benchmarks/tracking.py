"""What it costs a worker's process to report a task.

The very function by which a worker's process runs a task, called in this process on messages
of runs and on others, by turns.
"""

from __future__ import annotations

import time
import uuid
from datetime import datetime, timezone
from statistics import median
from typing import Any

import sqlalchemy as sa
from celery import Celery
from celery.app.trace import build_tracer

import beatstore
from beatstore import Store
from beatstore.models import RunModel
from benchmarks.places import Places, server_of
from benchmarks.report import Table, ms, quantile, verdict

__all__ = ["measure"]

_RUN: Any = RunModel.__table__


def measure(places: Places) -> list[Table]:
    """Measure a task that does nothing, and one that works for 10 ms."""
    count = 200 if places.quick else 1000
    table = Table(
        "A task in a worker's process, with and without a run to report",
        ["the task takes", "not a run", "a run", "more (median)", "99 %", "target"],
    )
    with places.database("postgresql") as url:
        for guard in (False, True):
            for work in (0.0, 0.01):
                plain, tracked = _run(url, count, work, guard=guard)
                more = median(tracked) - median(plain)
                label = ms(work) + (", with the start-once guard" if guard else "")
                late = quantile(tracked, 0.99)
                met = "" if guard else f"< 2 ms: {verdict(more, 0.002)}"
                table.add(label, ms(median(plain)), ms(median(tracked)), ms(more), ms(late), met)
        table.notes.append(server_of(url))
    return [table]


def _run(url: str, count: int, work: float, *, guard: bool) -> tuple[list[float], list[float]]:
    """Return the seconds of each task without a run and with one."""
    app = Celery("benchmarks.tracking", set_as_current=False)
    app.conf.update(beatstore_url=url, broker_url="memory://")
    beatstore.setup(app)

    def body() -> None:
        until = time.perf_counter() + work
        while time.perf_counter() < until:
            time.sleep(0)

    base = beatstore.Task if guard else None
    task = app.task(body, name="bench.body", shared=False, **({"base": base} if base else {}))
    trace = build_tracer(task.name, task, app=app)
    ids = _runs(url, count)
    plain: list[float] = []
    tracked: list[float] = []
    for run_id, task_id in ids:
        plain.append(_once(trace, {}))
        headers = {"beatstore_run_id": run_id, "beatstore_task_id": task_id}
        tracked.append(_once(trace, headers))
    _wait_until_written(url, [run_id for run_id, _ in ids])
    app.close()
    return plain, tracked


def _once(trace: Any, headers: dict[str, Any]) -> float:
    task_id = str(uuid.uuid4())
    request = {
        "id": task_id,
        "hostname": "bench",
        "is_eager": False,
        "delivery_info": {},
        **headers,
    }
    started = time.perf_counter()
    trace(task_id, (), {}, request)
    return time.perf_counter() - started


def _runs(url: str, count: int) -> list[tuple[int, str]]:
    """Store one entry with `count` runs that were sent; return their ids and task ids."""
    store = Store(url)
    name = f"tracked-{uuid.uuid4()}"
    entry = store.add(name, "bench.body", "0 0 29 2 *")
    now = datetime.now(timezone.utc).timestamp()
    rows = [
        {
            "entry_id": entry.id,
            "entry_name": name,
            "due_at": datetime.fromtimestamp(now + number, timezone.utc),
            "task_id": str(uuid.uuid4()),
            "state": "sent",
        }
        for number in range(count)
    ]
    with store.database.engine.begin() as connection:
        connection.execute(sa.insert(_RUN), rows)
        of_entry = sa.select(_RUN.c.id, _RUN.c.task_id).where(_RUN.c.entry_id == entry.id)
        found = [(row.id, row.task_id) for row in connection.execute(of_entry)]
    store.close()
    return found


def _wait_until_written(url: str, ids: list[int]) -> None:
    """Make sure that what was measured was the whole work."""
    engine = sa.create_engine(url)
    open_runs = sa.select(sa.func.count()).where(_RUN.c.id.in_(ids), _RUN.c.state != "succeeded")
    deadline = time.monotonic() + 30
    left = -1
    while left and time.monotonic() < deadline:
        with engine.connect() as connection:
            left = connection.scalar(open_runs) or 0
        time.sleep(0.05)
    engine.dispose()
    assert not left, f"{left} of {len(ids)} runs were not reported"
