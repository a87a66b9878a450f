"""Real beats and workers, and runs as a beat would have sent them.

stage = Stage(project, migrated_url)
stage.worker("threads")
run_id = stage.send("tests.note")
stage.wait_for(run_id, "succeeded")
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from celery import Celery
from sqlalchemy import Row

from beatstore import Store
from beatstore.models import EntryModel, RunModel
from beatstore.rules.states import UNFINISHED
from tests.support.harness.base import Harness
from tests.support.processes import Process
from tests.support.project import Project, Ran
from tests.support.wait import wait_until

__all__ = ["Stage"]


class Stage(Harness):
    """A project whose beats and workers are real.

    Args:
        project: the app, of `tests.support.tracked_app` where runs are sent by hand.
        url: the database, as the test reaches it.
    """

    def __init__(self, project: Project, url: str) -> None:
        super().__init__(Store(url))
        self.project = project
        self.url = url
        self._numbers = itertools.count(1)

    @cached_property
    def app(self) -> Celery:
        """An app of this process with the project's settings."""
        return self.project.app()

    # -- beats and workers -----------------------------------------------------------------

    def start_beat(
        self, *, app: str | None = None, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start a beat, and wait for nothing.

        Args:
            app: another module than the project's for `celery -A`.
            env: further variables.
        """
        name, self.project.app_name = self.project.app_name, app or self.project.app_name
        try:
            return self.project.beat(env=env)
        finally:
            self.project.app_name = name

    def beat(self, *, app: str | None = None, env: Mapping[str, str] | None = None) -> Process:
        """Start a beat as `start_beat` does, and wait until it has ticked."""
        process = self.start_beat(app=app, env=env)
        self.wait_for_beats([process])
        return process

    def wait_for_beats(self, processes: Iterable[Process], timeout: float = 60) -> None:
        """Wait until these processes have written their rows."""
        for process in processes:

            def ticked(process: Process = process) -> bool:
                assert process.running, process.output()[-4000:]
                return process.pid in self.beats()

            wait_until(ticked, timeout, process.output)

    def start_worker(
        self, pool: str = "prefork", *arguments: str, budget: float | None = None
    ) -> Process:
        """Start a worker, and wait for nothing.

        Args:
            pool: its `--pool`.
            arguments: further ones of `celery worker`.
            budget: what `beatstore_report_wait` is set to.
        """
        env = {} if budget is None else {"BEATSTORE_TEST_BUDGET": str(budget)}
        return self.project.worker("--pool", pool, *arguments, env=env)

    def worker(
        self, pool: str = "prefork", *arguments: str, budget: float | None = None
    ) -> Process:
        """Start a worker as `start_worker` does, and wait until it takes messages."""
        process = self.start_worker(pool, *arguments, budget=budget)
        process.wait_for_output(" ready.", 60)
        return process

    # -- runs that are made by hand --------------------------------------------------------

    def add_run(self, **columns: Any) -> int:
        """Insert an entry, and a run of it that is sent, without a message; return the run's id."""
        number = next(self._numbers)
        given = {
            "name": f"entry-{number}",
            "task": "tests.note",
            "kind": "cron",
            "spec": "0 0 1 1 *",
        }
        with self.store.database.session() as session:
            entry = EntryModel(**given, wake_at=None, **columns)
            session.add(entry)
            session.flush()
            run = RunModel(
                entry_id=entry.id,
                entry_name=entry.name,
                due_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
                task_id=f"task-{number}",
                state="sent",
            )
            session.add(run)
            session.flush()
            return run.id

    def send(self, task: str, *args: Any, **options: Any) -> int:
        """Add a run, and send its message; return the run's id."""
        run_id = self.add_run()
        self.send_again(run_id, task, *args, **options)
        return run_id

    def send_again(self, run_id: int, task: str, *args: Any, **options: Any) -> None:
        """Send one more message of a run."""
        task_id = self.task_id(run_id)
        headers = {"beatstore_run_id": run_id, "beatstore_task_id": task_id}
        self.app.send_task(task, args, task_id=task_id, headers=headers, **options)

    def send_part(self, run_id: int, part: str, task: str, *args: Any) -> None:
        """Send the message of one task of a canvas that is a run."""
        headers = {"beatstore_run_id": run_id, "beatstore_task_id": self.task_id(run_id)}
        self.app.send_task(task, args, headers={**headers, "beatstore_part": part})

    def task_id(self, run_id: int) -> str:
        """Return the id that all messages of a run have."""
        return str(self.run(run_id).task_id)

    def revoke(self, task_id: str, **arguments: Any) -> None:
        """Revoke a task, and wait until a worker knows."""
        given = {"task_id": task_id, **arguments}
        answer = self.app.control.broadcast("revoke", given, reply=True, limit=1, timeout=20)
        assert answer, "no worker has answered"

    def file(self, name: str) -> Path:
        """Return the path of a file that tasks wait for; it does not exist yet."""
        return self.project.directory / name

    # -- what became of them ---------------------------------------------------------------

    def wait_for(self, run_id: int, state: str, timeout: float = 30) -> Row[Any]:
        """Wait until a run is in a state, and return its row; fail if it ends otherwise."""

        def arrived() -> Row[Any] | None:
            run = self.run(run_id)
            if run.state == state:
                return run
            assert run.state in UNFINISHED, self.tell(run)
            return None

        found = wait_until(arrived, timeout, lambda: self.tell(self.run(run_id)))
        assert found is not None
        return found

    def ran(self, run_id: int) -> list[Ran]:
        """Return each start of the run's task in a worker."""
        return [ran for ran in self.project.runs() if ran.headers.get("beatstore_run_id") == run_id]

    def wait_until_ran(self, run_id: int, times: int = 1) -> None:
        """Wait until the run's task has begun in a worker so many times."""
        wait_until(lambda: len(self.ran(run_id)) >= times, 30, lambda: self.tell(self.run(run_id)))

    def tell(self, *first: object) -> str:
        """Return what there is to see: what the processes said, after what is given."""
        logs = (f"{process!r}\n{process.output()[-3000:]}" for process in self.project.processes)
        return "\n".join([*map(str, first), *logs])

    def close(self) -> None:
        """Close the connections; the project ends the processes."""
        super().close()
        if "app" in vars(self):
            self.app.close()
