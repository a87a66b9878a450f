"""All changes that were made through the API, newest first."""

from __future__ import annotations

from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response

from beatstore.web.call import Call

__all__ = ["audit"]

_SHOWN = 50


def audit(call: Call) -> Response:
    """Return a page of changes."""
    before = call.given("before")
    if before is not None and not before.isdecimal():
        raise BadRequest(f"{before[:50]!r} is not the id of a change.")
    with call.reading() as session:
        changes = call.store.audit(
            call.given("name"), _SHOWN, None if before is None else int(before), session=session
        )
        return call.render(
            "audit.html",
            changes=changes,
            more_before=changes[-1].id if changes.more else None,
        )
