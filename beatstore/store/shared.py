"""The store of a Celery app, created once for a process and its threads."""

from __future__ import annotations

import weakref
from typing import Any

from beatstore.store import Store

__all__ = ["store_of"]

_stores: weakref.WeakKeyDictionary[Any, Store] = weakref.WeakKeyDictionary()


def store_of(app: Any) -> Store:
    """Return the store with an app's settings.

    The settings are read at the first call. A forked child uses the same store with its own
    connections. There is no lock, so a child can't inherit a locked one.

    Raises:
        ConfigError: a setting is unknown, or its value can't be used.
    """
    real = getattr(app, "_get_current_object", lambda: app)()
    found = _stores.get(real)
    if found is None:
        # Two threads may each create one; the unused one has opened no connection.
        found = _stores.setdefault(real, Store.from_app(real))
    return found
