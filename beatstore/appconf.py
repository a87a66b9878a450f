"""Read the `beatstore_*` settings of a Celery app, without importing Celery."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any

from beatstore.config import PREFIX, Settings
from beatstore.database.address import checked, same_database
from beatstore.database.engine import Database
from beatstore.errors import ConfigError

__all__ = ["given_settings", "ignored_settings", "know", "name_of", "read_settings"]

#: The apps that this process has configured.
_apps: weakref.WeakSet[Any] = weakref.WeakSet()

#: The settings that a store uses itself; only beats and workers use the others.
_STORE_SETTINGS = (
    "schema",
    "default_timezone",
    "default_misfire",
    "default_grace",
    "allowed_tasks",
    "retention",
)


def know(app: Any) -> None:
    """Remember an app, to warn about stores that were made without its settings."""
    _apps.add(app)


def name_of(app: Any) -> str:
    """Return the name of an app for messages."""
    name = getattr(app, "main", None)
    return f"the app {name!r}" if name else "the app"


def ignored_settings(database: Database, settings: Settings) -> str:
    """Say which settings a store ignores that an app with the same database has.

    Args:
        database: the store's database.
        settings: the store's settings, which are the defaults.

    Returns:
        A sentence; "" if it ignores none.
    """
    ours = {name: getattr(settings, name) for name in _STORE_SETTINGS} | {"schema": database.schema}
    for app in tuple(_apps):
        with suppress(Exception):  # the users of that app get its errors
            theirs = read_settings(app)
            if not same_database(checked(theirs.url), database.url):
                continue
            other = {
                name: getattr(theirs, name)
                for name in _STORE_SETTINGS
                if getattr(theirs, name) != ours[name]
            }
            if other:
                listed = ", ".join(f"{PREFIX}{name}={value!r}" for name, value in other.items())
                return (
                    f"{name_of(app)} has {listed}, which this store ignores; write "
                    "Store.from_app(app), or Store.from_app(app, engine=engine)"
                )
    return ""


def read_settings(app: Any) -> Settings:
    """Read the settings of a Celery app, however it was configured.

    Raises:
        ConfigError: a setting is unknown, or its value can't be used.
    """
    found = given_settings(app)
    if found.get(f"{PREFIX}default_timezone") is not None:
        return Settings.read(found)
    return Settings.read(found, timezone=_zone_name(app.timezone))


def given_settings(app: Any) -> dict[str, Any]:
    """Return the settings of a Celery app by their names, unchecked.

    Celery keeps the keys of a configuration: with a namespace
    (`config_from_object("…", namespace="CELERY")`) the key is `CELERY_BEATSTORE_URL`.
    """
    keys = list(app.conf)  # loads the configuration
    conf = app.conf
    namespace = (getattr(conf, "prefix", None) or "").lower()
    found: dict[str, Any] = {}
    for key in keys:
        name = str(key).lower()
        if namespace and name.startswith(namespace):
            name = name[len(namespace) :]
        if name.startswith(PREFIX):
            # A value that was set on the app overrides one from its configuration.
            found[name] = conf[name] if name in conf else conf[key]
    return found


def _zone_name(timezone: Any) -> str:
    """Return the IANA name of a `zoneinfo` or pytz zone, or of the datetime module's UTC."""
    name = getattr(timezone, "key", None) or getattr(timezone, "zone", None)
    if name is None and str(timezone) == "UTC":
        name = "UTC"
    if not isinstance(name, str):
        raise ConfigError(
            f"{PREFIX}default_timezone",
            None,
            f"an IANA zone name, since the app's own zone, {timezone}, has none",
            '"Europe/Berlin"',
        )
    return name
