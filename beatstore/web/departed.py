"""What a page says in place of an entry that no longer has its name."""

from __future__ import annotations

from werkzeug.wrappers import Response

from beatstore.errors import EntryNotFoundError
from beatstore.store import one_entry
from beatstore.store.one_entry import Departed
from beatstore.web.call import Call

__all__ = ["departed", "elsewhere"]


def departed(call: Call, error: EntryNotFoundError) -> Departed:
    """Return what became of the entry that an error does not find.

    Raises:
        EntryNotFoundError: nothing is on record of its name.
    """
    with call.reading() as session:
        found = one_entry.departed(call.store, error.name, call.zone.key, session)
    if found is None:
        raise error
    return found


def elsewhere(call: Call, error: EntryNotFoundError, page: str, done: str = "") -> Response:
    """Lead to a page of an entry by its name of now, or say what is left of one that is gone.

    Runs and changes keep the name that the entry had then.

    Args:
        call: the request.
        error: the error that no entry has the name.
        page: the page to see, if the entry has another name.
        done: what the form has done; see `beatstore.web.call.DONE`.

    Raises:
        EntryNotFoundError: nothing is on record of the name.
    """
    found = departed(call, error)
    if found.now is not None:
        return call.see(page, name=found.now, done=done)
    return call.render("gone.html", 404, name=error.name, said=str(error), why=found.said)
