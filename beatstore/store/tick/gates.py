"""What holds entries back, read for a whole batch, and used up when they are sent.

Invariants:
    * Edges are read after the downstream's row is locked, in a later statement. A completion
      locks the downstream too, after it has counted: so either this reading sees it, or the
      completion sees this entry wait, and wakes it.
    * Asking whether any edge is unsatisfied goes on where the last look of the same wait
      stopped (`blocked_by`): all looks of one wait together read each edge about once.

Each function joins the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol, cast

from sqlalchemy import (
    Row,
    Select,
    and_,
    case,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.sql import ColumnElement

from beatstore.dialects import EPOCH, Instant, trigger_reads_entries
from beatstore.gate import OPEN, Gate, unmet_words
from beatstore.models import ENDS_WAIT as ENDS_WAIT_SQL
from beatstore.store.tick.claims import DEPENDENCY, ENTRY, RUN

__all__ = ["consume", "counter", "open_runs", "read_gates", "wake_forgotten"]

#: The states of a run that has not ended.
UNFINISHED = ("claimed", "sent", "started")

#: An instant that is past, and not that of a row just written.
_AWAKE = EPOCH + timedelta(days=2)

#: The last instant that there is.
_LAST = datetime.max.replace(tzinfo=timezone.utc)

#: How many runs of an upstream are looked at for a shared due time, the newest.
_SAME_LIMIT = 100

#: Where the index of unfinished and failed runs is partial, it is used only with this term.
NOT_SUCCEEDED: ColumnElement[bool] = literal_column("state <> 'succeeded'")

#: Likewise the index of edges that can end a wait by themselves.
ENDS_WAIT: ColumnElement[bool] = literal_column(ENDS_WAIT_SQL)

_CHUNK = 1000

_UP = ENTRY.alias("up")
_EDGE = DEPENDENCY.c


class Executes(Protocol):
    """A connection, or the API's transaction."""

    @property
    def dialect(self) -> Dialect:
        """What the database speaks."""
        ...

    def execute(self, statement: Any, /) -> Any:
        """Execute a statement."""
        ...


def counter(of: Any = _UP) -> ColumnElement[int]:
    """Return the upstream's counter that an edge asks about."""
    return case(
        (_EDGE.on == "success", of.c.success_seq),
        (_EDGE.on == "failure", of.c.failure_seq),
        else_=of.c.done_seq,
    )


def read_gates(connection: Connection, rows: Sequence[Row[Any]]) -> dict[int, Gate]:
    """Return the gate of each of these entries that has one; the others' are open.

    Args:
        connection: in the transaction that locked the rows.
        rows: entries, with `id`, `overlap`, `kind`, `pending_since` and `blocked_by`.
    """
    gates: dict[int, Gate] = {}
    linked = _have_edges(connection, rows)
    if linked:
        _read_edges(connection, [row for row in rows if row.id in linked], gates)
    alone = [row.id for row in rows if row.overlap != "allow"]
    if alone:
        for entry_id, due_at in open_runs(connection, alone).items():
            gates[entry_id] = replace(gates.get(entry_id, OPEN), running=due_at)
    return gates


def consume(connection: Executes, ids: Iterable[int]) -> None:
    """Use up what the upstreams of these entries have completed so far."""
    mine = _EDGE.downstream_id.in_(list(ids))
    up = ENTRY.alias("seen")
    same_row = up.c.id == _EDGE.upstream_id
    if trigger_reads_entries(connection.dialect):
        _consume_in_steps(connection, mine)
        return
    connection.execute(
        update(DEPENDENCY)
        .where(mine)
        .values(
            consumed_seq=select(counter(up)).where(same_row).scalar_subquery(),
            failure_seen=select(up.c.failure_seq).where(same_row).scalar_subquery(),
        )
    )


def _consume_in_steps(connection: Executes, mine: ColumnElement[bool]) -> None:
    """Do the same in a statement for each pair of counts; mostly there are few."""
    edges = connection.execute(
        select(_EDGE.downstream_id, _EDGE.upstream_id, counter().label("count"), _UP.c.failure_seq)
        .join(_UP, _UP.c.id == _EDGE.upstream_id)
        .where(mine)
    )
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for edge in edges:
        counts = (edge.count, edge.failure_seq)
        groups.setdefault(counts, []).append((edge.downstream_id, edge.upstream_id))
    key = tuple_(_EDGE.downstream_id, _EDGE.upstream_id)
    for (count, failures), pairs in groups.items():
        for at in range(0, len(pairs), _CHUNK):
            connection.execute(
                update(DEPENDENCY)
                .where(key.in_(pairs[at : at + _CHUNK]))
                .values(consumed_seq=count, failure_seen=failures)
            )


