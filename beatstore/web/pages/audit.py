"""All changes that were made through the API, newest first."""

from __future__ import annotations

from werkzeug.wrappers import Response

from beatstore.web.call import Call

__all__ = ["audit"]

_SHOWN = 50


def audit(call: Call) -> Response:
    """Return a page of changes."""
    before = call.before_id("a change")
    with call.reading() as session:
        changes = call.store.audit(call.given("name"), _SHOWN, before, session=session)
        return call.render(
            "audit.html",
            changes=changes,
            more_before=changes[-1].id if changes.more else None,
        )
