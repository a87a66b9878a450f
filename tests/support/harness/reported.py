"""One run of one entry, and what workers say of it."""

from __future__ import annotations

import time
from typing import Any

from beatstore import Run
from beatstore.tick.claims import Claim
from beatstore.tick.reports import Origin, Report
from tests.support.harness.play import Play

__all__ = ["begin", "counts", "said"]


def begin(play: Play, **given: Any) -> Run:
    """Let one hourly entry be sent at one o'clock, and return its run."""
    play.add("a", "0 * * * *", **given)
    assert play.at("13:00") == ["a"]
    return play.last("a")


def said(
    run: Run | Claim,
    state: str,
    part: str | None = None,
    *,
    by: str = "one",
    ago: float = 0.0,
    **more: Any,
) -> Report:
    """Return a report of now, or of some seconds ago."""
    run_id = run.run_id if isinstance(run, Claim) else run.id
    return Report(Origin(run_id, run.task_id, part), state, time.monotonic() - ago, by, **more)


def counts(play: Play) -> tuple[int, int, int]:
    """Return how often the entry has succeeded, failed and ended."""
    entry = play.store.get("a")
    return entry.success_seq, entry.failure_seq, entry.done_seq
