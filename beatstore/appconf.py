"""The `beatstore_*` settings of a Celery app, which is known here by its attributes only."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any

from beatstore.config import PREFIX, Settings
from beatstore.database.address import checked, same_database
from beatstore.database.engine import Database
from beatstore.errors import ConfigError

__all__ = ["given_settings", "know", "name_of", "neglected", "read_settings"]

#: The apps that this process has set up.
_apps: weakref.WeakSet[Any] = weakref.WeakSet()

#: What a store goes by itself; the other settings are those of beats and workers.
_OF_A_STORE = (
    *("schema", "default_timezone", "default_misfire", "default_grace"),
    *("allowed_tasks", "retention"),
)


def know(app: Any) -> None:
    """Remember an app, to tell stores that were made without its settings."""
    _apps.add(app)


def name_of(app: Any) -> str:
    """Return what an app is called in messages."""
    name = getattr(app, "main", None)
    return f"the app {name!r}" if name else "the app"


def neglected(database: Database, settings: Settings) -> str:
    """Say which settings of an app of the same database a store does not go by.

    Args:
        database: the store's.
        settings: the store's: the defaults.

    Returns:
        A sentence; "" where there is no such app or setting.
    """
    ours = {name: getattr(settings, name) for name in _OF_A_STORE} | {"schema": database.schema}
    for app in tuple(_apps):
        with suppress(Exception):  # whoever uses that app is told what is wrong with it
            theirs = read_settings(app)
            if not same_database(checked(theirs.url), database.url):
                continue
            other = {
                name: getattr(theirs, name)
                for name in _OF_A_STORE
                if getattr(theirs, name) != ours[name]
            }
            if other:
                listed = ", ".join(f"{PREFIX}{name}={value!r}" for name, value in other.items())
                return (
                    f"{name_of(app)} has {listed}, which this store does not go by; write "
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
    """Return the settings of a Celery app as they were written, by their names.

    Celery keeps the keys of a configuration as they were written: with a namespace
    (`config_from_object("…", namespace="CELERY")`) the key is `CELERY_BEATSTORE_URL`.
    """
    keys = list(app.conf)  # which loads the configuration, if nothing has so far
    conf = app.conf
    namespace = (getattr(conf, "prefix", None) or "").lower()
    found: dict[str, Any] = {}
    for key in keys:
        name = str(key).lower()
        if namespace and name.startswith(namespace):
            name = name[len(namespace) :]
        if name.startswith(PREFIX):
            # By its plain name first: what was set on the app is stronger than what was read.
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
