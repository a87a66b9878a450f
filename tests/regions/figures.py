"""Figures: how late runs are, and how soon other beats take over, by the round trip.

Three beats share the work, and the round trip is the same between any two of a beat, the workers,
the database and the broker. So everything is far: no beat is next to its database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from beatstore import Every, Once
from tests.chaos.app import app
from tests.chaos.collect import read_lines
from tests.regions.cluster import PLACES, Regions
from tests.regions.network import Network
from tests.support.harness.stage import Stage
from tests.support.processes import Process
from tests.support.wait import wait_until

__all__ = ["Figures", "Load", "measure", "table"]

#: So many entries are due one after the other in so many seconds: two in a second.
_STEADY, _PERIOD = 20, 10.0

#: So many one-shots are due at the instant at which a beat is killed: more than a batch for each.
_BURST = 400

#: How far ahead of their time entries are added, in seconds.
_AHEAD = 5.0


@dataclass(frozen=True)
class Load:
    """What is measured at each round trip.

    Attributes:
        seconds: for how long entries are due one after the other.
        kills: how many beats are killed, one after the other.
        claim_ttl: the setting.
        broker: `redis` or `rabbitmq`.
    """

    seconds: float = 100.0
    kills: int = 3
    claim_ttl: float = 10.0
    broker: str = "redis"


@dataclass(frozen=True)
class Figures:
    """What came out, in seconds.

    Attributes:
        round_trip_s: between any two places.
        sent: from each due time until its row said that the message was sent.
        started: from each due time until its task had started.
        burst: from each common due time until the last one-shot was sent that no dead beat held.
        taken_over: from each kill until each run was sent that the dead beat had held.
    """

    round_trip_s: float
    sent: Sequence[float]
    started: Sequence[float]
    burst: Sequence[float]
    taken_over: Sequence[float]


def measure(round_trip_s: float, load: Load, directory: Path) -> Figures:
    """Measure at one round trip.

    Args:
        round_trip_s: between any two places.
        load: what to measure.
        directory: for logs; empty.

    Raises:
        Unavailable: there can be no namespaces here, or a server is missing.
    """
    settings = {
        "beatstore_claim_ttl": load.claim_ttl,
        "beatstore_heartbeat": 10,
        "beat_max_loop_interval": 1,
    }
    with Network(PLACES) as network:
        cluster = Regions(network, directory, broker=load.broker, settings=settings)
        try:
            network.set(round_trip_s=round_trip_s)
            far = _Far(cluster)
            far.begin()
            sent, started = far.steady(load.seconds)
            for worker in cluster.workers:  # what is sent from now on waits for nobody
                worker.kill9()
            kills = [far.kill(number) for number in range(load.kills)]
            far.close()
        finally:
            cluster.close()
    burst = [took for took, _ in kills]
    return Figures(round_trip_s, sent, started, burst, [late for _, all in kills for late in all])


class _Far(Stage):
    """The beats of a cluster, with what their rows say."""

    def __init__(self, cluster: Regions) -> None:
        super().__init__(cluster.project, cluster.url)
        self.cluster = cluster

    def begin(self) -> None:
        """Start all, and wait until the beats tick."""
        self.store.migrate()
        self.cluster.start()
        self.wait_for_beats(self.cluster.beats)

    def steady(self, seconds: float) -> tuple[list[float], list[float]]:
        """Let entries be due one after the other; return how late runs were sent and started."""
        begin = self.now() + timedelta(seconds=_AHEAD)
        each = timedelta(seconds=_PERIOD / _STEADY)
        end = begin + timedelta(seconds=seconds) - each / 2
        for number in range(_STEADY):
            first = begin + number * each
            every = Every(_PERIOD, anchor=first)
            task = app.tasks["chaos.plain"].si()
            self.store.add(f"steady-{number}", task, every, start_at=first, end_at=end)
        expected = round(seconds / _PERIOD) * _STEADY
        done = {"succeeded": expected}
        wait_until(lambda: self.states() == done, seconds + 60, lambda: f"{self.states()}, {done}")
        lines = read_lines(self.project.directory / "runs.jsonl")
        started = {line.run: line.at for line in lines if line.what == "start"}
        runs = [(run, run.due_at.timestamp()) for run in self.runs()]
        return (
            [run.sent_at.timestamp() - due for run, due in runs],
            [started[run.id] - due for run, due in runs],
        )

    def kill(self, number: int) -> tuple[float, list[float]]:
        """Let one-shots be due at once, and kill the first beat that is seen to hold claims.

        Returns:
            When the last run was sent that it did not hold, after the due time; and when each
            was sent that it held, after the kill. In seconds.
        """
        at = (self.now() + timedelta(seconds=_AHEAD)).replace(microsecond=0)
        self.insert(
            {
                "name": f"once-{number}-{one}",
                "task": "chaos.plain",
                "kind": "once",
                "spec": Once(at).spec,
                "wake_at": at,
            }
            for one in range(_BURST)
        )
        processes = {beat.pid: beat for beat in self.cluster.beats}
        holders = {name: pid for pid, name in self.beats().items()}
        held = wait_until(self._holders, 60, "no beat has claimed anything", interval=0.001)
        name = held.pop()
        victim = processes[holders[name]]
        victim.kill9()
        killed_at = self.now()
        orphans = {run.id for run in self._claimed() if run.claimed_by == name}
        wait_until(lambda: not self.due(), 120, lambda: str(self.states()), interval=0.1)
        runs = [run for run in self.runs() if run.due_at == at]
        assert len(runs) == _BURST, f"{len(runs)} of {_BURST} have a row"
        self._replace(victim)
        rest = [run.sent_at - at for run in runs if run.id not in orphans]
        late = [run.sent_at - killed_at for run in runs if run.id in orphans]
        return max(rest).total_seconds(), [one.total_seconds() for one in late]

    def _claimed(self) -> list[Any]:
        return [run for run in self.runs() if run.state == "claimed"]

    def _holders(self) -> set[str]:
        return {run.claimed_by for run in self._claimed()}

    def _replace(self, victim: Process) -> None:
        """Start another beat where one was killed."""
        index = self.cluster.beats.index(victim)
        del self.cluster.beats[index]
        self.cluster.start_beat(self.cluster.BEATS[index])
        self.cluster.beats.insert(index, self.cluster.beats.pop())
        self.wait_for_beats([self.cluster.beats[index]])


def table(all_figures: Sequence[Figures], load: Load) -> str:
    """Return the figures as a table."""
    rows = [
        (
            "round trip",
            "sent p50",
            "p99",
            "started p50",
            "p99",
            f"{_BURST} at once sent",
            f"taken over, claim_ttl {load.claim_ttl:g}: first",
            "last",
            "runs",
        )
    ]
    for one in all_figures:
        rows.append(
            (
                f"{one.round_trip_s * 1000:g} ms",
                *_spread(one.sent),
                *_spread(one.started),
                f"{median(one.burst):.2f}",
                f"{min(one.taken_over):.2f}",
                f"{max(one.taken_over):.2f}",
                f"{len(one.taken_over)}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def _spread(seconds: Sequence[float]) -> tuple[str, str]:
    """Return the median and the 99th percentile."""
    return f"{median(seconds):.2f}", f"{quantiles(seconds, n=100)[98]:.2f}"
