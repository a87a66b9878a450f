"""What waits in the queue of a reporter, and what of it is written next."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass

from beatstore.tick.reports import Report

__all__ = ["BATCH", "Item", "next_batch"]

#: How many reports are written in one transaction.
BATCH = 50


@dataclass(slots=True, eq=False)
class Item:
    """A report in the queue.

    Attributes:
        report: the report to write.
        again: the argument of `Reports.start` if this is a question; None for a report.
        answer: why the run must not start.
        written: whether the database has it.
        refused: whether the database has refused it once, alone.
        over: an event that ends the wait of the caller; None if nobody waits.
    """

    number: int
    report: Report
    again: bool | None
    over: threading.Event | None
    answer: str | None = None
    written: bool = False
    refused: bool = False

    def end_wait(self) -> None:
        """Let the caller go on, if it waits."""
        if self.over is not None:
            self.over.set()


def next_batch(items: Collection[Item], *, overdue: bool) -> list[Item]:
    """Return what is written next: a question alone, or reports and perhaps a question with them.

    A task waits for the answer to a question, and one statement is enough for it. So the reports
    go on being gathered, unless they are overdue, somebody waits for one of them, or one is of the
    run that is asked about: what was reported of a run is written before.

    Args:
        items: all of the queue, in their order.
        overdue: whether the reports have been gathered for long enough.
    """
    question = next((item for item in items if item.again is not None), None)
    reports = [item for item in items if item.again is None]
    overdue = overdue or any(item.over is not None for item in reports)
    told = {item.report.of for item in reports}
    if question is not None and not overdue and question.report.of not in told:
        return [question]
    batch: list[Item] = []
    for item in items:
        if item.again is not None and item.report.of in {one.report.of for one in batch}:
            break
        batch.append(item)
        if item.again is not None or len(batch) == BATCH:
            break
    return batch
