"""A worker killed where celery and the database know different things of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from sqlalchemy import make_url

from tests.support.broker_servers import PrivateRedis
from tests.support.brokers import Broker
from tests.support.harness.stage import Stage
from tests.support.project import Project
from tests.support.proxy import Proxy

NewProject = Callable[..., Project]

APP = "tests.support.tracked_app"
SETTINGS = {"beatstore_heartbeat": 0.3, "beat_max_loop_interval": 0.2}

pytestmark = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


@pytest.fixture
def stage(
    broker: Broker, migrated_url: str, new_project: NewProject, proxy: Proxy
) -> Iterator[Stage]:
    """Hand out a stage whose processes reach the database through the proxy."""
    url = make_url(migrated_url).set(host="127.0.0.1", port=proxy.port)
    through = url.render_as_string(hide_password=False)
    project = new_project(broker, through, SETTINGS, APP)
    with closing(Stage(project, migrated_url)) as stage:
        yield stage


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_received_and_not_acknowledged(stage: Stage) -> None:
    """A message that its worker takes along comes to the next worker, and is the same run."""
    worker = stage.worker("prefork")
    stage.wait_for(stage.send("tests.hold", str(stage.file("never"))), "started")
    held = stage.send("tests.note")
    received = f"Task tests.note[{stage.task_id(held)}] received"
    worker.wait_for_output(received)
    worker.kill9()
    assert stage.run(held).state == "sent"
    stage.worker("prefork")
    run = stage.wait_for(held, "succeeded")
    assert run.attempt == 1
    assert len(stage.ran(held)) == 1


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_ended_and_not_reported(stage: Stage, proxy: Proxy) -> None:
    """A run whose worker is killed before it could report the end is lost, as if it had not run."""
    worker = stage.worker("prefork")
    path = stage.file("go")
    run_id = stage.send("tests.hold", str(path))
    stage.wait_for(run_id, "started")
    with ExitStack() as outage:
        outage.callback(setattr, proxy, "refuse", False)
        proxy.refuse = True
        proxy.cut()
        path.touch()
        worker.wait_for_output("succeeded in ")
        worker.kill9()
    assert stage.run(run_id).state == "started"
    stage.project.beat()
    lost = stage.wait_for(run_id, "lost")
    assert "stopped sending heartbeats" in lost.reason


def test_the_broker_is_away(
    private_redis: PrivateRedis, migrated_url: str, new_project: NewProject
) -> None:
    """A worker whose broker dies reports the task that it has, and goes on when it is back."""
    project = new_project(Broker("redis", private_redis.url), migrated_url, SETTINGS, APP)
    with closing(Stage(project, migrated_url)) as stage:
        worker = stage.worker("prefork")
        path = stage.file("go")
        run_id = stage.send("tests.hold", str(path))
        stage.wait_for(run_id, "started")
        private_redis.kill9()
        worker.wait_for_output("Connection to broker lost")
        path.touch()
        stage.wait_for(run_id, "succeeded")
        private_redis.start()
        stage.wait_for(stage.send("tests.note"), "succeeded", 60)
