"""The SQL conditions on edges, upstreams and runs, in one place.

`beatstore.rules.outcomes` has the same rules in Python.

Pure: each name is an SQL expression, or returns one.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, case, literal_column, or_, select

from beatstore.database.functions import begins_with
from beatstore.database.models import ENDS_WAIT as ENDS_WAIT_SQL
from beatstore.database.tables import DEPENDENCY, RUN, TOKEN
from beatstore.rules.reasons import OVERLAP
from beatstore.rules.states import ERRORS, LIVE

__all__ = [
    "ANY_DUE_TIME",
    "ENDS_WAIT",
    "FAILURE_ENDS_WAIT",
    "NOT_SUCCEEDED",
    "OPEN",
    "OPEN_NOT_SUCCEEDED",
    "SAME_DUE_TIME",
    "counter",
    "is_final",
    "not_running_again",
    "one_shot",
    "outcome_of",
    "satisfied_by",
    "satisfied_by_any",
    "unsatisfied",
    "unsatisfied_by_any",
    "unsatisfied_for",
]

_EDGE = DEPENDENCY.c
_LATER = RUN.alias("later")

#: Databases use the partial index of unfinished and failed runs only with this condition.
NOT_SUCCEEDED: ColumnElement[bool] = literal_column("state <> 'succeeded'")

#: The runs of other rows, in a query that joins them, and the same condition for those.
OPEN = RUN.alias("open")
OPEN_NOT_SUCCEEDED: ColumnElement[bool] = literal_column("open.state <> 'succeeded'")

#: The same for the index of edges that can end a wait by themselves.
ENDS_WAIT: ColumnElement[bool] = literal_column(ENDS_WAIT_SQL)

# -- edges -----------------------------------------------------------------------------

#: Edges that require a run of the same due time. An edge whose first run is free does not.
SAME_DUE_TIME: ColumnElement[bool] = and_(_EDGE.align == "same", _EDGE.consumed_seq >= 0)

#: The other edges, which any completion satisfies.
ANY_DUE_TIME: ColumnElement[bool] = or_(_EDGE.align != "same", _EDGE.consumed_seq < 0)

#: Edges whose wait ends with a failure of the upstream.
FAILURE_ENDS_WAIT: ColumnElement[bool] = and_(
    _EDGE.on == "success", _EDGE.on_upstream_failure == "skip"
)


def counter(up: Any) -> ColumnElement[int]:
    """Return the counter of an upstream that an edge compares."""
    return case(
        (_EDGE.on == "success", up.c.success_seq),
        (_EDGE.on == "failure", up.c.failure_seq),
        else_=up.c.done_seq,
    )


def satisfied_by_any(up: Any) -> ColumnElement[bool]:
    """Return the condition that an edge of `ANY_DUE_TIME` is satisfied."""
    return counter(up) > _EDGE.consumed_seq


def unsatisfied_by_any(up: Any) -> ColumnElement[bool]:
    """Return the condition that an edge of `ANY_DUE_TIME` is not satisfied."""
    return and_(ANY_DUE_TIME, counter(up) <= _EDGE.consumed_seq)


def satisfied_by(outcome: Any) -> ColumnElement[bool]:
    """Return the condition that an outcome, `success` or `failure`, satisfies an edge."""
    return or_(_EDGE.on == "done", outcome == _EDGE.on)


def unsatisfied_for(due_at: Any) -> ColumnElement[bool]:
    """Return the condition that an edge of `SAME_DUE_TIME` is not satisfied for a due time."""
    token = select(TOKEN.c.due_at).where(
        TOKEN.c.downstream_id == _EDGE.downstream_id,
        TOKEN.c.due_at == due_at,
        TOKEN.c.upstream_id == _EDGE.upstream_id,
        satisfied_by(TOKEN.c.outcome),
    )
    return and_(SAME_DUE_TIME, ~token.correlate_except(TOKEN).exists())


def unsatisfied(up: Any, due_at: Any) -> ColumnElement[bool]:
    """Return the condition that an edge of any kind blocks its downstream."""
    return or_(unsatisfied_for(due_at), unsatisfied_by_any(up))


# -- upstreams and runs ------------------------------------------------------------------


def one_shot(entry: Any) -> ColumnElement[bool]:
    """Return the condition of `beatstore.rules.outcomes.is_one_shot`."""
    return or_(entry.c.kind == "once", and_(entry.c.kind == "after", entry.c.max_runs == 1))


def not_running_again(entry: Any) -> ColumnElement[bool]:
    """Return the condition of `beatstore.store.links.will_not_run_again`."""
    over = and_(one_shot(entry), entry.c.state.not_in(LIVE))
    return or_(over, entry.c.state == "finished")


def is_final(run: Any) -> ColumnElement[bool]:
    """Return the condition that a run decides its occurrence: there is no later attempt.

    A cancelled next attempt does not count: the run reported its outcome after all, or its entry
    was paused.
    """
    found = select(_LATER.c.id).where(
        _LATER.c.entry_id == run.c.entry_id,
        _LATER.c.due_at == run.c.due_at,
        _LATER.c.attempt > run.c.attempt,
        _LATER.c.state != "cancelled",
    )
    return ~found.correlate_except(_LATER).exists()


def outcome_of(run: Any) -> ColumnElement[str | None]:
    """Return the outcome of a finished run for its downstreams: success, failure or NULL.

    A run that was skipped because of its own upstream is a failure. One that was skipped because
    of an overlap or a lock is not.
    """
    overlaps = begins_with(run.c.reason, OVERLAP)
    gave_up = and_(run.c.state == "skipped", run.c.claimed_by.is_(None), ~overlaps)
    return case(
        (run.c.state == "succeeded", "success"),
        (or_(run.c.state.in_(ERRORS), gave_up), "failure"),
    )
