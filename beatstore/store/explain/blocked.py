"""Find entries that wait for upstreams which will not deliver.

From each entry that has been waiting for long, follow the chain of upstreams to the last one:
that one decides. An upstream that is running, or is not due yet, is not a stall.

One question finds the chains, whatever their length; further ones read the entries in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    case,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    tuple_,
)

from beatstore.config import Settings
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN
from beatstore.database.together import Question
from beatstore.errors import ScheduleError
from beatstore.records import Entry, entry_of
from beatstore.rules.due import schedule_of
from beatstore.rules.reasons import duration
from beatstore.rules.states import UNFINISHED
from beatstore.store.explain.upstreams import newest_unfinished, readable
from beatstore.tick.edges import NOT_SUCCEEDED, SAME_DUE_TIME, unsatisfied_by_any

__all__ = ["NAMES_SHOWN", "STALLED_FOR", "Blocked", "marked_lost", "utc"]

#: How long an entry may wait before it is called stalled.
STALLED_FOR = timedelta(minutes=10)

#: How many waiting entries are examined; those with inactive upstreams come first.
_LOOKED_INTO = 100

#: How many entries of a kind are named, and how many upstreams of a chain are followed.
NAMES_SHOWN, _DEEPEST = 3, 10

#: How many due times may pass while an entry waits; without a schedule, how long it may wait.
_RHYTHMS, _DAY = 3, timedelta(days=1)

#: The states of runs that have not ended: `started`, then `sent`, then `claimed`.
_OPEN = sorted(UNFINISHED, reverse=True)

#: An upstream that has failed this often in a row is reported.
_IN_A_ROW = 2

#: An upstream in a chain, and one that it waits for itself.
_UP, _NEXT = ENTRY.alias("up"), ENTRY.alias("further")
_EDGE = DEPENDENCY.c

_MUST = {"success": "to succeed", "done": "to end", "failure": "to fail"}


@dataclass(slots=True)
class _Chain:
    """A waiting entry and the chain of upstreams that it waits for.

    Attributes:
        entry: the waiting entry.
        ups: its upstreams, each of which waits for the next one.
        gone: whether the last upstream was removed.
        run: a run of the last upstream that has not ended.
        edge: the edge to the last upstream.
    """

    entry: Entry
    ups: list[Entry] = field(default_factory=list)
    gone: bool = False
    run: Any = None
    edge: Any = None


class Blocked:
    """Finds a few entries whose upstreams will not deliver.

    Ask `chains` first, then `details()`, if there are any; then call `sentences()`.

    Args:
        now: the database's time.
        settings: the default time zone.
        entry_id: only this entry; None: all entries.
    """

    def __init__(self, now: datetime, settings: Settings, entry_id: int | None = None) -> None:
        self._now, self._settings = now, settings
        self.chains = Question(_chains(now, entry_id), _by_entry)
        self._entries: Question[dict[int, Entry]] | None = None
        self._runs: Question[dict[int, Any]]
        self._edges: Question[dict[tuple[int, int], Any]]

    def details(self) -> list[Question[Any]]:
        """Return the questions about the entries in the chains that were found."""
        found = self.chains.answer
        if not found:
            return []
        ups = {up for chain in found.values() for up in chain}
        pairs = {pair for entry_id, chain in found.items() for pair in pairwise((entry_id, *chain))}
        key = (_EDGE.downstream_id, _EDGE.upstream_id)
        columns = (*key, _EDGE.on, _EDGE.align, _EDGE.failure_seen)
        edges = select(*columns).where(tuple_(*key).in_(list(pairs)))
        self._entries = Question(select(ENTRY).where(ENTRY.c.id.in_({*found, *ups})), self._by_id)
        self._runs = Question(
            newest_unfinished(ups, _OPEN), lambda rows: {row.entry_id: row for row in rows}
        )
        self._edges = Question(
            edges, lambda rows: {(row.downstream_id, row.upstream_id): row for row in rows}
        )
        return [self._entries, self._runs, self._edges]

    def sentences(self) -> list[str]:
        """Return a sentence for each of a few entries."""
        if self._entries is None:
            return []
        chains = [self._chain(*one) for one in self.chains.answer.items()]
        said = (
            _sentence(chain, self._now, self._settings)
            for chain in sorted((one for one in chains if one is not None), key=_urgency)
        )
        return [one for one in said if one is not None][:NAMES_SHOWN]

    def _chain(self, entry_id: int, ids: Sequence[int]) -> _Chain | None:
        """Return a chain with what is known of it; None if its entry was removed meanwhile."""
        assert self._entries is not None
        entries = self._entries.answer
        if entry_id not in entries:
            return None
        chain = _Chain(entries[entry_id])
        for up_id in ids:
            up = entries.get(up_id)
            if up in chain.ups:
                break  # a cycle, which plain SQL has made
            chain.gone = up is None
            if up is None:
                break
            chain.ups.append(up)
        if chain.ups:
            chain.run = self._runs.answer.get(chain.ups[-1].id)
            *_, down, up = (chain.entry, *chain.ups)
            chain.edge = self._edges.answer.get((down.id, up.id))
        return chain

    def _by_id(self, rows: Sequence[Any]) -> dict[int, Entry]:
        return {row.id: readable(entry_of(row, self._settings)) for row in rows}


def _chains(now: datetime, entry_id: int | None) -> Select[Any]:
    """Return a query for the upstreams in each chain: the waiting entry, an upstream, its depth."""
    waits = (
        select(ENTRY.c.id.label("entry_id"), ENTRY.c.blocked_by.label("up_id"))
        .outerjoin(_UP, _UP.c.id == ENTRY.c.blocked_by)
        .where(ENTRY.c.state == "active", ENTRY.c.blocked_by.is_not(None))
        .where(ENTRY.c.blocked_by != ENTRY.c.id, ENTRY.c.pending_since < now - STALLED_FOR)
        .order_by(case((_UP.c.state == "active", 1), else_=0), ENTRY.c.pending_since)
        .limit(_LOOKED_INTO)
    )
    if entry_id is not None:
        waits = waits.where(ENTRY.c.id == entry_id)
    first = waits.subquery("waits")
    zero: ColumnElement[int] = literal_column("0", Integer)
    chain = select(first, zero.label("depth")).cte("chain", recursive=True)
    further = (
        select(chain.c.entry_id, _waits_for().label("up_id"), (chain.c.depth + 1).label("depth"))
        .join(_UP, _UP.c.id == chain.c.up_id)
        .where(chain.c.depth < _DEEPEST - 1)
    )
    found = chain.union_all(further)
    return select(found).where(found.c.up_id.is_not(None))


def _waits_for() -> ColumnElement[int | None]:
    """Return the id of what an upstream waits for itself; NULL where the chain ends."""
    is_open = exists().where(RUN.c.entry_id == _UP.c.id, RUN.c.state.in_(UNFINISHED), NOT_SUCCEEDED)
    # Without a schedule, an entry that does not wait yet will be woken by one of its upstreams;
    # an inactive one blocks it for good.
    unmet = or_(SAME_DUE_TIME, unsatisfied_by_any(_NEXT))
    waker = (
        select(_EDGE.upstream_id)
        .outerjoin(_NEXT, _NEXT.c.id == _EDGE.upstream_id)
        .where(_EDGE.downstream_id == _UP.c.id, unmet)
        .order_by(case((_NEXT.c.state == "active", 1), else_=0), _EDGE.upstream_id.desc())
        .limit(1)
    )
    waits_for = case(
        (or_(_UP.c.state != "active", is_open), null()),
        (_UP.c.pending_since.is_not(None), _UP.c.blocked_by),
        (_UP.c.kind == "after", waker.correlate(_UP).scalar_subquery()),
    )
    return func.nullif(waits_for, _UP.c.id, type_=BigInteger)


def _by_entry(rows: Sequence[Any]) -> dict[int, list[int]]:
    """Return the ids of the upstreams in each chain, by the id of the entry."""
    found: dict[int, list[int]] = {}
    for row in sorted(rows, key=lambda row: row.depth):
        found.setdefault(row.entry_id, []).append(row.up_id)
    return found


def _urgency(chain: _Chain) -> tuple[bool, str]:
    """Sort the chains as they were chosen: first those whose upstream is not active."""
    is_active = bool(chain.ups) and chain.ups[0].state == "active"
    return is_active, str(chain.entry.pending_since)


# -- wording -------------------------------------------------------------------------------


def _sentence(chain: _Chain, now: datetime, settings: Settings) -> str | None:
    """Return what blocks an entry and what to do; None: nothing, or it will pass."""
    entry, since = chain.entry, chain.entry.pending_since
    why = None if since is None else _why(chain, since, now, settings)
    if since is None or why is None:
        return None
    names = [repr(up.name) for up in chain.ups]
    if chain.gone:
        names.append("an upstream that was removed")
    path = ", which waits for ".join(names)
    must = ""
    if chain.edge is not None and len(names) == 1 and not chain.gone:
        must = f" {_MUST.get(chain.edge.on, '')}"
    return f"{entry.name!r} has been waiting since {utc(since)} for {path}{must}{why}"


def utc(instant: datetime) -> str:
    """Return an instant as the sentences about stalls show it."""
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"


def marked_lost(run: Any) -> str:
    """Say when a sent run is marked lost; "" if it never is."""
    if not isinstance(run.wake_at, datetime):
        return ""
    return f" If no worker reports by {utc(run.wake_at)}, it is marked lost."


def _why(chain: _Chain, since: datetime, now: datetime, settings: Settings) -> str | None:
    """Return what is wrong with the last upstream of a chain and what to do."""
    if chain.gone:
        return f": see store.explain({chain.entry.name!r}), and unlink it."
    *_, down, up = (chain.entry, *chain.ups)
    if chain.run is not None:
        return _unreported(chain, chain.run, now, settings)
    if up.state != "active":
        return _out_of_service(down, up, chain.edge)
    failures = _failures(chain.edge, up)
    if failures >= _IN_A_ROW:
        return f", which has failed {failures:,} times since: see store.errors({up.name!r})."
    if _passed(chain.entry, since, now, settings) and _passed(up, since, now, settings):
        for_long = f"; that is {duration(now - since)}, longer than both usually take"
        return f"{for_long}: see store.explain({up.name!r})."
    return None


def _failures(edge: Any, up: Entry) -> int:
    """Return how often an upstream that must succeed has failed since it last counted."""
    if edge is None or edge.on != "success" or not isinstance(edge.failure_seen, int):
        return 0
    return up.failure_seq - edge.failure_seen


def _unreported(chain: _Chain, run: Any, now: datetime, settings: Settings) -> str | None:
    """Return what to do about a sent run that no worker has reported."""
    since = chain.entry.pending_since
    if run.state != "sent" or not isinstance(run.sent_at, datetime) or since is None:
        return None
    if run.sent_at >= now - STALLED_FOR or not _passed(chain.entry, since, now, settings):
        return None
    return (
        f": run {run.id} of that upstream was sent at {utc(run.sent_at)}, and no worker has "
        f"reported it.{marked_lost(run)} If its message is gone, write "
        f"`beatstore end {run.id} --as failed`."
    )


def _out_of_service(entry: Entry, up: Entry, edge: Any) -> str:
    unlink = f"store.unlink({entry.name!r}, {up.name!r}) ends the wait"
    if up.state == "paused":
        return f", which is paused: write store.resume({up.name!r}); {unlink}."
    if up.state == "broken":
        return f", which is broken: fix it with store.change({up.name!r}, …); {unlink}."
    if up.state == "cancelled":
        return f", which is cancelled, and will not run again: {unlink}."
    once_more = f"store.trigger({up.name!r}) runs it once more; "
    if edge is not None and edge.align == "same" and entry.pending_due_at is not None:
        once_more = "rerun its run of that due time; "  # a trigger is for another one
    return f", which is {up.state}, and will not run again: {once_more}{unlink}."


def _passed(entry: Entry, since: datetime, now: datetime, settings: Settings) -> bool:
    """Return whether several due times of an entry, or a day without a schedule, have passed."""
    at: datetime | None = since
    try:
        schedule = None if entry.kind == "after" else schedule_of(entry, settings)
        for _ in range(_RHYTHMS):
            at = None if schedule is None or at is None else schedule.next_after(at)
    except (ScheduleError, TypeError, AttributeError, OverflowError):  # a row written by hand
        at = None
    return now - since > _DAY if at is None else at <= now
