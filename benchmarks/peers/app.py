"""The app of the beats that are compared: `celery -A benchmarks.peers.app`.

It runs in the environment of one scheduler, which `PEER` names. For each tick it leaves a line in
a file: the time, the seconds that it took, and all CPU seconds so far. No signal of sending is
connected.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from celery import Celery
from celery.signals import beat_init

from benchmarks.peers.peer import PEER, SETTINGS, TASK, TICKS, WHERE, peer_called

__all__ = ["app"]

app = Celery("benchmarks.peers.app")


@app.task(name=TASK, shared=False)
def work(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


app.conf.update(json.loads(os.environ[SETTINGS]))
peer_called(os.environ[PEER]).configure(app, os.environ[WHERE])


@beat_init.connect
def _time_ticks(sender: Any, **_: Any) -> None:
    scheduler = sender.scheduler
    tick = scheduler.tick
    file = os.open(os.environ[TICKS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        wait = tick(*args, **kwargs)
        line = [time.time(), time.perf_counter() - started, time.process_time()]
        os.write(file, json.dumps(line).encode() + b"\n")
        return wait

    scheduler.tick = timed
