"""Outcomes from real workers: entries that beat sends, redeliveries, deaths, outages."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from celery import chain, chord, group
from sqlalchemy import make_url

from beatstore import Every
from tests.support.brokers import Broker
from tests.support.harness.stage import Stage
from tests.support.marks import on_postgresql
from tests.support.project import NewProject
from tests.support.proxy import Proxy
from tests.support.wait import wait_until

OTHERS = ("threads", "gevent", "eventlet")

on_redis = pytest.mark.parametrize("broker", ["redis"], indirect=True)
on_rabbitmq = pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)


@pytest.fixture
def apart(new_stage: Callable[..., Stage], migrated_url: str, proxy: Proxy) -> Stage:
    """Hand out a stage whose workers reach the database through the proxy."""
    url = make_url(migrated_url).set(host="127.0.0.1", port=proxy.port)
    return new_stage(url.render_as_string(hide_password=False))


# -- with a real beat ------------------------------------------------------------------------


@pytest.mark.smoke
@on_redis
def test_an_entry_and_its_outcome(stage: Stage) -> None:
    """What beat sends and a worker runs has its outcome in its row, on every database."""
    store = stage.store
    store.add("well", "tests.note", Every(timedelta(hours=1)))
    store.add("badly", "tests.break", Every(timedelta(hours=1)))
    store.trigger("well")
    store.trigger("badly")
    stage.start_beat()
    stage.worker("threads")

    def ended() -> dict[str, Any] | None:
        runs = {run.entry_name: run for run in store.runs()}
        return runs if {run.state for run in runs.values()} == {"succeeded", "failed"} else None

    runs = wait_until(ended, 30, lambda: str(store.runs()))
    assert runs is not None
    well, badly = runs["well"], runs["badly"]
    assert (well.state, well.error) == ("succeeded", None)
    assert (badly.state, badly.error) == ("failed", "TrackedError: it broke")
    assert well.started_at is not None
    assert well.finished_at is not None
    assert well.worker == badly.worker


@on_postgresql
@on_redis
@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_a_canvas_is_one_run(stage: Stage, pool: str) -> None:
    """A chain and a group are one run each, and all of their tasks run."""
    app = stage.app
    once = app.signature("tests.once", immutable=True)
    note = app.signature("tests.note", immutable=True)
    broken = app.signature("tests.break", immutable=True)
    canvases = {
        "chain": (chain(once, note, once, app=app), "succeeded", 3),
        "group": (group([once, note, once], app=app), "succeeded", 3),
        "broken": (chain(note, broken, note, app=app), "failed", 2),
    }
    at = datetime.now(timezone.utc) - timedelta(seconds=1)
    for name, (canvas, _, _) in canvases.items():
        stage.store.schedule(canvas, at=at, name=name)
    stage.worker(pool, "--concurrency", "2")
    stage.start_beat()
    for name, (_, state, count) in canvases.items():
        wait_until(lambda name=name: stage.store.runs(name), 30)
        (run,) = stage.store.runs(name)
        stage.wait_for(run.id, state)
        assert len(stage.ran(run.id)) == count


@on_postgresql
@on_redis
def test_a_run_goes_on_in_another_task(stage: Stage) -> None:
    """A run whose task is replaced by another ends as that one ends."""
    stage.worker("prefork")
    well = stage.send("tests.replace", "tests.once")
    badly = stage.send("tests.replace", "tests.break")
    stage.wait_for(well, "succeeded")
    assert stage.wait_for(badly, "failed").error == "TrackedError: it broke"
    assert [ran.task for ran in stage.ran(well)] == ["tests.replace", "tests.once"]


@on_postgresql
@on_redis
@pytest.mark.parametrize(
    ("pool", "how"), [("prefork", "chain"), ("prefork", "group"), ("threads", "chord")]
)
def test_a_run_goes_on_in_a_canvas(
    new_stage: Callable[..., Stage], broker: Broker, pool: str, how: str
) -> None:
    """A run whose task is replaced by a canvas ends when all of that has, or one of it fails."""
    stage = new_stage(result_backend=broker.url)
    stage.worker(pool, "--concurrency", "2")
    well = stage.send("tests.go_on", how, "tests.once")
    badly = stage.send("tests.go_on", how, "tests.break")
    stage.wait_for(well, "succeeded")
    assert stage.wait_for(badly, "failed").error == "TrackedError: it broke"
    ran = sorted(ran.task for ran in stage.ran(well) if ran.task != "tests.go_on")
    assert ran == ["tests.note", *(["tests.note"] if how == "chord" else []), "tests.once"]


@on_postgresql
@on_redis
def test_a_backend_that_counts_no_chords(new_stage: Callable[..., Stage], tmp_path: Path) -> None:
    """Where celery asks whether a chord's body may be sent, the run ends as the body does."""
    stage = new_stage(result_backend=f"file://{tmp_path}")
    note, broken = (
        stage.app.signature(name, immutable=True) for name in ("tests.note", "tests.break")
    )
    stage.store.schedule(chord([note, note], broken, app=stage.app), countdown=0, name="chord")
    stage.worker("prefork", "--concurrency", "2")
    replaced = stage.send("tests.go_on", "chord", "tests.once")
    stage.start_beat()
    wait_until(lambda: stage.store.runs("chord"), 30)
    (run,) = stage.store.runs("chord")
    assert stage.wait_for(run.id, "failed").error == "TrackedError: it broke"
    stage.wait_for(replaced, "succeeded")
    assert [ran.task for ran in stage.ran(run.id)] == ["tests.note", "tests.note", "tests.break"]


