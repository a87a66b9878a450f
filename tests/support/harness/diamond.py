"""A diamond of four levels, fed every second by real beats and workers, and its reckoning.

a -> b, c -> d -> e

diamond = Diamond(project, url)
diamond.add("latest")
diamond.start()
...                         kill something, and start another
diamond.wait_until_quiet()
diamond.reckon("latest")
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from beatstore import After, Every
from beatstore.database.tables import DEPENDENCY
from beatstore.types import Align
from tests.support.harness.stage import Stage
from tests.support.processes import Process, below
from tests.support.project import Project
from tests.support.wait import wait_until

__all__ = ["EDGES", "Diamond"]

#: Each entry without a clock, and its upstreams.
EDGES = {"b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ("d",)}

#: What every entry has.
POLICIES: dict[str, Any] = {"run_timeout": 6, "max_retries": 3, "retry_delay": 0.2}

#: How long a task works, in seconds.
WORK = 0.15

FINAL = ("succeeded", "failed", "lost", "cancelled")


def final_runs(runs: Sequence[Row[Any]]) -> dict[str, dict[datetime, Row[Any]]]:
    """Return the last attempt of each occurrence, by entry and due time.

    A next attempt that was cancelled is none: the lost run before it has reported its end after
    all.
    """
    found: dict[str, dict[datetime, Row[Any]]] = defaultdict(dict)
    for run in sorted(runs, key=lambda run: run.attempt):
        if run.state != "cancelled" or run.attempt == 1:
            found[run.entry_name][run.due_at] = run
    return found


class Diamond:
    """The entries, two beats and a worker over them.

    Args:
        project: the app, of `tests.support.diamond_app`.
        url: the database, as the test reaches it.
    """

    def __init__(self, project: Project, url: str) -> None:
        self.stage = Stage(project, url)
        self.project, self.store, self.url = project, self.stage.store, url
        self.beats: list[Process] = []
        self.workers: list[Process] = []

    def add(self, align: Align) -> None:
        """Add the entries, the one with a clock paused."""
        self.store.add("a", "tests.step", Every(1), args=[WORK], paused=True, **POLICIES)
        for name, ups in EDGES.items():
            after = [After(up, align=align) for up in ups]
            self.store.add(name, "tests.step", args=[WORK], after=after, **POLICIES)

    def start(self) -> None:
        """Start two beats and a worker, and feed the diamond when they are there."""
        self.start_worker()
        self.start_beat()
        self.start_beat()
        for process in (*self.workers, *self.beats):
            process.wait_for_output(" ready." if process in self.workers else "beat: Start", 60)
        self.store.resume("a")

    def start_beat(self) -> None:
        """Start one more beat."""
        self.beats.append(self.stage.start_beat())

    def start_worker(self) -> None:
        """Start one more worker, with two children."""
        self.workers.append(self.stage.start_worker("prefork", "--concurrency", "2"))

    def children(self) -> list[int]:
        """Return the processes in which the latest worker runs its tasks."""
        return below(self.workers[-1].pid)

    def stop_feeding(self) -> None:
        """Let nothing more come in; what is there goes on, its retries too."""
        self.store.change("a", end_at=self.stage.now())

    def wait_until_quiet(self, timeout: float = 90) -> None:
        """Wait until no run is open, and no entry or run is to be looked at."""
        wait_until(self.stage.is_quiet, timeout, self.tell, interval=0.1)

    # -- the reckoning -------------------------------------------------------------------------

    def reckon(self, align: str) -> Counter[str]:
        """Fail unless every occurrence is accounted for; return how many runs came to what."""
        runs = self.stage.runs()
        keys = Counter((run.entry_name, run.due_at, run.attempt) for run in runs)
        assert set(keys.values()) <= {1}, self.tell()
        outcomes = self._outcomes(runs)
        self._each_second(outcomes["a"])
        self._started_once()
        self._counters(outcomes)
        for name, ups in EDGES.items():
            if align == "same":
                self._same(outcomes, name, ups)
            else:
                self._latest(runs, name, ups)
            self._not_stuck(name, align)
        return Counter(run.state for run in runs)

    def _outcomes(self, runs: Sequence[Row[Any]]) -> dict[str, dict[datetime, Row[Any]]]:
        """Return the final outcome of each occurrence; each has one."""
        found = final_runs(runs)
        for name, by_due in found.items():
            for run in by_due.values():
                assert run.state in FINAL, f"{name}: {run}\n{self.tell()}"
        return found

    def _each_second(self, of_a: dict[datetime, Row[Any]]) -> None:
        """No second is missing, but those that a run counts as folded into it."""
        dues = sorted(of_a)
        folded = sum(of_a[due].missed_count for due in dues[1:])
        span = (dues[-1] - dues[0]).total_seconds() + 1
        assert len(dues) + folded == span, self.tell()

    def _started_once(self) -> None:
        """No run's task has begun twice."""
        starts = Counter(ran.headers["beatstore_run_id"] for ran in self.project.runs())
        twice = [run_id for run_id, count in starts.items() if count > 1]
        assert not twice, f"started twice: {twice}\n{self.tell()}"

    def _counters(self, outcomes: dict[str, dict[datetime, Row[Any]]]) -> None:
        """Each occurrence was counted once, by its final outcome."""
        for name, by_due in outcomes.items():
            states = Counter(run.state for run in by_due.values())
            entry = self.store.get(name)
            # A late success after the run was given up is counted as one, too.
            assert entry.success_seq == states["succeeded"], (name, states, self.tell())
            assert entry.done_seq >= entry.success_seq, self.tell()
            ended = sum(states.values()) - states["cancelled"]
            assert entry.done_seq == ended, (name, states, self.tell())

    def _latest(self, runs: Sequence[Row[Any]], name: str, ups: Sequence[str]) -> None:
        """The n-th occurrence of a downstream comes after n successes of each upstream."""
        # Not by due times: a beat may see what was completed after it had read the clock.
        mine = sorted(
            run.started_at or run.finished_at
            for run in runs
            if run.entry_name == name and run.attempt == 1
        )
        for up in ups:
            ends = sorted(
                run.finished_at for run in runs if run.entry_name == up and run.state == "succeeded"
            )
            assert len(mine) <= len(ends), f"{name} ran more often than {up}\n{self.tell()}"
            early = [at for at, end in zip(mine, ends, strict=False) if at < end]
            assert not early, f"{name} ran before {up}: {early}\n{self.tell()}"

    def _same(
        self, outcomes: dict[str, dict[datetime, Row[Any]]], name: str, ups: Sequence[str]
    ) -> None:
        """A downstream has run for each due time that all its upstreams succeeded for, only."""
        succeeded = [
            {due for due, run in outcomes[up].items() if run.state == "succeeded"} for up in ups
        ]
        both = set.intersection(*succeeded)
        assert set(outcomes[name]) == both, (name, both ^ set(outcomes[name]), self.tell())

    def _not_stuck(self, name: str, align: str) -> None:
        """What has not run waits for something that is not there."""
        entry = self.store.get(name)
        assert entry.state == "active", self.tell()
        if align == "same":
            return
        edges = {up.name: up for up in map(self.store.get, EDGES[name])}
        used = self._consumed(entry.id)
        unmet = [up for up in edges.values() if up.success_seq <= used[up.id]]
        assert unmet, f"{name} could run, and does not\n{self.tell()}"

    def _consumed(self, entry_id: int) -> dict[int, int]:
        found = select(DEPENDENCY.c.upstream_id, DEPENDENCY.c.consumed_seq).where(
            DEPENDENCY.c.downstream_id == entry_id
        )
        with self.store.database.session() as session:
            return {row.upstream_id: row.consumed_seq for row in session.execute(found)}

    def tell(self) -> str:
        """Return what there is to see."""
        columns = (
            "state",
            "error",
            "wake_at",
            "blocked_by",
            "success_seq",
            "failure_seq",
            "done_seq",
        )
        lines = [
            f"{entry.name}: " + ", ".join(f"{key} {getattr(entry, key)}" for key in columns)
            for entry in self.store.entries()
        ]
        lines += [
            f"{run.id} {run.entry_name} {run.due_at:%H:%M:%S.%f} {run.attempt} {run.state} "
            f"{run.wake_at} {run.worker} {run.reason or ''} {run.error or ''}"
            for run in self.stage.runs()
            if run.state != "succeeded" or run.attempt > 1
        ]
        return self.stage.tell(*lines)

    def close(self) -> None:
        """End the processes, and close the connections."""
        self.project.close()
        self.stage.close()
