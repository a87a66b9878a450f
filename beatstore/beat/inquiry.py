"""Ask the result backend about runs that no worker reports on.

A backend may be slow or unavailable, so a thread asks it and the tick never waits. If no backend
is configured, the run is `lost`.

On failure: if the backend does not answer, the runs stay as they are, and are asked about again
a minute later.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from typing import Any

from celery import Celery
from celery.backends.base import DisabledBackend

from beatstore.beat.results import ENDED
from beatstore.tick.claims import Ending, StaleRun

__all__ = ["Inquiry"]

logger = logging.getLogger(__name__)


class Inquiry:
    """Asks one app's result backend about stale runs."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._answers: queue.SimpleQueue[tuple[StaleRun, Ending]] = queue.SimpleQueue()
        #: The runs of the open question, by id, as they were swept last.
        self._asked: dict[int, StaleRun] = {}
        self._thread: threading.Thread | None = None

    def ask(self, stale_runs: Sequence[StaleRun] = ()) -> list[Ending]:
        """Ask about these runs, and return the outcomes that have arrived since the last call.

        While an earlier question is still open, new ones are skipped: the sweep returns these
        runs again after a minute. A run of the open question that it has returned again is still
        silent, so its answer counts.
        """
        if stale_runs:
            self._begin(stale_runs)
        found = []
        while not self._answers.empty():
            run, ending = self._answers.get()
            newest = self._asked.get(run.run_id, run)
            found.append(newest.lost if ending.state == "lost" else ending)
        return found

    def wait(self, seconds: float) -> None:
        """Wait at most this long for the backend's answers."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _begin(self, stale_runs: Sequence[StaleRun]) -> None:
        newest = {run.run_id: run for run in stale_runs}
        if isinstance(self._app.backend, DisabledBackend):
            self._put([(run, run.lost) for run in stale_runs])
        elif self._thread is not None and self._thread.is_alive():
            self._asked |= newest
        else:
            self._asked = newest
            self._thread = threading.Thread(target=self._ask, args=(stale_runs,), daemon=True)
            self._thread.start()

    def _ask(self, stale_runs: Sequence[StaleRun]) -> None:
        found: list[tuple[StaleRun, Ending]] = []
        for run in stale_runs:
            try:
                meta: dict[str, Any] = self._app.backend.get_task_meta(run.task_id)
            except Exception as error:  # noqa: BLE001  (of any backend's client)
                logger.warning("could not ask the result backend about %r: %r", run.name, error)
                break
            found.append((run, _ending(run, meta)))
        self._put(found)

    def _put(self, found: Sequence[tuple[StaleRun, Ending]]) -> None:
        for answer in found:
            self._answers.put(answer)


def _ending(run: StaleRun, meta: dict[str, Any]) -> Ending:
    state = ENDED.get(str(meta.get("status")))
    if state is None:
        return run.lost
    reason = f"{run.reason}; outcome taken from the result backend"
    if state != "failed":
        return Ending(run.run_id, run.task_id, state, reason)
    result, traceback = meta.get("result"), meta.get("traceback")
    error = f"{type(result).__name__}: {result}"
    text = str(traceback) if traceback else None
    return Ending(run.run_id, run.task_id, state, reason, error, text)
