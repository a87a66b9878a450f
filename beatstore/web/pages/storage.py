"""The database: its revision, the sizes of its tables, what is kept, and its triggers."""

from __future__ import annotations

from werkzeug.wrappers import Response

from beatstore.web.call import Call

__all__ = ["storage"]


def storage(call: Call) -> Response:
    """Return the page about the database."""
    with call.reading() as session:
        found = call.store.storage(session=session)
        return call.render("storage.html", storage=found, url=call.store.url)
