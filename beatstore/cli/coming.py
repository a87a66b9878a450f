"""The verb that lists the next due times: next."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from shlex import quote
from typing import Any

import click

from beatstore.cli.context import open_store
from beatstore.cli.entry_view import edge_in_words
from beatstore.cli.names import complete_entry
from beatstore.cli.options import INSTANT, printing
from beatstore.cli.output import View
from beatstore.cli.table import Column
from beatstore.cli.writing import note
from beatstore.records import Entry
from beatstore.rules.due import remaining_runs, sent_from, shown_offset
from beatstore.rules.states import LIVE
from beatstore.store import Occurrence
from beatstore.text.values import runs_sent
from beatstore.types import Page

__all__ = ["next_"]

#: At most how many due times are shown.
_MOST = 10_000


@click.command("next")
@click.argument("entry", required=False, metavar="[NAME]", shell_complete=complete_entry)
@click.option(
    "--count",
    type=click.IntRange(1, 10_000),
    help="How many to show; default: 20, or 10,000 with --until.",
)
@click.option(
    "--start", type=INSTANT, help="From this time on; default: now, and what is overdue or waits."
)
@click.option("--until", type=INSTANT, help="Before this time.")
@click.option("--tag", help="Only entries with this tag.")
@click.option("--name", metavar="GLOB", help="Only names that match; * and ? are wildcards.")
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
    """List the next due times of all entries, or of one.

    Due times of all entries come in the order of sending, with overdue ones first. With
    NAME, it lists the schedule of that entry, even while it is paused.
    """
    if entry is not None and (tag or name):
        raise click.UsageError(
            "NAME does not go with --tag or --name: write one or the other.", context
        )
    store = open_store(context)
    view = View(context, json=as_json, timezone=timezone)
    begin, end = view.instant(start), view.instant(until)
    limit = count or (_MOST if until else 20)
    if entry is not None:
        found = _of_entry(view, entry, limit, begin, end)
    else:
        found = store.upcoming(start=begin, until=end, limit=limit, tag=tag, name=name)
    columns = (
        Column("send_at", view.title("when"), view.when),
        Column("name", name=True),
        Column("task", least=12, tail=True, rank=1),
        Column("note", below=True),
    )
    rows = ({**_occurrence(one), "note": _note(one, view)} for one in found)
    if as_json:
        rows = (_occurrence(one) for one in found)
    nothing = "no due times" if entry is None else _why_nothing(view, store.get(entry), begin, end)
    view.rows(columns, rows, nothing=nothing)
    if found.more:
        on = (
            f"--count {2 * limit}"
            if 2 * limit <= _MOST
            else f"--start '{view.at(found[-1].send_at)}'"
        )
        note(f"more due times follow: {on}")


def _of_entry(
    view: View, name: str, count: int, start: datetime | None, until: datetime | None
) -> Page[Occurrence]:
    entry = view.store.get(name)
    due = view.store.preview(name, min(count + 1, _MOST), start)
    within = [at for at in due if until is None or at < until]
    if entry.state == "paused" and within:
        note(f"{name} is paused; without the pause, these would be its due times")
    offset = shown_offset(entry)
    found = (Occurrence(name, entry.task, at, sent_from(at, offset)) for at in within)
    return Page.cut(found, count)


def _occurrence(one: Occurrence) -> dict[str, Any]:
    fields = ("name", "task", "due_at", "send_at", "state", "reason")
    return {field: getattr(one, field) for field in fields}


def _note(one: Occurrence, view: View) -> str:
    if one.state != "ahead":
        return view.localized(one.reason or one.state)
    return "" if one.send_at == one.due_at else f"due {view.at(one.due_at)}, delayed by jitter"


# -- why nothing comes ---------------------------------------------------------------------


def _why_nothing(view: View, entry: Entry, start: datetime | None, until: datetime | None) -> str:
    """Return why an entry has no due time that could be shown."""
    name = entry.name
    if entry.state not in LIVE:
        return _out_of_service(entry)
    if entry.kind == "after":
        return _waits_for(view, entry)
    with suppress(TypeError):  # plain SQL wrote what is no number
        if remaining_runs(entry) == 0:
            return f"{name} has no more due times: {runs_sent(entry.max_runs or 0)}"
    begin = view.now if start is None else start
    if entry.end_at is not None and entry.end_at < begin:
        return f"{name} has no more due times: its end_at was {view.with_zone(entry.end_at)}"
    following = view.store.preview(name, 1, start)
    if following and until is not None:
        return f"{name} is not due before that time; next due {view.with_zone(following[0])}"
    return f"{name} has no due time after {view.with_zone(begin)}"


def _out_of_service(entry: Entry) -> str:
    name, word = entry.name, quote(entry.name)
    if entry.state != "broken":
        return f"{name} is {entry.state}, so it has no due times; `why {word}` says more"
    return (
        f"{name} is broken, so it has no due times: {entry.error or 'no error is stored'}. "
        f"Fix it with `change {word}`, or try again with `resume {word}`"
    )


def _waits_for(view: View, entry: Entry) -> str:
    """Return what an entry without a schedule waits for."""
    name, word = entry.name, quote(entry.name)
    edges = [edge for edge in view.store.edges(entry.name) if edge.downstream == entry.name]
    if not edges:
        return (
            f"{name} has no schedule and no upstream, so it is never due; "
            f"add one with `change {word}`"
        )
    ups = ", ".join(edge_in_words(edge) for edge in edges)
    paused = ", once it is resumed" if entry.state == "paused" else ""
    return f"{name} has no schedule: it runs after {ups}{paused}; `why {word}` says more"
