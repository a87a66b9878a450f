"""A scheduler with its entries and its broker, from outside."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from benchmarks.beat import ticks_in
from benchmarks.peers.peer import PEER, SETTINGS, TICKS, WHERE, Due, Peer
from benchmarks.peers.tap import tap_of
from tests.support.brokers import Broker
from tests.support.processes import ROOT, Process

__all__ = ["Beat", "DidNotFinishError", "NotMeasuredError", "Scene"]


class DidNotFinishError(Exception):
    """Something took longer than the limit; the message says how far it came."""


class NotMeasuredError(Exception):
    """A cell has no figures; the message says why."""


class Scene:
    """Where a scheduler runs.

    Args:
        peer: the scheduler.
        python: the Python of its environment.
        directory: for files and logs; made.
        where: the URL or file of its entries.
        kind: the kind of that: a database, `redis` or `file`.
        broker: where it sends.
        limit: seconds that a step may take.
    """

    def __init__(
        self,
        peer: Peer,
        python: Path,
        directory: Path,
        *,
        where: str,
        kind: str,
        broker: Broker,
        limit: float,
    ) -> None:
        directory.mkdir(parents=True)
        self.peer, self.directory, self.kind = peer, directory, kind
        self.broker, self.limit = broker, limit
        self.tap = tap_of(broker)
        self.stored = 0
        #: Seconds from the start of a beat to the end of its first tick, once that is known.
        self.start_s = 0.0
        self._python = python
        settings = {**broker.settings, **peer.settings(where), "timezone": "UTC"}
        self._env = {
            PEER: peer.name,
            WHERE: where,
            SETTINGS: json.dumps(settings),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "C_FORCE_ROOT": "1",
        }
        self._beats: list[Beat] = []
        self._log = (directory / "writer.log").open("w")
        self._writer = subprocess.Popen(
            [str(python), "-m", "benchmarks.peers.writer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **self._env},
            cwd=directory,
        )
        self._answer("start", 120)

    def write(self, method: str, given: Any, limit: float = 3_600) -> float:
        """Have the writer do something, and return the time at which it was done."""
        assert self._writer.stdin is not None
        self._writer.stdin.write(json.dumps([method, given]).encode() + b"\n")
        self._writer.stdin.flush()
        return self._answer(method, limit)

    def store_far(self, count: int) -> None:
        """Store entries that are not due for long."""
        self.write("store_far", count)
        self.stored = count

    def store_due(self, due: Sequence[Due]) -> None:
        """Replace the entries that are due; empty the queue."""
        self.write("store_due", [astuple(one) for one in due])
        self.tap.purge()

    def beat(self) -> Beat:
        """Start a `celery beat`."""
        number = len(self._beats)
        file = self.directory / f"ticks-{number}.jsonl"
        beat = ["beat", "--scheduler", self.peer.scheduler, "--pidfile=", *self.peer.options]
        process = Process(
            [str(self._python), "-m", "celery", "-A", "benchmarks.peers.app", *beat],
            log=self.directory / f"beat-{number}.log",
            cwd=self.directory,
            env={**self._env, TICKS: str(file)},
        )
        found = Beat(process, file)
        self._beats.append(found)
        return found

    def close(self) -> None:
        """End all processes."""
        for beat in self._beats:
            beat.process.kill9()
        assert self._writer.stdin is not None
        self._writer.stdin.close()
        try:
            self._writer.wait(10)
        except subprocess.TimeoutExpired:
            self._writer.kill()
            self._writer.wait()
        self._log.close()
        self.tap.close()

    def _answer(self, doing: str, limit: float) -> float:
        out: Any = self._writer.stdout
        if not select.select([out], [], [], limit)[0]:
            raise DidNotFinishError(f"{doing} took more than {limit:g} s")
        line = out.readline()
        if not line:
            self._log.flush()
            said = Path(self._log.name).read_text()[-2_000:]
            raise RuntimeError(f"the writer of {self.peer.name} ended in {doing}:\n{said}")
        return float(line)


class Beat:
    """A `celery beat` of a scheduler."""

    def __init__(self, process: Process, file: Path) -> None:
        self.process = process
        self.started_at = time.time()
        self._file = file

    def ticks(self) -> list[tuple[float, float, float]]:
        """Return (time, seconds, CPU seconds so far) of each tick so far."""
        return ticks_in(self._file)

    def wait_for_ticks(self, count: int, limit: float) -> list[tuple[float, float, float]]:
        """Wait until there are `count` ticks, and return all there are.

        Raises:
            DidNotFinishError: there are not so many within `limit` seconds.
            NotMeasuredError: it has ended.
        """
        deadline = time.monotonic() + limit
        while len(found := self.ticks()) < count:
            if not self.process.running:
                said = self.process.output().strip().splitlines()[-1:]
                raise NotMeasuredError(f"the beat ended by itself: {' '.join(said)}")
            if time.monotonic() > deadline:
                raise DidNotFinishError(f"{len(found)} of {count} ticks")
            time.sleep(0.02)
        return found

    def end(self) -> None:
        """End it, in the way of a service manager: kindly, then by force."""
        self.process.send(15)
        try:
            self.process.wait(10)
        except AssertionError:
            self.process.kill9()
