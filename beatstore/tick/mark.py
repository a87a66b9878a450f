"""Mark runs after sending: write the outcomes of their messages to their rows.

Every write checks the beat's claim, so that runs claimed by another beat are not changed. A
usual batch is one statement, which on PostgreSQL locks the runs and commits by itself.

A sent run is watched: see `beatstore.tick.watch`. What was not sent is in `beatstore.tick.unsent`.

Each function joins the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy import and_, bindparam, case, or_, update
from sqlalchemy.engine import Connection
from sqlalchemy.sql import Executable
from sqlalchemy.sql.expression import null

from beatstore.database.columns import Instant
from beatstore.database.connection import read_now
from beatstore.database.dialects import DatabaseDialect, dialect_of
from beatstore.database.engine import Database
from beatstore.database.functions import NOW
from beatstore.database.tables import RUN, chunks
from beatstore.tick.claims import Outcome, timeout_of
from beatstore.tick.endings import NO_RETRY
from beatstore.tick.locks import free_runs
from beatstore.tick.unsent import mark_unsent
from beatstore.tick.watch import next_check_at

__all__ = ["mark", "mark_free"]

#: The run timeout, and when the message expires.
_Watch = tuple[timedelta | None, timedelta | datetime | None]

#: There is no run timeout, and the message does not expire.
_UNWATCHED: _Watch = (None, None)

#: What the rows of unsent claims are grouped by.
_result_of = attrgetter("state", "reason", "retry_in", "tries")

T = TypeVar("T")


def mark(
    connection: Connection, database: Database, beat_id: str, outcomes: Sequence[Outcome]
) -> None:
    """Write the outcomes of claims; see `Queue.mark`."""
    sent = [item for item in outcomes if item.state == "sent"]
    unsent = [item for item in outcomes if item.state != "sent"]
    for watch, items in _grouped(sent, _watch_of).items():
        for some in chunks(items):
            ids = [item.claim.run_id for item in some]
            _mark_sent(connection, database, beat_id, ids, watch)
    if unsent:
        now = read_now(connection, database)
        for items in _grouped(unsent, _result_of).values():
            for alike in chunks(items):
                mark_unsent(connection, beat_id, alike, now)


def mark_free(
    connection: Connection, database: Database, beat_id: str, outcomes: Sequence[Outcome]
) -> list[Outcome]:
    """Mark the usual outcomes, sent and never checked, of runs that no transaction has locked.

    Only where `DatabaseDialect.writes_in_queries` is true.

    Returns:
        The other outcomes.
    """
    usual = [item for item in outcomes if item.state == "sent" and _watch_of(item) == _UNWATCHED]
    if not usual:
        return list(outcomes)
    ids = [item.claim.run_id for item in usual]
    written = set(_mark_sent(connection, database, beat_id, ids, _UNWATCHED, free=True))
    return [item for item in outcomes if item.claim.run_id not in written]


def _mark_sent(
    connection: Connection,
    database: Database,
    beat_id: str,
    ids: list[int],
    watch: _Watch,
    *,
    free: bool = False,
) -> Sequence[int]:
    """Mark runs as sent. A worker may have started or ended some already.

    A run that was cancelled while its message was being sent is marked sent anyway, unless a
    worker has dropped it, or it is a next attempt: that counts as a failure once it is cancelled.
    With `free`, those that are locked are left out, and the ids of those that were marked are
    returned.
    """
    given: dict[str, Any] = {"ids": ids, "beat_id": beat_id, "next_at": None}
    given |= database.given_now()
    timeout, expires = watch
    if timeout is not None or expires is not None:
        given["now"] = now = read_now(connection, database)
        expires_at = now + expires if isinstance(expires, timedelta) else expires
        given["next_at"] = next_check_at(now, timeout, expires_at, now)
        if expires is not None:
            given["expiry"] = expires_at
    statement = _marking_sent(dialect_of(connection.dialect), expires is not None, free)
    marked = connection.execute(statement, given)
    return marked.scalars().all() if free else ()


@cache
def _marking_sent(dialect: DatabaseDialect, expires: bool, free: bool) -> Executable:
    on_its_way = and_(RUN.c.state == "cancelled", RUN.c.worker.is_(None), NO_RETRY)
    first = or_(RUN.c.state == "claimed", on_its_way)
    next_at = bindparam("next_at", type_=Instant())
    # The order matters: MySQL reads a column as set by the assignments before it.
    values: list[tuple[Any, Any]] = [
        (RUN.c.finished_at, case((first, null()), else_=RUN.c.finished_at)),
        (RUN.c.wake_at, case((first, next_at), else_=RUN.c.wake_at)),
        (RUN.c.state, case((first, "sent"), else_=RUN.c.state)),
        (RUN.c.sent_at, NOW),
    ]
    if expires:
        values.append((RUN.c.expires_at, bindparam("expiry", type_=Instant())))
    marking = update(RUN).where(
        dialect.among(RUN.c.id),
        RUN.c.claimed_by == bindparam("beat_id"),
        RUN.c.sent_at.is_(None),
    )
    if free:
        locked = free_runs(dialect).cte("free")
        marking = marking.where(RUN.c.id == locked.c.id).returning(RUN.c.id)
    return marking.ordered_values(*values)


def _watch_of(item: Outcome) -> _Watch:
    until = item.expires if isinstance(item.expires, datetime) else timeout_of(item.expires)
    return timeout_of(item.claim.run_timeout_s), until


def _grouped(outcomes: Iterable[Outcome], key: Callable[[Outcome], T]) -> dict[T, list[Outcome]]:
    """Group equal outcomes; there are few groups, and mostly one."""
    groups: dict[T, list[Outcome]] = {}
    for item in outcomes:
        groups.setdefault(key(item), []).append(item)
    return groups
