"""Find entries that wait for upstreams which will not deliver.

From each entry that has been waiting for long, follow the chain of upstreams to the last one:
that one decides. An upstream that is running, or is not due yet, is not a stall.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import Row, case, or_, select, tuple_

from beatstore.config import Settings
from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN
from beatstore.errors import ScheduleError
from beatstore.records import Entry
from beatstore.rules.due import schedule_of
from beatstore.rules.reasons import duration
from beatstore.rules.states import UNFINISHED
from beatstore.store.explain.upstreams import readable
from beatstore.tick.edges import NOT_SUCCEEDED, SAME_DUE_TIME, unsatisfied_by_any

__all__ = ["NAMES_SHOWN", "STALLED_FOR", "blocked", "marked_lost", "utc"]

#: How long an entry may wait before it is called stalled.
STALLED_FOR = timedelta(minutes=10)

#: How many waiting entries are examined; those with inactive upstreams come first.
_LOOKED_INTO = 100

#: How many entries of a kind are named, and how many upstreams of a chain are followed.
NAMES_SHOWN, _DEEPEST = 3, 10

#: How many due times may pass while an entry waits; without a schedule, how long it may wait.
_RHYTHMS, _DAY = 3, timedelta(days=1)

#: An upstream that has failed this often in a row is reported.
_IN_A_ROW = 2

_UP = ENTRY.alias("up")
_EDGE = DEPENDENCY.c

_MUST = {"success": "to succeed", "done": "to end", "failure": "to fail"}


@dataclass(slots=True)
class _Chain:
    """A waiting entry and the chain of upstreams that it waits for.

    Attributes:
        entry: the waiting entry.
        ups: the upstreams followed so far.
        next_id: the id of the next upstream; None: the chain ends here.
        gone: whether the last upstream was removed.
        run: a run of the last upstream that has not ended.
        edge: the edge to the last upstream.
    """

    entry: Entry
    next_id: int | None
    ups: list[Entry] = field(default_factory=list)
    gone: bool = False
    run: Row[Any] | None = None
    edge: Row[Any] | None = None

    @property
    def last_edge(self) -> tuple[int, int]:
        """Return the key of the edge to the last upstream."""
        *_, down, up = (self.entry, *self.ups)
        return down.id, up.id


def blocked(tx: Transaction, now: datetime, entry_id: int | None) -> Iterator[str]:
    """Yield a sentence for each of a few entries whose upstreams will not deliver."""
    waits = (
        select(ENTRY.c.id)
        .outerjoin(_UP, _UP.c.id == ENTRY.c.blocked_by)
        .where(ENTRY.c.state == "active", ENTRY.c.blocked_by.is_not(None))
        .where(ENTRY.c.blocked_by != ENTRY.c.id, ENTRY.c.pending_since < now - STALLED_FOR)
        .order_by(case((_UP.c.state == "active", 1), else_=0), ENTRY.c.pending_since)
        .limit(_LOOKED_INTO)
    )
    if entry_id is not None:
        waits = waits.where(ENTRY.c.id == entry_id)
    ids = list(tx.execute(waits).scalars())
    if not ids:
        return
    entries = {entry.id: readable(entry) for entry in _entries(tx, ids)}
    chains = [_Chain(entries[at], entries[at].blocked_by) for at in ids if at in entries]
    for _ in range(_DEEPEST):
        going = [chain for chain in chains if chain.next_id is not None]
        if not going:
            break
        _follow(tx, going)
    _read_edges(tx, chains)
    sentences = (_sentence(chain, now, tx.settings) for chain in chains)
    yield from islice((one for one in sentences if one is not None), NAMES_SHOWN)


def _follow(tx: Transaction, chains: Sequence[_Chain]) -> None:
    """Extend each chain by one upstream."""
    ids = {chain.next_id for chain in chains}
    ups = {up.id: readable(up) for up in _entries(tx, ids)}
    columns = [RUN.c[name] for name in ("entry_id", "id", "state", "sent_at", "wake_at")]
    open_runs = select(*columns).where(
        RUN.c.entry_id.in_(ids), RUN.c.state.in_(UNFINISHED), NOT_SUCCEEDED
    )
    # The last row wins: a started run, if there is one.
    ordered = open_runs.order_by(case((RUN.c.state == "started", 1), else_=0), RUN.c.sent_at)
    runs = {row.entry_id: row for row in tx.execute(ordered)}
    asleep = [up.id for up in ups.values() if up.state == "active" and _sleeps(up)]
    behind = _behind(tx, asleep)
    for chain in chains:
        up = ups.get(chain.next_id or 0)
        chain.next_id = None
        chain.gone = up is None
        if up is None or up in chain.ups:
            continue
        chain.ups.append(up)
        chain.run = runs.get(up.id)
        if up.state == "active" and chain.run is None:
            waits = up.blocked_by if up.pending_since is not None else behind.get(up.id)
            chain.next_id = None if waits == up.id else waits


def _entries(tx: Transaction, ids: Collection[int | None]) -> list[Entry]:
    return tx.all(Entry, select(ENTRY).where(ENTRY.c.id.in_(ids)))


def _sleeps(up: Entry) -> bool:
    return up.kind == "after" and up.pending_since is None


def _behind(tx: Transaction, ids: Sequence[int]) -> dict[int, int]:
    """Return, for each of these entries without a schedule, an upstream that will wake it."""
    if not ids:
        return {}
    unmet = or_(SAME_DUE_TIME, unsatisfied_by_any(_UP))
    edges = (
        select(_EDGE.downstream_id, _EDGE.upstream_id)
        .outerjoin(_UP, _UP.c.id == _EDGE.upstream_id)
        .where(_EDGE.downstream_id.in_(ids), unmet)
        # The last row wins: an inactive upstream blocks the entry for good.
        .order_by(case((_UP.c.state == "active", 0), else_=1), _EDGE.upstream_id)
    )
    return {row.downstream_id: row.upstream_id for row in tx.execute(edges)}


def _read_edges(tx: Transaction, chains: Sequence[_Chain]) -> None:
    """Read the edge to the last upstream of each chain."""
    pairs = {chain.last_edge for chain in chains if chain.ups}
    if not pairs:
        return
    key = (_EDGE.downstream_id, _EDGE.upstream_id)
    rows = tx.execute(
        select(*key, _EDGE.on, _EDGE.failure_seen).where(tuple_(*key).in_(list(pairs)))
    )
    edges = {(row.downstream_id, row.upstream_id): row for row in rows}
    for chain in chains:
        chain.edge = edges.get(chain.last_edge) if chain.ups else None


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


def marked_lost(run: Row[Any]) -> str:
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
        return _out_of_service(down, up)
    failures = _failures(chain.edge, up)
    if failures >= _IN_A_ROW:
        return f", which has failed {failures:,} times since: see store.errors({up.name!r})."
    if _passed(chain.entry, since, now, settings) and _passed(up, since, now, settings):
        for_long = f"; that is {duration(now - since)}, longer than both usually take"
        return f"{for_long}: see store.explain({up.name!r})."
    return None


def _failures(edge: Row[Any] | None, up: Entry) -> int:
    """Return how often an upstream that must succeed has failed since it last counted."""
    if edge is None or edge.on != "success" or not isinstance(edge.failure_seen, int):
        return 0
    return up.failure_seq - edge.failure_seen


def _unreported(chain: _Chain, run: Row[Any], now: datetime, settings: Settings) -> str | None:
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


def _out_of_service(entry: Entry, up: Entry) -> str:
    unlink = f"store.unlink({entry.name!r}, {up.name!r}) ends the wait"
    if up.state == "paused":
        return f", which is paused: write store.resume({up.name!r}); {unlink}."
    if up.state == "broken":
        return f", which is broken: fix it with store.change({up.name!r}, …); {unlink}."
    if up.state == "cancelled":
        return f", which is cancelled, and will not run again: {unlink}."
    once_more = f"store.trigger({up.name!r}) runs it once more; "
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
