"""Read and write the due times that a downstream shares with its upstreams.

Each such due time of a downstream is a row of `wait`. It is met when each edge with
`align="same"` has a matching token. The row also marks due times that were sent, skipped or
given up, so nothing depends on how long runs are kept.

Invariant:
    * The search for a missing upstream resumes where the last look at that due time stopped
      (`blocked_by`). All looks together read each edge about once.

Each function joins the caller's transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.engine import Connection
from sqlalchemy.sql.expression import null

from beatstore.database.columns import Instant
from beatstore.database.dialects import DatabaseDialect, dialect_of
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN, TOKEN, WAIT, chunks
from beatstore.rules.decision import Decision
from beatstore.rules.gate import Missing, SharedAccount, SharedTime
from beatstore.rules.outcomes import failure_ends_wait, satisfies, unmet_words
from beatstore.rules.states import UNFINISHED
from beatstore.schedules.instants import EPOCH
from beatstore.tick.edges import ENDS_WAIT, NOT_SUCCEEDED, SAME_DUE_TIME, unsatisfied_for
from beatstore.tick.tokens import OPEN, of_due_time, write_past_tokens

__all__ = ["read_shared", "write_shared"]

#: How many due times of an entry a look reads in each state, oldest first.
_PAGE = 200

_EDGE = DEPENDENCY.c
_UP = ENTRY.alias("up")


# -- reading -----------------------------------------------------------------------


def read_shared(
    connection: Connection, rows: Sequence[Row[Any]], new: Sequence[int], now: datetime
) -> dict[int, SharedAccount]:
    """Return the due times that entries share with their upstreams, and their states.

    Args:
        connection: in the transaction that locked the rows.
        rows: entries that have edges.
        new: the ids of entries that were just written, or whose edges were.
        now: the database's time.
    """
    by_id = {row.id: row for row in rows}
    newest = connection.execute(_newest_edges(dialect_of(connection.dialect)), {"ids": list(by_id)})
    edges = {row.id: row for row in newest if row.up is not None}
    if not edges:
        return {}
    clocked = [entry_id for entry_id in edges if by_id[entry_id].kind != "after"]
    fresh = [entry_id for entry_id in new if entry_id in edges]
    if fresh:
        _look_anew(connection, fresh)
        for entry_id in fresh:
            write_past_tokens(connection, by_id[entry_id], now)
    waits = _waits(connection, list(edges))
    found = _Found(connection, edges, waits)
    under_way = _under_way(connection, clocked, now)
    return {
        entry_id: SharedAccount(
            unreported=found.unreported(entry_id),
            reported=found.reported(entry_id),
            taken=found.taken(entry_id),
            under_way=under_way.get(entry_id, ()),
        )
        for entry_id in edges
    }


@cache
def _newest_edges(dialect: DatabaseDialect) -> Select[Any]:
    """Select entries with their newest such upstream, and the shortest timeout."""
    of_entry = and_(_EDGE.downstream_id == ENTRY.c.id, SAME_DUE_TIME)
    newest = select(_EDGE.upstream_id).where(of_entry).order_by(_EDGE.upstream_id.desc()).limit(1)
    least = select(func.min(_EDGE.timeout_s)).where(of_entry, ENDS_WAIT)
    return select(
        ENTRY.c.id,
        newest.correlate(ENTRY).scalar_subquery().label("up"),
        least.correlate(ENTRY).scalar_subquery().label("timeout_s"),
    ).where(dialect.among(ENTRY.c.id))


def _look_anew(connection: Connection, ids: Sequence[int], *which: ColumnElement[bool]) -> None:
    """Check all waiting due times from the beginning, since edges may have changed."""
    connection.execute(
        update(WAIT)
        .where(WAIT.c.downstream_id.in_(ids), WAIT.c.state.in_(("waits", "met")), *which)
        .values(state="look", blocked_by=null())
    )


#: An edge of a due time whose first run is free. The next run requires it too.
_FREE = select(_EDGE.upstream_id).where(
    _EDGE.downstream_id == WAIT.c.downstream_id, _EDGE.align == "same", _EDGE.consumed_seq < 0
)


def _waits(connection: Connection, ids: list[int]) -> list[Row[Any]]:
    """Return the oldest unused due times of entries, for each state."""
    oldest = _oldest_waits(dialect_of(connection.dialect))
    return list(connection.execute(oldest, {"ids": ids}).all())


@cache
def _oldest_waits(dialect: DatabaseDialect) -> Select[Any]:
    number = func.row_number().over(
        partition_by=(WAIT.c.downstream_id, WAIT.c.state), order_by=WAIT.c.due_at
    )
    numbered = (
        select(WAIT, number.label("number"))
        .where(dialect.among(WAIT.c.downstream_id))
        .where(WAIT.c.state.in_((*OPEN, "ahead")))
        .subquery("numbered")
    )
    return select(numbered).where(numbered.c.number <= _PAGE).order_by(numbered.c.due_at)


class _Found:
    """The due times of a batch of entries, with the result of this look."""

    def __init__(
        self, connection: Connection, edges: dict[int, Row[Any]], waits: Sequence[Row[Any]]
    ) -> None:
        self._edges = edges
        self._waits: dict[int, list[Row[Any]]] = defaultdict(list)
        for row in waits:
            self._waits[row.downstream_id].append(row)
        look = [row for row in waits if row.state == "look"]
        self._unmet = _unmet(connection, look)
        self._ends = _ends(connection, look, self._unmet)
        pairs = {(row.downstream_id, row.blocked_by) for row in waits if row.state == "waits"}
        pairs |= {(entry_id, up) for (entry_id, _), up in self._unmet.items() if up is not None}
        pairs |= {(entry_id, edge.up) for entry_id, edge in edges.items()}
        self._words = _words(connection, pairs)

    def reported(self, entry_id: int) -> tuple[SharedTime, ...]:
        """Return the unused due times of an entry, oldest first."""
        rows = self._waits[entry_id]
        return tuple(self._one(row) for row in rows if row.state in OPEN)

    def taken(self, entry_id: int) -> frozenset[datetime]:
        """Return the used due times that are ahead of the cursor."""
        return frozenset(row.due_at for row in self._waits[entry_id] if row.state == "ahead")

    def unreported(self, entry_id: int) -> Missing:
        """Return what is missing for a due time without any token."""
        edge = self._edges[entry_id]
        words = self._words.get((entry_id, edge.up))
        return Missing(upstream_id=edge.up, words=words, timeout_s=edge.timeout_s)

    def _one(self, row: Row[Any]) -> SharedTime:
        fresh = row.state == "look"
        missing = None if row.state == "met" else self._missing(row, fresh)
        return SharedTime(at=row.due_at, missing=missing, since=row.since, fresh=fresh)

    def _missing(self, row: Row[Any], fresh: bool) -> Missing | None:
        """Return what this look found missing, or what an earlier look has stored."""
        key = _key_of(row)
        upstream_id = self._unmet.get(key) if fresh else row.blocked_by
        if upstream_id is None:
            return None
        failed, timeout_s = self._ends.get(key, (None, None)) if fresh else (None, row.timeout_s)
        words = self._words.get((row.downstream_id, upstream_id))
        return Missing(upstream_id=upstream_id, words=words, failed=failed, timeout_s=timeout_s)


def _key_of(row: Any) -> tuple[int, datetime]:
    return row.downstream_id, row.due_at


def _unmet(
    connection: Connection, look: Sequence[Row[Any]]
) -> dict[tuple[int, datetime], int | None]:
    """Return for each due time its newest missing upstream; None: none is missing."""
    found: dict[tuple[int, datetime], int | None] = {}
    for chunk in chunks(look):
        found |= _search(connection, chunk, resume=True)
        again = [row for row in chunk if row.blocked_by and found.get(_key_of(row)) is None]
        if again:
            found |= _search(connection, again, resume=False)
    return found


def _search(
    connection: Connection, look: Sequence[Row[Any]], *, resume: bool
) -> dict[tuple[int, datetime], int | None]:
    missing = (
        select(_EDGE.upstream_id)
        .select_from(DEPENDENCY.join(_UP, _UP.c.id == _EDGE.upstream_id))
        .where(_EDGE.downstream_id == WAIT.c.downstream_id, unsatisfied_for(WAIT.c.due_at))
        .order_by(_EDGE.upstream_id.desc())
        .limit(1)
    )
    if resume:
        missing = missing.where(
            or_(WAIT.c.blocked_by.is_(None), _EDGE.upstream_id <= WAIT.c.blocked_by)
        )
    rows = connection.execute(
        select(
            WAIT.c.downstream_id,
            WAIT.c.due_at,
            missing.correlate(WAIT).scalar_subquery().label("upstream_id"),
        ).where(tuple_(WAIT.c.downstream_id, WAIT.c.due_at).in_([_key_of(row) for row in look]))
    )
    return {_key_of(row): row.upstream_id for row in rows}


def _ends(
    connection: Connection,
    look: Sequence[Row[Any]],
    unmet: dict[tuple[int, datetime], int | None],
) -> dict[tuple[int, datetime], tuple[str | None, float | None]]:
    """Return what ends the wait of due times: the name of a failed upstream, and a timeout."""
    dues: dict[int, list[datetime]] = defaultdict(list)
    for row in look:
        if unmet.get(_key_of(row)) is not None:
            dues[row.downstream_id].append(row.due_at)
    if not dues:
        return {}
    edges = connection.execute(
        select(
            *(_EDGE[name] for name in ("downstream_id", "upstream_id", "on", "timeout_s")),
            _EDGE.on_upstream_failure,
            _UP.c.name,
        )
        .join(_UP, _UP.c.id == _EDGE.upstream_id)
        .where(_EDGE.downstream_id.in_(dues), SAME_DUE_TIME, ENDS_WAIT)
        .order_by(_UP.c.name)
    ).all()
    if not edges:
        return {}
    outcomes = _outcomes(connection, {edge.upstream_id for edge in edges}, dues)
    found: dict[tuple[int, datetime], tuple[str | None, float | None]] = {}
    for edge in edges:
        for due_at in dues[edge.downstream_id]:
            outcome = outcomes.get((edge.downstream_id, due_at, edge.upstream_id))
            if satisfies(outcome, edge.on):
                continue
            failed, timeout_s = found.get((edge.downstream_id, due_at), (None, None))
            ends = failure_ends_wait(edge.on, edge.on_upstream_failure)
            if ends and outcome == "failure" and failed is None:
                failed = str(edge.name)
            if edge.timeout_s is not None:
                timeout_s = min(edge.timeout_s, edge.timeout_s if timeout_s is None else timeout_s)
            found[edge.downstream_id, due_at] = (failed, timeout_s)
    return found


def _outcomes(
    connection: Connection, upstreams: set[int], dues: dict[int, list[datetime]]
) -> dict[tuple[int, datetime, int], str]:
    """Return the tokens of these upstreams for these due times."""
    found: dict[tuple[int, datetime, int], str] = {}
    keys = [(entry_id, due_at) for entry_id, at in dues.items() for due_at in at]
    for some in chunks(keys):
        chosen = tuple_(TOKEN.c.downstream_id, TOKEN.c.due_at).in_(some)
        for row in connection.execute(select(TOKEN).where(chosen)):
            if row.upstream_id in upstreams:
                found[row.downstream_id, row.due_at, row.upstream_id] = row.outcome
    return found


def _words(
    connection: Connection, pairs: Iterable[tuple[int, int | None]]
) -> dict[tuple[int, int | None], str]:
    """Return the pending reason for each of these pairs of entry and upstream."""
    known = sorted({(down, up) for down, up in pairs if up is not None})
    found: dict[tuple[int, int | None], str] = {}
    for some in chunks(known):
        rows = connection.execute(
            select(_EDGE.downstream_id, _EDGE.upstream_id, _EDGE.on, _UP.c.name, _UP.c.state)
            .join(_UP, _UP.c.id == _EDGE.upstream_id)
            .where(tuple_(_EDGE.downstream_id, _EDGE.upstream_id).in_(some))
        )
        for row in rows:
            words = unmet_words(row.name, row.on, row.state, same=True)
            found[row.downstream_id, row.upstream_id] = words
    return found


def _under_way(
    connection: Connection, ids: Sequence[int], now: datetime
) -> dict[int, tuple[datetime, ...]]:
    """Return the due times of unfinished runs of upstreams of these entries."""
    found: dict[int, list[datetime]] = defaultdict(list)
    if not ids:
        return {}
    rows = connection.execute(
        select(_EDGE.downstream_id, RUN.c.due_at)
        .join(RUN, RUN.c.entry_id == _EDGE.upstream_id)
        .where(
            dialect_of(connection.dialect).among(_EDGE.downstream_id, ids),
            SAME_DUE_TIME,
            RUN.c.state.in_(UNFINISHED),
            NOT_SUCCEEDED,
            RUN.c.due_at <= now,
        )
    )
    for row in rows:
        if isinstance(row.due_at, datetime):
            found[row.downstream_id].append(row.due_at)
    return {entry_id: tuple(at) for entry_id, at in found.items()}


# -- writing ------------------------------------------------------------------------


def write_shared(
    connection: Connection, decided: Sequence[tuple[Row[Any], SharedAccount, Decision]]
) -> None:
    """Write the new states of the due times that a look has read.

    Args:
        connection: in the transaction that read them, before it consumes what was completed.
        decided: entries with such edges, what was read for them, and their decisions.
    """
    updates: list[dict[str, Any]] = []
    taken: list[dict[str, Any]] = []
    passed: list[dict[str, Any]] = []
    unmatched: list[dict[str, Any]] = []
    left: list[int] = []
    for entry, account, decision in decided:
        clocked = entry.kind != "after"
        cursor_at = (decision.cursor_at if clocked else None) or EPOCH
        takes = {*decision.takes, *decision.unmatched}
        unmatched += [{"b_id": entry.id, "b_due_at": at} for at in decision.unmatched]
        taken += [
            {"b_id": entry.id, "b_due_at": at, "b_state": "ahead" if clocked else "taken"}
            for at in sorted(decision.takes)
            if at > cursor_at
        ]
        still = [one for one in account.reported if one.at not in takes and one.at > cursor_at]
        updates += [
            _noted(entry.id, one)
            for one in still
            if one.fresh and (one.missing is None or one.missing.failed is None)
        ]
        if still and decision.consume and not decision.spares_free:
            left.append(entry.id)
        if clocked and decision.cursor_at and decision.cursor_at != entry.cursor_at:
            passed.append({"b_id": entry.id, "b_due_at": decision.cursor_at})
    if taken:
        _take(connection, taken)
    if updates:
        connection.execute(_NOTE, updates)
    if unmatched:
        connection.execute(_DROP, unmatched)
        connection.execute(_USE_UP, unmatched)
    if passed:
        connection.execute(_PASS[0], passed)
        connection.execute(_PASS[1], passed)
    if left:
        _look_anew(connection, left, _FREE.exists())


def _noted(entry_id: int, one: SharedTime) -> dict[str, Any]:
    missing = one.missing
    return {
        "b_id": entry_id,
        "b_due_at": one.at,
        "b_state": "met" if missing is None else "waits",
        "b_blocked_by": None if missing is None else missing.upstream_id,
        "b_timeout_s": None if missing is None else missing.timeout_s,
    }


def _up_to(table: Any) -> ColumnElement[bool]:
    at = bindparam("b_due_at", type_=Instant())
    return and_(table.c.downstream_id == bindparam("b_id"), table.c.due_at <= at)


_NOTE = (
    update(WAIT)
    .where(of_due_time(WAIT))
    .values(
        state=bindparam("b_state"),
        blocked_by=bindparam("b_blocked_by"),
        timeout_s=bindparam("b_timeout_s"),
    )
)
_TAKE = update(WAIT).where(of_due_time(WAIT)).values(state=bindparam("b_state"), blocked_by=null())
_DROP = delete(WAIT).where(of_due_time(WAIT))
_USE_UP = delete(TOKEN).where(of_due_time(TOKEN))
_PASS = delete(WAIT).where(_up_to(WAIT)), delete(TOKEN).where(_up_to(TOKEN))


def _take(connection: Connection, taken: list[dict[str, Any]]) -> None:
    """Mark due times as used; insert the row of one that has no token yet."""
    rows = [
        {"downstream_id": one["b_id"], "due_at": one["b_due_at"], "state": one["b_state"]}
        for one in taken
    ]
    connection.execute(dialect_of(connection.dialect).insert_ignore(WAIT), rows)
    connection.execute(_TAKE, taken)
    connection.execute(_USE_UP, [{k: one[k] for k in ("b_id", "b_due_at")} for one in taken])
