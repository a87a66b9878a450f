"""The heartbeat of a worker, and its children."""

from __future__ import annotations

import os
import warnings

import pytest
from celery import Celery, signals
from celery.worker import state as worker_state

import beatstore
from beatstore.errors import UnavailableError
from beatstore.tick.reports import Origin
from beatstore.worker import signals as worker
from beatstore.worker import tracker
from tests.support.harness.inprocess import NOWHERE
from tests.support.recorder import Recorder
from tests.support.tracer import Thing, request_of, run, told
from tests.support.wait import wait_until


class Alive(Recorder):
    """A recorder that takes heartbeats."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.beats: list[tuple[str, int, list[Origin]]] = []
        self.withdrawn: list[str] = []

    def heartbeat(self, worker_id: str, name: str, pid: int, running: list[Origin]) -> None:
        self._answer([])
        self.beats.append((name, pid, list(running)))

    def withdraw(self, worker_id: str) -> None:
        self.withdrawn.append(worker_id)


def test_heartbeat(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A worker says at once and then again and again what it runs, and in the end that it ends."""
    alive = Alive()
    monkeypatch.setattr(tracker, "OwnReports", lambda settings: alive)
    app = Celery("tests", set_as_current=False)
    app.conf.update(beatstore_url=NOWHERE, beatstore_heartbeat=0.1, timezone="UTC")
    beatstore.setup(app)

    @app.task(shared=False)
    def task() -> None: ...

    request, foreign = request_of(app, task, 7), request_of(Celery(set_as_current=False), task, 8)
    worker_state.active_requests.update([request, foreign])
    try:
        consumer = Thing(app=app, hostname="w@h", pool=Thing(is_green=False))
        signals.worker_ready.send(consumer)
        wait_until(lambda: len(alive.beats) >= 2)
        assert alive.beats[0] == ("w@h", os.getpid(), [Origin(7, "the-id")])
        alive.error = UnavailableError("gone")
        calls = alive.calls
        wait_until(lambda: alive.calls >= calls + 3)
        alive.error = None
        beats = len(alive.beats)
        wait_until(lambda: len(alive.beats) > beats)
        wait_until(lambda: "writing the worker's heartbeat again after " in caplog.text)
    finally:
        worker_state.active_requests.clear()
    signals.worker_shutdown.send(Thing(app=app))
    assert len(alive.withdrawn) == alive.closed == 1
    assert caplog.text.count(", retrying: ") == 1
    app.close()


def test_a_child_begins_anew(app: Celery, writer: Recorder) -> None:
    """After a fork a child reports by itself, though its parent's reporter hangs."""

    @app.task(shared=False)
    def fine() -> None: ...

    writer.hang()
    run(fine)
    parents = worker._trackers[app].reporter
    with warnings.catch_warnings(), parents._changed, worker._trackers[app]._lock:
        warnings.simplefilter("ignore")  # of newer Pythons, about threads and fork
        child = os.fork()
    if child == 0:
        writer.__post_init__()  # its lock may be taken too
        writer.batches.clear()
        run(fine, 2)
        own = worker._trackers[app].reporter
        fresh = own is not parents and own.flush(5)
        ends = [state for state in writer.states if state[1] != "started"]
        os._exit(0 if fresh and ends == [(2, "succeeded")] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    writer.release()
    assert {report.of.run_id for report in told(app, writer)} == {1}
