"""The list of entries: filters, a page at a time, and one action for several."""

from __future__ import annotations

from typing import Any

from werkzeug.wrappers import Response

from beatstore.records import Entry
from beatstore.rules.states import ENTRY_STATES
from beatstore.web.call import Call
from beatstore.web.pages.actions import BULK, OF_LIST
from beatstore.web.words import in_words

__all__ = ["entries"]

#: How many entries a page shows.
_SHOWN = 50

#: How many of its last runs are shown of each.
_RUNS = 20

#: The further filters, with their labels.
ONLY = {
    "failing": "failing: the last run failed or was lost",
    "overdue": "overdue: no beat has picked it up",
    "waiting": "waiting for an upstream or a run",
    "edited": "edited: differs from its code",
}


def entries(call: Call) -> Response:
    """Return a page of entries."""
    chosen: dict[str, Any] = {
        "tag": call.given("tag"),
        "state": call.given("state"),
        "source": call.given("source"),
        "name": _pattern(call.given("name")),
        "only": call.given("only"),
    }
    with call.reading() as session:
        page = call.store.entries(
            **chosen,
            limit=_SHOWN,
            after=call.given("after"),
            include=("tags", "edited"),
            session=session,
        )
        names = [entry.name for entry in page]
        strips = call.store.last_runs(names, _RUNS, session=session) if names else {}
        rows = [
            (entry, in_words(entry), strips.get(entry.name, ()), _actions(call, entry))
            for entry in page
        ]
        offered = {action for *_, actions in rows for action in actions}
        return call.render(
            "entries.html",
            rows=rows,
            actions=[action for action in BULK if action in offered],
            kept=[(name, call.given(name)) for name in OF_LIST if call.given(name)],
            more_after=page.after if page.more else None,
            filtered=any(chosen.values()),
            states=ENTRY_STATES,
            only=ONLY,
        )


def _actions(call: Call, entry: Entry) -> list[str]:
    """Return what the reader may do to an entry together with others."""
    return [action for action in BULK if call.actor.may(action, entry)]


def _pattern(given: str | None) -> str | None:
    """Return a pattern for a part of a name; whoever writes a pattern gets that one."""
    if given is None or "*" in given or "?" in given:
        return given
    return f"*{given}*"
