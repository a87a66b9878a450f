"""Who stands still, and what a person can do about it.

An entry stands still where nothing will move it by itself, or where it has not moved for
longer than its rhythm. Each kind is a statement that follows an index and names a few, the
longest first; the same is asked of one entry by `explain`, and of all by `status` and `check`.
What takes a while and will end (a long task, an upstream that is not due yet) is no stall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, and_, case, exists, func, literal_column, not_, or_, select
from sqlalchemy.sql import ColumnElement

from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN, WORKER
from beatstore.rules.after import NO_UPSTREAMS
from beatstore.rules.decide import TRIGGERED
from beatstore.store.explain.blocked import NAMES_SHOWN, STALLED_FOR, blocked, given_up, utc

__all__ = ["FORGOTTEN", "forgotten", "retries_of_paused", "stalls"]

#: How long a claim may have ended, or a row be held, before a person is told.
_PATIENCE, _HELD_FOR = timedelta(seconds=10), timedelta(seconds=30)

#: Farther ahead than any claim of a beat ends.
_FAR = timedelta(minutes=10)

#: So many runs of an entry in a row that nobody reports are no chance.
_IN_A_ROW = 3

#: The newest runs that are looked at, of all entries, and how far back.
_SAMPLE, _WINDOW = 10_000, timedelta(minutes=70)

#: An entry that no beat will ever look at, though something of it is due, or will be.
FORGOTTEN: ColumnElement[bool] = and_(
    ENTRY.c.state == "active",
    ENTRY.c.wake_at.is_(None),
    ENTRY.c.blocked_by.is_(None),
    or_(
        ENTRY.c.kind != "after",
        ENTRY.c.pending_since.is_not(None),
        ENTRY.c.pending_reason == NO_UPSTREAMS,
    ),
)


def stalls(tx: Transaction, now: datetime, entry_id: int | None = None) -> list[str]:
    """Return a sentence for each entry that stands still, of each kind a few at most.

    Args:
        tx: joins it.
        now: the database's time.
        entry_id: only this entry; None: all.
    """
    kinds: tuple[Callable[[Transaction, datetime, int | None], Iterator[str]], ...]
    kinds = (held, retried, unclaimed, _not_reported, _never_reported, blocked)
    return [said for kind in kinds for said in kind(tx, now, entry_id)]


def _of(column: ColumnElement[Any], entry_id: int | None) -> list[ColumnElement[bool]]:
    return [] if entry_id is None else [column == entry_id]


# -- rows that nobody looks at, or can ------------------------------------------------------


def forgotten(tx: Transaction, entry_id: int | None = None) -> Iterator[str]:
    """Name entries that no beat will look at; without an entry's id this reads all entries."""
    columns = (ENTRY.c.name, ENTRY.c.pending_reason)
    found = select(*columns).where(FORGOTTEN, *_of(ENTRY.c.id, entry_id))
    for row in tx.execute(found.order_by(ENTRY.c.id).limit(NAMES_SHOWN)):
        name = row.name
        if row.pending_reason == NO_UPSTREAMS:
            yield (
                f"{name!r} runs after its upstreams, and has none left: write store.link({name!r}, "
                f"…), or store.remove({name!r})."
            )
        else:
            yield (
                f"{name!r} is active, and no beat will ever look at it, since its wake_at is NULL: "
                f"write store.pause({name!r}) and store.resume({name!r})."
            )


def held(tx: Transaction, now: datetime, entry_id: int | None) -> Iterator[str]:
    """Name entries whose rows a transaction of the application has held for long."""
    since = func.min(RUN.c.finished_at).label("since")
    found = (
        select(RUN.c.entry_name, since)
        # Beats come back to it every second; where they do not, it is not held, but left lying.
        .where(RUN.c.wake_at > now - _PATIENCE, RUN.c.follow_up.is_not(None))
        .where(RUN.c.finished_at < now - _HELD_FOR, *_of(RUN.c.entry_id, entry_id))
        .group_by(RUN.c.entry_name)
        .order_by(since)
        .limit(NAMES_SHOWN)
    )
    for row in tx.execute(found):
        if isinstance(row.since, datetime):
            yield (
                f"The outcome of a run of {row.entry_name!r} has waited since {utc(row.since)} for "
                "a row that another transaction holds: end the transaction that has changed this "
                "entry, or one of its downstreams."
            )


