"""The verbs that copy entries from one database to another: export and load."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import Any

import click

from beatstore.cli.context import open_store
from beatstore.cli.group import REFUSED, fail
from beatstore.cli.options import filters, json_option
from beatstore.cli.output import View
from beatstore.cli.writing import note
from beatstore.errors import LoadError
from beatstore.store import LoadReport

__all__ = ["export", "load"]

#: How many refused lines are listed.
_LISTED = 20


@click.command()
@filters
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="-",
    metavar="FILE",
    help="File to write; it appears once it is complete. Default: standard output.",
)
@click.pass_context
def export(context: click.Context, /, output: str, **chosen: Any) -> None:
    """Write entries as JSON lines, for `load`.

    Writes all fields of an entry and its progress, but no runs. To move to another database,
    stop beat and the workers first, and start beat on the new database only.
    """
    store = open_store(context)
    count = 0
    with closing(store.export(**chosen)) as documents:
        header = next(documents)
        with _writing(output) as file:
            file.write(json.dumps(header) + "\n")
            for document in documents:
                file.write(json.dumps(document) + "\n")
                count += 1
    if output != "-":
        note(f"wrote {'1 entry' if count == 1 else f'{count:,} entries'} to {output}")
    if header["unsent_runs"]:
        runs = "1 run is" if header["unsent_runs"] == 1 else f"{header['unsent_runs']:,} runs are"
        what = "it" if header["unsent_runs"] == 1 else "them"
        note(f"{runs} not exported, because beat is about to send or retry {what}")


def _writing(output: str) -> Any:
    """Open the file to write; a file beside it has another name until it is complete."""
    if output == "-" and sys.stdout is None:
        raise fail("cannot write: the standard output is closed; write --output FILE")
    try:
        return click.open_file(output, "w", encoding="utf-8", atomic=output != "-")
    except OSError as error:  # which names the other file
        raise fail(f"cannot write {output}: {error.strerror or error}") from None


@click.command()
@click.argument(
    "file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    default="-",
    required=False,
)
@click.option("--replace", is_flag=True, help="Overwrite existing entries that differ.")
@click.option("--keep-going", is_flag=True, help="Load the other entries if some are refused.")
@click.option("--dry-run", is_flag=True, help="Only report what would change.")
@json_option
@click.pass_context
def load(
    context: click.Context,
    *,
    file: str,
    replace: bool,
    keep_going: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Store entries that `export` wrote, from a file or standard input.

    If an entry is refused, none is loaded, unless you give --keep-going. New entries keep
    their exported progress; existing entries keep the progress they have here.
    """
    store = open_store(context)
    if file == "-" and (sys.stdin is None or sys.stdin.isatty()):
        raise click.UsageError("No file given. Write `load FILE`, or `load < FILE`.", context)
    view = View(context, json=as_json)
    with click.open_file(file, "rb") as lines:
        try:
            report = store.load(lines, replace=replace, keep_going=keep_going, dry_run=dry_run)
        except LoadError as error:
            report = LoadReport(refused=error.refused)
    if not any((report.created, report.replaced, report.unchanged, report.refused)):
        raise fail("nothing was loaded: there is no entry in what was read")
    figures = {
        **{"created": report.created, "replaced": report.replaced},
        **{"unchanged": report.unchanged, "dry_run": dry_run},
    }
    view.facts({**figures, "refused": {str(at): why for at, why in report.refused.items()}}, ())
    if not as_json:
        _print_report(view, report, kept=keep_going or dry_run)
    if report.refused:
        raise click.exceptions.Exit(REFUSED)


def _print_report(view: View, report: LoadReport, *, kept: bool) -> None:
    """Print the results for people."""
    for line, reason in list(report.refused.items())[:_LISTED]:
        note(f"line {line}: {view.advised(reason)}")
    more = len(report.refused) - _LISTED
    if more > 0:
        note(f"and {more:,} more refused lines")
    if report.refused and not kept:
        note("nothing was loaded; --keep-going loads the other entries")
        return
    would = "would be " if report.dry_run else ""
    counts = [f"{report.created:,} {would}created", f"{report.replaced:,} {would}replaced"]
    counts += [f"{report.unchanged:,} unchanged"]
    counts += [f"{len(report.refused):,} refused"] if report.refused else []
    view.line(", ".join(counts))
