"""One commit, as the rules see it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.kernel import Process
from tests.simulation.ledger import Run, State

if TYPE_CHECKING:
    from tests.simulation.play import World

__all__ = ["OPEN", "Change", "said"]

#: A run in one of these has not ended.
OPEN = ("claimed", "sent", "started")


@dataclass
class Change:
    """What one commit changed.

    Attributes:
        before: the tables before it.
        after: the tables after it.
        who: the process that made it.
        now: the database's time, as microseconds since 1970.
        looked: for a beat, the time that its latest look read.
    """

    before: State
    after: State
    who: Process
    world: World
    now: int
    looked: int

    @property
    def is_beat(self) -> bool:
        """Whether a beat made it."""
        return self.who.kind == "beat"

    def new(self) -> Iterator[Run]:
        """Yield the runs that were not there before."""
        for number, run in self.after.runs.items():
            if number not in self.before.runs:
                yield run

    def gone(self) -> dict[int, Run]:
        """Return the runs that are not there any more, by id."""
        return {
            number: run for number, run in self.before.runs.items() if number not in self.after.runs
        }

    def moved(self) -> Iterator[tuple[Run, Run]]:
        """Yield the runs whose state changed, as before and as after."""
        for number, run in self.after.runs.items():
            was = self.before.runs.get(number)
            if was is not None and was.state != run.state:
                yield was, run


def said(run: Run) -> str:
    """Name a run in a sentence."""
    return f"run {run.id} (entry {run.entry_id}, due {run.due_at[11:23]}, attempt {run.attempt})"
