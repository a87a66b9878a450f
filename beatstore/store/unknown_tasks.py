"""Log the names of tasks that an app does not know, once each, with a similar name.

It may be a mistake, or it may be intended: beat and web servers need not import tasks that only
workers run. So nothing is refused, and nothing is logged if the app has no tasks of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["warn_of_tasks"]

logger = logging.getLogger(__name__)

#: How similar two names must be for one to be suggested for the other, from 0 to 1.
_ALIKE = 0.8

#: How many names are logged for each app.
_MOST = 100

_logged: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


def warn_of_tasks(app: Any, tasks: Iterable[object], *, imported: bool) -> None:
    """Log which of these tasks the app does not know.

    Args:
        app: a Celery app; only its attributes are used.
        tasks: names of tasks; task objects and signatures are skipped.
        imported: whether the app has imported the modules of its tasks, as beat does. If not,
            only names that look like a misspelt known name are logged.
    """
    if app is None or not app.finalized:
        return
    logged = _logged.setdefault(app, set())
    own = [one for one in app.tasks if not one.startswith("celery.")]
    # By its type, since isinstance would make a proxy create its task.
    names = dict.fromkeys(str(name) for name in tasks if issubclass(type(name), str))
    for name in names if own else ():
        if len(logged) >= _MOST:
            return
        if name in logged or name in app.tasks:
            continue
        near = get_close_matches(name, own, 1, _ALIKE)
        if near or imported:
            logged.add(name)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            logger.warning(
                "this app has no task %r: it runs only on workers that have it%s", name, hint
            )
