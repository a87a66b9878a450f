"""The states of entries and of runs, and the sets of them that the rules ask about.

Invariants:
    * A set of states stands here and nowhere else. A single state may stay a literal word.
    * The words themselves are the literals of `beatstore.types`.
"""

from __future__ import annotations

from typing import get_args

from beatstore.types import EntryState, RunState

__all__ = [
    "CANCELS_RUNS",
    "ENTRY_STATES",
    "ERRORS",
    "FINAL",
    "LIVE",
    "MAY_END",
    "NOT_STARTED",
    "OVER",
    "RECORDS",
    "REFUSED",
    "RUN_STATES",
    "SENDS_NOTHING",
    "SETTLED",
    "SPENT",
    "STOPPED",
    "UNFINISHED",
    "WITH_WORKER",
]

#: The words of the columns, in the order in which people read them.
ENTRY_STATES: tuple[EntryState, ...] = get_args(EntryState)
RUN_STATES: tuple[RunState, ...] = get_args(RunState)

# -- entries ---------------------------------------------------------------------------

#: The schedule of the entry counts, now or once the entry is resumed.
LIVE: frozenset[EntryState] = frozenset({"active", "paused"})

#: Nothing of the entry is due any more, unless an edit brings it back.
STOPPED: frozenset[EntryState] = frozenset({"finished", "missed", "cancelled", "broken"})

#: The same, and nobody has to mend anything.
OVER: frozenset[EntryState] = frozenset({"finished", "missed", "cancelled"})

#: Every run of the entry was sent, or was missed for good.
SPENT: frozenset[EntryState] = frozenset({"finished", "missed"})

#: The entry was sent, or somebody ended it: it can't be given another time.
FINAL: frozenset[EntryState] = frozenset({"finished", "cancelled"})

#: No run of the entry is sent, not even one that somebody asks for by hand.
SENDS_NOTHING: frozenset[EntryState] = frozenset({"cancelled", "broken"})

#: A run of the entry that was not sent yet is cancelled.
CANCELS_RUNS: frozenset[EntryState] = frozenset({"paused", "cancelled"})

# -- runs ------------------------------------------------------------------------------

#: The run has not ended: its message is to be sent, was sent, or is worked on.
UNFINISHED: frozenset[RunState] = frozenset({"claimed", "sent", "started"})

#: No worker has begun to work on the run.
NOT_STARTED: frozenset[RunState] = frozenset({"claimed", "sent"})

#: The message of the run was sent, and a worker reports how the run ends.
WITH_WORKER: frozenset[RunState] = frozenset({"sent", "started"})

#: The run went wrong.
ERRORS: frozenset[RunState] = frozenset({"failed", "lost"})

#: The row is no run, but the record of due times that were not sent.
RECORDS: frozenset[RunState] = frozenset({"missed", "skipped"})

#: Beat ended the run without a message that counts. Downstreams take that for a failure.
REFUSED: frozenset[RunState] = frozenset({"failed", "skipped"})

#: A worker may still report how the run ended. A run that was cancelled or skipped may have been
#: on its way all the same.
MAY_END: frozenset[RunState] = UNFINISHED | frozenset({"cancelled", "skipped"})

#: Beat expects nothing more of the run. Where no worker reports, a run stays `sent` for good.
SETTLED: frozenset[RunState] = frozenset(RUN_STATES) - frozenset({"claimed", "started"})
