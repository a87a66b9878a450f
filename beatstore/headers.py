"""Names of the message headers that identify a run, and how to read them."""

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
    "UNLOCK",
    "run_id_in",
]

#: Headers that beat writes into each message: the entry, the run, and its due time.
ENTRY_NAME, RUN_ID, TASK_ID = "beatstore_entry", "beatstore_run_id", "beatstore_task_id"
DUE_AT, ATTEMPT = "beatstore_due_at", "beatstore_attempt"

#: Headers that beat adds if the run also covers earlier due times.
FIRST_MISSED_AT, MISSED_COUNT = "beatstore_first_missed_at", "beatstore_missed_count"

#: The header that says which task of a canvas a message is for: `STEP` if other tasks follow
#: it, or "3/10" for the third of ten final tasks; see `beatstore.tick.parts`.
PART, STEP = "beatstore_part", "step"

#: The header of a message whose task replaces the task of an earlier message.
GOES_ON = "beatstore_goes_on"

#: The header by which a worker's main process tells a child that this worker already has an
#: earlier message of the run.
RUNNING = "beatstore_running"

#: Celery's task that waits until a chord's body can be sent, where the result backend can't count.
UNLOCK = "celery.chord_unlock"

#: The largest value of the column `run.id`.
_LARGEST = 2**63 - 1


def run_id_in(headers: Mapping[str, Any] | Any) -> int | None:
    """Return the run id from headers, or None if it is missing or invalid."""
    given = headers.get(RUN_ID)
    return given if type(given) is int and 0 < given <= _LARGEST else None
