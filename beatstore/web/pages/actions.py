"""What the buttons do: each action on one entry, on several, or on a run.

Every action asks whether the actor may do it, with the entry as it is now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import cast, get_args

from werkzeug.exceptions import BadRequest, Forbidden
from werkzeug.wrappers import Response

from beatstore.errors import BeatstoreError, EntryNotFoundError, UnavailableError
from beatstore.records import Entry, with_extras
from beatstore.store import StateReport, Store
from beatstore.types import EndState
from beatstore.web.call import Call
from beatstore.web.departed import elsewhere

__all__ = ["act", "act_on_run", "bulk"]

#: The most entries that one form changes.
_MOST = 1000


#: What can be done to an entry; where it may be too late, the method then returns False.
ACTIONS: Mapping[str, Callable[[Store, str], object]] = {
    "pause": Store.pause,
    "resume": Store.resume,
    "trigger": Store.trigger,
    "cancel": Store.cancel,
    "remove": Store.remove,
}

#: The actions that the store takes for many entries at once.
_MANY: Mapping[str, Callable[[Store, Sequence[str]], StateReport]] = {
    "pause": Store.pause_many,
    "resume": Store.resume_many,
}

#: The actions that can't be undone, so a page asks first.
FINAL = frozenset(("cancel", "remove"))

#: The actions on several entries at once.
BULK = ("pause", "resume", "trigger", "tag")


#: The parameters of the list of entries, in which the chosen ones stood.
OF_LIST = ("name", "state", "only", "tag", "source", "after")


def act(call: Call) -> Response:
    """Do one thing to one entry, or ask first if it can't be undone."""
    form = call.form()
    name, action = form.get("name", ""), form.get("action", "")
    if action not in ACTIONS:
        raise BadRequest(f"There is no action {action[:50]!r}.")
    try:
        return _act(call, name, action)
    except EntryNotFoundError as error:
        return elsewhere(call, error, "entry", done="renamed")


def _act(call: Call, name: str, action: str) -> Response:
    form, entry = call.form(), call.store.get(name)
    call.require(action, entry)
    if action in FINAL and "sure" not in form:
        return call.render("confirm.html", action=action, names=[name], back=name, kept={})
    in_time = ACTIONS[action](call.changing(), name) is not False
    if action == "remove":
        return call.see("entries", done=action)
    return call.see("entry", name=name, done=action if in_time else "too late")


def bulk(call: Call) -> Response:
    """Do one thing to several entries, after a page has asked."""
    form = call.request.form
    action, names = form.get("action", ""), form.getlist("entry")
    if action not in BULK:
        raise BadRequest(f"There is no action {action[:50]!r} for several entries.")
    if not names:
        raise BadRequest("No entry is chosen. Go back and tick the entries.")
    if len(names) > _MOST:
        raise BadRequest(f"At most {_MOST:,} entries can be changed at once.")
    names = list(dict.fromkeys(names))
    allowed = _require_all(call, action, names)
    kept = {name: form.get(f"list_{name}", "") for name in OF_LIST}
    if "sure" not in form:
        return call.render("confirm.html", action=action, names=names, back=None, kept=kept)
    if action in _MANY:
        there = set(allowed)
        failed = [(name, str(EntryNotFoundError(name))) for name in names if name not in there]
        failed += _together(call, action, allowed)
    else:
        failed = _each(call, action, names)
    done = len(names) - len(failed)
    if failed:
        return call.render("partly.html", 409, action=action, done=done, failed=failed, kept=kept)
    return call.see("entries", **kept, done=action, count=done)


def _together(call: Call, action: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """Do it to all entries in one transaction; return the names that were refused, and why."""
    report = _MANY[action](call.changing(), names)
    return [(one.name or "", one.error) for one in report.refused]


def _each(call: Call, action: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """Do it to one entry after another; return the names that were refused, and why."""
    failed = []
    for name in names:
        try:
            entry = call.store.get(name)
            call.require(action, entry)
            _do(call, action, entry)
        except UnavailableError:
            raise
        except Forbidden as error:  # it got another tag meanwhile, say
            failed.append((name, error.description or ""))
        except BeatstoreError as error:
            failed.append((name, str(error)))
    return failed


def _require_all(call: Call, action: str, names: Sequence[str]) -> list[str]:
    """Refuse the request unless the actor may do that to all these entries, before one changes.

    Returns:
        The names that are there.

    Raises:
        Forbidden: they may not.
    """
    if not call.actor.can_write:
        call.require(action, None)
    there = []
    with call.reading() as session:
        for name in names:
            with suppress(EntryNotFoundError):  # which the answer lists with what failed
                call.require(action, call.store.get(name, session=session))
                there.append(name)
    return there


def _do(call: Call, action: str, entry: Entry) -> None:
    if action != "tag":
        ACTIONS[action](call.changing(), entry.name)
        return
    tags = sorted({*entry.tags, *_words(call.form().get("tags", ""))})
    tagged = with_extras(entry, tags=tags, after=entry.after, edited=entry.edited)
    call.require(action, tagged)  # with which it may be somebody else's
    call.changing().change(entry.name, tags=tags)


def _words(given: str) -> Sequence[str]:
    words = given.replace(",", " ").split()
    if not words:
        raise BadRequest("No tag is given. Go back and write one or several words.")
    return words


def act_on_run(call: Call) -> Response:
    """Run an ended run again, or end one that nobody will report."""
    form = call.form()
    number, action = call.row_id(form.get("id", ""), "a run"), form.get("action", "")
    found = call.store.run(number)
    if action == "rerun":
        call.require("rerun", found.entry)
        run = call.changing().rerun(found.run)
        return call.see("run", id=run.id, done="rerun")
    if action in get_args(EndState):
        call.require("end", found.entry)
        call.changing().end(found.run, cast("EndState", action), reason=call.reason)
        return call.see("run", id=number, done="end")
    raise BadRequest(f"There is no action {action[:50]!r} for a run.")
