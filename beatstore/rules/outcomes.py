"""Which outcomes of an upstream's run satisfy an edge, and which end its wait.

An edge with `align="latest"` is satisfied by a counter of its upstream, for any due time;
one with `align="same"` by the outcome of the run of the same due time. `beatstore.tick.edges`
has the same rules in SQL.
"""

from __future__ import annotations

from typing import Any, get_args

from beatstore.types import Align, On, OnUpstreamFailure

__all__ = [
    "ALIGNS",
    "CONDITIONS",
    "COUNTERS",
    "ON_FAILURE",
    "asks_for_same",
    "counter_of",
    "counters_of",
    "failure_ends_wait",
    "is_one_shot",
    "satisfies",
    "unmet_words",
]

#: The outcomes that an edge may require.
CONDITIONS: tuple[On, ...] = get_args(On)

ALIGNS: tuple[Align, ...] = get_args(Align)
ON_FAILURE: tuple[OnUpstreamFailure, ...] = get_args(OnUpstreamFailure)

_VERBS = {"success": "succeed", "done": "end", "failure": "fail"}


def satisfies(outcome: str | None, on: str) -> bool:
    """Return True if an outcome, `success` or `failure`, satisfies an edge."""
    return outcome is not None and on in ("done", outcome)


def failure_ends_wait(on: str, on_upstream_failure: str) -> bool:
    """Return True if a failure of the upstream ends the wait of an edge."""
    return on == "success" and on_upstream_failure == "skip"


def asks_for_same(align: str, consumed_seq: int) -> bool:
    """Return True if an edge requires the run of the same due time.

    An edge whose first run is still free requires nothing.
    """
    return align == "same" and consumed_seq >= 0


def counter_of(on: str) -> str:
    """Return the column of an upstream that counts the outcomes an edge requires."""
    return f"{on}_seq"


#: The counters of an entry.
COUNTERS = tuple(counter_of(on) for on in CONDITIONS)


def counters_of(outcome: str) -> tuple[str, ...]:
    """Return the columns of an entry that count an outcome."""
    return tuple(counter_of(on) for on in CONDITIONS if satisfies(outcome, on))


def is_one_shot(entry: Any) -> bool:
    """Return True for entries that `Store.schedule` makes: one run, at a time or after upstreams.

    `beatstore.tick.edges.one_shot` is the same rule in SQL.
    """
    return bool(entry.kind == "once" or (entry.kind == "after" and entry.max_runs == 1))


def unmet_words(name: str, on: str, state: str, *, same: bool = False) -> str:
    """Return the reason that names an unsatisfied upstream; `same`: for the same due time."""
    when = " for the same due time" if same else ""
    doing = "" if state == "active" else f", which is {state}"
    return f"waits for {name!r} to {_VERBS.get(on, on)}{when}{doing}"
