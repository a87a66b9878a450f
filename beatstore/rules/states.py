"""The states of entries and of runs, and named sets of them.

Invariants:
    * Every set of states is defined here. Code may use a single state as a literal.
    * The words are the literals of `beatstore.types`.
"""

from __future__ import annotations

from typing import get_args

from beatstore.types import EntryState, RunState

__all__ = [
    "CANCELS_RUNS",
    "DROPPED",
    "ENTRY_STATES",
    "ERRORS",
    "FINAL",
    "LIVE",
    "MAY_END",
    "NOT_STARTED",
    "OVER",
    "RECORDS",
    "REPORTED",
    "RUN_STATES",
    "SENDS_NOTHING",
    "SETTLED",
    "SPENT",
    "STOPPED",
    "UNFINISHED",
    "WITH_WORKER",
]

#: The states, in the order of their display.
ENTRY_STATES: tuple[EntryState, ...] = get_args(EntryState)
RUN_STATES: tuple[RunState, ...] = get_args(RunState)

# -- entries ---------------------------------------------------------------------------

#: The schedule of the entry applies, now or after a resume.
LIVE: frozenset[EntryState] = frozenset({"active", "paused"})

#: The entry is not due again, unless an edit revives it.
STOPPED: frozenset[EntryState] = frozenset({"finished", "missed", "cancelled", "broken"})

#: The same, and nothing needs to be repaired.
OVER: frozenset[EntryState] = frozenset({"finished", "missed", "cancelled"})

#: Every run of the entry was sent or missed.
SPENT: frozenset[EntryState] = frozenset({"finished", "missed"})

#: The entry was sent or cancelled: it can't be rescheduled.
FINAL: frozenset[EntryState] = frozenset({"finished", "cancelled"})

#: No run of the entry is sent, not even a triggered one.
SENDS_NOTHING: frozenset[EntryState] = frozenset({"cancelled", "broken"})

#: Runs of the entry that are not sent yet are cancelled.
CANCELS_RUNS: frozenset[EntryState] = frozenset({"paused", "cancelled"})

# -- runs ------------------------------------------------------------------------------

#: The run has not ended: beat will send it, has sent it, or a worker runs it.
UNFINISHED: frozenset[RunState] = frozenset({"claimed", "sent", "started"})

#: No worker has started the run.
NOT_STARTED: frozenset[RunState] = frozenset({"claimed", "sent"})

#: The message of the run was sent, and a worker will report its end.
WITH_WORKER: frozenset[RunState] = frozenset({"sent", "started"})

#: The run ended in an error.
ERRORS: frozenset[RunState] = frozenset({"failed", "lost"})

#: The run has an outcome: it succeeded, or ended in an error.
REPORTED: frozenset[RunState] = ERRORS | {"succeeded"}

#: The row is not a run, but a record of due times that were not sent.
RECORDS: frozenset[RunState] = frozenset({"missed", "skipped"})

#: Nobody ran the run, as far as anybody knows.
DROPPED: frozenset[RunState] = frozenset({"cancelled", "skipped"})

#: A worker may still report the end of the run. A dropped run may have been sent nevertheless.
MAY_END: frozenset[RunState] = UNFINISHED | DROPPED

#: Beat has nothing more to do for the run. If no worker reports, a run stays `sent`.
SETTLED: frozenset[RunState] = frozenset(RUN_STATES) - frozenset({"claimed", "started"})
