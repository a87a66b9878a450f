"""The verb that moves entries over from another scheduler's tables: import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from beatstore.cli.context import app_of, open_store
from beatstore.cli.group import REFUSED
from beatstore.cli.options import ZONE
from beatstore.cli.output import View
from beatstore.cli.table import Column
from beatstore.moving.importer import How, Moved, move, of_app, place_of

__all__ = ["import_"]

#: At most how many entries of one outcome are listed for people.
_MOST = 50

#: The outcomes whose entries are listed for people; the others are only counted.
_LISTED = ("created", "updated", "deactivated", "kept", "refused", "left out", "not exact")


@click.command("import")
@click.option(
    "--from",
    "package",
    type=click.Choice(["django-celery-beat", "sqlalchemy-celery-beat"]),
    required=True,
    help="The scheduler to move from.",
)
@click.option(
    "--url",
    metavar="URL",
    help="Database of its tables; default: that of beatstore.",
)
@click.option("--schema", help="Schema of its tables.")
@click.option("--dry-run", is_flag=True, help="Only report what would change.")
@click.option(
    "--paused",
    is_flag=True,
    help="Add every entry as paused; import again without it to activate them.",
)
@click.option(
    "--overdue",
    is_flag=True,
    help="Also move one-shots whose time has passed; they run at once.",
)
@click.option(
    "--naive-timezone",
    type=ZONE,
    default="UTC",
    help="Zone of times stored without one (Django without USE_TZ); default: UTC.",
)
@click.option(
    "--crontab-timezone",
    type=ZONE,
    help="Zone of all crontabs (DJANGO_CELERY_BEAT_TZ_AWARE = False); default: that of each row.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def import_(
    context: click.Context,
    *,
    package: str,
    url: str | None,
    schema: str | None,
    dry_run: bool,
    paused: bool,
    overdue: bool,
    naive_timezone: str,
    crontab_timezone: str | None,
    as_json: bool,
) -> None:
    """Move entries from django-celery-beat or sqlalchemy-celery-beat.

    It reads their tables and never writes them. You can repeat it: it applies changes made
    there, deactivates entries that were deleted there, and keeps edits made here.

    The exit code is 1 if an entry was refused; the others are moved.
    """
    store = open_store(context)
    view = View(context, json=as_json, store=store)
    how: dict[str, Any] = {
        **{"paused": paused, "overdue": overdue, "timezone": naive_timezone},
        "crontab_timezone": crontab_timezone,
    }
    app = app_of(context)
    if app is not None:
        how |= of_app(app)
        url, schema = (url, schema) if url else place_of(app, package, schema)
    if url:
        context.meta["beatstore.cli.urls"] = [url]
    done = move(store, package, url=url, schema=schema, how=How(**how), dry_run=dry_run, app=app)
    if as_json:
        view.facts(_facts(done, dry_run=dry_run), ())
    else:
        _print_report(view, done, dry_run=dry_run)
    if done.report.refused:
        raise click.exceptions.Exit(REFUSED)


def _facts(done: Moved, *, dry_run: bool) -> dict[str, Any]:
    report = done.report
    return {
        **{"source": done.source, "url": done.url, "dry_run": dry_run},
        **{"created": report.created, "updated": report.updated},
        **{"deactivated": report.deactivated, "unchanged": report.unchanged},
        **{"kept": report.kept, "refused": report.refused, "left_out": done.left},
        "not_exact": [vars(note) for note in done.notes],
    }


def _print_report(view: View, done: Moved, *, dry_run: bool) -> None:
    outcomes = _outcomes(done)
    columns = (Column("outcome"), Column("name", name=True), Column("why", below=True))
    view.rows(columns, _rows(outcomes), nothing="no changes")
    counts = [f"{len(names)} {outcome}" for outcome, names in outcomes.items() if names]
    before = "Dry run, nothing was written" if dry_run else "Done"
    summary = ", ".join(counts) or "no tasks"
    view.prose(f"{before}: {summary}, from {done.source} at {done.url}.")


def _outcomes(done: Moved) -> dict[str, Mapping[str, str]]:
    """Return the names of each outcome, with a remark on each name."""
    report = done.report
    kept = {name: ", ".join(fields) for name, fields in report.kept.items()}
    notes: dict[str, str] = {}
    for note in done.notes:
        remark = f"{note.field}: {note.why}; here: {note.instead}"
        notes[note.name] = f"{notes[note.name]}; {remark}" if note.name in notes else remark
    return {
        "created": dict.fromkeys(report.created, ""),
        "updated": dict.fromkeys(report.updated, ""),
        "deactivated": dict.fromkeys(report.deactivated, ""),
        "unchanged": dict.fromkeys(report.unchanged, ""),
        "kept": {name: f"edited here: {fields}" for name, fields in kept.items()},
        "refused": report.refused,
        "left out": done.left,
        "not exact": notes,
    }


def _rows(outcomes: Mapping[str, Mapping[str, str]]) -> Iterator[dict[str, str]]:
    for outcome in _LISTED:
        names = outcomes[outcome]
        for name, why in list(names.items())[:_MOST]:
            yield {"outcome": outcome, "name": name, "why": why}
        if len(names) > _MOST:
            more = f"… and {len(names) - _MOST:,} more; --json has all"
            yield {"outcome": outcome, "name": more, "why": ""}
