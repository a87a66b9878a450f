"""The verbs about the past: runs, errors, why, audit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import click

from beatstore.cli.context import open_store
from beatstore.cli.entry_view import short_rule
from beatstore.cli.names import complete_entry
from beatstore.cli.options import AGO, INSTANT, ROW_ID, printing
from beatstore.cli.output import View
from beatstore.cli.table import Column
from beatstore.cli.writing import in_json, note, say
from beatstore.records import Audit, Run
from beatstore.rules.states import ERRORS, RUN_STATES
from beatstore.store import Store
from beatstore.store.history import RUN_SORTS
from beatstore.text.values import as_json, span, text
from beatstore.types import Page

__all__ = ["audit", "errors", "late", "runs", "took", "why"]

#: How many rows --all reads at a time.
_PAGE = 1000

#: How far back `errors` looks without the name of an entry.
_DAY = timedelta(days=1)

#: A run that was sent this much after its due time is shown as late.
_LATE = timedelta(seconds=1)

_COLUMNS = (
    *("id", "entry_name", "due_at", "attempt", "state", "reason", "task_id", "worker"),
    *("sent_at", "started_at", "finished_at", "first_missed_at", "missed_count", "error"),
)


# -- runs ---------------------------------------------------------------------------------


@click.command()
@click.argument("name", required=False, shell_complete=complete_entry)
@click.option(
    "--state",
    "states",
    type=click.Choice(RUN_STATES),
    multiple=True,
    help="Only runs in this state; repeatable.",
)
@click.option(
    "--since", type=AGO, help="Only runs due since this time, or since this long ago: 2h."
)
@click.option("--until", type=AGO, help="Only runs due before this time.")
@click.option("--tag", help="Only runs of entries with this tag.")
@click.option("--task", help="Only runs of this task.")
@click.option("--worker", help="Only runs on this worker, such as celery@host.")
@click.option(
    "--sort",
    type=click.Choice(RUN_SORTS),
    help="Sort by this, latest or longest first; runs without it are left out.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=100, help="At most this many; default: 100."
)
@click.option("--before", type=ROW_ID, metavar="ID", help="Continue after the run with this id.")
@click.option("--all", "all_", is_flag=True, help="List all of them.")
@printing
@click.pass_context
def runs(
    context: click.Context,
    /,
    *,
    name: str | None,
    states: tuple[str, ...],
    limit: int,
    before: int | None,
    all_: bool,
    **params: Any,
) -> None:
    """List runs, newest first, with due times that were missed or skipped.

    With very many runs, --since makes filters and --sort fast. For the next page, give the
    last id to --before.
    """
    store = open_store(context)
    view = View(context, json=params["as_json"], timezone=params["timezone"])
    chosen = {key: params[key] for key in ("tag", "task", "worker", "sort")}
    chosen |= {key: view.instant(params[key]) for key in ("since", "until")}
    found = _Pages(
        store, name, {**chosen, "state": states or None}, before, None if all_ else limit
    )
    columns = (
        *_run_columns(view, name),
        Column("late", rank=2),
        Column("took", rank=1),
        Column("worker", least=8, rank=3),
        Column("id", right=True),
        Column("reasons", "reason", below=True),
    )
    rows = (_run(run) if view.json else _shown(run, view) for run in found)
    view.rows(columns, rows, nothing="no run matches")
    if found.more_before is not None:
        note(f"more runs follow: --before {found.more_before}, or --all")


class _Pages:
    """Runs, read page by page; `more_before` is the last id if more follow."""

    def __init__(
        self,
        store: Store,
        name: str | None,
        chosen: Mapping[str, Any],
        before: int | None,
        limit: int | None,
    ) -> None:
        self.store = store
        self.name = name
        self.chosen = chosen
        self.before = before
        self.left = limit
        self.more_before: int | None = None

    def __iter__(self) -> Iterator[Run]:
        more = True
        while more and self.left != 0:
            size = _PAGE if self.left is None else min(self.left, _PAGE)
            page = self.store.runs(self.name, **self.chosen, limit=size, before_id=self.before)
            yield from page
            more = page.more
            self.before = page[-1].id if page else None
            self.left = None if self.left is None else self.left - size
        self.more_before = self.before if more else None


def _run_columns(view: View, name: str | None) -> tuple[Column, ...]:
    """Return the columns that identify a run, and its state.

    A terminal does not show what most rows share: the given name, and attempt 1.
    """

    def entry(row: Mapping[str, Any]) -> str:
        return "" if view.on_terminal and row["entry_name"] == name else text(row["entry_name"])

    def attempt(number: object) -> str:
        return "" if view.on_terminal and number == 1 else text(number)

    return (
        Column("entry_name", "entry", of_row=entry, name=True),
        Column("due_at", view.title("due"), view.when),
        Column("state"),
        Column("attempt", show=attempt, right=True),
    )


def _run(run: Run) -> dict[str, Any]:
    return {column: getattr(run, column) for column in _COLUMNS}


def _shown(run: Run, view: View) -> dict[str, Any]:
    """Return a row of `runs` for people."""
    return {
        **_run(run),
        "late": late(run, view),
        "took": took(run, view),
        "reasons": _reason(run, view),
    }


def late(run: Run, view: View) -> str:
    """Return how late a run was sent, if it was late; a retry is not late."""
    if not isinstance(run.sent_at, datetime) or not isinstance(run.due_at, datetime):
        return ""
    if run.attempt != 1:
        return ""
    lateness = run.sent_at - run.due_at
    return span(lateness, rough=view.on_terminal) if lateness >= _LATE else ""


def took(run: Run, view: View) -> str:
    """Return how long a run took, or has taken so far."""
    if not isinstance(run.started_at, datetime):
        return ""
    rough = view.on_terminal
    if not isinstance(run.finished_at, datetime):
        so_far = span(view.now - run.started_at, rough=rough)
        return f"{so_far} so far" if run.state == "started" else ""
    seconds = (run.finished_at - run.started_at).total_seconds()
    return span(seconds, rough=rough) if seconds >= 10 else f"{seconds:.2g} s"  # noqa: PLR2004


def _reason(run: Run, view: View) -> str:
    parts = [view.localized(run.reason)] if run.reason else []
    if run.error:
        parts.append(run.error.strip().splitlines()[-1] if run.error.strip() else "")
    return "; ".join(parts)


@click.command()
@click.argument("name", required=False, shell_complete=complete_entry)
@click.option("--traceback", is_flag=True, help="Show the tracebacks.")
@click.option(
    "--since",
    type=AGO,
    help="Only runs due since this time, or since this long ago; default without NAME: 1d.",
)
@click.option("--tag", help="Only runs of entries with this tag.")
@click.option(
    "--limit", type=click.IntRange(1), help="At most this many; default: 5 with NAME, else 100."
)
@printing
@click.pass_context
def errors(
    context: click.Context,
    *,
    name: str | None,
    traceback: bool,
    since: Any,
    tag: str | None,
    limit: int | None,
    as_json: bool,
    timezone: str | None,
) -> None:
    """List the last runs that failed or were lost, newest first.

    The last five errors of each entry are kept, however old they are.
    """
    store = open_store(context)
    view = View(context, json=as_json, timezone=timezone)
    if name is not None and since is None and tag is None:
        found = store.errors(name, limit or 5)
    else:
        begin = view.instant(since if since is not None or name else _DAY)
        found = store.runs(name, state=ERRORS, since=begin, tag=tag, limit=limit or 100)
    rows = [_error(run, view) for run in found]
    if traceback and not as_json and rows:
        _print_tracebacks(view, rows)
        _note_more(found)
        return
    columns = (
        *_run_columns(view, name),
        Column("worker", least=8, rank=1),
        Column("id", right=True),
        Column("error", show=_last_line, below=True),
    )
    view.rows(columns, rows, nothing="no errors")
    _note_more(found)


def _note_more(found: Page[Run]) -> None:
    if found.more:
        note(f"more errors follow: --limit {2 * len(found)}")


def _error(run: Run, view: View) -> dict[str, Any]:
    row = {column: getattr(run, column) for column in (*_COLUMNS, "traceback")}
    return {**row, "error": run.error or (run.reason if view.json else view.localized(run.reason))}


def _last_line(error: object) -> str:
    lines = text(error).strip().splitlines()
    return lines[-1] if lines else ""


def _print_tracebacks(view: View, rows: list[dict[str, Any]]) -> None:
    for at, row in enumerate(rows):
        if at:
            view.line("")
        worker = f" on {row['worker']}" if row["worker"] else ""
        due_at = view.with_zone(row["due_at"])
        attempt = f"attempt {row['attempt']} {row['state']}{worker}"
        view.line(f"{row['entry_name']}, due {due_at}: {attempt} (run {row['id']})")
        for line in text(row["traceback"] or row["error"]).splitlines():
            view.line(f"    {line}")


# -- why -----------------------------------------------------------------------------------


@click.command()
@click.argument("name", shell_complete=complete_entry)
@click.option("--at", type=INSTANT, help="Explain this due time: why did 03:00 not run?")
@printing
@click.pass_context
def why(
    context: click.Context, name: str, at: datetime | None, as_json: bool, timezone: str | None
) -> None:
    """Explain why an entry has or has not run."""
    store = open_store(context)
    view = View(context, json=as_json, timezone=timezone)
    found = store.explain(name, view.instant(at), timezone=view.zone_name)
    if as_json:
        fields = {field: getattr(found, field) for field in type(found).__slots__}
        say(_json_of(fields), in_json)
        return
    for sentence in found.sentences:
        view.prose(view.advised(sentence))
    view.prose(f"Times are in {view.zone_name}.")


def _json_of(fields: Mapping[str, Any]) -> str:
    return as_json({field: _plain(value) for field, value in fields.items()})


def _plain(value: Any) -> Any:
    """Return a value of an explanation; a run as a dict of its columns."""
    if isinstance(value, Run):
        return _run(value)
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


# -- audit ---------------------------------------------------------------------------------


@click.command()
@click.argument("name", required=False)
@click.option(
    "--limit", type=click.IntRange(1), default=100, help="At most this many; default: 100."
)
@click.option("--before", type=ROW_ID, metavar="ID", help="Continue after the change with this id.")
@printing
@click.pass_context
def audit(
    context: click.Context,
    *,
    name: str | None,
    limit: int,
    before: int | None,
    as_json: bool,
    timezone: str | None,
) -> None:
    """List who changed what through beatstore, newest first.

    Changes are listed under the name that the entry had at that time.
    """
    store = open_store(context)
    view = View(context, json=as_json, timezone=timezone)
    page = store.audit(name, limit, before)
    columns = (
        Column("at", view.title("at"), view.at),
        Column("actor", least=8),
        Column("action"),
        Column("entry", name=True),
        Column("change", below=True),
    )
    view.rows(columns, (_change(one, view) for one in page), nothing="no changes")
    if page.more:
        note(f"more changes follow: --before {page[-1].id}, or --limit {2 * limit}")


def _change(one: Audit, view: View) -> dict[str, Any]:
    row = {field: getattr(one, field) for field in ("id", "at", "actor", "action", "entry")}
    if view.json:
        return {**row, "before": one.before, "after": one.after, "reason": one.reason}
    why = f"reason: {text(one.reason)}" if one.reason else ""
    change = _in_words(one.before, one.after, view)
    return {**row, "change": "; ".join(filter(None, (change, why)))}


def _in_words(before: Any, after: Any, view: View) -> str:
    """Return a change in a few words: each field before and after."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        rule = after if isinstance(after, dict) else {}
        schedule = short_rule(rule, view) if {"kind", "spec", "timezone"} <= rule.keys() else ""
        return " ".join(filter(None, (text(rule.get("task")), schedule)))
    keys = dict.fromkeys([*before, *after])
    pairs = ((key, before.get(key), after.get(key)) for key in keys)
    return ", ".join(
        f"{key} {_word(key, was, view)} → {_word(key, now, view)}" for key, was, now in pairs
    )


def _word(key: str, value: object, view: View) -> str:
    if key.endswith("_at") and isinstance(value, str):
        with suppress(ValueError):
            return view.at(datetime.fromisoformat(value))
    return "none" if value is None else text(value) or '""'
