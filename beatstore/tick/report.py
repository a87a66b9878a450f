"""One report of a worker, and what it comes to; no statement is executed here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from beatstore.rules.states import WITH_WORKER
from beatstore.tick.claims import Ending, legible
from beatstore.tick.endings import ERROR_LENGTH
from beatstore.tick.workers import NOT_SUSPECTED, Origin

__all__ = [
    "HeldError",
    "Report",
    "Unwritten",
    "age",
    "each_run_once",
    "ending_of",
    "is_end",
    "said",
    "until",
]


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker has to say of one run.

    Attributes:
        of: which run, and which part of it.
        state: `started`; `sent`, when its message went back to the queue; or how it ended:
            `succeeded`, `failed`, `cancelled`.
        at: when that happened, by this process's monotonic clock, in seconds.
        worker: the worker's node name.
        started: when the run was started, by the same clock; where it is known, and it is over.
        reason: why, in words.
        error: the exception, in one line.
        traceback: and where it came from.
        delay: for how many seconds after `at` the message is not worked on, by its own eta.
    """

    of: Origin
    state: str
    at: float
    worker: str
    started: float | None = None
    reason: str | None = None
    error: str | None = None
    traceback: str | None = None
    delay: float = 0.0


class HeldError(Exception):
    """Somebody holds the row of a run, such as an open transaction of the application."""


@dataclass(slots=True)
class Unwritten:
    """Reports that were not written.

    Attributes:
        strangers: of runs that are not here; they are ignored.
        held: of runs whose rows somebody holds, such as an open transaction of the
            application: write them again later.
    """

    strangers: list[Report] = field(default_factory=list)
    held: list[Report] = field(default_factory=list)


def each_run_once(reports: Sequence[Report]) -> Iterator[list[Report]]:
    """Cut reports into parts in which no run occurs twice, in their order."""
    part: list[Report] = []
    seen: set[tuple[int, str]] = set()
    for report in reports:
        run = (report.of.run_id, report.of.task_id)
        if run in seen:
            yield part
            part, seen = [], set()
        part.append(report)
        seen.add(run)
    if part:
        yield part


def is_end(report: Report) -> bool:
    """Say whether a run is over with this, unless only a part of it has succeeded."""
    if report.state == "succeeded":
        return report.of.part is None
    return report.state not in WITH_WORKER


def said(report: Report) -> dict[str, Any]:
    """Return what a report says of a run that is not over."""
    said: dict[str, Any] = {"worker": report.worker[:255], "claimed_by": NOT_SUSPECTED}
    for name, text in (("reason", report.reason), ("error", report.error)):
        if text:
            said[name] = legible(text, ERROR_LENGTH)
    return said


def until(report: Report, now: datetime) -> datetime:
    """Return until when the message that a report speaks of is not worked on."""
    return now + timedelta(seconds=report.delay - age(report.at))


def ending_of(report: Report) -> Ending:
    """Return what a report says of how its run ended."""
    known = report.of.part is None and report.started is not None
    return Ending(
        report.of.run_id,
        report.of.task_id,
        report.state,
        report.reason,
        report.error,
        report.traceback,
        report.worker,
        age(report.at),
        report.at - (report.started or 0.0) if known else None,
    )


def age(at: float) -> float:
    """Return how many seconds ago an instant of the monotonic clock was."""
    return max(0.0, time.monotonic() - at)
