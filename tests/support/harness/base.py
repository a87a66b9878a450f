"""What all harnesses have: a store, and what its rows say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, exists, func, or_, select

from beatstore import Store
from beatstore.database.tables import BEAT, ENTRY, RUN
from beatstore.rules.states import UNFINISHED

__all__ = ["Harness", "entry_states"]


class Harness:
    """A store, read and written past its API.

    Args:
        store: the database, as the test reaches it; closed with the harness.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def now(self) -> datetime:
        """Read the database's clock."""
        with self.store.database.session() as session:
            return self.store.database.now(session)

    def insert(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Insert entries in one transaction, as a program with SQL of its own would."""
        rows = [{"task": "tests.note", **entry} for entry in entries]
        with self.store.database.session() as session:
            session.connection().execute(ENTRY.insert(), rows)

    def runs(self) -> Sequence[Row[Any]]:
        """Return all run rows, in the order they were made."""
        with self.store.database.session() as session:
            return session.execute(select(RUN).order_by(RUN.c.id)).all()

    def run(self, run_id: int) -> Row[Any]:
        """Return the row of a run."""
        with self.store.database.session() as session:
            return session.execute(select(RUN).where(RUN.c.id == run_id)).one()

    def states(self) -> Counter[str]:
        """Count the run rows by state."""
        with self.store.database.session() as session:
            rows = session.execute(select(RUN.c.state, func.count()).group_by(RUN.c.state)).all()
        return Counter({state: count for state, count in rows})

    def beats(self) -> dict[int, str]:
        """Return the ids of the beats that were not stopped in order, by process."""
        living = select(BEAT.c.pid, BEAT.c.id).where(BEAT.c.stopped_at.is_(None))
        with self.store.database.session() as session:
            rows = session.execute(living).all()
        return {row.pid: row.id for row in rows}

    def due(self) -> int:
        """Count the entries and runs that a beat has to look at by now, or holds."""
        database = self.store.database
        with database.session() as session:
            now = database.now(session)
            waiting = select(func.count()).where(ENTRY.c.wake_at <= now)
            claimed = select(func.count()).where(RUN.c.state == "claimed")
            return sum(session.scalar(count) or 0 for count in (waiting, claimed))

    def is_quiet(self) -> bool:
        """Say whether no run is open or uncounted, and no entry is to be looked at."""
        open_runs = exists().where(RUN.c.state.in_(UNFINISHED))
        uncounted = exists().where(RUN.c.wake_at.is_not(None))
        earliest = select(func.min(ENTRY.c.wake_at)).scalar_subquery()
        with self.store.database.session() as session:
            # In one statement, or the three would be true of three moments. And the time is read
            # after it: what was woken in between would be due later than a time read before.
            busy, at = session.execute(select(or_(open_runs, uncounted), earliest)).one()
            return not busy and (at is None or at > self.store.database.now(session))

    def close(self) -> None:
        """Close the store."""
        self.store.close()


def entry_states(store: Store) -> dict[str, str]:
    """Return the states of all entries."""
    return {entry.name: entry.state for entry in store.entries(limit=1000)}
