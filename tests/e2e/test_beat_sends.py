"""What a real beat sends is run by a real worker, and soon."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import celery
from celery import chain, chord, group

from beatstore import Once, Store
from tests.support import canvas_app
from tests.support.brokers import Broker
from tests.support.harness.inprocess import names
from tests.support.harness.ticks import wait_for_beats
from tests.support.marks import on_postgresql, on_sqlite
from tests.support.project import NewProject
from tests.support.wait import wait_until

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


# -- canvases ------------------------------------------------------------------------------


@on_sqlite
def test_canvases_run_as_celery_runs_them(
    redis_broker: Broker, migrated_url: str, new_project: NewProject, store: Store
) -> None:
    """Chains, groups, chords, maps and chunks run, and are one run that ends with their last task.

    The result is kept under the run's own id.
    """
    add, total = canvas_app.add, canvas_app.total
    canvases: dict[str, tuple[Any, Any]] = {
        "task": (add.s(1, 1), 2),
        "chain": (chain(add.s(2, 2), add.s(4), add.s(8)), 16),
        "chord": (chord([add.s(1, 1), add.s(2, 2)], total.s()), 6),
        "chain into chord": (chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s()), 7),
        "map": (total.map([[1, 2], [3, 4]]), [3, 7]),
        "starmap": (add.starmap([(1, 2), (3, 4)]), [3, 7]),
        "group": (group(add.s(10, 1), add.s(20, 2)), None),
        "chunks": (add.chunks([(n, 100) for n in range(4)], 2), None),
    }
    project = new_project(
        redis_broker, migrated_url, {"result_backend": redis_broker.url}, canvas_app.APP
    )
    for name, (canvas, _) in canvases.items():
        store.schedule(canvas, at=NOON, name=name)
    worker = project.worker()
    beat = project.beat()
    wait_until(
        lambda: sum(run.sent_at is not None for run in store.runs()) == len(canvases),
        40,
        lambda: beat.output()[-3000:],
    )
    ids = {run.entry_name: run.task_id for run in store.runs()}
    with project.app() as app:
        for name, (_, expected) in canvases.items():
            if expected is not None:
                result = app.AsyncResult(ids[name])
                wait_until(result.ready, 30, lambda name=name: f"{name}\n{worker.output()[-3000:]}")
                assert result.result == expected, name
    expected_sums = [[10, 1], [20, 2], *([n, 100] for n in range(4))]
    wait_until(
        lambda: all(args in [run.args for run in project.runs()] for args in expected_sums[:2]),
        30,
        "the members of the group",
    )
    with project.app() as app:
        wait_until(lambda: chunk_results(app) >= 4, 30, "the chunks")
    members = [run for run in project.runs() if run.args in expected_sums[:2]]
    assert {run.headers["beatstore_entry"] for run in members} == {"group"}
    assert {run.headers["beatstore_run_id"] for run in members} == {
        run.id for run in store.runs("group")
    }
    wait_until(
        lambda: {run.state for run in store.runs()} == {"succeeded"},
        30,
        lambda: str([(run.entry_name, run.state, run.error, run.parts) for run in store.runs()]),
    )
    assert all(run.parts is None for run in store.runs())
    assert beat.terminate() == 0
    assert worker.terminate() == 0


def chunk_results(app: celery.Celery) -> int:
    """Count the sums above 100, which only the chunks make."""
    backend: Any = app.backend
    keys = backend.client.keys("celery-task-meta-*")
    found = (backend.get_task_meta(key.decode().removeprefix("celery-task-meta-")) for key in keys)
    results = [meta["result"] for meta in found]
    return sum(n >= 100 for value in results if isinstance(value, list) for n in value)


# -- time ----------------------------------------------------------------------------------


@on_postgresql
def test_a_row_written_while_beat_sleeps_is_sent_soon(
    redis_broker: Broker, migrated_url: str, new_project: NewProject, store: Store
) -> None:
    """However long the interval, beat looks when a row that is due is committed."""
    beat = new_project(redis_broker, migrated_url).beat("--max-interval", "60")
    wait_for_beats(store)
    store.add("a", "tests.note", Once(NOON))
    run = wait_until(lambda: store.runs(state="sent"), 10, beat.output)[0]
    assert run.sent_at is not None
    assert run.sent_at - store.get("a").created_at < timedelta(seconds=5)
    assert names(redis_broker.drain()) == ["a"]
    assert beat.terminate() == 0
