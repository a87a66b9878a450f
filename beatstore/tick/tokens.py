"""Tokens: how a run of an upstream ended, for downstreams with `align="same"`.

    a run ends for good -> a token for each such downstream -> the downstream checks its due time

`wait` and `token` rows are written only while the downstream is locked.

Invariants:
    * A due time is used once: no token is written for one that is used already, or that the
      cursor has passed.
    * A due time is checked again only after a token of the upstream that blocks it, or after a
      failure that ends its wait.

Each function joins the caller's transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, bindparam, or_, select, tuple_, update
from sqlalchemy.engine import Connection

from beatstore.database.columns import Instant
from beatstore.database.dialects import dialect_of
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN, TOKEN, WAIT, chunks
from beatstore.rules.due import EARLIEST, accounted_for
from beatstore.rules.outcomes import failure_ends_wait, satisfies
from beatstore.tick.edges import (
    FAILURE_ENDS_WAIT,
    is_final,
    not_running_again,
    outcome_of,
    satisfied_by,
)

__all__ = ["OPEN", "FinalOutcome", "of_due_time", "write_past_tokens", "write_tokens"]

#: The states of a due time that is not used yet.
OPEN = ("look", "waits", "met")

_EDGE = DEPENDENCY.c
_UP = ENTRY.alias("up")


def of_due_time(table: Any) -> ColumnElement[bool]:
    """Return the condition for one due time in `wait` or `token`, bound by `b_id`, `b_due_at`."""
    at = bindparam("b_due_at", type_=Instant())
    return and_(table.c.downstream_id == bindparam("b_id"), table.c.due_at == at)


# -- tokens of a completion ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FinalOutcome:
    """The final outcome of one due time of an upstream.

    Attributes:
        upstream_id: the upstream's id.
        due_at: the due time.
        outcome: `success` or `failure`.
        sent_at: when the run was sent, if it was sent.
        is_last: whether the upstream will not run again.
    """

    upstream_id: int
    due_at: datetime
    outcome: str
    sent_at: datetime | None
    is_last: bool


def write_tokens(
    connection: Connection,
    outcomes: Sequence[FinalOutcome],
    edges: Sequence[Row[Any]],
    downstreams: dict[int, Row[Any]],
    now: datetime,
) -> set[int]:
    """Write the tokens of completions; return the ids of downstreams to wake.

    Args:
        connection: in the transaction that locked the downstreams.
        outcomes: the final outcomes.
        edges: the edges from the upstreams, with `upstream_id`, `downstream_id`, `align`, `on` and
            `on_upstream_failure`.
        downstreams: the locked rows, by id, with `kind`, `state`, `cursor_at` and `created_at`.
        now: the database's time.
    """
    by_upstream: dict[int, list[Row[Any]]] = defaultdict(list)
    for edge in edges:
        if edge.align == "same" and edge.downstream_id in downstreams:
            by_upstream[edge.upstream_id].append(edge)
    tokens = [
        (edge, one)
        for one in outcomes
        for edge in by_upstream.get(one.upstream_id, ())
        if _matters(edge, one) and _is_relevant(downstreams[edge.downstream_id], one)
    ]
    woken: set[int] = set()
    for some in chunks(tokens):
        woken |= _write_batch(connection, some, now)
    return woken


def _matters(edge: Row[Any], one: FinalOutcome) -> bool:
    """Return whether an outcome satisfies an edge, or ends its wait.

    Other outcomes write no token: an alarm that waits for a failure ignores a success.
    """
    if satisfies(one.outcome, edge.on):
        return True
    return failure_ends_wait(edge.on, edge.on_upstream_failure)


def _is_relevant(entry: Row[Any], one: FinalOutcome) -> bool:
    """Return whether a due time matters to a downstream."""
    if entry.state != "active":
        return False  # after a resume, it ignores what happened meanwhile
    if entry.cursor_at is not None and one.due_at <= entry.cursor_at:
        return False
    if entry.kind != "after" or one.sent_at is None or one.is_last:
        return True
    # An entry without a schedule ignores runs that were sent before it was created.
    return bool(one.sent_at >= entry.created_at)


def _write_batch(
    connection: Connection, tokens: Sequence[tuple[Any, FinalOutcome]], now: datetime
) -> set[int]:
    keys = {(edge.downstream_id, one.due_at) for edge, one in tokens}
    rows = connection.execute(
        select(WAIT.c.downstream_id, WAIT.c.due_at, WAIT.c.state, WAIT.c.blocked_by).where(
            tuple_(WAIT.c.downstream_id, WAIT.c.due_at).in_(list(keys))
        )
    ).all()
    there = {(row.downstream_id, row.due_at): row for row in rows}
    _open_waits(connection, keys - there.keys(), now)
    tokens = [
        (edge, one)
        for edge, one in tokens
        if (key := (edge.downstream_id, one.due_at)) not in there or there[key].state in OPEN
    ]
    if not tokens:
        return set()
    changed = _insert_tokens(connection, tokens)
    look: set[tuple[int, datetime]] = set()
    for edge, one in tokens:
        key = (edge.downstream_id, one.due_at)
        row = there.get(key)
        if row is None or row.state == "look" or changed or _may_unblock(row, edge, one):
            look.add(key)
    again = [
        {"b_id": entry_id, "b_due_at": due_at}
        for entry_id, due_at in sorted(look & there.keys())
        if there[entry_id, due_at].state != "look"
    ]
    if again:
        connection.execute(_LOOK_AGAIN, again)
    return {entry_id for entry_id, _ in look}


_LOOK_AGAIN = (
    update(WAIT)
    .where(of_due_time(WAIT), or_(*(WAIT.c.state == state for state in OPEN)))
    .values(state="look")
)


def _may_unblock(row: Any, edge: Any, one: FinalOutcome) -> bool:
    """Return whether a token may end the wait of a due time."""
    if one.outcome == "failure" and failure_ends_wait(edge.on, edge.on_upstream_failure):
        return True
    return row.blocked_by is None or row.blocked_by == edge.upstream_id


def _insert_tokens(connection: Connection, tokens: Sequence[tuple[Any, FinalOutcome]]) -> bool:
    """Insert tokens; return whether an existing one has changed to a success.

    Of several outcomes of one due time a success counts, as it does when they come one by one.
    """
    rows = {
        (edge.downstream_id, one.due_at, edge.upstream_id): {
            "downstream_id": edge.downstream_id,
            "due_at": one.due_at,
            "upstream_id": edge.upstream_id,
            "outcome": one.outcome,
        }
        for edge, one in sorted(tokens, key=lambda token: token[1].outcome == "success")
    }
    insert = dialect_of(connection.dialect).insert_ignore(TOKEN)
    statement = insert.execution_options(preserve_rowcount=True)
    inserted = connection.execute(statement, list(rows.values())).rowcount
    if inserted == len(rows):
        return False
    late = [key for key, row in rows.items() if row["outcome"] == "success"]
    if not late:
        return False
    late_success = (
        update(TOKEN)
        .where(
            tuple_(TOKEN.c.downstream_id, TOKEN.c.due_at, TOKEN.c.upstream_id).in_(late),
            TOKEN.c.outcome != "success",
        )
        .values(outcome="success")
    )
    return bool(connection.execute(late_success).rowcount)


# -- tokens of earlier runs ---------------------------------------------------------


def write_past_tokens(connection: Connection, entry: Row[Any], now: datetime) -> None:
    """Write the tokens of runs that ended before the entry's edges were written.

    An entry with a schedule gets the tokens of due times that it has not accounted for. An entry
    without a schedule gets those of due times that it waits for; if it never ran, it also
    gets the last one of each upstream that will not run again.
    """
    mine = _EDGE.downstream_id == entry.id
    if entry.kind != "after":
        after = accounted_for(entry)
        _insert_past_tokens(
            connection, mine, [] if after == EARLIEST else [RUN.c.due_at > after], now
        )
        return
    waits = select(WAIT.c.due_at).where(WAIT.c.downstream_id == entry.id, WAIT.c.state.in_(OPEN))
    _insert_past_tokens(connection, mine, [RUN.c.due_at.in_(waits)], now)
    if entry.run_count == 0:
        for upstream_id in _finished_upstreams(connection, entry.id):
            last = _last_due(connection, upstream_id)
            if last is not None:
                of_edge = and_(mine, _EDGE.upstream_id == upstream_id)
                _insert_past_tokens(connection, of_edge, [RUN.c.due_at == last], now)


def _finished_upstreams(connection: Connection, entry_id: int) -> Sequence[int]:
    """Return the upstreams of an entry that will not run again."""
    over = (
        select(_EDGE.upstream_id)
        .join(_UP, _UP.c.id == _EDGE.upstream_id)
        .where(_EDGE.downstream_id == entry_id, _EDGE.align == "same")
        .where(not_running_again(_UP))
    )
    return connection.scalars(over).all()


def _last_due(connection: Connection, upstream_id: int) -> datetime | None:
    """Return the due time of the last run of an upstream with a final outcome."""
    ended = and_(RUN.c.entry_id == upstream_id, outcome_of(RUN).is_not(None), is_final(RUN))
    last = select(RUN.c.due_at).where(ended).order_by(RUN.c.due_at.desc()).limit(1)
    found = connection.scalar(last)
    return found if isinstance(found, datetime) else None


def _insert_past_tokens(
    connection: Connection,
    edges: ColumnElement[bool],
    runs: Sequence[ColumnElement[bool]],
    now: datetime,
) -> None:
    """Insert the missing tokens of these runs, and their due times."""
    outcome = outcome_of(RUN)
    outcomes = (
        select(_EDGE.downstream_id, RUN.c.due_at, _EDGE.upstream_id, outcome.label("outcome"))
        .join(RUN, RUN.c.entry_id == _EDGE.upstream_id)
        .where(edges, _EDGE.align == "same", outcome.is_not(None), is_final(RUN), *runs)
        .where(or_(satisfied_by(outcome), FAILURE_ENDS_WAIT))
    )
    rows = [
        row._asdict() for row in connection.execute(outcomes) if isinstance(row.due_at, datetime)
    ]
    if not rows:
        return
    connection.execute(dialect_of(connection.dialect).insert_ignore(TOKEN), rows)
    _open_waits(connection, {(row["downstream_id"], row["due_at"]) for row in rows}, now)


def _open_waits(connection: Connection, keys: Set[tuple[int, datetime]], now: datetime) -> None:
    """Insert the missing ones of these due times, to be checked by the next look."""
    rows = [
        {"downstream_id": entry_id, "due_at": due_at, "since": now, "state": "look"}
        for entry_id, due_at in sorted(keys)
    ]
    if rows:
        connection.execute(dialect_of(connection.dialect).insert_ignore(WAIT), rows)
