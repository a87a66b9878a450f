"""Far-future tasks with a real beat and worker: nowhere but in the database until their time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis
from celery import Celery, chain, chord, group

from beatstore import Store
from beatstore.store.shared import store_of
from tests.support.brokers import Broker
from tests.support.far_app import APP, register
from tests.support.marks import on_postgresql
from tests.support.processes import Process
from tests.support.project import Project
from tests.support.wait import wait_until

UTC = timezone.utc
FAR = datetime(2525, 11, 11, 9, 30, tzinfo=UTC)

SETTINGS = {"beatstore_eta_threshold": 1, "beat_max_loop_interval": 0.2}

on_redis = pytest.mark.parametrize("broker", ["redis"], indirect=True)


class Scene:
    """A project with a beat and a worker, its tasks, and its store."""

    def __init__(self, project: Project, url: str) -> None:
        self.project = project
        self.broker = project.broker
        self.store = Store(url)
        self.app: Celery = project.app()
        self.tasks: SimpleNamespace = register(self.app)

    def start(self, *arguments: str) -> Process:
        """Start a worker, and then a beat."""
        worker = self.project.worker(*(arguments or ("--pool", "threads")))
        worker.wait_for_output(" ready.", 60)
        self.project.beat()
        return worker

    def ran(self, task_id: str) -> list[datetime]:
        """Return when a task has begun in a worker."""
        return [ran.at for ran in self.project.runs() if ran.id == task_id]

    def wait_until_ran(self, *task_ids: str) -> None:
        """Wait until each of these has begun in a worker."""
        wait_until(lambda: all(self.ran(task_id) for task_id in task_ids), 30, self.tell)

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

    def tell(self) -> str:
        """Return what the processes said."""
        return "\n".join(process.output()[-3000:] for process in self.project.processes)

    def close(self) -> None:
        """Close the connections; the project ends the processes."""
        self.store.close()
        if self.broker.name == "redis":
            backend: Any = self.app.backend
            # Results that are collected later would connect again, to unsubscribe.
            backend.result_consumer._pubsub = None
            backend.client.connection_pool.disconnect()
        store_of(self.app).close()
        self.app.close()


@pytest.fixture
def scene(
    broker: Broker, migrated_url: str, new_project: Callable[..., Project]
) -> Iterator[Scene]:
    """Hand out a scene; with Redis it has results too."""
    results = {"result_backend": broker.url} if broker.name == "redis" else {}
    scene = Scene(new_project(broker, migrated_url, {**SETTINGS, **results}, APP), migrated_url)
    yield scene
    scene.close()


def soon(seconds: float = 3) -> datetime:
    """Return an instant a little ahead, beyond the threshold."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.smoke
@pytest.mark.by_turns("broker")
@on_postgresql
def test_it_is_nowhere_before_its_time(scene: Scene) -> None:
    """Neither the broker nor a worker has a far task before its time; then it runs, as its id."""
    scene.start()
    far = scene.tasks.add.apply_async((1, 2), eta=FAR)
    assert scene.broker.count() == 0
    if scene.broker.name != "filesystem":
        assert scene.waiting() == []
    if scene.broker.name == "redis":
        assert scene.unacknowledged() == 0
    eta = soon(5)
    near = scene.tasks.add.apply_async((3, 4), eta=eta)
    assert scene.broker.count() == 0
    assert scene.ran(near.id) == []
    assert datetime.now(UTC) < eta, "this machine is too slow to look in time"
    scene.wait_until_ran(near.id)
    (ran,) = scene.ran(near.id)
    assert timedelta(0) <= ran - eta < timedelta(seconds=20)
    assert scene.store.get(far.id).state == "active"
    assert scene.ran(far.id) == []
    assert scene.broker.count() == 0


@on_postgresql
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_what_celery_does_instead(scene: Scene) -> None:
    """The same call through the broker is in a worker's memory at once, where we look for it."""
    scene.start()
    message = scene.app.send_task("far.add", (1, 2), eta=FAR)
    wait_until(lambda: scene.waiting() == [message.id], 30, scene.tell)
    if scene.broker.name == "redis":
        assert scene.unacknowledged() == 2


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
def test_canvases_by_schedule(scene: Scene) -> None:
    """A frozen canvas that is stored has, when it was sent, the result that freezing gave."""
    results: dict[str, Any] = {}
    for name, (make, _) in CANVASES.items():
        canvas = make(scene.tasks)
        results[name] = canvas.freeze()
        entry = scene.store.schedule(canvas, at=soon(0))
        assert entry.name == results[name].id
    scene.start("--pool", "threads", "--concurrency", "4")
    for name, (_, expected) in CANVASES.items():
        assert results[name].get(timeout=30) == expected, name
        wait_until(lambda name=name: _state(scene, results[name].id) == "succeeded", 30, scene.tell)