def open_runs(connection: Connection, ids: Sequence[int]) -> dict[int, datetime]:
    """Return the due time of the latest unfinished run of each entry that has one."""
    found = connection.execute(
        select(RUN.c.entry_id, func.max(RUN.c.due_at).label("due_at"))
        .where(RUN.c.entry_id.in_(ids), RUN.c.state.in_(UNFINISHED), NOT_SUCCEEDED)
        .group_by(RUN.c.entry_id)
    )
    # An instant that can't be read, written by hand, is one all the same.
    return {
        row.entry_id: row.due_at if isinstance(row.due_at, datetime) else EPOCH for row in found
    }


def _have_edges(connection: Connection, rows: Sequence[Row[Any]]) -> set[int]:
    ids = [row.id for row in rows]
    edge = exists().where(_EDGE.downstream_id == ENTRY.c.id)
    return set(connection.scalars(select(ENTRY.c.id).where(ENTRY.c.id.in_(ids), edge)))


def _read_edges(connection: Connection, rows: Sequence[Row[Any]], gates: dict[int, Gate]) -> None:
    ids = [row.id for row in rows]
    unmet = _unmet(connection, ids, resume=True)
    again = [row.id for row in rows if row.blocked_by is not None and row.id not in unmet]
    if again:
        unmet |= _unmet(connection, again, resume=False)
    notes = _notes(connection, [row for row in rows if row.id in unmet])
    for row in rows:
        edge = unmet.get(row.id)
        gate = Gate(edges=True)
        if edge is not None:
            words = unmet_words(edge.name, edge.on, edge.state)
            gate = replace(notes[row.id], unmet_id=edge.upstream_id, unmet=words)
        gates[row.id] = gate
    for entry_id, same in _same(connection, rows).items():
        gates[entry_id] = replace(gates[entry_id], **same)


def _unmet(connection: Connection, ids: Sequence[int], *, resume: bool) -> dict[int, Row[Any]]:
    """Return for each entry one upstream whose edge is not satisfied, the newest, if any."""
    unsatisfied = (
        select(_EDGE.upstream_id)
        .select_from(DEPENDENCY.join(_UP, _UP.c.id == _EDGE.upstream_id))
        .where(
            _EDGE.downstream_id == ENTRY.c.id,
            or_(_EDGE.align != "same", _EDGE.consumed_seq < 0),
            counter() <= _EDGE.consumed_seq,
        )
        .order_by(_EDGE.upstream_id.desc())
        .limit(1)
        .correlate(ENTRY)
    )
    if resume:
        before = or_(ENTRY.c.blocked_by.is_(None), _EDGE.upstream_id <= ENTRY.c.blocked_by)
        unsatisfied = unsatisfied.where(before)
    found = connection.execute(
        select(ENTRY.c.id, unsatisfied.scalar_subquery().label("upstream_id")).where(
            ENTRY.c.id.in_(ids)
        )
    )
    pairs = [(row.id, row.upstream_id) for row in found if row.upstream_id is not None]
    if not pairs:
        return {}
    # In a statement of its own: joined to the one above, its subquery is asked several times.
    rows = connection.execute(
        select(
            _EDGE.downstream_id.label("id"), _EDGE.upstream_id, _EDGE.on, _UP.c.name, _UP.c.state
        )
        .join(_UP, _UP.c.id == _EDGE.upstream_id)
        .where(tuple_(_EDGE.downstream_id, _EDGE.upstream_id).in_(pairs))
    )
    return {int(row.id): cast("Row[Any]", row) for row in rows}


