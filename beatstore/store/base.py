"""The base of `Store`: its database, settings, actor and transactions.

A store without settings uses the defaults. If an app of this process has other settings for the
same database, the store logs one warning at its first use.
"""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import URL, Engine
from sqlalchemy.orm import Session

from beatstore.appconf import ignored_settings, name_of, read_settings
from beatstore.clock import Clock
from beatstore.config import Settings
from beatstore.database import transaction
from beatstore.database.engine import Database
from beatstore.database.rows import Transaction
from beatstore.store import audit
from beatstore.types import App, SessionLike

__all__ = ["Base"]

T = TypeVar("T")
S = TypeVar("S", bound="Base")

logger = logging.getLogger(__name__)

#: The warnings that this process has logged.
_logged: set[str] = set()


class Base:
    """Opens the transactions of a store; see `beatstore.Store`."""

    def __init__(
        self,
        target: str | URL | Engine,
        *,
        settings: Settings | None = None,
        engine_options: Mapping[str, Any] | None = None,
        schema: str | None = None,
        clock: Clock | None = None,
        actor: str | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self._settings_label = "default settings" if settings is None else "settings of its own"
        self._has_warned = settings is not None
        # Weak, because an app may keep a reference to its store.
        self._app: Callable[[], Any] = lambda: None
        self._actor = audit.check_actor(actor)
        self._reason: str | None = None
        self.database = Database(
            target,
            engine_options=engine_options or self.settings.engine_options,
            schema=schema or self.settings.schema,
            clock=clock,
            notify=self.settings.notify,
        )

    @classmethod
    def from_app(cls: type[S], app: App, *, engine: Engine | None = None) -> S:
        """Create a store with the `beatstore_*` settings of a Celery app.

        Args:
            app: the app with the settings: default time zone, allowed tasks, schema, ….
            engine: the application's own Engine, to use its connections and sessions. It must
                lead to the database of `beatstore_url`, which beat and the workers use. None
                for a new engine made from `beatstore_url` and `beatstore_engine_options`.

        Raises:
            ConfigError: a setting is unknown, or its value can't be used.
        """
        settings = read_settings(app)
        store = cls(settings.url if engine is None else engine, settings=settings)
        store._settings_label = f"settings of {name_of(app)}"
        store._app = weakref.ref(app)
        return store

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.database.where}, {self._settings_label}>"

    @property
    def url(self) -> str:
        """The database's URL as text, with its password hidden."""
        return self.database.safe_url

    def by(self: S, actor: str, reason: str | None = None) -> S:
        """Return a copy of the store that names `actor`, and a reason, in the audit.

        Both use the same connections. `store.by(request.user.name, "new disks").pause("load")`

        Args:
            actor: who makes the changes.
            reason: why, for every change made through the copy: text of at most 1,000
                characters. None, or blank text, for none.

        Raises:
            InvalidEntryError: `actor` is not a text of 1 to 255 characters, or `reason` is too
                long.
        """
        theirs = copy.copy(self)
        theirs._actor = audit.check_actor(actor)
        theirs._reason = audit.check_reason(reason)
        return theirs

    def close(self) -> None:
        """Close the pooled connections. The store stays usable and opens new ones.

        A connection that another thread is using is closed when that thread gives it back.
        """
        self.database.dispose()

    def migrate(self) -> None:
        """Create or upgrade beatstore's tables, and leave others alone.

        Raises:
            SchemaError: the tables are newer than this version of beatstore.
            UnavailableError: the database did not answer.
        """
        from beatstore.database import migrate  # noqa: PLC0415  (most programs never migrate)

        self._warn_of_settings()
        with transaction.explained(self.database):
            migrate.upgrade(self.database)

    def check(self) -> None:
        """Check that the tables exist and have the revision of this version.

        Raises:
            SchemaError: they do not; the message says what to run.
            UnavailableError: the database did not answer.
        """
        from beatstore.database import migrate  # noqa: PLC0415  (most programs never check)

        self._warn_of_settings()
        with transaction.explained(self.database):
            migrate.check(self.database)

    def now(self, *, session: SessionLike | None = None) -> datetime:
        """Return the database's time, in UTC."""
        return self._read(session, lambda tx: tx.now())

    # -- transactions ----------------------------------------------------------------------

    def _read(self, session: SessionLike | None, work: Callable[[Transaction], T]) -> T:
        inside = self._in_transaction(work, joined=session is not None)
        return transaction.read(self.database, session, inside)

    def _write(
        self,
        session: SessionLike | None,
        work: Callable[[Transaction], T],
        *,
        at_once: bool = False,
    ) -> T:
        inside = self._in_transaction(work, joined=session is not None)
        return transaction.write(self.database, session, inside, at_once=at_once)

    def _in_transaction(
        self, work: Callable[[Transaction], T], *, joined: bool
    ) -> Callable[[Session], T]:
        self._warn_of_settings()
        by = (self._actor or "", self._reason, joined)
        return lambda session: work(Transaction(session, self.database, self.settings, *by))

    def _warn_of_settings(self) -> None:
        """Warn once if an app has other settings; by the first use, those are complete."""
        if not self._has_warned:
            self._has_warned = True
            self.database.hint = ignored_settings(self.database, self.settings)
            if self.database.hint and self.database.hint not in _logged:
                _logged.add(self.database.hint)
                logger.warning("%r: %s", self, self.database.hint)
