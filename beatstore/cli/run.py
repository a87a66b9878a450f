"""The verb that shows one run: run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from shlex import quote
from typing import Any

import click

from beatstore.cli.context import open_store
from beatstore.cli.group import fail
from beatstore.cli.options import RUN_ID, printing
from beatstore.cli.output import View
from beatstore.cli.runs import late, took
from beatstore.errors import EntryNotFoundError, InvalidEntryError
from beatstore.records import Entry, Run
from beatstore.rules.states import ERRORS, RECORDS
from beatstore.store import RunDetails, Store
from beatstore.text.values import as_json, covered

__all__ = ["run"]

_COLUMNS = (
    *("id", "entry_id", "entry_name", "due_at", "attempt", "state", "reason", "task_id"),
    *("worker", "claimed_by", "wake_at", "sent_at", "started_at", "finished_at", "expires_at"),
    *("first_missed_at", "missed_count", "tries", "parts", "follow_up", "error", "traceback"),
)

_CALL = ("task", "args", "kwargs", "options")

#: What happens at `wake_at` of an unfinished run.
_AT_WAKE = {
    "claimed": "beat sends it at",
    "sent": "if no worker reports it, beat checks it at",
    "started": "if its worker is silent, beat checks it at",
}


@click.command()
@click.argument("run", type=RUN_ID, metavar="RUN_ID|TASK_ID")
@printing
@click.pass_context
def run(context: click.Context, run: int | str, as_json: bool, timezone: str | None) -> None:
    """Show everything about one run, by its id or its task id.

    `runs` and `errors` show the id of a run; the worker's log shows its task id. To run an
    entry now, use `trigger`.
    """
    store = open_store(context)
    view = View(context, json=as_json, timezone=timezone)
    try:
        found = store.run(run)
    except InvalidEntryError as error:
        raise fail(f"{error}{_instead(store, run)}") from error
    view.facts(_facts(found), _lines(found, view))


def _instead(store: Store, given: int | str) -> str:
    """Return what to write instead, if the name of an entry was given."""
    try:
        entry = store.get(str(given))
    except EntryNotFoundError:
        return ""
    word = quote(entry.name)
    if entry.run_count:
        return f"; this is an entry: `runs {word}` lists its runs, `trigger {word}` runs it now"
    return f"; this is an entry without runs: `show {word}` shows it, `trigger {word}` runs it now"


def _facts(found: RunDetails) -> dict[str, Any]:
    call = {part: getattr(found.entry, part) for part in _CALL} if found.entry else None
    return {
        **_columns(found.run),
        "entry": None if call is None else {"name": getattr(found.entry, "name", None), **call},
        "attempts": [_columns(one) for one in found.attempts],
    }


def _columns(one: Run) -> dict[str, Any]:
    return {column: getattr(one, column) for column in _COLUMNS}


def _lines(found: RunDetails, view: View) -> Iterator[tuple[str, str]]:
    one = found.run
    yield "run", str(one.id)
    yield "entry", _entry(found)
    yield view.title("due"), view.when(one.due_at)
    yield "state", one.state
    yield "attempt", str(one.attempt) if one.attempt != 1 else ""
    yield "reason", view.localized(one.reason)
    yield view.title("includes"), _included(one, view)
    yield view.title("sent"), ", ".join(filter(None, (view.at(one.sent_at), _late(one, view))))
    yield view.title("started"), view.at(one.started_at)
    yield view.title("finished"), view.at(one.finished_at)
    yield "took", took(one, view)
    yield "worker", one.worker or ""
    yield "task", "" if found.entry is None else found.entry.task
    yield "task id", one.task_id
    yield "arguments", "" if found.entry is None else _arguments(found.entry)
    yield "parts", as_json(one.parts) if one.parts else ""
    yield view.title("attempts"), _attempts(found, view)
    yield view.title("next"), _next(found, view)
    error = (one.error or "").strip()
    trace = (one.traceback or "").strip()
    yield "error", "" if error and trace.endswith(error) else error
    yield "traceback", trace


def _entry(found: RunDetails) -> str:
    name = found.run.entry_name
    if found.entry is None:
        return f"{name} (removed)"
    return name if found.entry.name == name else f"{name} (renamed to {found.entry.name})"


def _late(one: Run, view: View) -> str:
    lateness = late(one, view)
    return f"{lateness} late" if lateness else ""


def _included(one: Run, view: View) -> str:
    others = covered(one.missed_count, is_record=one.state in RECORDS)
    if not others or one.first_missed_at is None:
        return ""
    return f"{others}, from {view.at(one.first_missed_at)}"


def _arguments(entry: Entry) -> str:
    """Return the arguments and options of the entry; a run keeps no copy of them."""
    parts = (entry.args, entry.kwargs, entry.options)
    return " ".join(as_json(part) for part in parts if part)


def _attempts(found: RunDetails, view: View) -> str:
    """Return all attempts, if there are several."""
    if len(found.attempts) == 1:
        return ""
    return "\n".join(_attempt(one, view) for one in found.attempts)


def _attempt(one: Run, view: View) -> str:
    ended = f" {view.at(one.finished_at)}" if one.finished_at else ""
    why = (one.error or view.localized(one.reason)).strip().splitlines()
    return f"{one.attempt}: run {one.id}, {one.state}{ended}" + (f", {why[-1]}" if why else "")


def _next(found: RunDetails, view: View) -> str:
    """Return what happens next."""
    one, last = found.run, found.attempts[-1]
    if last.id != one.id and one.state in ERRORS:
        return f"attempt {last.attempt}, run {last.id}, is {last.state}"
    if one.follow_up == "end":
        return "beat decides at its next tick"
    if one.state in _AT_WAKE:
        if not isinstance(one.wake_at, datetime):
            return ""
        soon = one.wake_at <= view.now
        return (
            "at the next tick of a beat"
            if soon
            else f"{_AT_WAKE[one.state]} {view.when(one.wake_at)}"
        )
    if one.state not in ERRORS or found.entry is None:
        return ""
    retries = found.entry.max_retries
    why = f"all {retries:,} retries are used" if retries else "max_retries is 0"
    return f"none: {why}; `rerun {one.id}` sends it again"
