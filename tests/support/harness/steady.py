"""Entries that nobody edits, and the reckoning of all runs, where no process was killed.

steady = Steady(stage)
steady.begin()              when beats and workers are at work
...                         whatever else is to happen
steady.stop_all()
reckon(stage, triggered)
steady.seconds()
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from beatstore import Every
from tests.support.harness.stage import Stage
from tests.support.wait import wait_until

__all__ = ["ENDS", "Steady", "reckon"]

#: What a task ends as.
ENDS = {"tests.note": "succeeded", "tests.fail": "failed", "tests.hold": "succeeded"}


class Steady:
    """Two entries that are due each second, and one that comes after the first of them.

    Args:
        stage: the app is `tests.support.tracked_app`, so that runs are reported.
    """

    CLOCKED = ("steady-0", "steady-1")
    AFTER = "after"

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        for name in self.CLOCKED:
            stage.store.add(name, "tests.note", Every(1), misfire="all", paused=True)
        stage.store.add(self.AFTER, "tests.note", after=[self.CLOCKED[0]])

    def begin(self) -> None:
        """Let them be due from now on."""
        for name in self.CLOCKED:
            self.stage.store.resume(name)

    def stop_all(self, timeout: float = 120) -> None:
        """Pause every other entry and end these, and wait until nothing is under way or due."""
        store = self.stage.store
        for name in self.CLOCKED:
            store.change(name, end_at=self.stage.now())
        for entry in store.entries(limit=1000):
            if entry.name not in (*self.CLOCKED, self.AFTER):
                store.pause(entry.name)

        def tell() -> str:
            return self.stage.tell(self.stage.states())

        wait_until(self.stage.is_quiet, timeout, tell, interval=0.25)

    def seconds(self) -> int:
        """See that no second has no run, nor one of these nothing after it; count the seconds."""
        dues: dict[str, list[datetime]] = {name: [] for name in (*self.CLOCKED, self.AFTER)}
        for row in self.stage.runs():
            if row.entry_name in dues:
                dues[row.entry_name].append(row.due_at)
        for name in self.CLOCKED:
            first, count = min(dues[name]), len(dues[name])
            assert sorted(dues[name]) == [first + timedelta(seconds=n) for n in range(count)]
        first_of = self.CLOCKED[0]
        assert sorted(dues[self.AFTER]) == sorted(dues[first_of])
        return len(dues[first_of])


def reckon(stage: Stage, triggered: Iterable[int]) -> Counter[str]:
    """Set rows against what the workers wrote down; return how many runs came to what.

    Args:
        stage: all has come to rest.
        triggered: the ids of the runs that a user was told of.
    """
    rows = {row.id: row for row in stage.runs()}
    states = Counter(row.state for row in rows.values())
    assert states.keys() <= {"succeeded", "failed", "cancelled"}, stage.tell(states)
    lines = {line.headers["beatstore_run_id"]: line for line in stage.project.runs()}
    assert len(lines) == len(stage.project.runs()), "a run was started twice"
    ran = {run_id for run_id, row in rows.items() if row.state != "cancelled"}
    assert ran == set(lines), f"{ran ^ set(lines)}: ran without an outcome, or the opposite"
    for run_id, line in lines.items():
        assert rows[run_id].state == ENDS[line.task], rows[run_id]
    told = list(triggered)
    assert set(told) <= set(rows)
    assert len(set(told)) == len(told)
    for entry in stage.store.entries(limit=1000):
        mine = Counter(row.state for row in rows.values() if row.entry_id == entry.id)
        counted = entry.success_seq, entry.failure_seq
        assert counted == (mine["succeeded"], mine["failed"]), (entry.name, counted, mine)
    return states
