"""The verb that draws dependencies: graph."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from beatstore.cli.context import open_store
from beatstore.cli.drawing import Row, drawn
from beatstore.cli.group import fail
from beatstore.cli.names import complete_entry
from beatstore.cli.options import printing
from beatstore.cli.output import View
from beatstore.cli.table import Column
from beatstore.cli.writing import in_dot, in_mermaid, say
from beatstore.rules.graph import Graph, Node

__all__ = ["graph"]

#: Larger graphs are refused: nobody can follow so many lines.
_MOST = 100

_FORMATS = ("text", "mermaid", "dot", "json")


@click.command()
@click.argument("name", required=False, shell_complete=complete_entry)
@click.option(
    "--tag", help="Only entries with this tag, and their direct upstreams and downstreams."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    default="text",
    help="Drawing for the terminal, Mermaid, Graphviz DOT, or JSON.",
)
@printing
@click.pass_context
def graph(
    context: click.Context,
    *,
    name: str | None,
    tag: str | None,
    form: str,
    as_json: bool,
    timezone: str | None,
) -> None:
    """Draw the dependencies of all entries, or around one.

    With NAME, draws everything upstream and downstream of that entry.
    """
    if name is not None and tag is not None:
        raise click.UsageError("NAME does not go with --tag: write one or the other.", context)
    store = open_store(context)
    view = View(context, json=as_json or form == "json", timezone=timezone)
    found = store.graph(name=name, tag=tag)
    if view.json:
        view.facts(asdict(found), ())
    elif form == "text":
        _draw(view, found, tag)
    else:
        mermaid = form == "mermaid"
        text = found.mermaid() if mermaid else found.dot()
        say(text, in_mermaid if mermaid else in_dot, nl=False)


def _draw(view: View, found: Graph, tag: str | None) -> None:
    if len(found.nodes) > _MOST:
        raise fail(
            f"{len(found.nodes):,} entries are too many to draw (limit {_MOST}): write NAME or "
            "--tag for a part of them, or --format mermaid, dot or json"
        )
    columns = (
        Column("entry", name=True),
        Column("state"),
        Column("next_due_at", view.title("next due"), view.when),
        Column("waits_for", "waits for", below=True),
    )
    rows = (_row(row, view) for row in drawn(found))
    nothing = "no entry depends on another" if tag is None else f"no entry has the tag {tag!r}"
    view.rows(columns, rows, nothing=nothing)


def _row(row: Row, view: View) -> dict[str, Any]:
    waits = [view.localized(reason) for reason in _waits(row.node)]
    return {
        "entry": row.entry,
        "margin": row.lanes.ljust(len(row.picture)),
        "state": _state(row.node),
        "next_due_at": row.node.next_due_at if row.node.state == "active" else None,
        "waits_for": "; ".join([*waits, *row.conditions]),
    }


def _state(node: Node) -> str:
    return "waiting" if node.state == "active" and node.waits_because is not None else node.state


def _waits(node: Node) -> list[str]:
    return [node.waits_because] if node.waits_because and node.state == "active" else []
