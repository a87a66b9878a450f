"""A user's project in miniature: real beats and workers over a broker and a database.

    project = new_project(redis_broker, migrated_url)
    project.beat()
    project.worker()
    wait_until(lambda: len(project.runs()) == 3, 10, "three runs")

Without a worker, what beat has sent waits in `project.broker.drain()`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from celery import Celery

from tests.support.brokers import Broker
from tests.support.processes import ROOT, Process

__all__ = ["NewProject", "Project", "Ran"]


@dataclass(frozen=True)
class Ran:
    """One run of one of the tasks of `tests.support.app`, as a worker saw it.

    Attributes:
        id: the task id.
        task: the task's name.
        args: positional arguments.
        kwargs: keyword arguments.
        headers: the message headers that start with `beatstore_`.
        at: when it ran.
        pid: the process it ran in.
    """

    id: str
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    headers: dict[str, Any]
    at: datetime
    pid: int


class Project:
    """A Celery app with settings, and the processes started from it.

    Args:
        directory: working directory of the processes; their logs are there.
        broker: where messages go.
        database_url: what `beatstore_url` is set to; None leaves it unset.
        settings: Celery settings on top, as JSON can carry them.
        app: the module given to `celery -A`; one of a test's own may lie in `directory`.
    """

    def __init__(
        self,
        directory: Path,
        broker: Broker,
        database_url: str | None,
        settings: Mapping[str, Any] | None = None,
        app: str = "tests.support.app",
    ) -> None:
        self.directory = directory
        self.broker = broker
        self.app_name = app
        self.settings: dict[str, Any] = {
            **broker.settings,
            "timezone": "UTC",
            "worker_hijack_root_logger": False,
            **({} if database_url is None else {"beatstore_url": database_url}),
            **(settings or {}),
        }
        self.processes: list[Process] = []
        self._runs = directory / "runs.jsonl"

    @property
    def env(self) -> dict[str, str]:
        """Variables with which the app, in any process, is this project's."""
        return {
            "BEATSTORE_TEST_APP": json.dumps(self.settings),
            "BEATSTORE_TEST_RUNS": str(self._runs),
            "PYTHONPATH": os.pathsep.join([str(self.directory), str(ROOT)]),
            "PYTHONUNBUFFERED": "1",
            # Celery's warning about running as root is right, and not about these tests.
            "C_FORCE_ROOT": "1",
        }

    def app(self) -> Celery:
        """Return an app of this process with the same settings, to send or inspect with."""
        app = Celery("tests.support.app", set_as_current=False)
        app.conf.update(self.settings)
        return app

    def beat(
        self,
        *arguments: str,
        scheduler: str = "beatstore:DBScheduler",
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start `celery beat`.

        Args:
            arguments: further arguments of `celery beat`.
            scheduler: its `--scheduler`.
            prefix: a command to run it under, such as `["faketime", "-f", "+1h"]`.
            env: further variables.
        """
        options = ["beat", "--scheduler", scheduler, "--loglevel", "INFO", "--pidfile="]
        return self.celery(*options, *arguments, prefix=prefix, env=env)

    def worker(
        self, *arguments: str, prefix: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> Process:
        """Start `celery worker`, with one process unless `arguments` say otherwise."""
        quick = ["--without-gossip", "--without-mingle", "--hostname", f"{len(self.processes)}@%h"]
        options = ["worker", "--loglevel", "INFO", "--concurrency", "1", *quick]
        return self.celery(*options, *arguments, prefix=prefix, env=env)

    def celery(
        self, *arguments: str, prefix: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> Process:
        """Start any `celery -A … <arguments>`."""
        celery = [sys.executable, "-m", "celery", "-A", self.app_name]
        return self.start([*prefix, *celery, *arguments], env=env)

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Process:
        """Start any command with the project's variables, in its directory."""
        process = Process(
            argv,
            log=self.directory / f"process-{len(self.processes)}.log",
            cwd=self.directory,
            env={**self.env, **(env or {})},
        )
        self.processes.append(process)
        return process

    def runs(self) -> list[Ran]:
        """Return what the workers have run so far, in order."""
        if not self._runs.exists():
            return []
        # A line that is being written has no end yet.
        lines = self._runs.read_text().split("\n")[:-1]
        return [_ran(json.loads(line)) for line in lines]

    def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.kill9()


def _ran(line: dict[str, Any]) -> Ran:
    at = datetime.fromtimestamp(line["at"], timezone.utc)
    return Ran(**{**line, "at": at})


#: What the fixture `new_project` hands out.
NewProject = Callable[..., Project]
