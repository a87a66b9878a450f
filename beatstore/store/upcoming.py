"""The upcoming due times of all entries, merged in the order of sending.

Each due time is computed from its entry's schedule, as beat does; `next_due_at` is only a cache and
is not used. The index on `wake_at` bounds the work:

* The `wake_at` of an active entry that does not wait is the sending time of its next occurrence,
  or earlier. So entries are read in the order of `wake_at`, until the next occurrence found comes
  before every `wake_at` that was not read.
* Until its `wake_at` comes up in that order, the schedule of an entry is not computed.
* A row that was just written or edited by plain SQL has a `wake_at` in the past, so it is among the
  first to be read, until a beat has processed it.
* With jitter, an entry is sent after its due time, and its `wake_at` is the time of sending.
  Therefore the order is that of sending times.
* An entry that waits for an upstream or a run of its own has no `wake_at`, or that of its timeout.
  It has `blocked_by` instead, which is indexed too.
* Paused, finished, missed, cancelled and broken entries have neither, and no occurrences.
* An entry without a schedule has no due times to compute.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, or_, select

from beatstore.database.columns import Unreadable
from beatstore.database.rows import Transaction
from beatstore.database.tables import ENTRY
from beatstore.database.together import Question, ask
from beatstore.definition import fields
from beatstore.errors import InvalidEntryError
from beatstore.rules.due import just_before, sent_from
from beatstore.schedules.instants import EPOCH
from beatstore.store import entries
from beatstore.store.ahead import UNREADABLE, Ahead
from beatstore.types import Page

__all__ = ["Occurrence", "upcoming"]

_MOST = 10_000

#: How many entries the first page reads: the limit asked for, within these bounds.
_LEAST, _PAGE = 50, 500

#: How many times as many each further page reads. Where so many are due at once, or have just been
#: written, that one page does not decide what comes first, a few pages do.
_GROWTH = (3, 3, 8, 40)

_READ = [
    ENTRY.c[name]
    for name in (
        *("id", "name", "task", "state", "kind", "spec", "timezone", "start_at", "end_at"),
        *("max_runs", "jitter_s", "run_count", "cursor_at", "created_at", "wake_at"),
        *("pending_due_at", "pending_reason", "misfire", "grace_s"),
    )
]


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One instant at which an entry is due.

    Attributes:
        name: the entry's name.
        task: the name of its task.
        due_at: the due time, in UTC.
        send_at: when beat sends it: the due time plus the entry's jitter.
        state: "ahead": in the future; "overdue": no beat has picked it up yet; "waiting": an
            upstream or a run of the entry's own blocks it.
        reason: why it waits.
    """

    name: str
    task: str
    due_at: datetime
    send_at: datetime
    state: str = "ahead"
    reason: str | None = None


def upcoming(
    tx: Transaction,
    chosen: Mapping[str, str | None],
    start: datetime | None,
    until: datetime | None,
    limit: int,
) -> Page[Occurrence]:
    """Return what is sent next; see `Store.upcoming`."""
    limit = fields.whole("limit", limit, least=1, most=_MOST)
    merged = _Merged(tx, chosen, start, until, limit + 1)
    return Page.cut(islice(merged.occurrences(), limit + 1), limit)


