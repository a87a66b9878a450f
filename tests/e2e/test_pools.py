"""Each way in which a run can end, on each of celery's pools."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from celery import VERSION

from tests.support.brokers import Broker
from tests.support.harness.stage import Stage
from tests.support.marks import on_postgresql
from tests.support.wait import wait_until

POOLS = ("prefork", "threads", "solo", "gevent", "eventlet")


def check_common_ends(stage: Stage) -> None:
    """Send one run of each kind, and check what is said of it."""
    path = stage.file("go")
    requeued = stage.send("tests.requeue", str(path))
    expected = {
        "tests.note": ("succeeded", None, None),
        "tests.break": ("failed", None, "TrackedError: it broke"),
        "tests.ignore": ("cancelled", "the task raised Ignore: not today", None),
        "tests.reject": ("failed", None, "Reject: not for me"),
        "tests.no-such": (
            "failed",
            None,
            "NotRegistered: 'tests.no-such' is not a task of this worker",
        ),
    }
    sent = {task: stage.send(task) for task in expected}
    retried = stage.send("tests.retry")
    for task, (state, reason, error) in expected.items():
        run = stage.wait_for(sent[task], state)
        assert (run.reason, run.error) == (reason, error), task
        assert run.worker is not None
        assert run.finished_at is not None
        if task != "tests.no-such":
            (ran,) = stage.ran(run.id)
            assert run.started_at is not None
            assert abs((ran.at - run.started_at).total_seconds()) < 0.5
            assert (run.finished_at - run.started_at).total_seconds() > -0.01
    broken = stage.run(sent["tests.break"])
    assert 'raise TrackedError("it broke")' in broken.traceback
    again = stage.wait_for(retried, "succeeded")
    assert len(stage.ran(retried)) == 2
    assert again.attempt == 1
    stage.wait_until_ran(requeued, 2)
    path.touch()
    stage.wait_for(requeued, "succeeded")


def wait_until_it_is_active(stage: Stage, run_id: int) -> None:
    """Wait until the main process knows that a task runs: else it waits for the task at its end."""
    stage.wait_until_ran(run_id)
    wait_until(lambda: [one.running for one in stage.store.status().workers] == [1], 20)


@on_postgresql
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
@pytest.mark.parametrize("pool", POOLS)
def test_ends(stage: Stage, pool: str) -> None:
    """Success, failure, retry, Ignore, Reject, expiry, an unknown task, a revoked one."""
    worker = stage.worker(pool)
    check_common_ends(stage)
    # RabbitMQ throws such a message away by itself, and no worker hears of it.
    expired = stage.wait_for(stage.send("tests.note", expires=-10), "cancelled")
    assert (expired.reason, expired.started_at) == ("expired in the queue", None)
    revoked = stage.add_run()
    stage.revoke(stage.task_id(revoked))
    stage.send_again(revoked, "tests.note")
    assert stage.wait_for(revoked, "cancelled").reason == "revoked"
    assert "Signal handler" not in worker.output()


@on_postgresql
@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_ends_on_rabbitmq(stage: Stage) -> None:
    """The same over AMQP, where a worker has another main loop."""
    stage.worker("prefork")
    check_common_ends(stage)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sqlite", "mariadb"], indirect=True)
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_ends_on_other_databases(stage: Stage, pool: str) -> None:
    """The same with another driver."""
    stage.worker(pool)
    check_common_ends(stage)


@on_postgresql
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
@pytest.mark.parametrize("pool", ["prefork", "gevent", "eventlet"])
def test_terminated(stage: Stage, pool: str) -> None:
    """A run that is terminated in the middle is cancelled, and its worker goes on."""
    stage.worker(pool)
    run_id = stage.send("tests.hold", str(stage.file("never")))
    stage.wait_for(run_id, "started")
    stage.revoke(stage.task_id(run_id), terminate=True)
    assert stage.wait_for(run_id, "cancelled").reason == "terminated by SIGTERM"
    stage.wait_for(stage.send("tests.note"), "succeeded")


@on_postgresql
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_soft_signal(stage: Stage) -> None:
    """A run whose task gets the signal of a soft time limit ends as its task does, each time."""
    stage.worker("prefork")
    for _ in range(4):
        run_id = stage.send("tests.hold", str(stage.file("never")))
        wait_until_it_is_active(stage, run_id)
        stage.revoke(stage.task_id(run_id), terminate=True, signal="SIGUSR1")
        run = stage.wait_for(run_id, "failed")
        assert (run.reason, run.error) == (None, "SoftTimeLimitExceeded: SoftTimeLimitExceeded()")
        wait_until(lambda: [one.running for one in stage.store.status().workers] == [0], 20)


@on_postgresql
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_hard_time_limit(stage: Stage, pool: str) -> None:
    """A run that is killed at its time limit has failed, with that as its error."""
    stage.worker(pool)
    run = stage.wait_for(stage.send("tests.limited"), "failed")
    assert run.error.startswith(("TimeLimitExceeded", "Timeout: 1 second"))
    stage.wait_for(stage.send("tests.note"), "succeeded")


@on_postgresql
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_killed_child(stage: Stage) -> None:
    """A run whose process is killed with -9 has failed, with that as its error."""
    stage.worker("prefork")
    stage.wait_for(stage.send("tests.note"), "succeeded")
    run = stage.wait_for(stage.send("tests.die"), "failed")
    assert run.error.startswith("WorkerLostError: Worker exited prematurely: signal 9")
    stage.wait_for(stage.send("tests.note"), "succeeded")


@pytest.mark.skipif(VERSION < (5, 7), reason="celery 5.6 says that the run has failed")
@on_postgresql
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_child_killed_after_its_result(new_stage: Callable[..., Stage], broker: Broker) -> None:
    """A run whose process is killed when its success is stored, and not reported, has succeeded."""
    stage = new_stage(result_backend=broker.url)
    stage.start_beat()
    worker = stage.worker("prefork")
    path = stage.file("go")
    run_id = stage.send("tests.die_late", str(path))
    stage.wait_for(run_id, "started")
    path.touch()
    worker.wait_for_output("succeeded before the worker was lost")
    stage.wait_for(run_id, "succeeded")


@on_postgresql
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_a_cold_shutdown(stage: Stage, pool: str) -> None:
    """SIGQUIT fails a run whose message was acknowledged."""
    worker = stage.worker(pool)
    run_id = stage.send("tests.hold", str(stage.file("never")))
    wait_until_it_is_active(stage, run_id)
    worker.terminate(number=signal.SIGQUIT)
    run = stage.wait_for(run_id, "failed")
    assert run.error == "WorkerShutdown: the worker ended before the task did"


@on_postgresql
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_cold_shutdown_with_acks_late(stage: Stage) -> None:
    """After SIGQUIT another worker gets the message that was not acknowledged, of the same run."""
    worker = stage.worker("prefork")
    path = stage.file("go")
    run_id = stage.send("tests.late", str(path))
    wait_until_it_is_active(stage, run_id)
    worker.terminate(number=signal.SIGQUIT)
    path.touch()
    stage.worker("prefork")
    assert stage.wait_for(run_id, "succeeded").attempt == 1


@on_postgresql
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_children_come_and_go(stage: Stage) -> None:
    """A child that ends after each task, forked from a busy parent, reports like the first."""
    worker = stage.worker("prefork", "--max-tasks-per-child", "1", "--concurrency", "2")
    runs = [stage.send("tests.note") for _ in range(6)]
    for run_id in runs:
        stage.wait_for(run_id, "succeeded")
    assert len({ran.pid for ran in stage.project.runs()}) == 6
    assert worker.terminate() == 0
    (ended,) = stage.store.status().workers
    assert ended.running == 0
    assert ended.stopped_at is not None


@on_postgresql
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_a_green_worker_ends_in_order(stage: Stage, pool: str) -> None:
    """SIGTERM ends a worker of green threads that has reported runs, with exit code 0."""
    worker = stage.worker(pool)
    stage.wait_for(stage.send("tests.note"), "succeeded")
    assert worker.terminate() == 0, worker.output()


@pytest.mark.slow
@pytest.mark.skipif(VERSION < (5, 7), reason="celery 5.7 has the setting")
@on_postgresql
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_children_that_are_spawned(new_stage: Callable[..., Stage]) -> None:
    """A child that is no fork of its worker, as on macOS, reports as one that is."""
    stage = new_stage(worker_pool_start_method="spawn")
    worker = stage.worker("prefork", budget=10)
    for task, state in {"tests.note": "succeeded", "tests.break": "failed"}.items():
        stage.wait_for(stage.send(task), state)
    once = stage.send("tests.once")
    stage.wait_for(once, "succeeded")
    stage.send_again(once, "tests.once")
    worker.wait_for_output("was dropped: the run is succeeded")
    held = stage.send("tests.hold", str(stage.file("never")))
    stage.wait_for(held, "started")
    stage.revoke(stage.task_id(held), terminate=True)
    assert stage.wait_for(held, "cancelled").reason == "terminated by SIGTERM"
    assert len({ran.pid for ran in stage.project.runs()} | {worker.pid}) > 1
    assert "Signal handler" not in worker.output()
