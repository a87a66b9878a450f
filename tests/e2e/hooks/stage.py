"""A beat and a worker in one process, for a package that patches celery to be watched in.

Each program beside this module is a process of its own, started by `test_hooks.py`: what
these packages patch stays patched. It is given JSON on its command line, plays on a
`Stage`, and prints what it saw as JSON on its last line.

    with Stage() as stage:
        stage.store.add("nightly", "tests.ok", "0 2 * * *")
        stage.play()
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from celery import Celery, signals
from celery.beat import Service
from celery.contrib.testing.worker import start_worker

from beatstore import ManualClock, Store

#: What the process was started with: `broker`, `database`, and what the test adds.
GIVEN: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}

#: Two o'clock at night in Berlin, on a quiet day; beat starts an hour before.
NIGHT = datetime(2026, 1, 15, 1, tzinfo=timezone.utc)
BEFORE = datetime(2026, 1, 15, 0, tzinfo=timezone.utc)


class Stage:
    """Beat knows the tasks `tests.ok` and `tests.fail`; the worker knows `tests.elsewhere` too.

    Attributes:
        app: beat's app.
        worker_app: the worker's.
        store: the database, whose clock stands an hour before `NIGHT`.
        messages: the headers of each message, by its id.
        ran: what each task was, by its id: "SUCCESS" or "FAILURE".
        inside: what the tasks noted.
    """

    def __init__(self, **settings: Any) -> None:
        self.app = self._new_app(settings)
        self.worker_app = self._new_app(settings)
        self._add_elsewhere()
        self.clock = ManualClock(BEFORE)
        self.store = Store(GIVEN["database"], clock=self.clock)
        self.store.migrate()
        self.messages: dict[str, dict[str, Any]] = {}
        self.ran: dict[str, str] = {}
        self.inside: list[dict[str, Any]] = []
        self.service: Service | None = None

    def __enter__(self) -> Stage:
        signals.after_task_publish.connect(self._on_published)
        signals.task_postrun.connect(self._on_ran)
        signals.beat_init.connect(self._on_beat)
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def _new_app(self, settings: dict[str, Any]) -> Celery:
        app = Celery("tests", set_as_current=False)
        app.conf.update(
            broker_url=GIVEN["broker"],
            task_default_queue=GIVEN["queue"],
            beatstore_url=GIVEN["database"],
            beat_max_loop_interval=0.05,
            result_expires=None,
            worker_hijack_root_logger=False,
            timezone="UTC",
        )
        app.conf.update(settings)

        @app.task(name="tests.ok", bind=True, shared=False)
        def ok(self: Any, *args: Any) -> str:
            stage_note(self)
            return "done"

        @app.task(name="tests.fail", bind=True, shared=False)
        def fail(self: Any) -> None:
            stage_note(self)
            raise RuntimeError("tests.fail always fails")

        def stage_note(task: Any) -> None:
            request = task.request
            entry, run = (request.get(f"beatstore_{key}") for key in ("entry", "run_id"))
            self.inside.append({"id": request.id, "entry": entry, "run_id": run})

        return app

    def _add_elsewhere(self) -> None:
        @self.worker_app.task(name="tests.elsewhere", shared=False)
        def elsewhere() -> None:
            """Do nothing; beat has never heard of this task."""

    def _on_published(self, headers: dict[str, Any], **_: Any) -> None:
        self.messages[headers["id"]] = dict(headers)

    def _on_ran(self, task_id: str, state: str, **_: Any) -> None:
        self.ran[task_id] = state

    def _on_beat(self, sender: Service, **_: Any) -> None:
        sender.scheduler.store.database.clock = self.clock
        # As in a process that `celery -A` has started.
        self.app.set_default()
        self.app.set_current()

    def beat(self, until: Callable[[], Any] | None = None) -> None:
        """Run celery's beat in a thread until nothing is due any more, and stop it.

        Args:
            until: what has to be true before that.
        """
        self.service = Service(self.app, scheduler_cls="beatstore:DBScheduler")
        thread = threading.Thread(target=self.service.start, daemon=True)
        thread.start()
        wait(lambda: (until is None or until()) and self._nothing_due(), "beat to send")
        self.service.stop(wait=True)
        thread.join(20)

    def work(self) -> None:
        """Run a worker in a thread until everything sent has run, and stop it."""
        with start_worker(self.worker_app, pool="solo", perform_ping_check=False, loglevel="ERROR"):
            wait(lambda: len(self.ran) >= len(self.messages), "the worker to run everything")

    def play(self) -> None:
        """Let it be two at night; then beat, then the worker, do their work."""
        self.clock.set(NIGHT)
        self.beat(until=self.store.runs)
        self.work()

    def _nothing_due(self) -> bool:
        entries = self.store.entries(state="active")
        waiting = [entry for entry in entries if entry.wake_at and entry.wake_at <= NIGHT]
        return not waiting and not self.store.runs(state="claimed")

    def account(self) -> dict[str, Any]:
        """Return what became of each entry, and what its row looks like now."""
        return {
            "runs": {
                run.entry_name: {"state": run.state, "reason": run.reason, "id": run.task_id}
                for run in self.store.runs()
            },
            "options": {entry.name: entry.options for entry in self.store.entries()},
            "messages": self.messages,
            "ran": self.ran,
            "inside": self.inside,
        }


def wait(predicate: Callable[[], Any], what: str, timeout: float = 30.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            raise SystemExit(f"gave up waiting for {what}")
        time.sleep(0.02)


def report(**facts: Any) -> None:
    """Print what was seen, for the test to judge."""
    print(json.dumps(facts, default=str), flush=True)
