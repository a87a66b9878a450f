"""Beats to measure: one in this process, and the app of the real ones."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery

from beatstore import DBScheduler
from tests.support.brokers import Broker
from tests.support.processes import Process
from tests.support.project import Project

__all__ = ["TASK", "TimedScheduler", "app", "cpu_of", "local_app", "local_beat", "peak_mb", "real"]

TASK = "bench.work"

#: The file in which `TimedScheduler` leaves a line for each tick.
_TICKS = "BEATSTORE_BENCH_TICKS"


def _with_task(app: Celery) -> Celery:
    @app.task(name=TASK, shared=False)
    def work(*args: Any, **kwargs: Any) -> None:
        """Never runs: nothing here starts a worker."""

    return app


def local_app(broker: Broker, url: str | None = None, **settings: Any) -> Celery:
    """Return an app of this process on a broker, and perhaps a database."""
    app = Celery("benchmarks", set_as_current=False)
    app.conf.update(broker.settings, timezone="UTC", **settings)
    if url is not None:
        app.conf.update(beatstore_url=url)
    return _with_task(app)


@contextmanager
def local_beat(app: Celery) -> Iterator[DBScheduler]:
    """Yield the scheduler that `celery beat` would run, started, in this process."""
    scheduler = DBScheduler(app)
    try:
        yield scheduler
    finally:
        scheduler.close()


# -- real processes: this module is their `celery -A` ------------------------------------

app = _with_task(Celery("benchmarks.beat"))
app.conf.update(json.loads(os.environ.get("BEATSTORE_TEST_APP", "{}")))


class TimedScheduler(DBScheduler):
    """Leaves a line for each tick: the time, its seconds, and all CPU seconds so far."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Tick, and write down what it took."""
        started = time.perf_counter()
        wait = super().tick(*args, **kwargs)
        line = [time.time(), time.perf_counter() - started, time.process_time()]
        with open(os.environ[_TICKS], "a") as file:
            file.write(json.dumps(line) + "\n")
        return wait


class real:  # noqa: N801  (read as a verb: `with real(...) as beat`)
    """A real `celery beat` process, on the app above.

    Args:
        directory: for its log; made.
        broker: where it sends.
        url: its database.
        timed: leave a line for each tick; see `ticks`.
        settings: Celery settings on top.
    """

    def __init__(
        self, directory: Path, broker: Broker, url: str, *, timed: bool = False, **settings: Any
    ) -> None:
        directory.mkdir()
        self._file = directory / "ticks.jsonl"
        self._project = Project(directory, broker, url, settings, "benchmarks.beat")
        scheduler = "benchmarks.beat:TimedScheduler" if timed else "beatstore:DBScheduler"
        self.started_at = time.time()
        # As users start it: with the log level that celery gives it.
        options = ["beat", "--scheduler", scheduler, "--pidfile="]
        self.process: Process = self._project.celery(*options, env={_TICKS: str(self._file)})

    def ticks(self) -> list[tuple[float, float, float]]:
        """Return (time, seconds, CPU seconds so far) of each tick so far."""
        if not self._file.exists():
            return []
        lines = self._file.read_text().split("\n")[:-1]
        return [tuple(json.loads(line)) for line in lines]

    def __enter__(self) -> real:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.running:
            self.process.terminate()
        self._project.close()


def cpu_of(pid: int) -> float:
    """Return the CPU seconds that a process has used; Linux only."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def peak_mb(pid: int) -> float:
    """Return the largest resident memory that a process has had; Linux only."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no VmHWM of {pid}")