# -- messages that are not sent -------------------------------------------------------------


_CLAIMED = select(
    *(RUN.c[name] for name in ("id", "entry_name", "due_at", "wake_at", "tries", "claimed_by")),
    RUN.c.reason,
).where(RUN.c.state == "claimed")


def retried(tx: Transaction, now: datetime, entry_id: int | None) -> Iterator[str]:
    """Name runs that are claimed and were not sent for long, though beats look at them."""
    patience = timedelta(seconds=tx.settings.claim_ttl) + _PATIENCE
    late = RUN.c.due_at < now - patience
    # Of a first attempt the entry says when it was claimed: it may be long after it was due.
    old_claim = exists().where(
        ENTRY.c.id == RUN.c.entry_id, ENTRY.c.last_run_at < now - patience, RUN.c.attempt == 1
    )
    is_held = and_(RUN.c.claimed_by.is_not(None), RUN.c.wake_at > now)
    kept = and_(is_held, or_(RUN.c.wake_at > now + _FAR, old_claim))
    lies = RUN.c.wake_at < now - patience
    found = (
        _CLAIMED.where(RUN.c.wake_at.is_not(None), *_of(RUN.c.entry_id, entry_id))
        .where(late, or_(RUN.c.tries > 0, kept, lies))
        .order_by(RUN.c.due_at)
        .limit(NAMES_SHOWN)
    )
    for run in tx.execute(found):
        if isinstance(run.due_at, datetime) and isinstance(run.wake_at, datetime):
            yield _unsent(run, now)


def _unsent(run: Row[Any], now: datetime) -> str:
    which = f"Run {run.id} of {run.entry_name!r}, due {utc(run.due_at)}, is not sent yet"
    if run.tries:
        why = " ".join(str(run.reason or "nobody knows why").split()).rstrip(".")
        times = "one try" if run.tries == 1 else f"{run.tries} tries"
        return f"{which}, after {times}: {why}. It is tried again at {utc(run.wake_at)}."
    if run.wake_at < now:
        ended = f"its claim ended at {utc(run.wake_at)}, and " if run.claimed_by else ""
        return (
            f"{which}: {ended}no beat has taken it. Perhaps no beat is alive, or another "
            "transaction holds its row."
        )
    return (
        f"{which}: beat {run.claimed_by} holds it until {utc(run.wake_at)}. Look at the log of "
        "that beat, and at the alarms of its broker."
    )


def unclaimed(tx: Transaction, now: datetime, entry_id: int | None) -> Iterator[str]:
    """Name runs that are claimed and that no beat will look at: those due in the last hour."""
    due = RUN.c.due_at >= now - _WINDOW if entry_id is None else RUN.c.entry_id == entry_id
    found = _CLAIMED.where(due, RUN.c.wake_at.is_(None), literal_column("state <> 'succeeded'"))
    for run in tx.execute(found.order_by(RUN.c.due_at).limit(NAMES_SHOWN)):
        if isinstance(run.due_at, datetime):
            yield (
                f"Run {run.id} of {run.entry_name!r}, due {utc(run.due_at)}, is claimed, and no "
                "beat will ever send it, since its wake_at is NULL: write `UPDATE beatstore_run "
                f"SET wake_at = due_at WHERE id = {run.id}`."
            )


def retries_of_paused(tx: Transaction) -> Iterator[str]:
    """Name the next attempts that come to nothing, since somebody has paused their entry."""
    by_hand = RUN.c.reason.startswith(TRIGGERED)
    columns = [RUN.c[name] for name in ("entry_name", "attempt", "due_at", "wake_at")]
    found = (
        select(*columns)
        .join(ENTRY, ENTRY.c.id == RUN.c.entry_id)
        .where(RUN.c.wake_at.is_not(None), RUN.c.state == "claimed", RUN.c.claimed_by.is_(None))
        .where(ENTRY.c.state == "paused", or_(RUN.c.reason.is_(None), not_(by_hand)))
        .order_by(RUN.c.wake_at)
        .limit(NAMES_SHOWN)
    )
    for run in tx.execute(found):
        if isinstance(run.due_at, datetime) and isinstance(run.wake_at, datetime):
            yield (
                f"Attempt {run.attempt} of the run of {run.entry_name!r} due {utc(run.due_at)} "
                f"would be sent at {utc(run.wake_at)}, but {run.entry_name!r} is paused: it is "
                f"cancelled then, unless you write store.resume({run.entry_name!r}) before."
            )


