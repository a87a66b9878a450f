"""What a `Store` is made of: a database, settings, a name for the audit, and transactions.

A store that is given no settings goes by the defaults. Where an app of this process names
others for the same database, that is said once, when the store is first used.
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

#: What this process has said already.
_said: set[str] = set()


class Base:
    """The database of a store, and how it is spoken to; see `beatstore.Store`."""

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
        self._whose = "default settings" if settings is None else "settings of its own"
        self._asked = settings is not None
        # Weak, since an app may keep its store.
        self._app: Callable[[], Any] = lambda: None
        self._actor = audit.check_actor(actor)
        self.database = Database(
            target,
            engine_options=engine_options or self.settings.engine_options,
            schema=schema or self.settings.schema,
            clock=clock,
        )

    @classmethod
    def from_app(cls: type[S], app: App, *, engine: Engine | None = None) -> S:
        """Make the store that a Celery app's `beatstore_*` settings describe.

        Args:
            app: whose settings count: the default zone, the tasks allowed, the schema, ….
            engine: the application's own Engine, to use its connections, and sessions that
                are bound to it. Beat and the workers go by `beatstore_url`; the engine must
                lead to the same database. None makes one of `beatstore_url` and
                `beatstore_engine_options`.

        Raises:
            ConfigError: a setting is unknown, or its value can't be used.
        """
        settings = read_settings(app)
        store = cls(settings.url if engine is None else engine, settings=settings)
        store._whose = f"settings of {name_of(app)}"
        store._app = weakref.ref(app)
        return store

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.database.where}, {self._whose}>"

    @property
    def url(self) -> str:
        """The database's URL as text, with its password hidden."""
        return self.database.safe_url

    def by(self: S, actor: str) -> S:
        """Return the same store in the name of somebody else, for the audit.

        Both use the same connections. `store.by(request.user.name).pause("load")`

        Raises:
            InvalidEntryError: `actor` is no text of 1 to 255 characters.
        """
        theirs = copy.copy(self)
        theirs._actor = audit.check_actor(actor)
        return theirs

    def close(self) -> None:
        """Close the pooled connections; the store can still be used, and opens others."""
        self.database.dispose()

    def migrate(self) -> None:
        """Create or upgrade beatstore's tables, and no others.

        Raises:
            SchemaError: the tables are newer than this version of beatstore.
            UnavailableError: the database did not answer.
        """
        from beatstore.database import migrate  # noqa: PLC0415  (most programs never migrate)

        self._ask_whose()
        with transaction.explained(self.database):
            migrate.upgrade(self.database)

    def check(self) -> None:
        """Make sure that the tables are there and of this version.

        Raises:
            SchemaError: they are not; the message says what to run.
            UnavailableError: the database did not answer.
        """
        from beatstore.database import migrate  # noqa: PLC0415  (most programs never check)

        self._ask_whose()
        with transaction.explained(self.database):
            migrate.check(self.database)

    def now(self, *, session: SessionLike | None = None) -> datetime:
        """Return what the database's clock says, in UTC."""
        return self._read(session, lambda tx: tx.now())

    # -- transactions ----------------------------------------------------------------------

    def _read(self, session: SessionLike | None, work: Callable[[Transaction], T]) -> T:
        return transaction.read(self.database, session, self._in_transaction(work))

    def _write(self, session: SessionLike | None, work: Callable[[Transaction], T]) -> T:
        return transaction.write(self.database, session, self._in_transaction(work))

    def _in_transaction(self, work: Callable[[Transaction], T]) -> Callable[[Session], T]:
        self._ask_whose()
        actor = self._actor or ""
        return lambda session: work(Transaction(session, self.database, self.settings, actor))

    def _ask_whose(self) -> None:
        """Say once that an app has other settings; by the first use its own are complete."""
        if not self._asked:
            self._asked = True
            self.database.hint = ignored_settings(self.database, self.settings)
            if self.database.hint and self.database.hint not in _said:
                _said.add(self.database.hint)
                logger.warning("%r: %s", self, self.database.hint)
