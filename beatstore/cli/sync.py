"""The verb that stores the entries that code declares: sync."""

from __future__ import annotations

from dataclasses import asdict

import click

from beatstore.cli.context import app_of, open_store
from beatstore.cli.group import REFUSED
from beatstore.cli.output import View
from beatstore.discovery.modules import import_code

__all__ = ["sync"]


@click.command()
@click.option("--module", metavar="MODULE", help="Only the entries that this module declares.")
@click.option("--dry-run", is_flag=True, help="Only report what would change.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def sync(context: click.Context, *, module: str | None, dry_run: bool, as_json: bool) -> None:
    """Store the entries that code declares, as beat does when it starts.

    Entries come from beat_schedule, from @scheduled, and from the lists SCHEDULES in the
    modules of the app. Entries that are no longer declared are deactivated. Edits and
    pauses made elsewhere are kept.

    The exit code is 1 if an entry was refused; the others are stored.
    """
    app = app_of(context)
    if app is None:
        raise click.UsageError(
            "sync needs the code of an app: write `celery -A proj beatstore sync`."
        )
    view = View(context, json=as_json, store=open_store(context))
    reports = import_code(view.store, app, module=module, dry_run=dry_run)
    if as_json:
        view.rows([], map(asdict, reports), nothing="")
    else:
        for line in "\n".join(map(str, reports)).splitlines():
            view.line(line)
    if any(report.refused for report in reports):
        raise click.exceptions.Exit(REFUSED)
