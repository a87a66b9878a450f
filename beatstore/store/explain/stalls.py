"""Find stalled entries and say what to do about them.

An entry is stalled if nothing will move it by itself, or if it has not moved for longer than
usual. Each kind of stall is one statement that follows an index and names a few entries, the
oldest stall first. `explain` asks about one entry, `status` and `check` about all of them. What
takes long but will end (a long task, an upstream that is not due yet) is not a stall.

Each function returns a question, so that the caller can ask many of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import (
    Select,
    and_,
    case,
    exists,
    func,
    literal_column,
    not_,
    or_,
    select,
    union_all,
)
from sqlalchemy.sql import ColumnElement

from beatstore.config import Settings
from beatstore.database.functions import begins_with
from beatstore.database.models import ASLEEP
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN, WORKER
from beatstore.database.together import Question
from beatstore.rules.after import NO_UPSTREAMS
from beatstore.rules.reasons import TRIGGERED
from beatstore.rules.states import ENTRY_STATES, RUN_STATES
from beatstore.store.conditions import NOT_ACTIVE
from beatstore.store.explain.blocked import NAMES_SHOWN, STALLED_FOR, marked_lost, utc
from beatstore.store.explain.wording import NO_REASON
from beatstore.tick.edges import NOT_SUCCEEDED, OPEN, OPEN_NOT_SUCCEEDED
from beatstore.words import nearest

__all__ = ["Stalls", "forgotten", "is_forgotten", "retries_of_paused", "stalls"]

#: A question whose answer is sentences.
Stalls = Question[list[str]]

#: How long after its claim expired a run is reported, and how long a row may be locked.
_PATIENCE, _HELD_FOR = timedelta(seconds=10), timedelta(seconds=30)

#: No beat claims a run for longer than this.
_FAR = timedelta(minutes=10)

#: An entry with this many unreported runs in a row is named.
_IN_A_ROW = 3

#: How many of the newest runs of all entries are examined, and how far back.
_SAMPLE, _WINDOW = 10_000, timedelta(minutes=70)
_SAMPLE_OF_ONE = 100

#: Among how many unsent runs the oldest are looked for.
_UNSENT_READ = 1000

#: The condition that no beat will ever process an active entry, though it is due or will be.
#: The words of the partial index are repeated, since a parameter would hide them.
_FORGOTTEN: ColumnElement[bool] = and_(
    literal_column(ASLEEP),
    ENTRY.c.blocked_by.is_(None),
    or_(
        ENTRY.c.kind != "after",
        ENTRY.c.pending_since.is_not(None),
        ENTRY.c.pending_reason == NO_UPSTREAMS,
    ),
)


def is_forgotten(entry: Any) -> bool:
    """Return the condition `_FORGOTTEN` of an entry that has a schedule."""
    return entry.state == "active" and entry.wake_at is None and entry.blocked_by is None


def _ranges_between(
    column: ColumnElement[str], known: Iterable[str]
) -> tuple[ColumnElement[bool], ...]:
    """Return the ranges of texts that are none of these: an index finds them, unlike NOT IN."""
    ordered = sorted(known)
    inner = (and_(column > low, column < high) for low, high in pairwise(ordered))
    return column < ordered[0], *inner, column > ordered[-1]


#: The ranges of states that do not exist, so that no beat will ever process the entry.
_UNKNOWN = _ranges_between(ENTRY.c.state, ENTRY_STATES)

#: The ranges of the states of runs that do not exist, and of "claimed".
_UNSENT = _ranges_between(RUN.c.state, {*RUN_STATES} - {"claimed"})


def stalls(now: datetime, settings: Settings, entry_id: int | None = None) -> list[Stalls]:
    """Return questions for sentences about stalled entries, at most a few of each kind.

    What an upstream holds up is not in them: see `beatstore.store.explain.blocked`.

    Args:
        now: the database's time.
        settings: how long claims are held.
        entry_id: only this entry; None: all entries.
    """
    return [
        held(now, entry_id),
        retried(now, settings, entry_id),
        unclaimed(now, entry_id),
        _not_reported(now, entry_id),
        _never_reported(now, entry_id),
    ]


def _asked(
    query: Select[Any],
    by: str,
    said: Callable[[Any], str],
    needed: tuple[str, ...] = (),
) -> Stalls:
    """Return a question for a sentence about each row.

    Args:
        query: what is selected.
        by: the column that the rows are sorted by, as in the query.
        said: makes the sentence.
        needed: further columns with instants; rows written by hand that lack one are left out.
    """

    def read(rows: Sequence[Any]) -> list[str]:
        known = [row for row in rows if all(_is_instant(row, one) for one in (by, *needed))]
        return [said(row) for row in sorted(known, key=lambda row: getattr(row, by))]

    return Question(query, read)


def _is_instant(row: Any, column: str) -> bool:
    return isinstance(getattr(row, column), datetime)


def _of(column: ColumnElement[Any], entry_id: int | None) -> list[ColumnElement[bool]]:
    return [] if entry_id is None else [column == entry_id]


# -- rows that no beat processes -------------------------------------------------------------


def forgotten(entry_id: int | None = None) -> list[Stalls]:
    """Ask for entries that no beat will process: the active ones, and those in no known state."""
    columns = (ENTRY.c.id, ENTRY.c.name, ENTRY.c.state, ENTRY.c.pending_reason)
    asked = select(*columns).where(ENTRY.c.wake_at.is_(None), *_of(ENTRY.c.id, entry_id))
    # Sorted as the index is: sorted by id alone, a database may walk through all entries.
    active = asked.where(_FORGOTTEN).order_by(ENTRY.c.wake_at, ENTRY.c.id).limit(NAMES_SHOWN)
    # A query for each range, since in one query a database may read all that are not active.
    misspelt = union_all(*(asked.where(NOT_ACTIVE, one) for one in _UNKNOWN)).subquery("misspelt")
    # Sorted as the index is, here too.
    first = select(misspelt).order_by(misspelt.c.state, misspelt.c.name).limit(NAMES_SHOWN)

    def said(rows: Sequence[Any]) -> list[str]:
        return [_lost_sight(row) for row in sorted(rows)]

    return [Question(active, said), Question(first, said)]


def _lost_sight(row: Any) -> str:
    name = row.name
    if row.state not in ENTRY_STATES:
        state = nearest(row.state, ENTRY_STATES)
        return (
            f"{name!r} has the state {row.state!r}, which does not exist, and no beat will "
            "ever process it, because its wake_at is NULL: write `UPDATE beatstore_entry SET "
            f"state = {state!r} WHERE id = {row.id}`."
        )
    if row.pending_reason == NO_UPSTREAMS:
        return (
            f"{name!r} runs after its upstreams, and has none left: write store.link({name!r}, "
            f"…), or store.remove({name!r})."
        )
    return (
        f"{name!r} is active, but no beat will ever process it, because its wake_at is "
        f"NULL: write store.pause({name!r}), then store.resume({name!r})."
    )


def held(now: datetime, entry_id: int | None) -> Stalls:
    """Ask for entries whose rows another transaction has locked for long."""
    # Beats retry a locked row every second; an older wake_at means that no beat is alive.
    near = RUN.c.wake_at.between(now - _PATIENCE, now + _PATIENCE)
    held = select(RUN.c.entry_id, RUN.c.entry_name, RUN.c.finished_at)
    held = held.where(near, RUN.c.follow_up.is_not(None), RUN.c.finished_at < now - _HELD_FOR)
    # The limit keeps a database from searching all runs of the entry.
    row = held.order_by(RUN.c.wake_at).limit(_SAMPLE).subquery("held").c
    since = func.min(row.finished_at).label("since")
    found = (
        select(row.entry_name, since)
        .where(*_of(row.entry_id, entry_id))
        .group_by(row.entry_name)
        .order_by(since)
        .limit(NAMES_SHOWN)
    )
    return _asked(
        found,
        "since",
        lambda row: (
            f"The outcome of a run of {row.entry_name!r} has been waiting since "
            f"{utc(row.since)} for a row that another transaction has locked: end the "
            "transaction that changed this entry or one of its downstreams."
        ),
    )


# -- messages that are not sent -------------------------------------------------------------

_NAMED = ("id", "entry_name", "due_at", "state", "wake_at", "tries", "claimed_by", "reason")
_RUNS = select(*(RUN.c[name] for name in _NAMED))


def retried(now: datetime, settings: Settings, entry_id: int | None) -> Stalls:
    """Ask for claimed runs that have not been sent for long, though beats can see them."""
    patience = timedelta(seconds=settings.claim_ttl) + _PATIENCE
    late = RUN.c.due_at < now - patience
    # A first attempt may be claimed long after it was due; the entry says when.
    old_claim = exists().where(
        ENTRY.c.id == RUN.c.entry_id, ENTRY.c.last_run_at < now - patience, RUN.c.attempt == 1
    )
    is_held = and_(RUN.c.claimed_by.is_not(None), RUN.c.wake_at > now)
    kept = and_(is_held, or_(RUN.c.wake_at > now + _FAR, old_claim))
    lies = RUN.c.wake_at < now - patience
    unsent = _RUNS.where(RUN.c.state == "claimed", NOT_SUCCEEDED, RUN.c.wake_at.is_not(None))
    unsent = unsent.where(*_of(RUN.c.entry_id, entry_id))
    unsent = unsent.where(late, or_(RUN.c.tries > 0, kept, lies))
    # In the order of the index: in that of due times, a database may read all older runs.
    run = unsent.order_by(RUN.c.wake_at, RUN.c.id).limit(_UNSENT_READ).subquery("unsent").c
    found = select(*run).order_by(run.due_at).limit(NAMES_SHOWN)
    return _asked(found, "due_at", lambda run: _unsent(run, now), ("wake_at",))


def _unsent(run: Any, now: datetime) -> str:
    which = f"Run {run.id} of {run.entry_name!r}, due {utc(run.due_at)}, has not been sent"
    if run.tries:
        why = " ".join(str(run.reason or NO_REASON).split()).rstrip(".")
        times = "one try" if run.tries == 1 else f"{run.tries} tries"
        return f"{which} after {times}: {why}. Beat tries again at {utc(run.wake_at)}."
    if run.wake_at < now:
        ended = f"its claim expired at {utc(run.wake_at)}, and " if run.claimed_by else ""
        return (
            f"{which}: {ended}no beat has claimed it since. Perhaps no beat is alive, or its "
            "broker is unreachable (see its log), or another transaction has locked its row."
        )
    return (
        f"{which}: beat {run.claimed_by} has claimed it until {utc(run.wake_at)}. See the log of "
        "that beat and the alarms of its broker."
    )


def unclaimed(now: datetime, entry_id: int | None) -> Stalls:
    """Ask for unsent runs that no beat will ever send.

    Of all entries, the newest 10,000 runs of the last 70 minutes are looked at.
    """
    if entry_id is None:
        recent = _RUNS.where(RUN.c.due_at >= now - _WINDOW)
        run = recent.order_by(RUN.c.due_at.desc()).limit(_SAMPLE).subquery("looked_at").c
        unsent = or_(run.state == "claimed", run.state.not_in(RUN_STATES))
        found = select(*run).where(run.wake_at.is_(None), unsent)
    else:
        # A query for each range, since in one query a database may read all runs of the entry.
        mine = _RUNS.where(RUN.c.entry_id == entry_id, NOT_SUCCEEDED, RUN.c.wake_at.is_(None))
        run = union_all(*(mine.where(one) for one in _UNSENT)).subquery("looked_at").c
        found = select(*run)
    return _asked(found.order_by(run.due_at).limit(NAMES_SHOWN), "due_at", _never_sent)


def _never_sent(run: Any) -> str:
    known = run.state in RUN_STATES
    state = "is claimed" if known else f"has the state {run.state!r}, which does not exist"
    values = "" if known else f"state = {nearest(run.state, RUN_STATES)!r}, "
    return (
        f"Run {run.id} of {run.entry_name!r}, due {utc(run.due_at)}, {state}, but no beat "
        "will ever send it, because its wake_at is NULL: write `UPDATE beatstore_run SET "
        f"{values}wake_at = due_at WHERE id = {run.id}`."
    )


def retries_of_paused() -> Stalls:
    """Ask for the retries that will be cancelled because somebody has paused their entry."""
    by_hand = begins_with(RUN.c.reason, TRIGGERED)
    columns = [RUN.c[name] for name in ("entry_name", "attempt", "due_at", "wake_at")]
    found = (
        select(*columns)
        .join(ENTRY, ENTRY.c.id == RUN.c.entry_id)
        .where(RUN.c.wake_at.is_not(None), RUN.c.state == "claimed", RUN.c.claimed_by.is_(None))
        .where(ENTRY.c.state == "paused", or_(RUN.c.reason.is_(None), not_(by_hand)))
        .order_by(RUN.c.wake_at)
        .limit(NAMES_SHOWN)
    )
    return _asked(
        found,
        "wake_at",
        lambda run: (
            f"Attempt {run.attempt} of the run of {run.entry_name!r} due {utc(run.due_at)} "
            f"would be sent at {utc(run.wake_at)}, but {run.entry_name!r} is paused: it will "
            f"be cancelled then, unless you write store.resume({run.entry_name!r}) before."
        ),
        ("due_at",),
    )


# -- outcomes that never come ---------------------------------------------------------------


#: Some worker reports outcomes. Where none does, `status` warns of that instead.
_SOME_REPORT: ColumnElement[bool] = exists(select(WORKER.c.id))

_LATER = {"skip": "are skipped", "wait": "wait"}


def _not_reported(now: datetime, entry_id: int | None) -> Stalls:
    """Ask for entries that are blocked by a run of their own that no worker has reported.

    The queue may simply be long, but later occurrences are blocked by now.
    """
    run = OPEN
    # One instant, not an OR: so the index of the state serves for the due time as well.
    pending, cursor = ENTRY.c.pending_due_at, ENTRY.c.cursor_at
    passed = case((pending > cursor, pending), else_=func.coalesce(cursor, pending))
    found = (
        select(run.c.id, run.c.sent_at, run.c.wake_at, ENTRY.c.name, ENTRY.c.overlap)
        .join(run, run.c.entry_id == ENTRY.c.id)
        .where(ENTRY.c.state == "active", ENTRY.c.overlap.in_(_LATER), _SOME_REPORT)
        .where(run.c.state == "sent", OPEN_NOT_SUCCEEDED, run.c.due_at < passed)
        .where(run.c.sent_at < now - STALLED_FOR)
        # Of a run that blocks its entry, beat checks whether it was reported.
        .where(run.c.wake_at.is_not(None) if entry_id is None else ENTRY.c.id == entry_id)
        .order_by(run.c.sent_at)
        .limit(NAMES_SHOWN)
    )
    return _asked(
        found,
        "sent_at",
        lambda row: (
            f"{row.name!r} is stalled: its run {row.id} was sent at {utc(row.sent_at)}, no "
            f"worker has reported it, and later occurrences {_LATER[row.overlap]}."
            f"{marked_lost(row)} If its message is gone, write `beatstore end {row.id} --as "
            "failed`; a shorter run_timeout of the entry applies to this run too."
        ),
    )


def _never_reported(now: datetime, entry_id: int | None) -> Stalls:
    """Ask for entries of which several runs in a row were sent and never reported.

    Only entries with retries or downstreams count: without outcomes, those never happen.
    """
    columns = (RUN.c.entry_id, RUN.c.state, RUN.c.sent_at, RUN.c.due_at)
    due = select(*columns).where(RUN.c.due_at < now - STALLED_FOR, _SOME_REPORT)
    due = due.where(
        RUN.c.due_at >= now - _WINDOW if entry_id is None else RUN.c.entry_id == entry_id
    )
    # The newest first: nearly all may have been skipped.
    most = _SAMPLE if entry_id is None else _SAMPLE_OF_ONE
    newest = due.order_by(RUN.c.due_at.desc()).limit(most).subquery("newest").c
    sent = select(newest.entry_id, newest.state, newest.sent_at).where(newest.sent_at.is_not(None))
    if entry_id is not None:
        sent = sent.order_by(newest.due_at.desc()).limit(_IN_A_ROW)
    recent = sent.subquery()
    silent = func.count(case((recent.c.state == "sent", 1)))
    first = func.min(recent.c.sent_at).label("first")
    rows = select(recent.c.entry_id, first).group_by(recent.c.entry_id)
    unheard = rows.having(func.count() >= _IN_A_ROW, func.count() == silent).subquery()
    downstream = exists().where(DEPENDENCY.c.upstream_id == ENTRY.c.id)
    found = (
        select(unheard.c.first, ENTRY.c.id, ENTRY.c.name)
        .join(unheard, unheard.c.entry_id == ENTRY.c.id)
        .where(ENTRY.c.overlap == "allow", or_(ENTRY.c.max_retries > 0, downstream))
        .where(unheard.c.first < now - STALLED_FOR)
        .order_by(unheard.c.first, ENTRY.c.id)
        .limit(NAMES_SHOWN)
    )
    return Question(found, lambda rows: [_unheard_of(row.name) for row in sorted(rows, key=_first)])


def _first(row: Any) -> tuple[str, int]:
    return str(row.first), row.id  # as text, since a row written by hand may hold anything


def _unheard_of(name: str) -> str:
    return (
        f"No worker has reported any of the last {_IN_A_ROW} or more runs of {name!r}, so its "
        "retries and downstreams wait. Perhaps no worker listens to its queue, or the one that "
        "does lacks beatstore.setup(app)."
    )
