"""A stand-in for the worker's half of the store: it notes what it is told, or fails on demand.

writer = Recorder()
reporter = Reporter(lambda: writer)
writer.hang()                       # whatever is asked of it waits
writer.error = UnavailableError()   # or fails
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from beatstore.errors import HeldError
from beatstore.tick.reports import Report, Unwritten

__all__ = ["Recorder"]


@dataclass
class Recorder:
    """Remembers reports.

    Attributes:
        batches: what was written, by transaction.
        asked: the questions of the guard, with their `again`.
        answer: what the guard says.
        error: what is raised instead.
        refuses: of which reports an error is raised.
        strange: which reports are of runs of another database.
        holds: of which reports somebody holds the row.
        closed: how often the connection was given back.
        calls: how often anything was tried.
        max_wait_s: how long the reporter waits at most in an outage.
    """

    batches: list[list[Report]] = field(default_factory=list)
    asked: list[tuple[Report, bool]] = field(default_factory=list)
    answer: str | None = None
    error: Exception | None = None
    refuses: Callable[[Report], bool] = lambda report: False
    strange: Callable[[Report], bool] = lambda report: False
    holds: Callable[[Report], bool] = lambda report: False
    closed: int = 0
    calls: int = 0
    max_wait_s: float = 3.0
    _free: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._free.set()

    @property
    def reports(self) -> list[Report]:
        """All that was written."""
        return [report for batch in self.batches for report in batch]

    @property
    def states(self) -> list[tuple[int, str]]:
        """The same, in short."""
        return [(report.of.run_id, report.state) for report in self.reports]

    def hang(self) -> None:
        """Answer nothing from now on."""
        self._free.clear()

    def release(self) -> None:
        """Go on."""
        self._free.set()

    def write(self, reports: Sequence[Report]) -> Unwritten:
        """Note a batch, but for what somebody holds."""
        self._answer(reports)
        held = [report for report in reports if self.holds(report)]
        self.batches.append([report for report in reports if report not in held])
        return Unwritten([report for report in reports if self.strange(report)], held)

    def start_and_end(
        self, report: Report, reports: Sequence[Report], *, again: bool
    ) -> tuple[str | None, list[Report]]:
        """Note a question and what comes with it, and give the answer."""
        ends = [one for one in reports if one.state != "started"]
        self._answer([report, *ends])
        if self.holds(report):
            raise HeldError
        self.asked.append((report, again))
        if ends:
            self.batches.append(ends)
        return self.answer, ends

    def close(self) -> None:
        """Note that the connection was given back."""
        self.closed += 1

    def _answer(self, reports: Sequence[Report]) -> None:
        self.calls += 1
        assert self._free.wait(30)
        if self.error is not None:
            raise self.error
        if any(self.refuses(report) for report in reports):
            raise ValueError("refused")
