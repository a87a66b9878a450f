"""The reporter and the heartbeat of a worker process.

Invariants:
    * Nothing is read, connected or started before the first report or the worker's start.
    * A forked child uses nothing of its parent: no thread, lock, queue or connection.

On failure: if the database is unavailable, this is logged once and retried.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from billiard.process import current_process
from celery import Celery

from beatstore.appconf import read_settings
from beatstore.config import Settings
from beatstore.database.engine import Database
from beatstore.errors import BeatstoreError, StoreError
from beatstore.headers import PART, STEP, TASK_ID, UNLOCK, run_id_in
from beatstore.outage import Outage
from beatstore.tick.parts import is_last
from beatstore.tick.reports import Origin, Reports
from beatstore.worker.received import active_requests
from beatstore.worker.reporter import Reporter

__all__ = [
    "TASK_ID",
    "Heartbeat",
    "Tracker",
    "origin_of",
]

logger = logging.getLogger(__name__)

#: The length of the column `run.task_id`.
_LONGEST = 155

#: How long the start of a process with guarded tasks may wait for the database, in seconds.
PREPARATION = 1.0

#: How long shutdown may wait for the database, in seconds.
SHUTDOWN_S = 5.0

#: Objects that a child has inherited and must not use.
_inherited: list[object] = []


class OwnReports(Reports):
    """Reports with their own engine, which keeps no connection after `close`."""

    def __init__(self, settings: Settings) -> None:
        self._own = Database(
            settings.url,
            engine_options=settings.engine_options,
            schema=settings.schema,
            notify=settings.notify,
        )
        self._own.program = "beatstore-worker"
        super().__init__(self._own, settings)

    def close(self) -> None:
        """Close the connection and its pool."""
        super().close()
        self._own.dispose()

    def load(self) -> None:
        """Import the driver without connecting."""
        with _cooperative_psycopg():
            _ = self._own.engine


class Tracker:
    """The reporter of a process for one app and, in a worker's main process, its heartbeat."""

    #: Whether this process was forked from the one that called `setup`.
    _forked = False

    #: Whether the worker's pool has green threads, which celery can only kill.
    is_green = False

    def __init__(self, app: Celery) -> None:
        self._app = weakref.ref(app)
        self.begin()

    @property
    def is_child(self) -> bool:
        """Whether this process is a child of a worker, forked or spawned."""
        return self._forked or hasattr(current_process(), "index")  # a place in the pool

    def begin(self) -> None:
        """Reset all state; also in a child, since a lock of its parent may never be released."""
        self._lock = threading.Lock()
        self._reporter: Reporter | None = None
        self._heartbeat: Heartbeat | None = None
        self._stopped_at: float | None = None
        self._wait_s: float | None = None

    def forked(self) -> None:
        """Reset the state in a forked child."""
        # Keep the objects alive: collecting a connection would close it on the server.
        _inherited.append((self._reporter, self._heartbeat))
        self.begin()
        self._forked = True

    @property
    def reporter(self) -> Reporter:
        """Return the reporter of this process."""
        if self._reporter is None:
            with self._lock:
                if self._reporter is None:
                    self._reporter = Reporter(lambda: self.open()[0])
        return self._reporter

    @property
    def wait_s(self) -> float:
        """Return how many seconds a task waits for the database."""
        if self._wait_s is None:
            try:
                settings = read_settings(self._app())
            except Exception:  # noqa: BLE001  (whatever reading a configuration can raise)
                settings = Settings()  # the reporter says what is wrong
            self._wait_s = settings.report_wait
        return self._wait_s

    def open(self) -> tuple[OwnReports, Settings]:
        """Open the writer of reports."""
        settings = read_settings(self._app())
        return OwnReports(settings), settings

    def prepare(self) -> None:
        """Connect before the first task, if any task uses the start-once guard."""
        app = self._app()
        tasks = () if app is None else app.tasks.values()
        if any(getattr(task, "starts_once", False) for task in tasks):
            self.reporter.prepare(PREPARATION)

    def beat(self, name: str) -> None:
        """Start the heartbeat."""
        with self._lock:
            if self._heartbeat is None:
                self._heartbeat = Heartbeat(name, self.open, self._app)
                self._heartbeat.start()

    def stop(self) -> None:
        """Write the remaining reports, and mark the worker as stopped."""
        with self._lock:
            reporter, heartbeat = self._reporter, self._heartbeat
            self._heartbeat = None
            # Shutdown may call this more than once; it waits once.
            self._stopped_at = self._stopped_at or time.monotonic()
            deadline = self._stopped_at + SHUTDOWN_S
        if heartbeat is not None:
            heartbeat.end()
        if reporter is not None:
            reporter.stop(max(0.0, deadline - time.monotonic()))
        if heartbeat is not None:
            heartbeat.join(max(0.1, deadline - time.monotonic()))


