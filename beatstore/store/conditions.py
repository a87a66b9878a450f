"""Conditions of entries and runs that have one definition, wherever they are counted or listed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, func, literal, literal_column, not_, or_, select
from sqlalchemy.sql import ColumnElement

from beatstore.database.columns import Instant
from beatstore.database.functions import begins_with, fenced
from beatstore.database.tables import ENTRY, RUN
from beatstore.rules.reasons import TRIGGERED, WAITED
from beatstore.rules.states import ERRORS, REPORTED
from beatstore.schedules.instants import EPOCH

__all__ = [
    "DECLARED",
    "FAILING",
    "NEW",
    "NOT_ACTIVE",
    "SIMPLY_DUE",
    "WAITING",
    "overdue",
    "overdue_entry",
]

#: A `wake_at` this soon after the epoch is that of a row that no beat has looked at since its edit.
NEW = timedelta(days=1)

#: The condition of the partial index of states, of which a parameter would hide the state.
NOT_ACTIVE: ColumnElement[bool] = ENTRY.c.state != literal_column("'active'")

#: The condition of the partial index of owners: not "api", but code that declares the entry.
DECLARED: ColumnElement[bool] = ENTRY.c.source != literal_column("'api'")

#: An occurrence that is due waits for an upstream or for a run of the entry's own.
WAITING: ColumnElement[bool] = and_(ENTRY.c.state == "active", ENTRY.c.pending_since.is_not(None))


def overdue(
    wake_at: ColumnElement[Any], now: datetime, *, first: bool = False
) -> ColumnElement[bool]:
    """Return the condition that a row waits for a beat.

    Args:
        wake_at: the row's.
        now: the database's time.
        first: whether the first rows by `wake_at` are read, of which there may be many more.
    """
    at = literal(now, Instant())
    return wake_at <= (fenced(at) if first else at)


def overdue_entry(now: datetime, *, first: bool = False) -> ColumnElement[bool]:
    """Return the condition that an entry waits for a beat; see `overdue`.

    One that runs after others and was only just written waits for nothing: what ends sets its
    `wake_at` to the time of that.
    """
    is_new = ENTRY.c.wake_at < literal(EPOCH + NEW, Instant())
    idle = and_(ENTRY.c.kind == "after", ENTRY.c.pending_since.is_(None), is_new)
    return and_(overdue(ENTRY.c.wake_at, now, first=first), not_(idle))


def _newest_outcome() -> ColumnElement[str]:
    """Return the state of the newest run of an entry that succeeded, failed or was lost."""
    ended = select(RUN.c.state).where(RUN.c.entry_id == ENTRY.c.id, RUN.c.state.in_(REPORTED))
    newest = ended.order_by(RUN.c.due_at.desc(), RUN.c.attempt.desc()).limit(1)
    return newest.correlate(ENTRY).scalar_subquery()


#: The newest run that has an outcome failed or was lost. It reads the newest runs of each entry.
FAILING: ColumnElement[bool] = func.coalesce(_newest_outcome(), "").in_(ERRORS)

_BY_HAND, _WAITED = (begins_with(RUN.c.reason, words) for words in (TRIGGERED, WAITED))

#: A run was sent and had no reason to be late, if its entry has a schedule.
SIMPLY_DUE: ColumnElement[bool] = and_(
    RUN.c.sent_at.is_not(None),
    RUN.c.attempt == 1,
    RUN.c.first_missed_at.is_(None),
    or_(RUN.c.reason.is_(None), not_(or_(_BY_HAND, _WAITED))),
)
