"""The names of the headers by which a message tells of its run, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "ATTEMPT",
    "DUE_AT",
    "ENTRY_NAME",
    "FIRST_MISSED_AT",
    "GOES_ON",
    "MISSED_COUNT",
    "PART",
    "RUNNING",
    "RUN_ID",
    "STEP",
    "TASK_ID",
    "run_id_in",
]

#: What beat writes into each message: whose run it is of, which one, and for which due time.
ENTRY_NAME, RUN_ID, TASK_ID = "beatstore_entry", "beatstore_run_id", "beatstore_task_id"
DUE_AT, ATTEMPT = "beatstore_due_at", "beatstore_attempt"

#: What beat adds where the run stands for earlier due times too.
FIRST_MISSED_AT, MISSED_COUNT = "beatstore_first_missed_at", "beatstore_missed_count"

#: The header that says which task of a canvas a message is for: `STEP`, after which others
#: come, or "3/10", the third of ten that come last; see `beatstore.tick.parts`.
PART, STEP = "beatstore_part", "step"

#: The header of a message of which the task replaces that of an earlier one.
GOES_ON = "beatstore_goes_on"

#: What a worker's main process tells a child: this worker still runs an earlier message of
#: the run.
RUNNING = "beatstore_running"

#: The column `run.id` can't hold more.
_LARGEST = 2**63 - 1


def run_id_in(headers: Mapping[str, Any] | Any) -> int | None:
    """Return the id of the run in headers; anybody may have written something else there."""
    given = headers.get(RUN_ID)
    return given if type(given) is int and 0 < given <= _LARGEST else None
