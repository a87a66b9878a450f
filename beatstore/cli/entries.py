"""The verbs about one entry: list, show, add, change, and schedule for one-shots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Any

import click

from beatstore.cli.context import open_store
from beatstore.cli.entry_options import call_fields, given_fields, policy_fields, schedule_fields
from beatstore.cli.entry_view import brief_rule, facts_of, lines_of, next_due, rule_of, short_rule
from beatstore.cli.names import complete_entry
from beatstore.cli.options import (
    DURATION,
    INSTANT,
    ZONE,
    filters,
    json_option,
    printing,
    reason_option,
)
from beatstore.cli.output import View
from beatstore.cli.table import Column
from beatstore.cli.writing import note
from beatstore.definition.spec import VALUES
from beatstore.errors import EntryNotFoundError
from beatstore.records import Entry
from beatstore.store import Store

__all__ = ["add", "change", "list_", "schedule", "show"]

#: How many entries --all reads at a time.
_PAGE = 1000


@click.command("list")
@filters
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    metavar="N",
    help="At most this many; default: 100.",
)
@click.option(
    "--after", metavar="NAME", help="Continue after this name.", shell_complete=complete_entry
)
@click.option("--all", "all_", is_flag=True, help="List all of them.")
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

    They are sorted by name. For the next page, give the last name to --after. The column
    "edited" lists the fields that differ from what the code declares.
    """
    view = View(context, json=as_json, timezone=timezone)
    chosen = {"tag": tag, "state": state, "name": name, "source": source}
    pages = _Pages(view.store, chosen, after, None if all_ else limit)
    columns = (
        Column("name", name=True),
        Column("task", least=12, tail=True, rank=1),
        Column("schedule", of_row=lambda row: brief_rule(row, view), least=15),
        Column("next_due_at", view.title("next due"), view.when),
        Column("state"),
        Column("last_run_at", view.title("last run"), view.at, rank=4),
        Column("tags", least=6, rank=3),
        Column("edited", least=6, rank=2),
    )
    filtered = any((*chosen.values(), after))
    view.rows(columns, pages, nothing="no entry matches" if filtered else "no entries")
    if pages.more_after is not None:
        note(f"more entries follow: --after {quote(pages.more_after)}, or --all")


class _Pages:
    """The rows of a list, read page by page; `more_after` is the last name if more follow."""

    def __init__(
        self, store: Store, chosen: Mapping[str, Any], after: str | None, limit: int | None
    ) -> None:
        self.store = store
        self.chosen = chosen
        self.after = after
        self.left = limit
        self.more_after: str | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        more = True
        while more and self.left != 0:
            size = _PAGE if self.left is None else min(self.left, _PAGE)
            page = self.store.entries(
                **self.chosen, limit=size, after=self.after, include=("tags", "edited")
            )
            more = page.more
            yield from map(_row, page)
            self.after = page[-1].name if page else None
            self.left = None if self.left is None else self.left - size
        self.more_after = self.after if more else None


