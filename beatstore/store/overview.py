"""The part of the API that reads about many entries at once, as a page of them shows it.

Each answer follows an index or is capped, whatever the size of the tables, and says so where
something was left out.
"""

from __future__ import annotations

from collections.abc import Iterable

from beatstore.records import Run
from beatstore.store.base import Base
from beatstore.store.last_runs import last_runs
from beatstore.types import SessionLike

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
