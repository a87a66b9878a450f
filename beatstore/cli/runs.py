"""The verbs about what ran, and what will: next, runs, errors, why, audit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import click

from beatstore.cli.context import open_store
from beatstore.cli.names import complete_entry
from beatstore.cli.options import AGO, INSTANT, RUN_ID, printing
from beatstore.cli.output import Column, View, as_json, note, span, text
from beatstore.models import Audit, Run
from beatstore.store import Occurrence, Store
from beatstore.store.history import ERRORS, RUN_STATES

__all__ = ["audit", "errors", "next_", "runs", "why"]

#: How many rows --all reads at a time.
_PAGE = 1000

#: How far back `errors` looks where no entry is named.
_DAY = timedelta(days=1)

_COLUMNS = (
    *("id", "entry_name", "due_at", "attempt", "state", "reason", "task_id", "worker"),
    *("sent_at", "started_at", "finished_at", "first_missed_at", "missed_count", "error"),
)


def _when(view: View, given: Any) -> datetime | None:
    """Return an instant that was given, or that was so long ago."""
    from beatstore.cli.fields import instant  # noqa: PLC0415  (the verbs that edit need it all)

    if isinstance(given, timedelta):
        try:
            return view.now - given
        except OverflowError:
            raise click.UsageError(f"{span(given)} ago is before the first year") from None
    found: datetime | None = instant(given, view.zone_name)
    return found


# -- what will ----------------------------------------------------------------------------


@click.command("next")
@click.argument("entry", required=False, metavar="[NAME]", shell_complete=complete_entry)
@click.option(
    "--count", type=click.IntRange(1, 10_000), help="So many; 20, or 10,000 with --until."
)
@click.option("--start", type=INSTANT, help="From then on; default: now, with what is due already.")
@click.option("--until", type=INSTANT, help="Before then.")
@click.option("--tag", help="Only entries with this tag.")
@click.option("--name", metavar="GLOB", help="Only names like this: * and ? as in files.")
@printing
@click.pass_context
def next_(
    context: click.Context,
    *,
    entry: str | None,
    count: int | None,
    start: datetime | None,
    until: datetime | None,
    tag: str | None,
    name: str | None,
    as_json: bool,
    timezone: str | None,
) -> None:
    """Show what is sent next: the due times of all entries, or of one.

    Of all entries they stand in the order of sending, what is due already first. Of one
    entry they are those of its schedule; also of a paused one, which shows what it would do.
    """
    if entry is not None and (tag or name):
        raise click.UsageError("Write the name of one entry, or --tag or --name.", context)
    store = open_store(context)
    view = View(context, json=as_json, timezone=timezone)
    begin, end = _when(view, start), _when(view, until)
    limit = count or (10_000 if until else 20)
    if entry is not None:
        found = _of_entry(store, entry, limit, begin, end)
    else:
        found = store.agenda(start=begin, until=end, limit=limit, tag=tag, name=name)
    columns = (
        Column("send_at", view.title("when"), view.when),
        Column("name"),
        Column("task"),
        Column("note"),
    )
    rows = ({**_occurrence(one), "note": _note(one, view)} for one in found)
    if as_json:
        rows = (_occurrence(one) for one in found)
    view.rows(columns, rows, nothing="nothing is due")


def _of_entry(
    store: Store, name: str, count: int, start: datetime | None, until: datetime | None
) -> list[Occurrence]:
    entry = store.get(name)
    if entry.state == "paused":
        note(f"{name} is paused: these would be its due times")
    due = store.preview(name, count, start)
    return [Occurrence(name, entry.task, at, at) for at in due if until is None or at < until]


def _occurrence(one: Occurrence) -> dict[str, Any]:
    fields = ("name", "task", "due_at", "send_at", "state", "reason")
    return {field: getattr(one, field) for field in fields}


def _note(one: Occurrence, view: View) -> str:
    if one.state != "ahead":
        return one.reason or one.state
    return "" if one.send_at == one.due_at else f"due {view.at(one.due_at)}, by jitter"


# -- what ran ------------------------------------------------------------------------------


@click.command()
@click.argument("name", required=False, shell_complete=complete_entry)
@click.option(
    "--state", "states", type=click.Choice(RUN_STATES), multiple=True, help="Only in this state."
)
@click.option("--since", type=AGO, help="Due then or after: a time, or how long ago, as in 2h.")
@click.option("--until", type=AGO, help="Due before then.")
@click.option("--tag", help="Only of entries with this tag.")
@click.option("--task", help="Only of entries that send this task.")
@click.option("--worker", help="Only those that this worker took, such as celery@host.")
@click.option("--limit", type=click.IntRange(1), default=100, help="At most so many; 100.")
@click.option("--before", type=RUN_ID, metavar="ID", help="Go on after the run of this id.")
@click.option("--all", "all_", is_flag=True, help="All of them, however many there are.")
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
    """Show what became of due times, the newest first, a page at a time.

    Few runs among very many are found quickly with --since.
    """
    store = open_store(context)
    view = View(context, json=params["as_json"], timezone=params["timezone"])
    chosen = {key: params[key] for key in ("tag", "task", "worker")}
    chosen |= {key: _when(view, params[key]) for key in ("since", "until")}
    found = _pages(
        store, name, {**chosen, "state": states or None}, before, None if all_ else limit
    )
    columns = (
        Column("due_at", view.title("due"), view.when),
        Column("entry_name", "entry"),
        Column("attempt", right=True),
        Column("state"),
        Column("took"),
        Column("worker"),
        Column("id", right=True),
        Column("said", "reason"),
    )
    view.rows(columns, (_run(run, as_json=view.json) for run in found), nothing="no run matches")


def _pages(
    store: Store,
    name: str | None,
    chosen: Mapping[str, Any],
    before: int | None,
    limit: int | None,
) -> Iterator[Run]:
    """Yield runs; with a limit, say how to go on."""
    left = limit
    while True:
        size = _PAGE if left is None else min(left, _PAGE)
        page = store.runs(name, **chosen, limit=size + 1, before_id=before)
        more, page = len(page) > size, page[:size]
        yield from page
        if left is not None:
            left -= len(page)
        if not more:
            return
        before = page[-1].id
        if left == 0:
            note(f"more runs follow: --before {before}, or --all")
            return


def _run(run: Run, *, as_json: bool) -> dict[str, Any]:
    columns = {column: getattr(run, column) for column in _COLUMNS}
    if as_json:
        return columns
    return {**columns, "took": _took(run), "said": _said(run)}


def _took(run: Run) -> str:
    if not isinstance(run.started_at, datetime) or not isinstance(run.finished_at, datetime):
        return ""
    seconds = (run.finished_at - run.started_at).total_seconds()
    return span(seconds) if seconds >= 10 else f"{seconds:.2g} s"  # noqa: PLR2004


def _said(run: Run) -> str:
    said = [str(run.reason)] if run.reason else []
    if run.error:
        said.append(run.error.strip().splitlines()[-1] if run.error.strip() else "")
    return "; ".join(said)


@click.command()
@click.argument("name", required=False, shell_complete=complete_entry)
@click.option("--traceback", is_flag=True, help="With where in the task it happened.")
@click.option("--since", type=AGO, help="Due then or after; default without a name: a day ago.")
@click.option("--tag", help="Only of entries with this tag.")
@click.option("--limit", type=click.IntRange(1), help="At most so many; 5 of an entry, or 100.")
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
    """Show the last runs that failed or were lost, the newest first.

    The last five of each entry are kept, however old they are.
    """
    store = open_store(context)
    view = View(context, json=as_json, timezone=timezone)
    if name is not None and since is None and tag is None:
        found = store.errors(name, limit or 5)
    else:
        begin = _when(view, since if since is not None or name else _DAY)
        found = store.runs(name, state=ERRORS, since=begin, tag=tag, limit=limit or 100)
    rows = [_error(run) for run in found]
    if traceback and not as_json and rows:
        _print_tracebacks(view, rows)
        return
    columns = (
        Column("due_at", view.title("due"), view.when),
        Column("entry_name", "entry"),
        Column("attempt", right=True),
        Column("state"),
        Column("worker"),
        Column("id", right=True),
        Column("error", show=_last_line),
    )
    view.rows(columns, rows, nothing="no errors")


def _error(run: Run) -> dict[str, Any]:
    row = {column: getattr(run, column) for column in (*_COLUMNS, "traceback")}
    return {**row, "error": run.error or run.reason}


def _last_line(error: object) -> str:
    lines = text(error).strip().splitlines()
    return lines[-1] if lines else ""


def _print_tracebacks(view: View, rows: list[dict[str, Any]]) -> None:
    for at, row in enumerate(rows):
        if at:
            view.line("")
        worker = f" on {row['worker']}" if row["worker"] else ""
        due_at = view.when(row["due_at"])
        attempt = f"attempt {row['attempt']} {row['state']}{worker}"
        view.line(f"{row['entry_name']}, due {due_at}: {attempt} (run {row['id']})")
        for line in text(row["traceback"] or row["error"]).splitlines():
            view.line(f"    {line}")


# -- why -----------------------------------------------------------------------------------


@click.command()
@click.argument("name", shell_complete=complete_entry)
@click.option("--at", type=INSTANT, help="A due time to account for: why did 03:00 not run?")
@printing
@click.pass_context
def why(
    context: click.Context, name: str, at: datetime | None, as_json: bool, timezone: str | None
) -> None:
    """Say why an entry has or has not run."""
    store = open_store(context)
    view = View(context, json=as_json, timezone=timezone)
    found = store.explain(name, _when(view, at))
    if as_json:
        fields = {field: getattr(found, field) for field in type(found).__slots__}
        click.echo(_json_of(fields))
        return
    for sentence in found.sentences:
        view.line(sentence)


def _json_of(fields: Mapping[str, Any]) -> str:
    return as_json({field: _plain(value) for field, value in fields.items()})


def _plain(value: Any) -> Any:
    """Return a value of an explanation; a run by its columns."""
    if isinstance(value, Run):
        return _run(value, as_json=True)
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


# -- who -----------------------------------------------------------------------------------


@click.command()
@click.argument("name", required=False)
@click.option("--limit", type=click.IntRange(1), default=100, help="At most so many; 100.")
@click.option("--before", type=RUN_ID, metavar="ID", help="Go on after the change of this id.")
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
    """Show who changed what through beatstore, the newest first.

    Of an entry that was renamed or removed, by the name it had then.
    """
    store = open_store(context)
    view = View(context, json=as_json, timezone=timezone)
    found = store.audit(name, limit + 1, before)
    page = found[:limit]
    columns = (
        Column("at", view.title("at"), view.at),
        Column("actor"),
        Column("action"),
        Column("entry"),
        Column("change"),
    )
    view.rows(columns, (_change(one, as_json=as_json) for one in page), nothing="no changes")
    if len(found) > limit and not as_json:
        note(f"more changes follow: --before {page[-1].id}")


def _change(one: Audit, *, as_json: bool) -> dict[str, Any]:
    row = {field: getattr(one, field) for field in ("id", "at", "actor", "action", "entry")}
    if as_json:
        return {**row, "before": one.before, "after": one.after}
    return {**row, "change": _in_words(one.before, one.after)}


def _in_words(before: Any, after: Any) -> str:
    """Return a change in a few words."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        rule = after if isinstance(after, dict) else {}
        return " ".join(text(rule[key]) for key in ("task", "kind", "spec") if rule.get(key))
    keys = dict.fromkeys([*before, *after])
    pairs = ((key, before.get(key), after.get(key)) for key in keys)
    return ", ".join(f"{key} {_word(was)} → {_word(now)}" for key, was, now in pairs)


def _word(value: object) -> str:
    return "none" if value is None else text(value) or '""'
