"""The verbs that carry entries from one database to another: export and load."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from beatstore.cli.context import open_store
from beatstore.cli.group import REFUSED
from beatstore.cli.options import filters, json_option
from beatstore.cli.output import View
from beatstore.cli.writing import note
from beatstore.errors import LoadError
from beatstore.store import LoadReport

__all__ = ["export", "load"]

#: So many of what is refused are told one by one.
_TOLD = 20


@click.command()
@filters
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="-",
    metavar="FILE",
    help="Write there; a file appears when all of it is written. Default: print.",
)
@click.pass_context
def export(context: click.Context, /, output: str, **chosen: Any) -> None:
    """Write entries as lines of JSON, for `load`.

    Everything an entry is, and how far it has come; not its runs. If it is to be a move, end
    beat and the workers first, and start beat on the new database only.
    """
    store = open_store(context)
    documents = store.export(**chosen)
    header = next(documents)
    count = 0
    with click.open_file(output, "w", encoding="utf-8", atomic=output != "-") as file:
        file.write(json.dumps(header) + "\n")
        for document in documents:
            file.write(json.dumps(document) + "\n")
            count += 1
    if output != "-":
        note(f"{'1 entry is' if count == 1 else f'{count:,} entries are'} in {output}")
    if header["unsent_runs"]:
        runs = "1 run is" if header["unsent_runs"] == 1 else f"{header['unsent_runs']:,} runs are"
        note(f"{runs} claimed or to be tried again, and not in it: they stay in this database")


@click.command()
@click.argument(
    "file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    default="-",
    required=False,
)
@click.option("--replace", is_flag=True, help="Change entries that are here, and differ.")
@click.option("--keep-going", is_flag=True, help="Load the others, where some are refused.")
@click.option("--dry-run", is_flag=True, help="Write nothing, and say what would become of them.")
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
    """Store the entries that `export` wrote, from a file or the standard input.

    All of them or, where one is refused, none, unless --keep-going is given. New ones go on
    where they were; those that are here already keep their own progress.
    """
    store = open_store(context)
    if file == "-" and sys.stdin.isatty():
        raise click.UsageError("Which file? Write its name, or `… load < FILE`.", context)
    view = View(context, json=as_json)
    with click.open_file(file, "rb") as lines:
        try:
            report = store.load(lines, replace=replace, keep_going=keep_going, dry_run=dry_run)
        except LoadError as error:
            report = LoadReport(refused=error.refused)
    figures = {
        **{"created": report.created, "replaced": report.replaced},
        **{"unchanged": report.unchanged, "dry_run": dry_run},
    }
    view.facts({**figures, "refused": {str(at): why for at, why in report.refused.items()}}, ())
    if not as_json:
        _tell(view, report, kept=keep_going or dry_run)
    if report.refused:
        raise click.exceptions.Exit(REFUSED)


def _tell(view: View, report: LoadReport, *, kept: bool) -> None:
    """Tell a person what became of the lines."""
    for line, reason in list(report.refused.items())[:_TOLD]:
        note(f"line {line}: {reason}")
    more = len(report.refused) - _TOLD
    if more > 0:
        note(f"and {more:,} more lines")
    if report.refused and not kept:
        note("nothing was loaded; --keep-going loads the others")
        return
    would = "would be " if report.dry_run else ""
    said = [f"{report.created:,} {would}created", f"{report.replaced:,} {would}replaced"]
    said += [f"{report.unchanged:,} unchanged"]
    said += [f"{len(report.refused):,} refused"] if report.refused else []
    view.line(", ".join(said))
