"""One entry: why it has or has not run, what comes next, its runs, its edges, its changes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from werkzeug.wrappers import Response

from beatstore.definition.spec import FIELDS
from beatstore.errors import EntryNotFoundError, ScheduleError
from beatstore.records import Entry
from beatstore.store.one_entry import one_entry
from beatstore.types import SessionLike
from beatstore.web.bars import bars
from beatstore.web.call import Call
from beatstore.web.departed import elsewhere
from beatstore.web.heat import days
from beatstore.web.words import in_words

__all__ = ["entry"]

_NEXT = 10


def entry(call: Call) -> Response:
    """Return the page of one entry."""
    name = call.request.args.get("name", "")
    with call.reading() as session:
        asked, problem = _instant(call)
        try:
            found = one_entry(call.store, name, asked, call.zone.key, session)
        except EntryNotFoundError as error:
            return elsewhere(call, error, "entry")
        return call.render(
            "entry.html",
            entry=found.entry,
            found=found,
            words=in_words(found.entry),
            problem=problem,
            next=_next(call, found.entry, session),
            runs=bars(found.runs),
            heat=days(call, found.counts),
            fields=_fields(call, found.entry),
        )


def _instant(call: Call) -> tuple[datetime | None, str | None]:
    """Return the instant that is asked about, or what is wrong with what was written."""
    try:
        return call.given_instant("at"), None
    except ValueError as error:
        return None, str(error)


def _next(call: Call, entry: Entry, session: SessionLike) -> list[tuple[datetime, str, str]]:
    """Return the next due times, each with two notes, which may be "".

    The first is the time in the entry's own zone, if the reader has another one. The second says
    that the clocks change before it.
    """
    try:
        found = call.store.preview(entry.name, _NEXT, session=session)
    except ScheduleError:
        return []
    noted, before = [], None
    elsewhere = entry.timezone not in (None, call.zone.key)
    for at in found:
        offset = at.utcoffset()
        changed = before is not None and offset != before
        there = f"{at:%H:%M} in {entry.timezone}," if elsewhere else ""
        noted.append((at, there, f"after the clocks change to UTC{at:%z}" if changed else ""))
        before = offset
    return noted


def _fields(call: Call, entry: Entry) -> list[tuple[str, Any]]:
    """Return the fields that are not empty, with secrets in the arguments hidden.

    A 0 is shown where the field is not 0 by default: no retry delay, or no grace.
    """
    shown = []
    for field in FIELDS.values():
        for column in field.columns:
            value = call.redacted(column, getattr(entry, column))
            if value not in (None, "", [], {}) and not (value == 0 and field.left_out == 0):
                shown.append((column.replace("_", " "), value))
    return shown
