"""What beat does before its first tick: check the settings and the tables, and import the code.

On failure: `UnavailableError` if the database does not answer; the first tick that reaches it
does this then. Any other `BeatstoreError` ends beat, with a message for the user.
"""

from __future__ import annotations

from celery import Celery

from beatstore.discovery.modules import import_code, log
from beatstore.errors import BeatstoreError, ConfigError, SchemaError
from beatstore.store import Store
from beatstore.wiring import check_broker_url, warn_of_options

__all__ = ["check_interval", "open_store", "prepare"]

#: A longer sleep is a mistake, or too long for Python to sleep.
_LONGEST_S = 1e9


def open_store(app: Celery, *, lazy: bool) -> tuple[Store, BeatstoreError | None]:
    """Return the store of an app, and what is wrong with its settings.

    Args:
        app: the Celery app.
        lazy: whether this is for Celery's banner, which comes before logging is set up, and which
            a daemon prints nowhere. Then a wrong setting is returned, with an empty store. The
            scheduler that Celery makes next reports it and ends beat.

    Raises:
        SystemExit: a setting can't be used.
    """
    try:
        # The banner shows the broker's URL, and a bad one would end it with a traceback.
        check_broker_url(app)
    except BeatstoreError as error:
        raise SystemExit(f"beatstore: {error}") from error
    try:
        return Store.from_app(app), None
    except BeatstoreError as error:
        if not lazy:
            raise SystemExit(f"beatstore: {error}") from error
        return Store("sqlite://"), error


def check_interval(seconds: object) -> None:
    """Refuse a longest sleep that is none: beat would never sleep, or fail when it tries to.

    Raises:
        ConfigError: it is not a number of seconds above 0, or of more than thirty years.
    """
    if not (isinstance(seconds, int | float) and 0 < seconds <= _LONGEST_S):
        expected = f"seconds, more than 0 and at most {_LONGEST_S:.0f}"
        raise ConfigError("beat_max_loop_interval", seconds, expected, "1")


def prepare(store: Store, app: Celery) -> None:
    """Check the tables, migrate them if configured, and import the entries declared in code.

    Raises:
        BeatstoreError: the tables or the settings can't be used.
    """
    migrate = store.settings.auto_migrate
    if migrate is None:
        migrate = store.database.kind.migrates_at_start
    try:
        store.check()
    except SchemaError:
        if not migrate:
            raise
        store.migrate()
    warn_of_options(app)
    log(import_code(store, app))
