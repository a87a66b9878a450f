"""The first page: what needs a person, and how things are going."""

from __future__ import annotations

from datetime import timedelta

from werkzeug.wrappers import Response

from beatstore.store.today import today as found_today
from beatstore.web.call import Call
from beatstore.web.load import columns

__all__ = ["today"]

#: How far back the runs by state are counted.
_HOUR = timedelta(hours=1)


def today(call: Call) -> Response:
    """Return the first page."""
    with call.reading() as session:
        found = found_today(call.store, session)
        return call.render(
            "today.html",
            status=found.status,
            load=columns(call, found.load),
            failures=found.failures,
            hour_ago=call.since(_HOUR),
        )
