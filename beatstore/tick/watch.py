"""When beat checks a run that was sent, and after an edit of its entry.

Beat checks it when the entry's `run_timeout` is over (see `beatstore.rules.gate.run_timeout`), or
when its message has expired, whichever is first.

Joins the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, bindparam, func, or_, select, update
from sqlalchemy.engine import Connection

from beatstore.config import Settings
from beatstore.database.columns import Unreadable
from beatstore.database.dialects import dialect_of
from beatstore.database.tables import RUN
from beatstore.rules.gate import run_timeout
from beatstore.tick.claims import timeout_of
from beatstore.tick.edges import NOT_SUCCEEDED
from beatstore.tick.endings import SUSPECTED
from beatstore.tick.parts import Parts

__all__ = ["next_check_at", "recheck_at", "timeout_in_force", "watch_again", "write_checks"]

#: How long after a message expires beat checks its run: a worker may be about to report it.
_EXPIRY_MARGIN = timedelta(seconds=10)

_DAY = timedelta(days=1)

_WATCH = update(RUN).where(RUN.c.id == bindparam("b_id")).values(wake_at=bindparam("b_wake_at"))


def timeout_in_force(entry: Any, settings: Settings) -> timedelta | None:
    """Return how long after sending a run may go without a report; None: forever."""
    return timeout_of(run_timeout(entry.run_timeout_s, entry.overlap, settings))


def _waits_since(run: Any, now: datetime) -> datetime:
    """Return since when the message of a sent run waits for a worker; `now` if nothing says so."""
    return max(filter(None, (run.sent_at, Parts.read(run.parts).until)), default=now)


def next_check_at(
    since: datetime, timeout: timedelta | None, expires_at: datetime | None, now: datetime
) -> datetime | None:
    """Return when beat checks a run that waits for a worker; None: never.

    Args:
        since: since when it waits.
        timeout: how long it may wait.
        expires_at: when its message expires.
        now: the database's time.
    """
    looks = [] if timeout is None else [since + timeout]
    if expires_at is not None:
        looks.append(max(expires_at, now) + _EXPIRY_MARGIN)
    return min(looks, default=None)


def recheck_at(run: Any, timeout: timedelta | None, now: datetime) -> datetime | None:
    """Return when beat checks a run again whose message has expired, where no worker reports.

    Args:
        run: the row of the run.
        timeout: how long it may wait; None: it is checked for a day.
        now: the database's time.

    Returns:
        None: never again. An instant that is not after `now`: its timeout is over.
    """
    since = _waits_since(run, now)
    ends_at = since + (_DAY if timeout is None else timeout)
    if timeout is None and ends_at <= now:
        return None
    return min(ends_at, now + max(now - since, _EXPIRY_MARGIN))


def write_checks(connection: Connection, checks: Mapping[int, datetime | None]) -> None:
    """Write when beat checks these runs, by their ids; None: never."""
    if checks:
        rows = [{"b_id": run_id, "b_wake_at": at} for run_id, at in checks.items()]
        connection.execute(_WATCH, rows)


def watch_again(
    connection: Connection, entries: Iterable[Row[Any]], settings: Settings, now: datetime
) -> None:
    """Reschedule the checks of sent runs after their entries were edited.

    The last sent run of each entry is watched from now on. Earlier ones are watched only if
    they were before: thousands of runs that were sent while no worker could report them must
    not be marked lost and retried.

    Args:
        connection: in the transaction that locked the entries.
        entries: with `run_timeout_s`, `overlap` and `last_run_at`.
        settings: the settings in force.
        now: the database's time.
    """
    timeouts = {
        entry.id: timeout_in_force(entry, settings)
        for entry in entries
        if entry.last_run_at is not None
    }
    changed = {}
    for run in _sent(connection, list(timeouts)) if timeouts else ():
        if Unreadable in map(type, run):
            continue  # the sweep ends this run
        wake_at = next_check_at(_waits_since(run, now), timeouts[run.entry_id], run.expires_at, now)
        if wake_at != run.wake_at:
            changed[run.id] = wake_at
    write_checks(connection, changed)


def _sent(connection: Connection, entry_ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Lock the runs of entries that wait for a worker, except those that were never watched.

    Locked runs are skipped: a worker is writing its report on them.
    """
    waiting = (
        dialect_of(connection.dialect).among(RUN.c.entry_id, entry_ids),
        RUN.c.state == "sent",
        NOT_SUCCEEDED,
    )
    last = select(func.max(RUN.c.id)).where(*waiting).group_by(RUN.c.entry_id)
    ids = connection.scalars(last).all()
    columns = ("id", "entry_id", "sent_at", "wake_at", "expires_at", "parts")
    return connection.execute(
        select(*(RUN.c[name] for name in columns))
        .where(*waiting, or_(RUN.c.wake_at.is_not(None), RUN.c.id.in_(ids)))
        .where(or_(RUN.c.claimed_by.is_(None), RUN.c.claimed_by != SUSPECTED))
        .with_for_update(skip_locked=True)
    ).all()