def _row(entry: Entry) -> dict[str, Any]:
    """Return the fields that the list shows of an entry."""
    return {
        "name": entry.name,
        "task": entry.task,
        "kind": entry.kind,
        "spec": entry.spec,
        "timezone": entry.timezone,
        # Of a paused one it is of before the pause, and may be long over.
        "next_due_at": entry.next_due_at if entry.state == "active" else None,
        "state": entry.state,
        "last_run_at": entry.last_run_at,
        "run_count": entry.run_count,
        "tags": list(entry.tags),
        "edited": list(entry.edited),
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
    facts = facts_of(store, name)
    view.facts(facts, lines_of(facts, view))


@click.command()
@click.argument("name")
@click.argument("task")
@schedule_fields()
@call_fields()
@policy_fields()
@click.option("--source", help="Owner of the entry; default: api.")
@click.option("--paused", is_flag=True, help="Add it as paused.")
@click.option("--put", is_flag=True, help="Replace an entry of that name, if there is one.")
@reason_option
@json_option
@click.pass_context
def add(context: click.Context, /, **params: Any) -> None:
    """Add an entry and show when it is due.

    SCHEDULE is a cron expression; options give other kinds of schedules. An entry without
    a schedule needs --after, and runs whenever all its upstreams have succeeded.

    \b
      beatstore add nightly etl.extract "0 2 * * *" --timezone Europe/Berlin
      beatstore add load etl.load --after nightly --option queue=etl
    """  # noqa: D301  (click reads the backspace)
    store, view = _editing(context, params)
    given = given_fields(params, view)
    given |= {key: params[key] for key in ("source", "paused") if params[key]}
    if "schedule" not in given and not given.get("after"):
        raise click.UsageError(
            "No schedule given. Write a cron expression such as '0 2 * * *', or --every 1h, "
            "--at, --rrule, --solar, or --after NAME."
        )
    name, task, schedule = params["name"], params["task"], given.pop("schedule", None)
    if not params["put"]:
        _print_written(store, view, store.add(name, task, schedule, **given), "added")
        return
    before = _version(store, name)
    entry = store.put(name, task, schedule, **given)
    _print_written(store, view, entry, _outcome(before, entry))


@click.command()
@click.argument("name", shell_complete=complete_entry)
@schedule_fields(change=True)
@click.option("--task", help="New task.")
@call_fields(change=True)
@policy_fields(change=True)
@click.option("--source", help="New owner.")
@click.option("--new-name", help="New name.")
@click.option(
    "--if-version",
    type=click.IntRange(0),
    metavar="N",
    help="Only if the entry still has this version; `show --json` prints it.",
)
@reason_option
@json_option
@click.pass_context
def change(context: click.Context, /, **params: Any) -> None:
    """Change some fields of an entry and keep the rest.

    A given value replaces the stored one: --tag replaces all tags, --after all upstreams,
    --option all message options. Clear a field with an empty value or --no-OPTION:
    --end-at "" or --no-end-at. A new schedule counts from now.
    """
    store, view = _editing(context, params)
    given = given_fields(params, view)
    given |= {key: params[key] for key in ("task", "source", "new_name") if params[key]}
    if not given:
        raise click.UsageError(
            "Nothing to change. Write an option, such as --every 5m; --help lists them."
        )
    before = _version(store, params["name"])
    entry = store.change(params["name"], if_version=params["if_version"], **given)
    _print_written(store, view, entry, _outcome(before, entry))


@click.command()
@click.argument("task")
@click.option("--at", type=INSTANT, help="Send at this time.")
@click.option("--in", "in_", type=DURATION, help="Send after this delay: 90s, 5m, 2d.")
@click.option("--name", help="Name of the entry; default: made from the task's name.")
@call_fields()
@policy_fields()
@click.option("--timezone", type=ZONE, help="Zone of the given and shown times.")
@reason_option
@json_option
@click.pass_context
def schedule(context: click.Context, /, **params: Any) -> None:
    """Send a task once: at a time, after a delay, or after other entries.

    \b
      beatstore schedule mail.send --at "2030-01-31 09:30" --kwargs '{"user": 7}'
      beatstore schedule mail.send --in 2h
    """  # noqa: D301  (click reads the backspace)
    store, view = _editing(context, params)
    given = given_fields({**params, "at": None}, view)
    parts: dict[str, Any] = {key: given.pop(key) for key in VALUES if key in given}
    given.pop("timezone", None)
    at, countdown = params["at"], params["in_"]
    many = (at is not None) + (countdown is not None)
    if many > 1 or not (many or given.get("after")):
        raise click.UsageError("Write either --at TIME or --in DELAY, or --after NAME.")
    given |= {"at": view.instant(at), "countdown": countdown, "name": params["name"]}
    entry = store.schedule({"task": params["task"], **parts}, **given)
    _print_written(store, view, entry, "scheduled")


def _editing(context: click.Context, params: Mapping[str, Any]) -> tuple[Store, View]:
    zone_name = params["timezone"] if isinstance(params["timezone"], str) else None
    view = View(context, json=params["as_json"], timezone=zone_name)
    return view.store, view


def _version(store: Store, name: str) -> int | None:
    """Return the version of an entry; None if it does not exist."""
    try:
        return store.get(name).version
    except EntryNotFoundError:
        return None


def _outcome(before: int | None, entry: Entry) -> str:
    if before is None:
        return "added"
    return "unchanged" if entry.version == before else "changed"


def _print_written(store: Store, view: View, entry: Entry, done: str) -> None:
    """Show an entry that was written, with its next due times."""
    due = next_due(store, entry.name)
    facts = {"done": done, **facts_of(store, entry.name)} if view.json else {}
    lines = [
        (done, entry.name),
        ("task", entry.task),
        ("schedule", short_rule(rule_of(entry), view)),
        ("state", entry.state),
        (view.title("next due"), "\n".join(view.when(at) for at in due)),
    ]
    view.facts(facts, lines)
