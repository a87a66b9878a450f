"""What of a reporter's queue is written next."""

from __future__ import annotations

import threading
import time

from beatstore.tick.reports import Origin, Report
from beatstore.worker.queued import BATCH, Item, next_batch


def item(number: int, state: str = "succeeded", *, waited: bool = False) -> Item:
    """Return a report of the run of this number; a question, if its state is "?"."""
    question = state == "?"
    report = Report(Origin(number, "t"), "started" if question else state, time.monotonic(), "w")
    over = threading.Event() if waited or question else None
    return Item(number, report, True if question else None, over)


def test_a_question_goes_alone() -> None:
    """A task waits for its answer, and nobody for the ends: they are gathered for longer."""
    ends, question = [item(1), item(2)], item(3, "?")
    assert next_batch([*ends, question], overdue=False) == [question]
    assert next_batch([question], overdue=False) == [question]
    assert next_batch(ends, overdue=False) == ends


def test_what_is_overdue_goes_with_the_question() -> None:
    """Ends that were gathered for long enough are written before the answer, or with it."""
    items = [item(1), item(2), item(3, "?"), item(4)]
    assert next_batch(items, overdue=True) == items[:3]


def test_what_is_waited_for_is_overdue() -> None:
    """A report that its caller waits for is not left behind."""
    items = [item(1), item(2, waited=True), item(3, "?")]
    assert next_batch(items, overdue=False) == items


def test_a_run_is_asked_about_when_the_database_knows_it() -> None:
    """What was reported of the run is written before, and not in the same batch."""
    items = [item(3, "sent"), item(1), item(3, "?")]
    for overdue in (True, False):
        assert next_batch(items, overdue=overdue) == items[:2]


def test_a_batch_is_bounded() -> None:
    """A backlog is written in parts."""
    items = [item(number) for number in range(BATCH + 5)]
    assert next_batch(items, overdue=True) == items[:BATCH]
