"""100,000 tasks for the year 2525: what they cost a tick, and how they are cancelled."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from statistics import median
from typing import Any

import pytest
from sqlalchemy import insert, text

from beatstore import Settings, Store
from beatstore.models import EntryModel
from beatstore.tick.queue import Queue
from tests.support.harness.ticks import tick

STORED = 100_000
FAR = datetime(2525, 1, 1, tzinfo=timezone.utc)

#: A tick over many may take so many times the one over none; measured is about 1.
MOST = 3.0


def fill(store: Store) -> None:
    """Store them as `Task.schedule` does, but all at once."""
    task_ids = [f"{number:08}-2525-4525-8525-252525252525" for number in range(STORED)]
    rows: list[dict[str, Any]] = []
    for number, task_id in enumerate(task_ids):
        due_at = FAR + timedelta(seconds=number)
        rows.append(
            {
                **{"name": task_id, "task": "far.remind", "args": [number], "kwargs": {}},
                **{"options": {"task_id": task_id}, "kind": "once", "spec": due_at.isoformat()},
                **{"timezone": "UTC", "misfire": "coalesce"},
                **{"wake_at": due_at, "next_due_at": due_at},
            }
        )
    with store.database.engine.begin() as connection:
        for first in range(0, STORED, 5_000):
            connection.execute(insert(EntryModel), rows[first : first + 5_000])
    with store.database.engine.connect() as connection:
        connection.execute(text("ANALYZE beatstore_entry"))
        connection.commit()


def idle_tick(queue: Queue) -> float:
    """Return the seconds of a tick in which nothing is due."""
    began = time.perf_counter()
    look = queue.look()
    queue.plan(look.now)
    queue.sweep(look.now)
    return time.perf_counter() - began


@pytest.mark.parametrize(
    "backend", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)
def test_they_cost_a_tick_nothing(database_server: Any, store: Store) -> None:
    """A tick over 100,000 far tasks is as quick as over none, and each is found by its id."""
    empty_url = database_server.create_migrated()
    empty = Store(empty_url)
    fill(store)
    queues = [Queue(each.database, Settings(), "a-beat") for each in (empty, store)]
    took: list[list[float]] = [[], []]
    for _ in range(60):  # in turns, since the machine has other things to do
        for queue, seconds in zip(queues, took, strict=True):
            seconds.append(idle_tick(queue))
    few, many = map(median, took)
    assert many < few * MOST, f"{many * 1000:.2f} ms over {STORED:,}, {few * 1000:.2f} ms over none"
    task_id = f"{STORED - 1:08}-2525-4525-8525-252525252525"
    assert store.get(task_id).args == [STORED - 1]
    assert store.cancel(task_id) is True
    assert store.reschedule(f"{5:08}-2525-4525-8525-252525252525", FAR - timedelta(days=365 * 500))
    assert [claim.task_id for claim in tick(queues[1])] == ["00000005-2525-4525-8525-252525252525"]
    for queue in queues:
        queue.close()
    empty.close()
    database_server.drop(empty_url)
