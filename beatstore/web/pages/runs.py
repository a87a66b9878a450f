"""The runs of all entries or of one, newest first, with filters."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response

from beatstore.errors import EntryNotFoundError
from beatstore.rules.states import RUN_STATES
from beatstore.types import Page
from beatstore.web.call import Call

__all__ = ["runs"]

_SHOWN = 50


def runs(call: Call) -> Response:
    """Return a page of runs."""
    before = call.before_id("a run")
    with call.reading() as session:
        chosen: dict[str, Any] = {
            "state": call.given("state"),
            "tag": call.given("tag"),
            "since": _instant(call, "since"),
            "until": _instant(call, "until"),
        }
        name, problem = call.given("name"), ""
        try:
            page = call.store.runs(name, **chosen, limit=_SHOWN, before_id=before, session=session)
        except EntryNotFoundError as error:
            page, problem = Page(), str(error)
        return call.render(
            "runs.html",
            404 if problem else 200,
            problem=problem,
            runs=page,
            more_before=page[-1].id if page.more else None,
            filtered=any(chosen.values()) or name is not None,
            states=RUN_STATES,
        )


def _instant(call: Call, name: str) -> datetime | None:
    try:
        return call.given_instant(name)
    except ValueError as error:
        raise BadRequest(str(error)) from error
