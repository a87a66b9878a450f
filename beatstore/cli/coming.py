"""The verb about what comes: next."""

from __future__ import annotations

from datetime import datetime
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
from beatstore.rules.due import remaining_runs
from beatstore.rules.states import LIVE
from beatstore.store import Occurrence
from beatstore.types import Page

__all__ = ["next_"]

#: So many due times are shown at most.
_MOST = 10_000


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
    nothing = "nothing is due" if entry is None else _none_of(view, store.get(entry), begin, end)
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
        note(f"{name} is paused: these would be its due times")
    return Page.cut((Occurrence(name, entry.task, at, at) for at in within), count)


def _occurrence(one: Occurrence) -> dict[str, Any]:
    fields = ("name", "task", "due_at", "send_at", "state", "reason")
    return {field: getattr(one, field) for field in fields}


def _note(one: Occurrence, view: View) -> str:
    if one.state != "ahead":
        return view.told(one.reason or one.state)
    return "" if one.send_at == one.due_at else f"due {view.at(one.due_at)}, by jitter"


# -- why nothing comes ---------------------------------------------------------------------


def _none_of(view: View, entry: Entry, start: datetime | None, until: datetime | None) -> str:
    """Return why an entry has no due time that could be shown."""
    name = entry.name
    if entry.state not in LIVE:
        return _out_of_service(entry)
    if entry.kind == "after":
        return _after(view, entry)
    if remaining_runs(entry) == 0:
        return f"all {entry.max_runs:,} runs of {name} were sent (max_runs): no more are due"
    begin = view.now if start is None else start
    if entry.end_at is not None and entry.end_at < begin:
        return f"nothing of {name} is due after its end, {view.named(entry.end_at)}"
    following = view.store.preview(name, 1, start)
    if following and until is not None:
        return f"{name} is not due before then, but {view.named(following[0])}"
    return f"the schedule of {name} has no due time after {view.named(begin)}"


def _out_of_service(entry: Entry) -> str:
    name = entry.name
    if entry.state != "broken":
        return f"{name} is {entry.state}: nothing more of it is due; `why {name}` says more"
    return (
        f"{name} is broken, and not due: {entry.error or 'nobody said why'}. "
        f"Mend it with `change {name}`, or try again with `resume {name}`"
    )


def _after(view: View, entry: Entry) -> str:
    """Return what an entry without a clock is due after."""
    edges = [edge for edge in view.store.edges(entry.name) if edge.downstream == entry.name]
    if not edges:
        return (
            f"{entry.name} has no clock and no upstream, so it is never due; `change` gives it one"
        )
    ups = ", ".join(edge_in_words(edge) for edge in edges)
    paused = ", while it is paused not even then" if entry.state == "paused" else ""
    return f"{entry.name} has no clock: it is due after {ups}{paused}; `why {entry.name}` says more"
