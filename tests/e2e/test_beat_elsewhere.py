"""Beat inside of a worker, and as a daemon."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

import pytest

from beatstore import Every, Once, Store
from tests.support.brokers import Broker
from tests.support.harness.inprocess import names
from tests.support.harness.ticks import running_beats, wait_for_beats
from tests.support.marks import on_postgresql, on_sqlite
from tests.support.project import NewProject, Project
from tests.support.wait import wait_until

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


# -- inside a worker -----------------------------------------------------------------------


@on_sqlite
@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_a_worker_with_beat_inside(
    redis_broker: Broker,
    migrated_url: str,
    new_project: NewProject,
    store: Store,
    check: Callable[[], int],
    *,
    pool: str,
) -> None:
    """`worker -B` sends and runs, whatever its pool, and takes its beat along when it ends."""
    store.add("a", "tests.note", Once(NOON), args=[1])
    project = new_project(redis_broker, migrated_url)
    worker = project.worker("-B", "--scheduler", "beatstore:DBScheduler", "--pool", pool)
    wait_until(project.runs, 40, worker.output)
    (run,) = project.runs()
    assert (run.task, run.args, run.headers["beatstore_entry"]) == ("tests.note", [1], "a")
    assert check() == 0
    assert worker.terminate() == 0
    wait_until(lambda: not running_beats(store), 15, "the beat to be stopped")
    assert check() == 1


@on_postgresql
def test_two_workers_with_beat_inside_send_once(
    redis_broker: Broker, migrated_url: str, new_project: NewProject, store: Store
) -> None:
    """Two workers with `-B` are two beats: they share the work, and nothing runs twice."""
    project = new_project(redis_broker, migrated_url)
    inside = ["-B", "--scheduler", "beatstore:DBScheduler"]
    workers = [project.worker(*inside) for _ in range(2)]
    wait_for_beats(store, 2)
    for n in range(200):
        store.add(f"once-{n}", "tests.note", Once(NOON))
    store.add("often", "tests.note", Every(0.5), max_runs=4)
    wait_until(
        lambda: len(project.runs()) >= 204,
        40,
        lambda: f"{len(project.runs())} runs\n{workers[0].output()[-2000:]}",
    )
    for worker in workers:
        assert worker.terminate() == 0
    ran = Counter(run.id for run in project.runs())
    assert set(ran.values()) == {1}
    assert set(ran) == {run.task_id for run in store.runs(limit=300)}
    assert len(ran) == 204


# -- as a daemon ---------------------------------------------------------------------------


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Path]:
    """Return where daemons leave their pid; they end with the test."""
    yield tmp_path / "beat.pid"
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(int((tmp_path / "beat.pid").read_text()), signal.SIGKILL)


def detach(project: Project, pid: Path, *before: str) -> Path:
    """Start a daemon, wait until it has left its parent, and return the path of its log."""
    log = pid.with_name("beat.log")
    files = ["--pidfile", str(pid), "--logfile", str(log), "--loglevel", "INFO"]
    command = ["-m", "celery", *before, "-A", project.app_name, "beat", "--detach", *files]
    starter = project.start([sys.executable, *command, "-S", "beatstore:DBScheduler"])
    assert starter.wait() == 0, starter.output()
    return log


@on_sqlite
def test_a_daemon_sends(
    redis_broker: Broker, migrated_url: str, new_project: NewProject, store: Store, daemons: Path
) -> None:
    """`--detach` works with an absolute URL, also where the daemon stands in `/`."""
    store.add("a", "tests.note", Once(NOON))
    project = new_project(redis_broker, migrated_url)
    detach(project, daemons, "--workdir=/")
    wait_until(redis_broker.count, 30, "a message")
    assert names(redis_broker.drain()) == ["a"]
    os.kill(int(daemons.read_text()), signal.SIGTERM)
    wait_until(lambda: not daemons.exists(), 15, "the daemon to end")
    assert running_beats(store) == []


def test_a_daemon_refuses_a_relative_file(
    redis_broker: Broker, new_project: NewProject, daemons: Path
) -> None:
    """In `/` a relative SQLite URL would name another file: the log says so in one line."""
    project = new_project(redis_broker, "sqlite:///relative.db")
    log = detach(project, daemons, "--workdir=/")
    wait_until(lambda: log.exists() and "beatstore: " in log.read_text(), 30, "the reason")
    wait_until(lambda: not daemons.exists(), 15, "the daemon to end")
    (line,) = [line for line in log.read_text().splitlines() if "beatstore" in line]
    assert "an absolute path" in line
    assert "'sqlite:///relative.db'" in line
    assert "Traceback" not in log.read_text()
    assert not Path("/relative.db").exists()