class Heartbeat(threading.Thread):
    """Sends heartbeats for a worker and its runs, on its own connection.

    Args:
        name: the worker's node name.
        open_reports: opens the writer of reports.
        app: returns the app whose requests are running.
    """

    def __init__(
        self,
        name: str,
        open_reports: Callable[[], tuple[Reports, Settings]],
        app: Callable[[], Celery | None],
    ) -> None:
        super().__init__(daemon=True, name="beatstore-heartbeat")
        self._node = name
        self._open = open_reports
        self._app = app
        self._worker_id = str(uuid.uuid4())
        self._over = threading.Event()
        self._outage = Outage(
            "could not write the worker's heartbeat", "writing the worker's heartbeat again"
        )

    def end(self) -> None:
        """Stop the thread, which marks the worker as stopped."""
        self._over.set()

    def run(self) -> None:
        """Send heartbeats until the end."""
        try:
            reports, settings = self._open()
        except Exception as error:
            logger.error(  # noqa: TRY400  (the message names the invalid setting)
                "could not start the worker's heartbeat: %s",
                error,
                exc_info=not isinstance(error, BeatstoreError),
            )
            return
        wait = 0.0
        while not self._over.wait(wait):
            wait = self._beat(reports, settings.heartbeat)
        try:
            if self._outage.over:
                reports.withdraw(self._worker_id)
            reports.close()
        except Exception as error:  # noqa: BLE001  (the worker becomes stale instead)
            logger.debug("could not mark the worker as stopped: %s", error)

    def _beat(self, reports: Reports, interval: float) -> float:
        """Send one heartbeat, and return the seconds until the next."""
        try:
            reports.heartbeat(self._worker_id, self._node, os.getpid(), self._running())
        except StoreError as error:
            return min(interval, self._outage.begin(error))
        except Exception:
            logger.exception("the heartbeat failed, retrying in %g s", interval)
            return interval
        self._outage.end()
        return interval

    def _running(self) -> list[Origin]:
        app = self._app()
        active = {origin_of(one.request_dict) for one in active_requests() if one.app is app}
        return [origin for origin in active if origin is not None]


@contextmanager
def _cooperative_psycopg() -> Iterator[None]:
    """Make psycopg wait in Python, not in C, if it is imported under eventlet.

    Otherwise a frozen server would block the whole worker. psycopg detects gevent by itself.
    """
    name, patcher = "PSYCOPG_WAIT_FUNC", sys.modules.get("eventlet.patcher")
    if name in os.environ or patcher is None or not patcher.is_monkey_patched("select"):
        yield
        return
    os.environ[name] = "wait_select"
    try:
        yield
    finally:
        del os.environ[name]


def origin_of(headers: Mapping[str, Any] | Any) -> Origin | None:
    """Return the run and part of a message from its headers, or None if it has no run.

    A step of a canvas is identified by the id of its message, which stays the same when the
    broker redelivers it or Celery retries it.
    """
    run_id, own = run_id_in(headers), _word(headers.get("id"))
    task_id = _word(headers.get(TASK_ID, own))
    if run_id is None or task_id is None:
        return None
    part = headers.get(PART)
    if part is not None and headers.get("task") == UNLOCK:
        return None  # celery gives it the headers of the chord's body, which it waits to send
    if part is not None and not (isinstance(part, str) and is_last(part)):
        part = own or STEP
    return Origin(run_id, task_id, part)


def _word(given: Any) -> str | None:
    """Return a value if it is a valid id that every database can store, or None."""
    fits = isinstance(given, str) and 0 < len(given) <= _LONGEST and given.isprintable()
    return given if fits else None