@on_postgresql
@on_rabbitmq
def test_a_run_goes_on_without_a_backend(stage: Stage) -> None:
    """A chain that replaces a task needs no result backend, and ends with its last task."""
    stage.worker("prefork")
    well = stage.send("tests.go_on", "chain", "tests.once")
    stage.wait_for(well, "succeeded")
    assert [ran.task for ran in stage.ran(well)] == ["tests.go_on", "tests.note", "tests.once"]


@on_redis
def test_a_group_with_other_work_between(stage: Stage) -> None:
    """A group that waits for its last member is not lost, on any database, however long."""
    stage.start_beat()
    group, plain = stage.add_run(), stage.add_run()
    path = stage.file("go")
    stage.send_part(group, "1/2", "tests.note")
    stage.wait_for(group, "sent")
    other = stage.worker("prefork", "--queues", "other")
    stage.send_again(plain, "tests.hold", str(stage.file("never")), queue="other")
    stage.wait_for(plain, "started")
    # One process: what is sent second stands between the members.
    worker = stage.worker("prefork", "--concurrency", "1", "--prefetch-multiplier", "1")
    stage.wait_until_ran(group, 1)
    stage.app.send_task("tests.hold", (str(path),))
    stage.send_part(group, "2/2", "tests.note")
    other.kill9()
    stage.wait_for(plain, "lost")  # so long is enough to be given up
    assert stage.run(group).state == "sent"
    path.touch()
    stage.wait_for(group, "succeeded")
    assert worker.terminate() == 0


@on_postgresql
@on_redis
def test_a_worker_killed_in_a_later_part(stage: Stage) -> None:
    """A canvas is lost when the worker that has any task of it is killed, be it the second."""
    stage.start_beat()
    worker = stage.worker("prefork", "--concurrency", "1")
    run_id = stage.add_run()
    stage.send_part(run_id, "step", "tests.note")
    stage.wait_until_ran(run_id, 1)
    stage.send_part(run_id, "step", "tests.hold", str(stage.file("never")))
    stage.wait_until_ran(run_id, 2)
    stage.wait_for(run_id, "started")
    worker.kill9()
    stage.wait_for(run_id, "lost")


@on_redis
def test_a_run_of_another_database(stage: Stage) -> None:
    """A worker does what another database's beat has sent, and ends no run here by it."""
    worker = stage.worker("threads")
    run_id = stage.add_run()
    headers = {"beatstore_run_id": run_id, "beatstore_task_id": "of-another-database"}
    stage.app.send_task("tests.break", task_id="of-another-database", headers=headers)
    stage.app.send_task("tests.once", task_id="of-another-database", headers=headers)
    said = f"run {run_id} with the task id of-another-database is not in this database"
    worker.wait_for_output(said)
    stage.wait_until_ran(run_id, 2)
    assert stage.run(run_id).state == "sent"
    stage.send_again(run_id, "tests.note")
    stage.wait_for(run_id, "succeeded")
    assert worker.output().count(said) == 1


