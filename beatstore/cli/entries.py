"""The verbs that look at entries: list and show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from beatstore.cli.context import open_store
from beatstore.cli.entry import facts_of, lines_of, rule_of, short_rule
from beatstore.cli.names import complete_entry
from beatstore.cli.options import filters, printing
from beatstore.cli.output import Column, View, note
from beatstore.models import Entry
from beatstore.store import Store

__all__ = ["list_", "show"]

#: How many entries --all reads at a time.
_PAGE = 1000


@click.command("list")
@filters
@click.option("--limit", type=click.IntRange(1), default=100, help="At most so many; 100.")
@click.option(
    "--after", metavar="NAME", help="Go on after this name.", shell_complete=complete_entry
)
@click.option("--all", "all_", is_flag=True, help="All of them, however many there are.")
@printing
@click.pass_context
def list_(
    context: click.Context,
    *,
    tag: str | None,
    state: str | None,
    name: str | None,
    source: str | None,
    limit: int,
    after: str | None,
    all_: bool,
    as_json: bool,
    timezone: str | None,
) -> None:
    """List entries, a page at a time.

    In the order of their names. What follows a page is shown by --after and the last name.
    """
    store = open_store(context)
    view = View(context, json=as_json, timezone=timezone)
    chosen = {"tag": tag, "state": state, "name": name, "source": source}
    pages = _pages(store, chosen, after, None if all_ else limit)
    columns = (
        Column("name"),
        Column("task"),
        Column("schedule", show=lambda rule: short_rule(rule, view)),
        Column("next_due_at", view.title("next due"), view.when),
        Column("state"),
        Column("last_run_at", view.title("last run"), view.at),
        Column("tags"),
    )
    view.rows(columns, pages, nothing="no entry matches" if any(chosen.values()) else "no entries")


def _pages(
    store: Store, chosen: dict[str, str | None], after: str | None, limit: int | None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the list; with a limit, say how to go on."""
    left = limit
    while True:
        size = _PAGE if left is None else min(left, _PAGE)
        page = store.entries(**chosen, limit=size + 1, after=after)
        more, page = len(page) > size, page[:size]
        names = [entry.name for entry in page]
        tags = store.tags_of(names)
        for entry in page:
            yield _row(entry, tags.get(entry.name, []))
        if left is not None:
            left -= len(page)
        if not more:
            return
        after = names[-1]
        if left == 0:
            note(f"more entries follow: --after {after!r}, or --all")
            return


def _row(entry: Entry, tags: list[str]) -> dict[str, Any]:
    """Return what the list knows of an entry."""
    return {
        "name": entry.name,
        "task": entry.task,
        "schedule": rule_of(entry),
        "next_due_at": entry.next_due_at if entry.state in ("active", "paused") else None,
        "state": entry.state,
        "last_run_at": entry.last_run_at,
        "run_count": entry.run_count,
        "tags": tags,
        "source": entry.source,
        "description": entry.description,
    }


@click.command()
@click.argument("name", shell_complete=complete_entry)
@printing
@click.pass_context
def show(context: click.Context, name: str, as_json: bool, timezone: str | None) -> None:
    """Show everything about one entry."""
    store = open_store(context)
    view = View(context, json=as_json, timezone=timezone)
    facts = facts_of(store, store.get(name))
    view.facts(facts, lines_of(facts, view))
