"""Tasks that an app does not know: said in the log, once for each name, with the nearest.

It may be a mistake, and it may be right: beat and web servers need not import what only
workers run. So nothing is refused, and where an app has no tasks of its own nothing is said.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["warn_of_tasks"]

logger = logging.getLogger(__name__)

#: How much of two names has to be the same for one to be taken for the other.
_ALIKE = 0.8

#: So many names are told of, for each app.
_MOST = 100

_told: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


def warn_of_tasks(app: Any, tasks: Iterable[object], *, imported: bool) -> None:
    """Log which of these tasks the app does not know.

    Args:
        app: a Celery app, known here by its attributes only.
        tasks: their names; tasks and signatures are known by themselves.
        imported: whether the app has imported the modules of its tasks, as beat does. Where
            it has not, only what looks like a known name misspelt is told of.
    """
    if app is None or not app.finalized:
        return
    told = _told.setdefault(app, set())
    for name in tasks:
        if isinstance(name, str) and name not in told and name not in app.tasks:
            own = [one for one in app.tasks if not one.startswith("celery.")]
            near = get_close_matches(name, own, 1, _ALIKE)
            if own and (near or imported) and len(told) < _MOST:
                told.add(name)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                logger.warning(
                    "%r is no task that this app knows, and runs only where a worker knows it%s",
                    *(name, hint),
                )