@on_postgresql
@on_redis
def test_the_timeout_waits_for_celery_s_retry(stage: Stage) -> None:
    """A run whose task waits for its countdown is not given up by its timeout meanwhile."""
    stage.start_beat()
    stage.worker("prefork")
    run_id = stage.add_run(run_timeout_s=0.5)
    stage.send_again(run_id, "tests.retry", None, 3)
    stage.wait_for(run_id, "succeeded")
    assert len(stage.ran(run_id)) == 2


@on_postgresql
@on_redis
def test_a_killed_worker_s_run_is_lost(stage: Stage) -> None:
    """The run of a worker that is killed with -9 is lost, as soon as it is silent for long."""
    stage.start_beat()
    worker = stage.worker("threads")
    run_id = stage.send("tests.hold", str(stage.file("never")))
    stage.wait_for(run_id, "started")
    worker.kill9()
    lost = stage.wait_for(run_id, "lost")
    assert lost.finished_at is not None


@on_postgresql
@on_redis
@pytest.mark.parametrize("pool", ["prefork", pytest.param("solo", marks=pytest.mark.slow)])
def test_a_slow_run_is_not_lost(stage: Stage, pool: str) -> None:
    """A run that takes many heartbeats, of a worker that is alive, ends as it ends."""
    stage.start_beat()
    stage.worker(pool)
    path = stage.file("go")
    run_id = stage.send("tests.hold", str(path))
    deadline = stage.wait_for(run_id, "started").wake_at
    # Ten times the heartbeat is twice as long as it takes to give up a silent worker.
    target = deadline + timedelta(seconds=10 * stage.project.settings["beatstore_heartbeat"])
    wait_until(lambda: stage.run(run_id).wake_at > target, 30)
    assert stage.run(run_id).state == "started"
    path.touch()
    stage.wait_for(run_id, "succeeded")


# -- a message that comes twice ----------------------------------------------------------------


@on_postgresql
@on_rabbitmq
@pytest.mark.parametrize("task", ["tests.late", "tests.once_late"])
def test_a_redelivery_is_the_same_run(stage: Stage, task: str) -> None:
    """A late acknowledged message whose worker is killed runs again, as the same run."""
    first = stage.worker("prefork")
    path = stage.file("go")
    run_id = stage.send(task, str(path))
    stage.wait_for(run_id, "started")
    first.kill9()
    stage.worker("prefork")
    stage.wait_until_ran(run_id, 2)
    path.touch()
    run = stage.wait_for(run_id, "succeeded")
    assert run.attempt == 1
    assert len(stage.ran(run_id)) == 2


@pytest.mark.smoke
@on_postgresql
@on_redis
def test_the_guard_drops_a_second_message(stage: Stage) -> None:
    """A second message of a run does not start its task, while it runs and when it is over."""
    worker = stage.worker("threads", "--concurrency", "2", budget=10)
    path = stage.file("go")
    run_id = stage.send("tests.once", str(path))
    stage.wait_for(run_id, "started")
    stage.send_again(run_id, "tests.once")
    worker.wait_for_output("was dropped: ")
    assert stage.run(run_id).state == "started"
    path.touch()
    stage.wait_for(run_id, "succeeded")
    stage.send_again(run_id, "tests.once")
    worker.wait_for_output("was dropped: the run is succeeded")
    assert len(stage.ran(run_id)) == 1
    assert stage.run(run_id).state == "succeeded"


@on_postgresql
@on_redis
def test_the_guard_between_workers(stage: Stage) -> None:
    """A second message at another worker does not start its task either."""
    stage.worker("prefork")
    path = stage.file("go")
    run_id = stage.send("tests.once", str(path))
    stage.wait_for(run_id, "started")
    other = stage.worker("prefork", "--queues", "other", budget=10)
    stage.send_again(run_id, "tests.once", queue="other")
    other.wait_for_output("was dropped: 0@")
    path.touch()
    stage.wait_for(run_id, "succeeded")
    assert len(stage.ran(run_id)) == 1


@on_postgresql
@on_redis
def test_a_message_redelivered_too_early(stage: Stage, broker: Broker) -> None:
    """What the broker delivers again while its worker still runs it, the guard drops."""
    path = stage.file("go")
    run_id = stage.send("tests.once_late", str(path))
    with closing(redis.Redis.from_url(broker.url)) as server:
        (raw,) = cast(list[bytes], server.lrange(broker.queue, 0, -1))
        worker = stage.worker("prefork", "--concurrency", "2", budget=10)
        stage.wait_for(run_id, "started")
        wait_until(lambda: stage.store.status().workers[0].running == 1, 20)
        # As kombu writes it when a message was not acknowledged for too long.
        message = json.loads(raw)
        message["headers"]["redelivered"] = True
        message["properties"]["delivery_info"]["redelivered"] = True
        message["properties"]["delivery_tag"] = "again"
        server.lpush(broker.queue, json.dumps(message))
    worker.wait_for_output("was dropped: 0@")
    path.touch()
    stage.wait_for(run_id, "succeeded")
    assert len(stage.ran(run_id)) == 1


