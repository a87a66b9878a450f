"""The half of the API that only reads, and what a `Store` is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import URL, Engine
from sqlalchemy.orm import Session

from beatstore.clock import Clock
from beatstore.config import Settings
from beatstore.models import Entry, Run
from beatstore.store import entries, history, transaction
from beatstore.store.appconf import read_settings
from beatstore.store.database import Database
from beatstore.store.history import Status
from beatstore.store.rows import Transaction

__all__ = ["Reader"]

T = TypeVar("T")
S = TypeVar("S", bound="Reader")


class Reader:
    """The entries and runs of one database, to look at; see `beatstore.Store`."""

    def __init__(
        self,
        target: str | URL | Engine,
        *,
        settings: Settings | None = None,
        engine_options: Mapping[str, Any] | None = None,
        schema: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.database = Database(
            target,
            engine_options=engine_options or self.settings.engine_options,
            schema=schema or self.settings.schema,
            clock=clock,
        )

    @classmethod
    def from_app(cls: type[S], app: Any) -> S:
        """Make the store that a Celery app's `beatstore_*` settings describe.

        Raises:
            ConfigError: a setting is unknown, or its value can't be used.
        """
        settings = read_settings(app)
        return cls(settings.url, settings=settings)

    @property
    def url(self) -> str:
        """The database's URL as text, with its password hidden."""
        return self.database.safe_url

    def close(self) -> None:
        """Close the pooled connections; the store can still be used, and opens others."""
        self.database.dispose()

    def migrate(self) -> None:
        """Create or upgrade beatstore's tables, and no others.

        Raises:
            SchemaError: the tables are newer than this version of beatstore.
            UnavailableError: the database did not answer.
        """
        from beatstore.store import migrate  # noqa: PLC0415  (most programs never migrate)

        with transaction.explained(self.database):
            migrate.upgrade(self.database)

    def check(self) -> None:
        """Make sure that the tables are there and of this version.

        Raises:
            SchemaError: they are not; the message says what to run.
            UnavailableError: the database did not answer.
        """
        from beatstore.store import migrate  # noqa: PLC0415  (most programs never check)

        with transaction.explained(self.database):
            migrate.check(self.database)

    # -- reading ---------------------------------------------------------------------------

    def get(self, name: str, *, session: Any = None) -> Entry:
        """Return the entry of that name.

        Raises:
            EntryNotFoundError: there is none; the error suggests a similar name.
        """
        return self._read(session, lambda tx: tx.get(name))

    def entries(
        self,
        *,
        tag: str | None = None,
        state: str | None = None,
        name: str | None = None,
        source: str | None = None,
        limit: int = 100,
        after: str | None = None,
        session: Any = None,
    ) -> list[Entry]:
        """Return a page of entries in the order of their names.

        Args:
            tag: only those with this tag.
            state: only those in this state.
            name: only those whose name matches; `*` stands for any characters, `?` for
                one.
            source: only those of this owner.
            limit: at most so many.
            after: only those after this name: the last one of the page before.
            session: the caller's session, to join its transaction.
        """
        chosen = {"tag": tag, "state": state, "name": name, "source": source}
        return self._read(session, lambda tx: entries.entries(tx, chosen, limit, after))

    def tags(self, name: str, *, session: Any = None) -> list[str]:
        """Return the tags of an entry, sorted.

        Raises:
            EntryNotFoundError: there is no such entry.
        """
        return self._read(session, lambda tx: entries.tags(tx, name))

    def runs(
        self,
        name: str | None = None,
        *,
        state: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        before_id: int | None = None,
        session: Any = None,
    ) -> list[Run]:
        """Return a page of runs, the newest first.

        Args:
            name: only those of this entry, by their due time; None: all, in the order
                they were recorded. The runs of an entry that was removed are found by
                reading the history: give `since` where it is long.
            state: only those in this state.
            since: only those due at this instant or after.
            until: only those due before this instant.
            limit: at most so many.
            before_id: only those that come after this run in the order: the `id` of the
                last one of the page before.
            session: the caller's session, to join its transaction.

        Raises:
            EntryNotFoundError: nothing is known of that name.
        """
        chosen = history.RunFilter(state, since, until)
        return self._read(session, lambda tx: history.runs(tx, name, chosen, limit, before_id))

    def preview(
        self,
        name: str,
        count: int = 5,
        start: datetime | None = None,
        *,
        session: Any = None,
    ) -> list[datetime]:
        """Return the next due times of an entry, oldest first, in the entry's own zone.

        `end_at` and `max_runs` count; jitter is not added. A paused entry shows what it
        would do; one that is over, or broken, has none.

        Args:
            name: which entry.
            count: how many at most.
            start: from this instant on; None: after now.
            session: the caller's session, to join its transaction.

        Raises:
            EntryNotFoundError: there is no such entry.
            ScheduleError: its schedule is invalid (a row written by hand).
        """
        return self._read(session, lambda tx: history.preview(tx, name, count, start))

    def status(self, *, session: Any = None) -> Status:
        """Return how things stand: entries and runs by state, lateness, beats."""
        return self._read(session, history.status)

    # -- transactions ----------------------------------------------------------------------

    def _read(self, session: Any, work: Callable[[Transaction], T]) -> T:
        return transaction.read(self.database, session, self._in_transaction(work))

    def _write(self, session: Any, work: Callable[[Transaction], T]) -> T:
        return transaction.write(self.database, session, self._in_transaction(work))

    def _in_transaction(self, work: Callable[[Transaction], T]) -> Callable[[Session], T]:
        return lambda session: work(Transaction(session, self.database, self.settings))
