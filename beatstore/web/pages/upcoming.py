"""All entries on one time line, and the load of each minute of the coming day."""

from __future__ import annotations

from datetime import timedelta

from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response

from beatstore.web.call import Call
from beatstore.web.minutes import hours

__all__ = ["upcoming"]

_AHEAD = 100
_BEHIND = 25

#: What the heat map shows.
_DAY = timedelta(days=1)


def upcoming(call: Call) -> Response:
    """Return the page of what is sent next, and of what was sent last."""
    many = call.given("limit") or str(_AHEAD)
    if not many.isdecimal() or not 1 <= int(many) <= 10 * _AHEAD:
        raise BadRequest(f"limit: expected a number from 1 to {10 * _AHEAD:,}, got {many[:50]!r}.")
    tag, name = call.given("tag"), call.given("name")
    with call.reading() as session:
        start = call.now.replace(minute=0, second=0, microsecond=0)
        counts = call.store.upcoming_counts(
            start=start, until=start + _DAY, step=60, session=session
        )
        return call.render(
            "upcoming.html",
            ahead=call.store.upcoming(tag=tag, name=name, limit=int(many), session=session),
            behind=call.store.runs(tag=tag, sort="due", limit=_BEHIND, session=session),
            more=min(10 * _AHEAD, 2 * int(many)),
            heat=hours(call, counts),
            counts=counts,
        )