@on_postgresql
@on_redis
def test_a_second_message_that_expires(stage: Stage) -> None:
    """When a second message of a run expires in the queue, the run ends as its task does."""
    worker = stage.worker("prefork", "--concurrency", "2")
    path = stage.file("go")
    run_id = stage.send("tests.hold", str(path))
    stage.wait_for(run_id, "started")
    stage.send_again(run_id, "tests.hold", str(path), expires=-10)
    worker.wait_for_output("Discarding revoked task")
    other = stage.send("tests.note", expires=-10)
    stage.wait_for(other, "cancelled")  # it was reported later
    assert stage.run(run_id).state == "started"
    path.touch()
    assert stage.wait_for(run_id, "succeeded").reason is None


# -- a database that is away -------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cut", "hang"])
@pytest.mark.parametrize(
    "pool", ["prefork", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
@on_postgresql
@on_redis
def test_an_outage_is_not_the_tasks_business(
    apart: Stage, proxy: Proxy, how: str, pool: str
) -> None:
    """Without the database tasks run as fast as ever, and their outcomes arrive later."""
    stage = apart
    worker = stage.worker(pool, "--concurrency", "2", budget=1)
    path = stage.file("go")
    stage.wait_for(stage.send("tests.note"), "succeeded")
    meanwhile = stage.send("tests.hold", str(path))
    stage.wait_for(meanwhile, "started")
    if how == "cut":
        proxy.refuse = True
        proxy.cut()
    else:
        proxy.hold()
    path.touch()
    runs = [stage.send("tests.once" if number % 2 else "tests.note") for number in range(20)]
    for run_id in runs:
        stage.wait_until_ran(run_id)
    begun = sorted(stage.ran(run_id)[0].at for run_id in runs)
    # The first of each process may wait for a second, and finds out. If all did, two at a time
    # would take ten.
    assert begun[-1] - begun[0] < timedelta(seconds=5)
    if how == "cut":
        assert {stage.run(run_id).state for run_id in runs} == {"sent"}
    proxy.refuse = False
    proxy.release()
    ended = [stage.wait_for(run_id, "succeeded") for run_id in (meanwhile, *runs)]
    (ran,) = stage.ran(runs[-1])
    assert abs((ended[-1].finished_at - ran.at).total_seconds()) < 0.5
    assert "raised unexpected" not in worker.output()
    assert "Signal handler" not in worker.output()


@pytest.mark.slow
@on_postgresql
@on_redis
def test_a_worker_can_end_in_an_outage(apart: Stage, proxy: Proxy) -> None:
    """A worker that is asked to end while the database is away ends, and not much later."""
    worker = apart.worker("threads")
    proxy.refuse = True
    proxy.cut()
    apart.wait_until_ran(apart.send("tests.note"))
    assert worker.terminate(15) == 0
    assert worker.output().count("1 run reports were not written before shutdown") == 1


@on_postgresql
@on_redis
def test_a_wrong_setting_stops_no_task(new_stage: Callable[..., Stage]) -> None:
    """With a setting that beatstore can't use, tasks run, and the worker's log says why."""
    stage = new_stage()
    stage.project.settings["beatstore_no_such"] = 1
    worker = stage.worker("threads")
    stage.wait_until_ran(stage.send("tests.note"))
    worker.wait_for_output("this process can't report the outcomes of runs: beatstore_no_such")


def test_nothing_of_ours(redis_broker: Broker, new_project: NewProject) -> None:
    """A worker that is set up, without a database, runs what beatstore did not send."""
    project = new_project(redis_broker, None, {}, "tests.support.tracked_app")
    worker = project.worker("--pool", "solo")
    with project.app() as app:
        app.send_task("tests.note", task_id="a")
    wait_until(lambda: len(project.runs()) == 1, 30, worker.output)
    assert worker.terminate() == 0
    assert "could not report runs to the database, retrying: " in worker.output()
