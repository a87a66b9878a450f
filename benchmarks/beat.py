"""Beats to measure: one in this process, and real ones."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery

from beatstore import DBScheduler
from benchmarks.app import TICKS, with_task
from tests.support.brokers import Broker
from tests.support.processes import Process
from tests.support.project import Project
from tests.support.wait import wait_until

__all__ = [
    "RealBeat",
    "cpu_of",
    "headers_of",
    "local_app",
    "local_beat",
    "peak_mb",
    "ticks_in",
]


def local_app(broker: Broker, url: str | None = None, **settings: Any) -> Celery:
    """Return an app of this process on a broker, and perhaps a database."""
    app = Celery("benchmarks", set_as_current=False)
    app.conf.update(broker.settings, timezone="UTC", **settings)
    if url is not None:
        app.conf.update(beatstore_url=url)
    return with_task(app)


@contextmanager
def local_beat(app: Celery) -> Iterator[DBScheduler]:
    """Yield the scheduler that `celery beat` would run, started, in this process."""
    scheduler = DBScheduler(app)
    try:
        yield scheduler
    finally:
        scheduler.close()


class RealBeat:
    """A real `celery beat` process; see `benchmarks.app`.

    Args:
        directory: for its log; made.
        broker: where it sends.
        url: its database.
        settings: Celery settings on top.
    """

    def __init__(self, directory: Path, broker: Broker, url: str, **settings: Any) -> None:
        directory.mkdir()
        self._file = directory / "ticks.jsonl"
        self._project = Project(directory, broker, url, settings, "benchmarks.app")
        self.started_at = time.time()
        # As users start it: with the log level that celery gives it.
        options = ["beat", "--scheduler", "benchmarks.app:TimedScheduler", "--pidfile="]
        self.process: Process = self._project.celery(*options, env={TICKS: str(self._file)})

    def ticks(self) -> list[tuple[float, float, float]]:
        """Return (time, seconds, CPU seconds so far) of each tick so far."""
        return ticks_in(self._file)

    def wait_for_ticks(self, count: int) -> list[tuple[float, float, float]]:
        """Wait until there are `count` ticks, and return all there are."""

        def ticked() -> list[tuple[float, float, float]]:
            assert self.process.running, self.process.output()
            found = self.ticks()
            return found if len(found) >= count else []

        return wait_until(ticked, 60, self.process.output)

    def __enter__(self) -> RealBeat:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.running:
            self.process.terminate()
        self._project.close()


def ticks_in(file: Path) -> list[tuple[float, float, float]]:
    """Return (time, seconds, CPU seconds so far) of each tick that is written in a file."""
    if not file.exists():
        return []
    lines = file.read_text().split("\n")[:-1]
    return [tuple(json.loads(line)) for line in lines]


def headers_of(message: bytes) -> dict[str, Any]:
    """Return the headers of a message as it lies in Redis."""
    found: dict[str, Any] = json.loads(message)["headers"]
    return found


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
