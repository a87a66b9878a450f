"""The verb that brings what code declares into the database: sync."""

from __future__ import annotations

from dataclasses import asdict

import click

from beatstore.cli.context import app_of, open_store
from beatstore.cli.group import REFUSED
from beatstore.cli.output import View
from beatstore.discovery.modules import import_code

__all__ = ["sync"]


@click.command()
@click.option("--module", metavar="MODULE", help="Only what this module declares, by its name.")
@click.option("--dry-run", is_flag=True, help="Report what would be done, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")
@click.pass_context
def sync(context: click.Context, *, module: str | None, dry_run: bool, as_json: bool) -> None:
    """Bring what the code declares into the database, as beat does when it starts.

    That is beat_schedule, every @scheduled, and the lists SCHEDULES in the modules of the
    app. What left the code is deactivated; what somebody edited or paused stays so.

    The exit code is 1 if an entry was refused; the others are done all the same.
    """
    app = app_of(context)
    if app is None:
        raise click.UsageError("sync reads an app's code: write `celery -A proj beatstore sync`.")
    view = View(context, json=as_json, store=open_store(context))
    reports = import_code(view.store, app, module=module, dry_run=dry_run)
    if as_json:
        view.rows([], map(asdict, reports), nothing="")
    else:
        for line in "\n".join(map(str, reports)).splitlines():
            view.line(line)
    if any(report.refused for report in reports):
        raise click.exceptions.Exit(REFUSED)
