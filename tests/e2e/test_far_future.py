"""Far-future tasks with a real beat and worker: nowhere but in the database until their time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis
from celery import chain, chord, group

from beatstore.store.shared import store_of
from tests.support.brokers import Broker
from tests.support.far_app import APP, register
from tests.support.harness.stage import Stage
from tests.support.marks import on_postgresql
from tests.support.processes import Process
from tests.support.project import NewProject, Project
from tests.support.wait import wait_until

UTC = timezone.utc
FAR = datetime(2525, 11, 11, 9, 30, tzinfo=UTC)

SETTINGS = {"beatstore_eta_threshold": 1, "beat_max_loop_interval": 0.2}

on_redis = pytest.mark.parametrize("broker", ["redis"], indirect=True)


class FarStage(Stage):
    """A stage whose tasks this process can call too."""

    def __init__(self, project: Project, url: str) -> None:
        super().__init__(project, url)
        self.broker = project.broker
        self.tasks: SimpleNamespace = register(self.app)

    def start(self, *arguments: str) -> Process:
        """Start a worker that takes messages, and then a beat."""
        worker = self.worker(*(arguments or ("threads",)))
        self.start_beat()
        return worker

    def began(self, task_id: str) -> list[datetime]:
        """Return when a task has begun in a worker."""
        return [ran.at for ran in self.project.runs() if ran.id == task_id]

    def wait_until_began(self, *task_ids: str) -> None:
        """Wait until each of these has begun in a worker."""
        wait_until(lambda: all(self.began(task_id) for task_id in task_ids), 30, self.tell)

    def waiting(self) -> list[str]:
        """Return the ids of what waits in the worker's memory."""
        inspect = self.app.control.inspect(timeout=20, limit=1)
        found: list[str] = []
        for held in (inspect.scheduled(), inspect.reserved()):
            assert held, "no worker has answered"
            for tasks in held.values():
                found += [task.get("request", task)["id"] for task in tasks]
        return found

    def unacknowledged(self) -> int:
        """Return how many messages Redis keeps for workers that took them."""
        with closing(redis.Redis.from_url(self.broker.url)) as server:
            return cast(int, server.hlen("unacked")) + cast(int, server.zcard("unacked_index"))

    def close(self) -> None:
        """Close the connections; the project ends the processes."""
        if self.broker.name == "redis":
            backend: Any = self.app.backend
            # Results that are collected later would connect again, to unsubscribe.
            backend.result_consumer._pubsub = None
            backend.client.connection_pool.disconnect()
        store_of(self.app).close()
        super().close()


@pytest.fixture
def stage(broker: Broker, migrated_url: str, new_project: NewProject) -> Iterator[FarStage]:
    """Hand out a stage; with Redis it has results too."""
    results = {"result_backend": broker.url} if broker.name == "redis" else {}
    stage = FarStage(new_project(broker, migrated_url, {**SETTINGS, **results}, APP), migrated_url)
    yield stage
    stage.close()


def soon(seconds: float = 3) -> datetime:
    """Return an instant a little ahead, beyond the threshold."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.smoke
@pytest.mark.by_turns("broker")
@on_postgresql
def test_it_is_nowhere_before_its_time(stage: FarStage) -> None:
    """Neither the broker nor a worker has a far task before its time; then it runs, as its id."""
    stage.start()
    far = stage.tasks.add.apply_async((1, 2), eta=FAR)
    assert stage.broker.count() == 0
    if stage.broker.name != "filesystem":
        assert stage.waiting() == []
    if stage.broker.name == "redis":
        assert stage.unacknowledged() == 0
    eta = soon(5)
    near = stage.tasks.add.apply_async((3, 4), eta=eta)
    assert stage.broker.count() == 0
    assert stage.began(near.id) == []
    assert datetime.now(UTC) < eta, "this machine is too slow to look in time"
    stage.wait_until_began(near.id)
    (ran,) = stage.began(near.id)
    assert timedelta(0) <= ran - eta < timedelta(seconds=20)
    assert stage.store.get(far.id).state == "active"
    assert stage.began(far.id) == []
    assert stage.broker.count() == 0


@on_postgresql
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_what_celery_does_instead(stage: FarStage) -> None:
    """The same call through the broker is in a worker's memory at once, where we look for it."""
    stage.start()
    message = stage.app.send_task("far.add", (1, 2), eta=FAR)
    wait_until(lambda: stage.waiting() == [message.id], 30, stage.tell)
    if stage.broker.name == "redis":
        assert stage.unacknowledged() == 2