def _notes(connection: Connection, rows: Sequence[Row[Any]]) -> dict[int, Gate]:
    """Return what else matters of entries that have an unsatisfied edge.

    Only edges that can end the wait are read, which have an index of their own, and for an
    entry without a clock whether its wait has begun.
    """
    gates = {row.id: Gate(edges=True, begun=row.pending_since is not None) for row in rows}
    if not gates:
        return gates
    met = counter() > _EDGE.consumed_seq
    sleeping = [row.id for row in rows if row.kind == "after" and row.pending_since is None]
    if sleeping:
        edge = and_(_EDGE.downstream_id == ENTRY.c.id, met, _EDGE.consumed_seq >= 0)
        of_edge = select(_EDGE.upstream_id).join(_UP, _UP.c.id == _EDGE.upstream_id).where(edge)
        begun = select(ENTRY.c.id).where(
            ENTRY.c.id.in_(sleeping), of_edge.correlate(ENTRY).exists()
        )
        for entry_id in connection.scalars(begun):
            gates[entry_id] = replace(gates[entry_id], begun=True)
    failed = and_(
        _EDGE.on == "success",
        _EDGE.on_upstream_failure == "skip",
        _UP.c.failure_seq > _EDGE.failure_seen,
    )
    ending = connection.execute(
        select(
            _EDGE.downstream_id,
            func.min(case((failed, _UP.c.name))).label("failed"),
            func.min(_EDGE.timeout_s).label("timeout_s"),
        )
        .select_from(DEPENDENCY.join(_UP, _UP.c.id == _EDGE.upstream_id))
        .where(_EDGE.downstream_id.in_(gates), ENDS_WAIT, ~met)
        .group_by(_EDGE.downstream_id)
    )
    for row in ending:
        gate = gates[row.downstream_id]
        gates[row.downstream_id] = replace(gate, failed=row.failed, timeout_s=row.timeout_s)
    return gates


def wake_forgotten(connection: Connection, limit: int) -> int:
    """Wake entries that sleep although what they wait for is there; return how many.

    A completion, or an edit of an edge, wakes them in time. This is for edits that nothing
    told of: deletions by a foreign key on MySQL, or a database without the triggers.
    """
    edge = and_(_EDGE.downstream_id == ENTRY.c.id, _EDGE.upstream_id == ENTRY.c.blocked_by)
    met = and_(_EDGE.align != "same", counter() > _EDGE.consumed_seq)
    run = RUN.alias("open")
    running = exists().where(
        run.c.entry_id == ENTRY.c.id,
        run.c.state.in_(UNFINISHED),
        literal_column("open.state <> 'succeeded'"),
    )
    own = ENTRY.c.blocked_by == ENTRY.c.id
    asleep = (
        select(ENTRY.c.id)
        .outerjoin(DEPENDENCY, edge)
        .outerjoin(_UP, _UP.c.id == _EDGE.upstream_id)
        .where(
            ENTRY.c.blocked_by.is_not(None),
            ENTRY.c.wake_at.is_(None),
            ENTRY.c.state == "active",
            or_(met, and_(~own, _EDGE.upstream_id.is_(None)), and_(own, ~running)),
        )
        .limit(limit)
    )
    ids = list(connection.scalars(asleep))
    if ids:
        still = (ENTRY.c.id.in_(ids), ENTRY.c.wake_at.is_(None), ENTRY.c.state == "active")
        connection.execute(update(ENTRY).where(*still).values(wake_at=_AWAKE, blocked_by=None))
    # A `wake_at` beyond all time, written by hand, is no instant; nobody would ever look.
    for rows in (ENTRY, RUN):
        beyond = rows.c.wake_at > literal(_LAST, Instant())
        connection.execute(update(rows).where(beyond).values(wake_at=_AWAKE))
    return len(ids)


# -- align="same" --------------------------------------------------------------------------


def _same(connection: Connection, rows: Sequence[Row[Any]]) -> dict[int, dict[str, Any]]:
    """Return what the gates of the entries with such edges say of them."""
    by_id = {row.id: row for row in rows}
    edges = connection.execute(
        select(*_SAME_EDGE)
        .join(_UP, _UP.c.id == _EDGE.upstream_id)
        .where(
            _EDGE.downstream_id.in_(by_id),
            _EDGE.align == "same",
            _EDGE.consumed_seq >= 0,
        )
    ).all()
    found: dict[int, dict[str, Any]] = {}
    for entry_id in dict.fromkeys(edge.downstream_id for edge in edges):
        entry = by_id[entry_id]
        mine = cast("list[Row[Any]]", [edge for edge in edges if edge.downstream_id == entry_id])
        shared = _shared(connection, entry, mine)
        edge = mine[-1]
        found[entry_id] = {
            "same": shared,
            "same_id": edge.upstream_id,
            "same_words": unmet_words(edge.name, edge.on, edge.state) + " for the same due time",
            **({} if shared else _not_shared(connection, entry, mine)),
        }
    return found


