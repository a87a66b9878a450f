"""The part of the API that reads about many entries at once, as a page of them shows it.

Each answer follows an index or is capped, whatever the size of the tables, and says so where
something was left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from beatstore.records import Run
from beatstore.store import coming_load, figures, processes
from beatstore.store.base import Base
from beatstore.store.coming_load import UpcomingCounts
from beatstore.store.figures import FailureGroup, RunCount
from beatstore.store.last_runs import last_runs
from beatstore.store.processes import BeatStatus, WorkerStatus
from beatstore.store.storage import Storage, storage
from beatstore.types import Duration, Page, SessionLike

__all__ = ["Overview"]


class Overview(Base):
    """Reads about many entries at once; see `beatstore.Store`."""

    def last_runs(
        self, names: Iterable[str], limit: int = 20, *, session: SessionLike | None = None
    ) -> dict[str, tuple[Run, ...]]:
        """Return the last runs of each of these entries, the newest due time first.

        Each attempt is a run of its own. 400 entries take one statement.

        Args:
            names: the names of entries, in a list.
            limit: the maximum number of runs of each entry, up to 1,000.
            session: the caller's session, to join its transaction.

        Returns:
            For each name its runs; none if there is no such entry.

        Raises:
            InvalidEntryError: an argument can't be used.
        """
        return self._read(session, lambda tx: last_runs(tx, names, limit))

    def run_counts(
        self,
        name: str | None = None,
        *,
        since: datetime,
        until: datetime | None = None,
        step: Duration,
        session: SessionLike | None = None,
    ) -> tuple[RunCount, ...]:
        """Return how many runs were due in each step of a time, by state.

        The newest 20,000 runs of that time are read. What is older is not `complete`.

        Args:
            name: only runs of this entry; None: of all.
            since: the time begins here, and so does the first step.
            until: the time ends before this instant; None: now.
            step: how long each step is, in seconds or as a timedelta. The last one may end after
                `until`.
            session: the caller's session, to join its transaction.

        Returns:
            A value for each step, the oldest first, also for those without a run.

        Raises:
            EntryNotFoundError: there is no such entry.
            InvalidEntryError: an argument can't be used, or there are more than 10,000 steps.
        """
        return self._read(session, lambda tx: figures.run_counts(tx, name, since, until, step))

    def failures(
        self,
        name: str | None = None,
        *,
        since: datetime,
        limit: int = 20,
        session: SessionLike | None = None,
    ) -> Page[FailureGroup]:
        """Return the runs that failed or were lost, grouped by their error, the most first.

        Errors that differ in numbers and ids only are one group: "timeout after 31 s" and
        "timeout after 32 s". The newest 20,000 runs of the time are read, and of those that
        failed or were lost the newest 2,000.

        Args:
            name: only runs of this entry; None: of all.
            since: only runs due at this instant or later.
            limit: the maximum number of groups.
            session: the caller's session, to join its transaction.

        Returns:
            The groups; `more` says if further groups, or runs beyond those read, are left out.

        Raises:
            EntryNotFoundError: there is no such entry.
            InvalidEntryError: an argument can't be used.
        """
        return self._read(session, lambda tx: figures.failures(tx, name, since, limit))

    def upcoming_counts(
        self,
        *,
        start: datetime | None = None,
        until: datetime,
        step: Duration = 60.0,
        session: SessionLike | None = None,
    ) -> UpcomingCounts:
        """Return how many occurrences of all active entries are due in each minute to come.

        The due times are those of the schedules, with `start_at`, `end_at` and `max_runs`, and
        without jitter, which only spreads what is sent; but what jitter delays until an hour after
        `until` is left out. Retries, and entries without a schedule, are not in it. The database
        groups the entries by their schedules; the most frequent ones are computed for a limited
        time, and `left_out` says how many entries that leaves out. If more than some 2,500
        entries may be due, a sample of them is read, and the numbers are estimates: `share` says
        from how many.

        Args:
            start: the time begins here, and so does the first step; None: now.
            until: only what is due before this instant.
            step: how long each step is, in seconds or as a timedelta.
            session: the caller's session, to join its transaction.

        Raises:
            InvalidEntryError: an argument can't be used, or there are more than 10,000 steps.
        """
        return self._read(session, lambda tx: coming_load.upcoming_counts(tx, start, until, step))

    def beats(self, *, session: SessionLike | None = None) -> list[BeatStatus]:
        """Return the beats on record, the newest first."""
        return self._read(session, lambda tx: processes.beats(tx, tx.now()))

    def workers(self, *, session: SessionLike | None = None) -> list[WorkerStatus]:
        """Return the workers on record that report outcomes, the newest first."""
        return self._read(session, lambda tx: processes.workers(tx, tx.now()))

    def storage(self, *, session: SessionLike | None = None) -> Storage:
        """Return what the database holds of beatstore: its revision, tables, sizes and triggers.

        The figures are those of the database's own catalogue; no table is counted.
        """
        return self._read(session, storage)