class _Merged:
    """The occurrences of many entries as one sequence, which reads entries as needed."""

    def __init__(
        self,
        tx: Transaction,
        chosen: Mapping[str, str | None],
        start: datetime | None,
        until: datetime | None,
        limit: int,
    ) -> None:
        self._tx = tx
        self._select = entries.matching(tx, select(*_READ), {**chosen, "state": "active"})
        self._now = tx.now()
        self._start = None if start is None else fields.instant("start", start)
        self._until = None if until is None else fields.instant("until", until)
        if self._start and self._until and self._until <= self._start:
            expected = f"an instant after start, {self._start.isoformat()}"
            raise InvalidEntryError("until", self._until.isoformat(), expected)
        self._limit = limit
        self._seen: set[int] = set()
        #: Of each entry that was read, when its next occurrence is sent, at the earliest. Then its
        #: id, which breaks ties, and the occurrence with those that follow, or the row while
        #: they are not computed.
        self._heap: list[tuple[datetime, int, Occurrence | None, Any]] = []

    def occurrences(self) -> Iterator[Occurrence]:
        """Yield the occurrences in the order of their sending times."""
        pages = self._by_wake_at()
        read_to: datetime | None = EPOCH
        while True:
            # Entries that were not read yet are sent at `read_to` or later.
            while read_to is not None and (not self._heap or self._heap[0][0] > read_to):
                read_to = next(pages)
            if not self._heap:
                return
            _, entry_id, first, following = heapq.heappop(self._heap)
            if first is None:
                following = self._of_entry(following)
            else:
                yield first
            self._push(entry_id, following)

    # -- reading -----------------------------------------------------------------------

    def _blocked(self) -> list[Select[Any]]:
        """Return queries for the blocked entries that wait longest, and that are due first."""
        held = self._select.where(ENTRY.c.blocked_by.is_not(None), ENTRY.c.kind != "after")
        if self._start is not None:
            return [held]
        orders = (ENTRY.c.pending_due_at, ENTRY.c.next_due_at)
        firsts = (held.where(one.is_not(None)).order_by(one, ENTRY.c.id) for one in orders)
        return [first.limit(self._limit) for first in firsts]

    def _by_wake_at(self) -> Iterator[datetime | None]:
        """Read page after page; yield the `wake_at` up to which all were read, None at the end.

        The first one has the blocked entries, too.
        """
        page = self._select.where(ENTRY.c.wake_at.is_not(None), ENTRY.c.kind != "after")
        size = min(_PAGE, max(_LEAST, self._limit))
        page = page.order_by(ENTRY.c.wake_at, ENTRY.c.id)
        first = Question(page.limit(size), list)
        blocked = [Question(query, list) for query in self._blocked()]
        ask(self._tx, [*blocked, first])
        for row in (row for one in blocked for row in one.answer):
            self._take(row)
        # As text, since a value that can't be read, in a row written by hand, is no instant.
        rows: Sequence[Any] = sorted(first.answer, key=lambda row: (str(row.wake_at), row.id))
        growth = iter(_GROWTH)
        while rows:
            for row in rows:
                self._take(row, row.wake_at)
            # One that can't be read has no place in the order.
            last = next((row for row in reversed(rows) if isinstance(row.wake_at, datetime)), None)
            if len(rows) < size or last is None:
                break
            if self._until is not None and last.wake_at >= self._until:
                break
            yield last.wake_at
            size *= next(growth, _GROWTH[-1])
            rows = self._tx.execute(page.where(_after(last.wake_at, last.id)).limit(size)).all()
        while True:
            yield None

    def _take(self, row: Any, wake_at: object = None) -> None:
        """Take an entry into the merge.

        Args:
            row: the entry.
            wake_at: an instant before which no occurrence of it is sent, if that is known.
        """
        if row.id in self._seen:
            return
        self._seen.add(row.id)
        if Unreadable in map(type, row):
            return
        if isinstance(wake_at, datetime):
            heapq.heappush(self._heap, (wake_at, row.id, None, row))
        else:
            self._push(row.id, self._of_entry(row))

    def _push(self, entry_id: int, following: Iterator[Occurrence]) -> None:
        first = next(following, None)
        if first is not None:
            heapq.heappush(self._heap, (first.send_at, entry_id, first, following))

    # -- one entry -----------------------------------------------------------------------

    def _of_entry(self, row: Any) -> Iterator[Occurrence]:
        """Yield the occurrences of one entry within the window."""
        try:
            ahead = Ahead(row, self._now, self._tx.settings)
        except UNREADABLE:
            return  # a row written by hand, which beat will mark broken
        if self._start is None:
            state = "overdue" if row.pending_due_at is None else "waiting"
            yield from (_made(row, ahead, at, state) for at in ahead.owed)
        else:
            ahead.skip(just_before(self._start - ahead.offset))
        yield from (_made(row, ahead, at) for at in ahead.sent_before(self._until))


def _made(row: Any, ahead: Ahead, due_at: datetime, state: str = "ahead") -> Occurrence:
    reason = row.pending_reason if state == "waiting" else None
    send_at = sent_from(due_at, ahead.offset)
    return Occurrence(row.name, row.task, due_at, send_at, state, reason)


def _after(wake_at: datetime, entry_id: int) -> ColumnElement[bool]:
    """Return the condition that an entry follows this one in the order of reading."""
    later = or_(ENTRY.c.wake_at > wake_at, ENTRY.c.id > entry_id)
    return and_(ENTRY.c.wake_at >= wake_at, later)
