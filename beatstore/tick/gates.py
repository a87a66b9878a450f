"""Read what blocks a batch of entries, and consume upstream completions when they are sent.

Invariants:
    * The downstream's row is locked before its edges are read, in a later statement. A
      completion also locks the downstream, after it has counted. So this look either reads the
      new counter, or is already marked as waiting and gets woken.
    * The search for an unsatisfied edge resumes where the last look of the same wait stopped
      (`blocked_by`). All looks of one wait together read each edge about once.

Each function joins the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any, cast

from sqlalchemy import Row, Select, and_, bindparam, case, exists, func, or_, select, tuple_, update
from sqlalchemy.engine import Connection
from sqlalchemy.sql import ColumnElement

from beatstore.config import Settings
from beatstore.database.columns import Instant
from beatstore.database.connection import Executes
from beatstore.database.dialects import DatabaseDialect, dialect_of
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN, chunks
from beatstore.rules.gate import OPEN, Gate, Missing
from beatstore.rules.outcomes import unmet_words
from beatstore.rules.states import UNFINISHED
from beatstore.schedules.instants import EPOCH
from beatstore.tick.edges import (
    ENDS_WAIT,
    FAILURE_ENDS_WAIT,
    NOT_SUCCEEDED,
    counter,
    satisfied_by_any,
    unsatisfied_by_any,
)
from beatstore.tick.waits import read_shared
from beatstore.tick.watch import timeout_in_force

__all__ = ["consume", "open_runs", "read_gates"]

_UP, _SEEN = ENTRY.alias("up"), ENTRY.alias("seen")
_EDGE = DEPENDENCY.c


def read_gates(
    connection: Connection,
    rows: Sequence[Row[Any]],
    now: datetime,
    settings: Settings,
    new: Collection[int] = (),
) -> dict[int, Gate]:
    """Return the gates of these entries; an entry that is missing has an open gate.

    Args:
        connection: in the transaction that locked the rows.
        rows: entries, with the columns that the planner reads.
        now: the database's time.
        settings: the settings in force.
        new: the ids of entries that were just written, or whose edges were.
    """
    gates: dict[int, Gate] = {}
    linked = _have_edges(connection, rows)
    if linked:
        with_edges = [row for row in rows if row.id in linked]
        _read_edges(connection, with_edges, gates)
        fresh = [row.id for row in with_edges if row.id in new]
        for entry_id, account in read_shared(connection, with_edges, fresh, now).items():
            gates[entry_id] = replace(gates[entry_id], shared=account)
    alone: dict[timedelta | None, list[int]] = {}
    for row in rows:
        if row.overlap != "allow":
            alone.setdefault(timeout_in_force(row, settings), []).append(row.id)
    for timeout, ids in alone.items():
        for entry_id, due_at in open_runs(connection, ids, timeout, now).items():
            gates[entry_id] = replace(gates.get(entry_id, OPEN), running=due_at)
    return gates


def consume(
    connection: Executes, ids: Iterable[int], *, spare_free: bool = False, current: bool = False
) -> None:
    """Consume all upstream completions of these entries so far.

    Args:
        connection: joins its transaction.
        ids: the ids of the entries.
        spare_free: whether to leave edges alone whose first run is still free.
        current: whether to lock what is read. MySQL then reads the counters as they are, and not
            as they were when the transaction began.
    """
    mine: ColumnElement[bool] = dialect_of(connection.dialect).among(_EDGE.downstream_id, ids)
    if spare_free:
        mine = and_(mine, _EDGE.consumed_seq >= 0)
    if not dialect_of(connection.dialect).edges_read_entries:
        _consume_in_steps(connection, mine, current)
        return
    same_row = _SEEN.c.id == _EDGE.upstream_id
    connection.execute(
        update(DEPENDENCY)
        .where(mine)
        .values(
            consumed_seq=select(counter(_SEEN)).where(same_row).scalar_subquery(),
            failure_seen=select(_SEEN.c.failure_seq).where(same_row).scalar_subquery(),
        )
    )


def _consume_in_steps(connection: Executes, mine: ColumnElement[bool], current: bool) -> None:
    """Do the same with a statement for each pair of counts; mostly there are few."""
    edges = (
        select(
            _EDGE.downstream_id,
            _EDGE.upstream_id,
            counter(_UP).label("count"),
            _UP.c.failure_seq,
        )
        .join(_UP, _UP.c.id == _EDGE.upstream_id)
        .where(mine)
    )
    edges = edges.with_for_update(read=True) if current else edges
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for edge in connection.execute(edges):
        counts = (edge.count, edge.failure_seq)
        groups.setdefault(counts, []).append((edge.downstream_id, edge.upstream_id))
    key = tuple_(_EDGE.downstream_id, _EDGE.upstream_id)
    for (count, failures), pairs in groups.items():
        for some in chunks(pairs):
            connection.execute(
                update(DEPENDENCY)
                .where(key.in_(some))
                .values(consumed_seq=count, failure_seen=failures)
            )


def open_runs(
    connection: Connection, ids: Sequence[int], timeout: timedelta | None, now: datetime
) -> dict[int, datetime]:
    """Return the due time of the latest unfinished run of each entry that has one.

    A run that is not watched, and was sent longer ago than the timeout, does not count: it was
    sent when no worker could report it, and while the entry's overlap was "allow".
    """
    given: dict[str, Any] = {"ids": list(ids)}
    if timeout is not None:
        given["since"] = now - timeout
    found = connection.execute(_unfinished(dialect_of(connection.dialect), "since" in given), given)
    # The due time may be unreadable if somebody wrote it by hand; the run still counts.
    return {
        row.entry_id: row.due_at if isinstance(row.due_at, datetime) else EPOCH for row in found
    }


@cache
def _unfinished(dialect: DatabaseDialect, recent: bool) -> Select[Any]:
    """Select the latest unfinished runs; if `recent`, what is not watched was sent since then."""
    unfinished = (
        dialect.among(RUN.c.entry_id),
        RUN.c.state.in_(UNFINISHED),
        NOT_SUCCEEDED,
    )
    found = select(RUN.c.entry_id, func.max(RUN.c.due_at).label("due_at")).where(*unfinished)
    if recent:
        watched = or_(RUN.c.state != "sent", RUN.c.wake_at.is_not(None))
        found = found.where(or_(watched, RUN.c.sent_at > bindparam("since", type_=Instant())))
    return found.group_by(RUN.c.entry_id)


def _have_edges(connection: Connection, rows: Sequence[Row[Any]]) -> set[int]:
    having_edges = _having_edges(dialect_of(connection.dialect))
    return set(connection.scalars(having_edges, {"ids": [row.id for row in rows]}))


@cache
def _having_edges(dialect: DatabaseDialect) -> Select[Any]:
    edge = exists().where(_EDGE.downstream_id == ENTRY.c.id)
    return select(ENTRY.c.id).where(dialect.among(ENTRY.c.id), edge)


def _read_edges(connection: Connection, rows: Sequence[Row[Any]], gates: dict[int, Gate]) -> None:
    ids = [row.id for row in rows]
    unmet = _unmet(connection, ids, resume=True)
    again = [row.id for row in rows if row.blocked_by is not None and row.id not in unmet]
    if again:
        unmet |= _unmet(connection, again, resume=False)
    waiting = [row for row in rows if row.id in unmet]
    ends, begun = _ends(connection, list(unmet)), _begun(connection, waiting)
    for row in rows:
        edge = unmet.get(row.id)
        missing = None
        if edge is not None:
            words = unmet_words(edge.name, edge.on, edge.state)
            failed, timeout_s = ends.get(row.id, (None, None))
            missing = Missing(
                upstream_id=edge.upstream_id, words=words, failed=failed, timeout_s=timeout_s
            )
        gates[row.id] = Gate(edges=True, missing=missing, begun=row.id in begun)


def _unmet(connection: Connection, ids: Sequence[int], *, resume: bool) -> dict[int, Row[Any]]:
    """Return for each entry its newest upstream whose edge is not satisfied, if any."""
    found = connection.execute(
        _newest_unmet(dialect_of(connection.dialect), resume), {"ids": list(ids)}
    )
    pairs = [(row.id, row.upstream_id) for row in found if row.upstream_id is not None]
    if not pairs:
        return {}
    # In its own statement: joined to the one above, the subquery would run several times.
    rows = connection.execute(_EDGES, {"pairs": pairs})
    return {int(row.id): cast("Row[Any]", row) for row in rows}


#: Edges with what their upstreams are, by the ids of both ends.
_EDGES = (
    select(_EDGE.downstream_id.label("id"), _EDGE.upstream_id, _EDGE.on, _UP.c.name, _UP.c.state)
    .join(_UP, _UP.c.id == _EDGE.upstream_id)
    .where(tuple_(_EDGE.downstream_id, _EDGE.upstream_id).in_(bindparam("pairs", expanding=True)))
)


@cache
def _newest_unmet(dialect: DatabaseDialect, resume: bool) -> Select[Any]:
    unsatisfied = (
        select(_EDGE.upstream_id)
        .select_from(DEPENDENCY.join(_UP, _UP.c.id == _EDGE.upstream_id))
        .where(
            _EDGE.downstream_id == ENTRY.c.id,
            unsatisfied_by_any(_UP),
        )
        .order_by(_EDGE.upstream_id.desc())
        .limit(1)
        .correlate(ENTRY)
    )
    if resume:
        before = or_(ENTRY.c.blocked_by.is_(None), _EDGE.upstream_id <= ENTRY.c.blocked_by)
        unsatisfied = unsatisfied.where(before)
    newest = unsatisfied.scalar_subquery().label("upstream_id")
    return select(ENTRY.c.id, newest).where(dialect.among(ENTRY.c.id))


def _begun(connection: Connection, rows: Sequence[Row[Any]]) -> set[int]:
    """Return the entries whose wait has begun; only those without a schedule need a query.

    A wait begins when a completion that was not consumed yet satisfies an edge.
    """
    begun = {row.id for row in rows if row.pending_since is not None}
    sleeping = [row.id for row in rows if row.kind == "after" and row.id not in begun]
    if not sleeping:
        return begun
    having_begun = _having_begun(dialect_of(connection.dialect))
    return begun | set(connection.scalars(having_begun, {"ids": sleeping}))


@cache
def _having_begun(dialect: DatabaseDialect) -> Select[Any]:
    edge = and_(_EDGE.downstream_id == ENTRY.c.id, satisfied_by_any(_UP), _EDGE.consumed_seq >= 0)
    of_edge = select(_EDGE.upstream_id).join(_UP, _UP.c.id == _EDGE.upstream_id).where(edge)
    return select(ENTRY.c.id).where(dialect.among(ENTRY.c.id), of_edge.correlate(ENTRY).exists())


def _ends(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[str | None, float | None]]:
    """Return what ends the waits of entries: the name of a failed upstream, and a timeout.

    Only edges that can end a wait are read; they have their own index.
    """
    if not ids:
        return {}
    ending = connection.execute(_ending(dialect_of(connection.dialect)), {"ids": list(ids)})
    return {row.downstream_id: (row.failed, row.timeout_s) for row in ending}


@cache
def _ending(dialect: DatabaseDialect) -> Select[Any]:
    failed = and_(FAILURE_ENDS_WAIT, _UP.c.failure_seq > _EDGE.failure_seen)
    return (
        select(
            _EDGE.downstream_id,
            func.min(case((failed, _UP.c.name))).label("failed"),
            func.min(_EDGE.timeout_s).label("timeout_s"),
        )
        .select_from(DEPENDENCY.join(_UP, _UP.c.id == _EDGE.upstream_id))
        .where(dialect.among(_EDGE.downstream_id), ENDS_WAIT, unsatisfied_by_any(_UP))
        .group_by(_EDGE.downstream_id)
    )
