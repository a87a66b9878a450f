"""All entries on one time line, and the load of each minute of the coming day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response

from beatstore.records import Run
from beatstore.web.call import Call, whole
from beatstore.web.minutes import hours

__all__ = ["upcoming"]

_AHEAD = 100
_MOST = 10 * _AHEAD
_BEHIND = 25

#: What the heat map shows.
_DAY = timedelta(days=1)


def upcoming(call: Call) -> Response:
    """Return the page of what is sent next, and of what was sent last."""
    given = call.given("limit") or str(_AHEAD)
    many = whole(given)
    if many is None or not 1 <= many <= _MOST:
        raise BadRequest(f"limit: expected a number from 1 to {_MOST:,}, got {given[:50]!r}.")
    tag, name = call.given("tag"), call.given("name")
    with call.reading() as session:
        start = call.now.replace(second=0, microsecond=0)
        hour = start.replace(minute=0)
        counts = call.store.upcoming_counts(
            start=start, until=hour + _DAY, step=60, session=session
        )
        # The rows are whole hours; what is over in the first one counts as nothing.
        over = (0,) * start.minute
        counts = replace(counts, start=hour, counts=(*over, *counts.counts))
        behind: Sequence[Run] = ()
        if name is None:
            behind = call.store.runs(tag=tag, sort="due", limit=_BEHIND, session=session)
        return call.render(
            "upcoming.html",
            ahead=call.store.upcoming(tag=tag, name=name, limit=many, session=session),
            behind=behind,
            more=min(_MOST, 2 * many) if many < _MOST else None,
            heat=hours(call, counts),
            counts=counts,
        )
