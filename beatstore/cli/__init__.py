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

from beatstore.cli.group import Verbs, show_version

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
    "Runs and answers": {
        "next": (
            "coming:next_",
            "Show what is sent next: the due times of all entries, or of one.",
        ),
        "runs": (
            "runs:runs",
            "Show what became of due times, the newest first, a page at a time.",
        ),
        "run": ("run:run", "Show everything about one run, by its id or that of its task."),
        "errors": (
            "runs:errors",
            "Show the last runs that failed or were lost, the newest first.",
        ),
        "rerun": (
            "actions:rerun",
            "Send runs that are over once more, as next attempts of the same due times.",
        ),
        "end": (
            "actions:end",
            "End runs that no worker will report, as when their messages were purged.",
        ),
        "why": ("runs:why", "Say why an entry has or has not run."),
        "graph": (
            "graphs:graph",
            "Show what depends on what: of all entries that do, or of those around one.",
        ),
        "audit": (
            "runs:audit",
            "Show who changed what through beatstore, the newest first.",
        ),
    },
    "Operating": {
        "migrate": (
            "operating:migrate",
            "Create the tables, or bring them to the revision this version needs.",
        ),
        "status": (
            "operating:status",
            "Show how things stand: entries, runs, lateness, beats, workers, and what to mend.",
        ),
        "check": (
            "operating:check",
            "Say whether what is due is sent, by the exit code: for monitors that call a person.",
        ),
        "tick": (
            "operating:tick",
            "Send what is due once, and end: for a system's cron, without a beat.",
        ),
        "prune": (
            "operating:prune",
            "Delete what is over and old: one-shots, runs, and what the audit says of then.",
        ),
    },
    "Moving entries": {
        "export": ("transfer:export", "Write entries as lines of JSON, for `load`."),
        "load": (
            "transfer:load",
            "Store the entries that `export` wrote, from a file or the standard input.",
        ),
        "sync": (
            "sync:sync",
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
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the version, and those of what it works with.",
)
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
