"""A worker's report on a run, as a value. Executes no SQL."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from beatstore.rules.states import WITH_WORKER
from beatstore.tick.claims import Ending, legible
from beatstore.tick.endings import ERROR_LENGTH, reworded_reason
from beatstore.tick.parts import is_last
from beatstore.tick.workers import NOT_SUSPECTED, Origin

__all__ = [
    "Report",
    "Unwritten",
    "columns_of",
    "each_run_once",
    "ending_of",
    "expiry_of",
    "is_end",
    "only_ends",
    "seconds_since",
    "until",
]


@dataclass(frozen=True, slots=True)
class Report:
    """A worker's report on one run.

    Attributes:
        of: the run, and the part of it.
        state: `started`; `sent`, when its message went back to the queue; or how it ended:
            `succeeded`, `failed`, `cancelled`.
        at: when that happened, on this process's monotonic clock, in seconds.
        worker: the worker's node name.
        started: when the run was started, on the same clock, if it has ended and this is known.
        reason: why, in words.
        error: the exception, in one line.
        traceback: the traceback of the exception.
        delay: how many seconds after `at` the message waits for its eta.
        expires: how many seconds after `at` the run's next message expires that the task has sent;
            `inf`: never. None: it has sent none.
        dropped: whether the message ended before its task began. It does not end a run of which a
            worker executes another message.
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
    expires: float | None = None
    dropped: bool = False


@dataclass(slots=True)
class Unwritten:
    """Reports that were not written.

    Attributes:
        unknown: reports on runs that are not in this database; they are ignored.
        held: reports on runs that another transaction has locked: write them again later.
    """

    unknown: list[Report] = field(default_factory=list)
    held: list[Report] = field(default_factory=list)


def each_run_once(reports: Sequence[Report]) -> Iterator[list[Report]]:
    """Split reports, in order, into batches with at most one report for each run."""
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


def only_ends(reports: Sequence[Report]) -> list[Report]:
    """Return the ends of runs of which nothing else is reported.

    Not those of parts, nor those by messages that were dropped.
    """
    count = Counter(report.of.run_id for report in reports)
    return [
        report
        for report in reports
        if count[report.of.run_id] == 1
        and report.of.part is None
        and is_end(report)
        and not report.dropped
    ]


def is_end(report: Report) -> bool:
    """Return whether a report ends its run. A successful part alone does not."""
    if report.state == "succeeded":
        return report.of.part is None
    return report.state not in WITH_WORKER


def columns_of(report: Report) -> dict[str, Any]:
    """Return the columns that a report sets on a run that has not ended."""
    values: dict[str, Any] = {"worker": report.worker[:255], "claimed_by": NOT_SUSPECTED}
    if report.reason:
        values["reason"] = reworded_reason(legible(report.reason, ERROR_LENGTH))
    if report.error:
        values["error"] = legible(report.error, ERROR_LENGTH)
    return values


def until(report: Report, now: datetime) -> datetime:
    """Return until when the message of a report waits for its eta."""
    return now + timedelta(seconds=report.delay - seconds_since(report.at))


def expiry_of(report: Report, now: datetime, before: datetime | None) -> datetime | None:
    """Return when the message expires that is next, or `before`, when the one before it does."""
    if report.expires is None:
        part = report.of.part
        is_step = part is not None and not is_last(part)
        if not isinstance(before, datetime):
            return None  # or plain SQL wrote what is no instant
        return None if report.state == "succeeded" and is_step else before
    try:
        return now + timedelta(seconds=report.expires - seconds_since(report.at))
    except OverflowError:
        return None


def ending_of(report: Report) -> Ending:
    """Return the ending that a report describes."""
    known = report.of.part is None and report.started is not None
    return Ending(
        report.of.run_id,
        report.of.task_id,
        report.state,
        report.reason,
        report.error,
        report.traceback,
        report.worker,
        seconds_since(report.at),
        report.at - (report.started or 0.0) if known else None,
    )


def seconds_since(at: float) -> float:
    """Return the seconds since an instant of the monotonic clock."""
    return max(0.0, time.monotonic() - at)