CANVASES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "signature": (lambda t: t.add.s(1, 2), 3),
    "immutable": (lambda t: t.add.si(1, y=2), 3),
    "chain": (lambda t: chain(t.add.s(1, 2), t.add.s(3), t.add.s(4)), 10),
    "immutable in chain": (lambda t: chain(t.add.s(1, 2), t.add.si(3, 4)), 7),
    "group": (lambda t: group(t.add.s(1, 2), t.add.s(3, 4)), [3, 7]),
    "chord": (lambda t: chord([t.add.s(1, 2), t.add.s(3, 4)], t.total.s()), 10),
    "chain into group": (lambda t: t.add.s(1, 2) | group(t.add.s(1), t.add.s(2)), [4, 5]),
    "chain in group": (lambda t: group(t.add.s(1, 2) | t.add.s(3), t.add.s(4, 5)), [6, 9]),
    "chain in chord": (lambda t: chord([t.add.s(1, 2) | t.add.s(3), t.add.s(4)], t.total.s()), 10),
    "chord into chain": (lambda t: chord([t.add.s(1), t.add.s(2)], t.total.s() | t.add.s(4)), 7),
    "chord into group": (
        lambda t: chord([t.add.s(1), t.add.s(2)], group(t.total.s(), t.total.s())),
        [3, 3],
    ),
    "chord in group": (
        lambda t: group(chord([t.add.s(1), t.add.s(2)], t.total.s()), t.add.s(5)),
        [3, 5],
    ),
    "chord in chain": (
        lambda t: chain(t.add.s(1), group(t.add.s(1), t.add.s(2)), t.total.s(), t.add.s(4)),
        9,
    ),
}


@on_postgresql
@on_redis
def test_canvases_by_schedule(stage: FarStage) -> None:
    """A frozen canvas that is stored has, when it was sent, the result that freezing gave."""
    results: dict[str, Any] = {}
    for name, (make, _) in CANVASES.items():
        canvas = make(stage.tasks)
        results[name] = canvas.freeze()
        entry = stage.store.schedule(canvas, at=soon(0))
        assert entry.name == results[name].id
    stage.start("threads", "--concurrency", "4")
    for name, (_, expected) in CANVASES.items():
        assert results[name].get(timeout=30) == expected, name
        wait_until(lambda name=name: _state(stage, results[name].id) == "succeeded", 30, stage.tell)


def _state(stage: FarStage, name: str) -> str:
    return stage.store.runs(name)[0].state


@on_postgresql
@on_redis
def test_canvases_that_are_not_frozen(stage: FarStage) -> None:
    """A canvas as it is written may be stored several times, and ends as a run each time."""
    names = {}
    for name, (make, _) in CANVASES.items():
        canvas = make(stage.tasks)
        names[name] = [stage.store.schedule(canvas, at=soon(0)).name for _ in range(2)]
    stage.start("threads", "--concurrency", "4")
    for name, (_, expected) in CANVASES.items():
        if isinstance(expected, list):
            continue
        for entry in names[name]:
            wait_until(lambda entry=entry: stage.store.runs(entry), 30, stage.tell)
            [run] = stage.store.runs(entry)
            assert stage.app.AsyncResult(run.task_id).get(timeout=30) == expected, name


@on_postgresql
@on_redis
@pytest.mark.parametrize("name", [name for name in CANVASES if " " not in name])
def test_canvases_by_their_own_apply_async(stage: FarStage, name: str) -> None:
    """A canvas with an eta of its own is kept by its tasks, and its result comes when it should."""
    make, expected = CANVASES[name]
    eta = soon()
    result = make(stage.tasks).apply_async(eta=eta)
    assert stage.broker.count() == 0
    kept = stage.store.entries(state="active")
    assert kept
    assert {entry.next_due_at for entry in kept} == {eta}
    stage.start("threads", "--concurrency", "4")
    assert result.get(timeout=30) == expected
    assert min(ran.at for ran in stage.project.runs()) >= eta


@on_postgresql
@on_redis
def test_a_far_retry(stage: FarStage) -> None:
    """A task that retries itself far ahead waits in the database, and goes on under its id."""
    stage.start()
    result = stage.tasks.again.delay(6)
    stage.wait_until_began(result.id)
    wait_until(stage.store.entries, 30, stage.tell)
    assert [entry.name for entry in stage.store.entries()] == [result.id]
    assert stage.waiting() == []
    assert result.get(timeout=30) == 1
    first, second = stage.began(result.id)
    assert second - first >= timedelta(seconds=6)


# -- too late to cancel ----------------------------------------------------------------


@on_postgresql
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_what_was_sent_is_revoked(stage: FarStage) -> None:
    """When `cancel` comes too late, the task's result revokes it, as that of any task does."""
    stage.start("prefork", "--concurrency", "1")
    path = stage.project.directory / "go"
    running = stage.tasks.hold.schedule((str(path),), countdown=0)
    stage.wait_until_began(running.id)
    queued = stage.tasks.add.schedule((1,), countdown=0)
    wait_until(lambda: queued.id in stage.waiting(), 30, stage.tell)
    assert stage.store.cancel(queued.id) is False
    queued.revoke()
    assert stage.store.cancel(running.id) is False
    running.revoke(terminate=True)
    for result, reason in ((running, "terminated by SIGTERM"), (queued, "revoked")):
        wait_until(lambda result=result: _state(stage, result.id) == "cancelled", 30, stage.tell)
        assert reason in (stage.store.runs(result.id)[0].reason or "")
    assert stage.began(queued.id) == []


@on_postgresql
@on_redis
def test_what_was_cancelled_is_never_sent(stage: FarStage) -> None:
    """A task that is cancelled in time is not sent, while others of the same time are."""
    eta = soon(2)
    cancelled, kept = (stage.tasks.add.apply_async((1,), eta=eta) for _ in range(2))
    stage.start()
    in_time = stage.store.cancel(cancelled.id)
    stage.wait_until_began(kept.id)
    assert in_time == (stage.began(cancelled.id) == [])
    assert stage.store.get(cancelled.id).state == ("cancelled" if in_time else "finished")
