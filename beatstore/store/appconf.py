"""The `beatstore_*` settings of a Celery app, which is known here by its attributes only."""

from __future__ import annotations

from typing import Any

from beatstore.config import PREFIX, Settings
from beatstore.errors import ConfigError

__all__ = ["given_settings", "read_settings"]


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