_SAME_EDGE = (
    *(_EDGE[name] for name in ("downstream_id", "upstream_id", "on")),
    *(_EDGE.on_upstream_failure, _EDGE.timeout_s, _UP.c.name, _UP.c.state),
)


def _not_shared(
    connection: Connection, entry: Row[Any], edges: Sequence[Row[Any]]
) -> dict[str, Any]:
    """Return what may end a wait for a shared due time."""
    failed: list[tuple[datetime, str]] = []
    for edge in edges:
        if edge.on_upstream_failure == "skip" and edge.on == "success":
            ended = connection.scalars(_due_times(entry, edge.upstream_id, "failure"))
            failed += [(at, str(edge.name)) for at in ended]
    begun: set[datetime] = set()
    for edge in edges if entry.kind == "after" else ():
        begun.update(connection.scalars(_due_times(entry, edge.upstream_id, "done")))
    timeouts = [edge.timeout_s for edge in edges if edge.timeout_s is not None]
    return {
        "same_failed": tuple(sorted(failed, reverse=True)),
        "same_begun": tuple(sorted(begun, reverse=True)),
        "same_timeout_s": min(timeouts, default=None),
    }


_ENDED = {"success": ("succeeded",), "failure": ("failed", "lost")}

_SEEN = RUN.alias("seen")


def _due_times(entry: Row[Any], upstream_id: int, on: str) -> Select[Any]:
    """Select the due times, newest first, of an upstream's last runs that have ended so.

    Only those that an entry with a clock has not accounted for; and for one without a clock,
    those since it was made, or resumed, that it has no run of.
    """
    # However long its history is, no more of it is read.
    last = RUN.alias("last")
    oldest = (
        select(last.c.due_at)
        .where(last.c.entry_id == upstream_id)
        .order_by(last.c.due_at.desc())
        .offset(_SAME_LIMIT)
        .limit(1)
        .scalar_subquery()
    )
    since = func.coalesce(oldest, literal(EPOCH, Instant()))
    query = (
        select(_SEEN.c.due_at)
        .where(
            _SEEN.c.entry_id == upstream_id,
            _SEEN.c.due_at >= since,
            *_fits(_SEEN, on),
        )
        .group_by(_SEEN.c.due_at)  # not DISTINCT, which on PostgreSQL could not be ordered
        .order_by(_SEEN.c.due_at.desc())
    )
    if entry.kind != "after":
        return query.where(_SEEN.c.due_at > entry.cursor_at) if entry.cursor_at else query
    mine = RUN.alias("mine")
    taken = exists().where(
        mine.c.entry_id == entry.id, mine.c.due_at == _SEEN.c.due_at, mine.c.due_at >= since
    )
    begun_at = max(entry.cursor_at or EPOCH, entry.created_at)
    return query.where(~taken, _SEEN.c.due_at >= begun_at)


def _shared(
    connection: Connection, entry: Row[Any], edges: Sequence[Row[Any]]
) -> tuple[datetime, ...]:
    """Return the due times, newest first, of which every edge's upstream has a fitting run.

    A statement for each upstream: joined, their histories are multiplied by a database that
    has no statistics of them yet.
    """
    seen = [set(connection.scalars(_due_times(entry, edge.upstream_id, edge.on))) for edge in edges]
    return tuple(sorted(set.intersection(*seen), reverse=True))


def _fits(run: Any, on: str) -> list[ColumnElement[bool]]:
    """Return the conditions that a run is an outcome, for good, that an edge asks for.

    A next attempt that was cancelled leaves it at that: the run was heard of after all, or
    its entry was paused.
    """
    later = RUN.alias()
    final = ~exists().where(
        later.c.entry_id == run.c.entry_id,
        later.c.due_at == run.c.due_at,
        later.c.attempt > run.c.attempt,
        later.c.state != "cancelled",
    )
    states = _ENDED.get(on, ("succeeded", "failed", "lost"))
    if on == "success":
        return [run.c.state.in_(states), final]
    # To have been given up for its own upstream is a failure; an overlap, or a lock, is none.
    gave_up = and_(
        run.c.state == "skipped", run.c.claimed_by.is_(None), run.c.reason.not_like("overlap:%")
    )
    return [or_(run.c.state.in_(states), gave_up), final]
