"""The store of a Celery app, made once for a process and its threads."""

from __future__ import annotations

import weakref
from typing import Any

from beatstore.store import Store

__all__ = ["store_of"]

_stores: weakref.WeakKeyDictionary[Any, Store] = weakref.WeakKeyDictionary()


def store_of(app: Any) -> Store:
    """Return the store that an app's settings describe.

    The settings are read the first time. A forked child uses the same store, with
    connections of its own; there is no lock that it could inherit locked.

    Raises:
        ConfigError: a setting is unknown, or its value can't be used.
    """
    real = getattr(app, "_get_current_object", lambda: app)()
    found = _stores.get(real)
    if found is None:
        # Two threads may both make one; a store that is never used has opened nothing.
        found = _stores.setdefault(real, Store.from_app(real))
    return found
