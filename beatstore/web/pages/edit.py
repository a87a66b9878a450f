"""Add and edit an entry: checked while it is written, and saved after a look at what comes of it.

The first answer to a form shows when the entry is due now and would be due then; only that answer
has the button that saves. The form holds the version of the entry that it showed, and an entry
that has another one by then is not overwritten. If it was renamed or removed meanwhile, the form
says so, and keeps what was typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from werkzeug.exceptions import BadRequest, Forbidden
from werkzeug.wrappers import Response

from beatstore.definition import edits, fields
from beatstore.errors import (
    BeatstoreError,
    EntryChangedError,
    EntryNotFoundError,
    ScheduleError,
    UnavailableError,
)
from beatstore.records import Entry, with_extras
from beatstore.rules.due import LATEST, DueTimes
from beatstore.schedules import as_schedule, describe
from beatstore.web.call import Call, whole
from beatstore.web.departed import departed, elsewhere
from beatstore.web.forms import KINDS, inputs, read_fields, texts_of
from beatstore.web.words import in_words

__all__ = ["add", "edit"]

#: The problem that is no field's: the entry is no longer as the form showed it.
OVERTAKEN = "overtaken"

#: The columns that say when a new entry is due.
_SCHEDULE = ("kind", "spec", "timezone", "start_at", "end_at", "created_at")

#: The field with the zone of the times in the form; another tab may have chosen another since.
_ZONE = "times_in"

#: How many due times are compared.
_NEXT = 10


@dataclass(frozen=True, slots=True)
class Preview:
    """What would come of a form.

    Attributes:
        words: the new schedule in words.
        rows: the next due times, now and then, side by side.
        changes: the names of the fields that change.
    """

    words: str
    rows: list[tuple[datetime | None, datetime | None]]
    changes: list[str]


def edit(call: Call) -> Response:
    """Return the form of an entry; or what comes of it; or save it."""
    name = call.request.values.get("name", "")
    call.keep_zone(call.request.form.get(_ZONE, ""))
    try:
        return _edit(call, name)
    except EntryNotFoundError as error:
        return _overtaken(call, name, error)


def _edit(call: Call, name: str) -> Response:
    with call.reading() as session:
        entry = call.store.get(name, session=session)
        shown = {**texts_of(call, entry), "new_name": name}
        now = call.now
    call.require("change", entry)
    if call.request.method == "GET":
        return _form(call, entry, shown)
    form = {**shown, **call.form()}
    given, problems = read_fields(call, form, shown, entry)
    problems = _replaced(form, entry) or problems
    if problems:
        return _form(call, entry, form, problems=problems)
    try:
        preview = _preview(call, given, entry, now)
        new_name = fields.text("new_name", form["new_name"].strip())
        # Who may change only some entries may not let one slip out of these, or into others.
        call.require("change", _changed(call, given, entry, new_name))
        if new_name != name:
            preview = replace(preview, changes=["name", *preview.changes])
            given["new_name"] = new_name
        if "save" not in form or not given:
            return _form(call, entry, form, preview=preview)
        version = _version(form)
        call.changing().change(name, **given, if_version=version)
    except UnavailableError:
        raise
    except Forbidden as error:
        if "save" in form:
            raise
        return _form(call, entry, form, problems={"": error.description or ""})
    except BeatstoreError as error:
        if isinstance(error, EntryNotFoundError) and error.name == name:
            raise  # it may also be an upstream that is not there
        return _form(call, entry, form, problems=_named(error))
    return call.see("entry", name=new_name, done="change")


def _overtaken(call: Call, name: str, error: EntryNotFoundError) -> Response:
    """Return what was typed of an entry that was renamed or removed since its form was opened."""
    found, form = departed(call, error), dict(call.form())
    if call.request.method == "GET" or (found.now is None and not call.actor.may("add", None)):
        return elsewhere(call, error, "edit")
    if found.now is None:
        said = f"{found.said} Check and save this to add it anew."
        return _form(call, None, {**form, "entry_name": name}, problems={"": said})
    entry = call.store.get(found.now)
    call.require("change", entry)
    if form.get("new_name", name).strip() == name:
        form["new_name"] = found.now
    return _form(call, entry, {**texts_of(call, entry), **form}, problems={OVERTAKEN: found.said})


def add(call: Call) -> Response:
    """Return the form of a new entry; or what comes of it; or save it."""
    call.require("add", None)
    if call.request.method == "GET":
        return _form(call, None, {"kind": "cron"})
    form = call.form()
    call.keep_zone(form.get(_ZONE, ""))
    given, problems = read_fields(call, form)
    if problems:
        return _form(call, None, form, problems=problems)
    name = form.get("entry_name", "").strip()
    try:
        preview = _preview(call, given, None, call.now)
        if "save" not in form:
            return _form(call, None, form, preview=preview)
        task, schedule = given.pop("task"), given.pop("schedule")
        call.changing().add(name, task, schedule, **given)
    except UnavailableError:
        raise
    except BeatstoreError as error:
        return _form(call, None, form, problems=_named(error))
    return call.see("entry", name=name, done="add")


def _changed(call: Call, given: Mapping[str, Any], entry: Entry, new_name: str) -> Entry:
    """Return the entry as it would be."""
    wanted = edits.check(given, call.store.settings, entry)
    tags = entry.tags if wanted.tags is None else wanted.tags
    after = entry.after if wanted.after is None else wanted.after
    changed = replace(entry, **{**wanted.columns, "name": new_name})
    return with_extras(changed, tags=tags, after=after, edited=entry.edited)


def _replaced(form: Mapping[str, str], entry: Entry) -> dict[str, str]:
    """Return the problem that the form showed another entry, which may have the same version."""
    if form.get("id", str(entry.id)) == str(entry.id):
        return {}
    return {OVERTAKEN: "The entry was renamed or removed meanwhile. Another one has its name now."}


def _version(form: Mapping[str, str]) -> int:
    version = whole(form.get("version", ""))
    if version is None:
        raise BadRequest("The form has no version. Open it again.")
    return version


def _named(error: BeatstoreError) -> dict[str, str]:
    """Return an error as a problem of the field that it names."""
    if isinstance(error, EntryChangedError):
        return {OVERTAKEN: "Somebody else has changed this entry meanwhile."}
    return {str(getattr(error, "field", "")): str(error)}


def _form(
    call: Call,
    entry: Entry | None,
    texts: Mapping[str, str],
    *,
    preview: Preview | None = None,
    problems: Mapping[str, str] | None = None,
) -> Response:
    """Return the page with the form as it was filled in."""
    return call.render(
        "edit.html",
        400 if problems and "save" in texts else 200,
        entry=entry,
        texts=texts,
        version=texts.get("version") or (entry.version if entry else 0),
        kinds=KINDS,
        inputs=inputs(call),
        preview=preview,
        problems=problems or {},
    )


def _preview(call: Call, given: Mapping[str, Any], entry: Entry | None, now: datetime) -> Preview:
    """Return what would come of the arguments, without writing anything.

    Raises:
        BeatstoreError: an argument can't be stored.
    """
    settings = call.store.settings
    wanted = edits.check(given, settings, entry)
    then = _planned(call, wanted, entry, now)
    rows = list(zip(*_same_length(_next(call, entry, now), _next(call, then, now)), strict=True))
    return Preview(_words(given, then), rows, sorted(given))


def _words(given: Mapping[str, Any], then: Any) -> str:
    schedule = given.get("schedule")
    if schedule is not None:
        zone_name = given.get("timezone") or then.timezone
        return describe(as_schedule(schedule, zone_name))
    return in_words(then)


def _planned(call: Call, wanted: edits.CheckedFields, entry: Entry | None, now: datetime) -> Any:
    """Return something with the columns of the schedule that the entry would have."""
    settings = call.store.settings
    if entry is None:
        row = edits.new_row("new", wanted, now, settings)
        return SimpleNamespace(**{name: row.get(name) for name in _SCHEDULE})
    changed = edits.changes(entry, wanted.columns)
    further = edits.consequences(entry, changed, wanted.paused, now, settings)
    return replace(entry, **changed, **further)


def _next(call: Call, entry: Any, now: datetime) -> list[datetime]:
    if entry is None or entry.kind == "after":
        return []
    try:
        return list(DueTimes.of(entry, call.store.settings).between(now, LATEST, _NEXT))
    except (ScheduleError, TypeError):  # a bound may be no instant, written by plain SQL
        return []


def _same_length(
    one: list[datetime], other: list[datetime]
) -> tuple[list[datetime | None], list[datetime | None]]:
    length = max(len(one), len(other))
    return [*one, *[None] * (length - len(one))], [*other, *[None] * (length - len(other))]
