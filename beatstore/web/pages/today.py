"""The first page: what needs a person, and how things are going."""

from __future__ import annotations

from werkzeug.wrappers import Response

from beatstore.web.call import Call

__all__ = ["today"]


def today(call: Call) -> Response:
    """Return the first page."""
    with call.reading() as session:
        return call.render("today.html", status=call.store.status(session=session))
