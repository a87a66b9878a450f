"""The first page: what needs a person, and how things are going."""

from __future__ import annotations

from datetime import datetime, timedelta

from werkzeug.wrappers import Response

from beatstore.web.call import Call
from beatstore.web.load import Load, columns

__all__ = ["today"]

#: How far the load goes back and on.
_REACH = timedelta(hours=12)

#: The width of one column of the load.
_STEP = timedelta(minutes=30)

_FAILURES = 8


def today(call: Call) -> Response:
    """Return the first page."""
    with call.reading() as session:
        status = call.store.status(session=session)
        now = call.now
        return call.render(
            "today.html",
            status=status,
            load=_load(call, now),
            failures=call.store.failures(
                since=now - timedelta(days=1), limit=_FAILURES, session=session
            ),
        )


def _load(call: Call, now: datetime) -> Load:
    """Return the load of the hours around now; its columns begin at whole half hours."""
    middle = now.replace(minute=now.minute // 30 * 30, second=0, microsecond=0)
    with call.reading() as session:
        past = call.store.run_counts(
            since=middle - _REACH, until=middle + _STEP, step=_STEP, session=session
        )
        coming = call.store.upcoming_counts(
            start=middle + _STEP, until=middle + _REACH, step=_STEP, session=session
        )
    return columns(call, past, coming, middle)
