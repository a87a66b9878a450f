"""Runs as a beat would have sent them, and what workers make of them.

stage = Stage(project, migrated_url)
stage.worker("threads")
run_id = stage.send("tests.note")
stage.wait_for(run_id, "succeeded")
"""

from __future__ import annotations

import itertools
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select

from beatstore import Store
from beatstore.models import EntryModel, RunModel
from tests.support.processes import Process
from tests.support.project import Project, Ran
from tests.support.wait import wait_until

__all__ = ["Stage"]

#: In these a run has not ended.
_UNFINISHED = ("claimed", "sent", "started")


class Stage:
    """A project whose workers are real, and whose runs are made by hand.

    Args:
        project: the app, of `tests.support.tracked_app`.
        url: the database, as the test reaches it.
    """

    def __init__(self, project: Project, url: str) -> None:
        self.project = project
        self.store = Store(url)
        self.app = project.app()
        self._numbers = itertools.count(1)

    def worker(
        self, pool: str = "prefork", *arguments: str, budget: float | None = None
    ) -> Process:
        """Start a worker, and wait until it takes messages.

        Args:
            pool: its `--pool`.
            arguments: further ones of `celery worker`.
            budget: what stands for `beatstore.worker.signals.BUDGET`.
        """
        env = {} if budget is None else {"BEATSTORE_TEST_BUDGET": str(budget)}
        process = self.project.worker("--pool", pool, *arguments, env=env)
        process.wait_for_output(" ready.", 60)
        return process

    def add(self, **columns: Any) -> int:
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
        run_id = self.add()
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

    def run(self, run_id: int) -> Row[Any]:
        """Read the row of a run."""
        with self.store.database.session() as session:
            return session.execute(select(RunModel.__table__).where(RunModel.id == run_id)).one()

    def wait_for(self, run_id: int, state: str, timeout: float = 30) -> Row[Any]:
        """Wait until a run is in a state, and return its row; fail if it ends otherwise."""

        def arrived() -> Row[Any] | None:
            run = self.run(run_id)
            if run.state == state:
                return run
            assert run.state in _UNFINISHED, self._tell(run_id)
            return None

        found = wait_until(arrived, timeout, lambda: self._tell(run_id))
        assert found is not None
        return found

    def ran(self, run_id: int) -> list[Ran]:
        """Return each start of the run's task in a worker."""
        return [ran for ran in self.project.runs() if ran.headers.get("beatstore_run_id") == run_id]

    def wait_until_ran(self, run_id: int, times: int = 1) -> None:
        """Wait until the run's task has begun in a worker so many times."""
        wait_until(lambda: len(self.ran(run_id)) >= times, 30, lambda: self._tell(run_id))

    def file(self, name: str) -> Path:
        """Return the path of a file that tasks wait for; it does not exist yet."""
        return self.project.directory / name

    def close(self) -> None:
        """Close the connections; the project ends the processes."""
        self.store.close()
        self.app.close()

    def _tell(self, run_id: int) -> str:
        logs = (f"{process!r}\n{process.output()[-3000:]}" for process in self.project.processes)
        return "\n".join([str(self.run(run_id)), *logs])
