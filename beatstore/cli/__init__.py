"""The command line: `celery -A proj beatstore …`, and `beatstore --url …` without an app.

One implementation for both. This module knows the verbs by name only, so that asking for
help, or starting any other command of celery's, imports none of them, and no SQLAlchemy.

    group       the group of verbs: its help, its completion, and what errors come to
    context     what a verb works on: the store of the app, or of `--url`
    options     options that several verbs have, and what they take
    output      tables for people, JSON for programs
    entries, runs, graphs, operating, transfer, …   the verbs

On failure: one line on stderr and an exit code, which `group` lists; never a traceback, and
never a password.
"""

from __future__ import annotations

import click

from beatstore.cli.group import Verbs

__all__ = ["beatstore", "main"]

#: The verbs under the headings of the help: the module and function of each, and its line.
VERBS: dict[str, dict[str, tuple[str, str]]] = {
    "Entries": {
        "list": ("entries:list_", "List entries, a page at a time."),
        "show": ("entries:show", "Show everything about one entry."),
        "add": ("entries:add", "Add an entry, and show when it is due."),
        "change": (
            "entries:change",
            "Change what is named of an entry, and leave the rest as it is.",
        ),
        "pause": ("bulk:pause", "Let entries send nothing until they are resumed."),
        "resume": ("bulk:resume", "Put paused or broken entries back into service."),
        "remove": ("bulk:remove", "Delete entries; their runs stay on record."),
        "trigger": (
            "bulk:trigger",
            "Run entries now, beside their schedules; also paused ones, or those that are over.",
        ),
        "schedule": (
            "entries:schedule",
            "Send a task once: at a time, in a while, or after others.",
        ),
        "cancel": ("bulk:cancel", "End entries for good, if that is in time."),
    },
    "Operating": {
        "migrate": (
            "operating:migrate",
            "Create the tables, or bring them to the revision this version needs.",
        ),
    },
    "Moving entries": {
        "sync": (
            "syncing:sync",
            "Bring what the code declares into the database, as beat does when it starts.",
        ),
        "import": (
            "importing:import_",
            "Move entries over from django-celery-beat or sqlalchemy-celery-beat.",
        ),
    },
}


@click.group(cls=Verbs, verbs=VERBS, name="beatstore")
@click.option("--url", metavar="URL", help="The database, as an SQLAlchemy URL.")
@click.option("--schema", help="The database schema that the tables are in.")
def beatstore(url: str | None, schema: str | None) -> None:
    """Look after the entries that beat sends.

    The database is that of the Celery app, or the one that --url or the variable
    BEATSTORE_URL names (and --schema or BEATSTORE_SCHEMA). Each verb has a --help.

    \b
    Exit codes:
      0  done
      1  refused, not found, or too late
      2  wrong usage
      3  the database or the broker can't be reached, or the tables are not of
         this version
    """  # noqa: D301  (click reads the backspace)
    del url, schema  # read off the context, which completion makes without calling this


def main() -> None:
    """Run the command line that needs no Celery app."""
    beatstore(prog_name="beatstore")