def _state(scene: Scene, name: str) -> str:
    return scene.store.runs(name)[0].state


@on_postgresql
@on_redis
def test_canvases_that_are_not_frozen(scene: Scene) -> None:
    """A canvas as it is written may be stored several times, and ends as a run each time."""
    names = {}
    for name, (make, _) in CANVASES.items():
        canvas = make(scene.tasks)
        names[name] = [scene.store.schedule(canvas, at=soon(0)).name for _ in range(2)]
    scene.start("--pool", "threads", "--concurrency", "4")
    for name, (_, expected) in CANVASES.items():
        if isinstance(expected, list):
            continue
        for entry in names[name]:
            wait_until(lambda entry=entry: scene.store.runs(entry), 30, scene.tell)
            [run] = scene.store.runs(entry)
            assert scene.app.AsyncResult(run.task_id).get(timeout=30) == expected, name


@on_postgresql
@on_redis
@pytest.mark.parametrize("name", [name for name in CANVASES if " " not in name])
def test_canvases_by_their_own_apply_async(scene: Scene, name: str) -> None:
    """A canvas with an eta of its own is kept by its tasks, and its result comes when it should."""
    make, expected = CANVASES[name]
    eta = soon()
    result = make(scene.tasks).apply_async(eta=eta)
    assert scene.broker.count() == 0
    kept = scene.store.entries(state="active")
    assert kept
    assert {entry.next_due_at for entry in kept} == {eta}
    scene.start("--pool", "threads", "--concurrency", "4")
    assert result.get(timeout=30) == expected
    assert min(ran.at for ran in scene.project.runs()) >= eta


@on_postgresql
@on_redis
def test_a_far_retry(scene: Scene) -> None:
    """A task that retries itself far ahead waits in the database, and goes on under its id."""
    scene.start()
    result = scene.tasks.again.delay(6)
    scene.wait_until_ran(result.id)
    wait_until(scene.store.entries, 30, scene.tell)
    assert [entry.name for entry in scene.store.entries()] == [result.id]
    assert scene.waiting() == []
    assert result.get(timeout=30) == 1
    first, second = scene.ran(result.id)
    assert second - first >= timedelta(seconds=6)


# -- too late to cancel ----------------------------------------------------------------


@on_postgresql
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_what_was_sent_is_revoked(scene: Scene) -> None:
    """When `cancel` comes too late, the task's result revokes it, as that of any task does."""
    scene.start("--pool", "prefork", "--concurrency", "1")
    path = scene.project.directory / "go"
    running = scene.tasks.hold.schedule((str(path),), countdown=0)
    scene.wait_until_ran(running.id)
    queued = scene.tasks.add.schedule((1,), countdown=0)
    wait_until(lambda: queued.id in scene.waiting(), 30, scene.tell)
    assert scene.store.cancel(queued.id) is False
    queued.revoke()
    assert scene.store.cancel(running.id) is False
    running.revoke(terminate=True)
    for result, reason in ((running, "terminated by SIGTERM"), (queued, "revoked")):
        wait_until(lambda result=result: _state(scene, result.id) == "cancelled", 30, scene.tell)
        assert reason in (scene.store.runs(result.id)[0].reason or "")
    assert scene.ran(queued.id) == []


@on_postgresql
@on_redis
def test_what_was_cancelled_is_never_sent(scene: Scene) -> None:
    """A task that is cancelled in time is not sent, while others of the same time are."""
    eta = soon(2)
    cancelled, kept = (scene.tasks.add.apply_async((1,), eta=eta) for _ in range(2))
    scene.start()
    in_time = scene.store.cancel(cancelled.id)
    scene.wait_until_ran(kept.id)
    assert in_time == (scene.ran(cancelled.id) == [])
    assert scene.store.get(cancelled.id).state == ("cancelled" if in_time else "finished")
