"""What comes next: the due times of all entries, merged in the order of their sending.

Each due time is computed from its entry's rule, as a beat does; `next_due_at`, a cache, is
not believed. What bounds the work is `wake_at`, and the index it has:

* Of an active entry that waits for nobody, `wake_at` is the sending time of its next
  occurrence, or earlier. So the entries are read in that order, and no more of them once
  the next occurrence found comes before every `wake_at` that was not read.
* A row just written by plain SQL, or edited so, has a `wake_at` long past; it is among
  the first that are read. Until a beat has looked at such rows, each of them is.
* With jitter an entry is sent, and has its `wake_at`, after its due time. Therefore this
  is an order of sending times.
* An entry that holds back an occurrence, for an upstream or a run of its own, has no
  `wake_at`, or that of the end of its patience, but `blocked_by`, which has an index too.
* Paused, finished, missed, cancelled and broken ones have neither, nor any occurrence.
* An entry without a schedule is due when its upstreams end, which nobody knows.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, or_, select

from beatstore.config import Settings
from beatstore.database.columns import Unreadable
from beatstore.database.rows import Transaction
from beatstore.database.tables import ENTRY
from beatstore.definition import fields
from beatstore.errors import InvalidEntryError, ScheduleError
from beatstore.rules.due import (
    DueTimes,
    accounted_for,
    jitter_offset,
    just_before,
    remaining_runs,
    sent_from,
)
from beatstore.schedules.instants import EPOCH
from beatstore.store import entries
from beatstore.types import Page

__all__ = ["Occurrence", "upcoming"]

_MOST = 10_000

#: How many entries are read at a time: as many as are asked for, within these bounds.
_LEAST, _PAGE = 50, 500

_READ = [
    ENTRY.c[name]
    for name in (
        *("id", "name", "task", "kind", "spec", "timezone", "start_at", "end_at"),
        *("max_runs", "jitter_s", "run_count", "cursor_at", "created_at", "wake_at"),
        *("pending_due_at", "pending_reason"),
    )
]


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One instant at which an entry is due.

    Attributes:
        name: of the entry.
        task: what it sends.
        due_at: the instant, in UTC.
        send_at: when a beat sends it: then, or later by the entry's jitter.
        state: "ahead"; "overdue": no beat has looked at it yet; "waiting": it is held back.
        reason: what a waiting one is held back by.
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
    """The occurrences of many entries as one sequence, which reads as it goes."""

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
        #: The next occurrence of each entry that was read; the id tells equals apart, and is
        #: the order in which equals are read.
        self._heap: list[tuple[datetime, int, Occurrence, Iterator[Occurrence]]] = []

    def occurrences(self) -> Iterator[Occurrence]:
        """Yield them in the order of their sending times."""
        for row in self._blocked():
            self._take(row)
        pages = self._by_wake_at()
        read_to: datetime | None = EPOCH
        while True:
            # Whatever was not read yet is sent at `read_to` or later.
            while read_to is not None and (not self._heap or self._heap[0][0] > read_to):
                read_to = next(pages)
            if not self._heap:
                return
            _, entry_id, first, following = heapq.heappop(self._heap)
            yield first
            self._push(entry_id, following)

    # -- reading -----------------------------------------------------------------------

    def _blocked(self) -> Iterator[Row[Any]]:
        """Yield the entries that hold back the first occurrences, and those due first."""
        held = self._select.where(ENTRY.c.blocked_by.is_not(None), ENTRY.c.kind != "after")
        if self._start is not None:
            yield from self._tx.execute(held)
            return
        for order in (ENTRY.c.pending_due_at, ENTRY.c.next_due_at):
            given = held.where(order.is_not(None))
            yield from self._tx.execute(given.order_by(order, ENTRY.c.id).limit(self._limit))

    def _by_wake_at(self) -> Iterator[datetime | None]:
        """Take page after page; yield up to which `wake_at` all was read, None for all."""
        page = self._select.where(ENTRY.c.wake_at.is_not(None), ENTRY.c.kind != "after")
        size = min(_PAGE, max(_LEAST, self._limit))
        page = page.order_by(ENTRY.c.wake_at, ENTRY.c.id).limit(size)
        rows = self._tx.execute(page).all()
        while rows:
            for row in rows:
                self._take(row)
            # One that can't be read, in a row written by hand, has no place in the order.
            last = next((row for row in reversed(rows) if isinstance(row.wake_at, datetime)), None)
            if len(rows) < size or last is None:
                break
            if self._until is not None and last.wake_at >= self._until:
                break
            yield last.wake_at
            rows = self._tx.execute(page.where(_after(last.wake_at, last.id))).all()
        while True:
            yield None

    def _take(self, row: Row[Any]) -> None:
        if row.id in self._seen:
            return
        self._seen.add(row.id)
        if Unreadable not in map(type, row):
            self._push(row.id, self._of_entry(row))

    def _push(self, entry_id: int, following: Iterator[Occurrence]) -> None:
        first = next(following, None)
        if first is not None:
            heapq.heappush(self._heap, (first.send_at, entry_id, first, following))

    # -- one entry -----------------------------------------------------------------------

    def _of_entry(self, row: Any) -> Iterator[Occurrence]:
        """Yield the occurrences of one entry within the window; none of one that is broken."""
        try:
            coming = _Coming(row, self._tx.settings)
            oldest = coming.times.next_after(accounted_for(row))
        except (ScheduleError, TypeError, ValueError, OverflowError):
            return  # a row written by hand, which a beat will take out of service
        if oldest is None or coming.remaining == 0:
            return
        now = self._now - coming.offset
        due = row.pending_due_at is not None or oldest <= now
        if due:
            if self._start is None:
                yield coming.due_already(oldest)
            coming.pass_by(1)
        since = now if due else just_before(oldest)
        if self._start is not None:
            start = just_before(self._start - coming.offset)
            if start > since:
                coming.skip(since, start)
                since = start
        yield from coming.occurrences(since, self._until)


class _Coming:
    """What comes of one entry."""

    def __init__(self, row: Any, settings: Settings) -> None:
        self.row = row
        self.times = DueTimes.of(row, settings)
        self.offset = jitter_offset(row.id, row.jitter_s)
        self.remaining = remaining_runs(row)

    def pass_by(self, count: int) -> None:
        """Take so many occurrences for sent."""
        if self.remaining is not None:
            self.remaining = max(0, self.remaining - count)

    def skip(self, after: datetime, until: datetime) -> None:
        """Take the occurrences between two instants for sent."""
        if self.remaining:
            self.pass_by(len(self.times.between(after, until, self.remaining)))

    def due_already(self, oldest: datetime) -> Occurrence:
        """Return the first occurrence of those that are due, and will be one."""
        row = self.row
        if row.pending_due_at is None:
            return self._made(oldest, "overdue")
        return self._made(row.pending_due_at, "waiting", row.pending_reason)

    def occurrences(self, after: datetime, until: datetime | None) -> Iterator[Occurrence]:
        """Yield what comes after an instant."""
        due_at = self.times.next_after(after)
        while due_at is not None and self.remaining != 0:
            if until is not None and sent_from(due_at, self.offset) >= until:
                return
            yield self._made(due_at)
            self.pass_by(1)
            due_at = self.times.next_after(due_at)

    def _made(self, due_at: datetime, state: str = "ahead", why: str | None = None) -> Occurrence:
        row = self.row
        return Occurrence(row.name, row.task, due_at, sent_from(due_at, self.offset), state, why)


def _after(wake_at: datetime, entry_id: int) -> ColumnElement[bool]:
    """Return the condition that an entry comes after this one in the order they are read."""
    later = or_(ENTRY.c.wake_at > wake_at, ENTRY.c.id > entry_id)
    return and_(ENTRY.c.wake_at >= wake_at, later)