# -- outcomes that never come ---------------------------------------------------------------


def _some_report(tx: Transaction) -> bool:
    return tx.execute(select(WORKER.c.id).limit(1)).first() is not None


def _not_reported(tx: Transaction, now: datetime, entry_id: int | None) -> Iterator[str]:
    """Name entries that stand still since their last run was sent and never reported.

    That may be a long queue; but an occurrence has come due meanwhile, and was held back.
    """
    if not _some_report(tx):
        return  # `status` says that nobody reports at all
    run = RUN.alias("open")
    passed = or_(ENTRY.c.cursor_at > run.c.due_at, ENTRY.c.pending_due_at > run.c.due_at)
    indexed: ColumnElement[bool] = literal_column("open.state <> 'succeeded'")
    found = (
        select(run.c.id, run.c.sent_at, run.c.wake_at, ENTRY.c.name, ENTRY.c.overlap)
        .join(run, run.c.entry_id == ENTRY.c.id)
        .where(ENTRY.c.state == "active", ENTRY.c.overlap != "allow", passed)
        .where(run.c.state == "sent", indexed, run.c.sent_at < now - STALLED_FOR)
        .where(*_of(ENTRY.c.id, entry_id))
        .order_by(run.c.sent_at)
        .limit(NAMES_SHOWN)
    )
    held_back = {"skip": "is skipped", "wait": "waits"}
    for row in tx.execute(found):
        if isinstance(row.sent_at, datetime) and row.overlap in held_back:
            yield (
                f"{row.name!r} stands still: its run {row.id} was sent at {utc(row.sent_at)}, no "
                f"worker has reported it, and what is due since {held_back[row.overlap]}."
                f"{given_up(row)} If its message is gone, write `beatstore end {row.id} --as "
                "failed`; a shorter run_timeout of the entry counts for this run too."
            )


def _never_reported(tx: Transaction, now: datetime, entry_id: int | None) -> Iterator[str]:
    """Name entries whose runs, one after the other, were sent and never reported.

    Only those for which outcomes matter: their retries and downstreams wait for good.
    """
    if not _some_report(tx):
        return
    sent = select(RUN.c.entry_id, RUN.c.state, RUN.c.sent_at).where(
        RUN.c.due_at < now - STALLED_FOR, RUN.c.sent_at.is_not(None)
    )
    sent = sent.where(
        RUN.c.due_at >= now - _WINDOW if entry_id is None else RUN.c.entry_id == entry_id
    )
    most = _SAMPLE if entry_id is None else _IN_A_ROW
    recent = sent.order_by(RUN.c.due_at.desc()).limit(most).subquery()
    silent = func.count(case((recent.c.state == "sent", 1)))
    first = func.min(recent.c.sent_at).label("first")
    rows = select(recent.c.entry_id, first).group_by(recent.c.entry_id)
    unheard = rows.having(func.count() >= _IN_A_ROW, func.count() == silent).subquery()
    downstream = exists().where(DEPENDENCY.c.upstream_id == ENTRY.c.id)
    found = (
        select(ENTRY.c.name)
        .join(unheard, unheard.c.entry_id == ENTRY.c.id)
        .where(ENTRY.c.overlap == "allow", or_(ENTRY.c.max_retries > 0, downstream))
        .where(unheard.c.first < now - STALLED_FOR)
        .order_by(unheard.c.first, ENTRY.c.id)
        .limit(NAMES_SHOWN)
    )
    for name in tx.execute(found).scalars():
        yield (
            f"The last runs of {name!r} were sent, {_IN_A_ROW} or more in a row, and no worker has "
            "reported one, so its retries and downstreams wait. Perhaps no worker listens to its "
            "queue, or the one that does lacks beatstore.setup(app)."
        )
