"""The command line: `celery -A proj beatstore …`, and `beatstore --url …` without an app.

One implementation for both. This module knows the verbs by name only, so that asking for
help, or starting any other command of celery's, imports none of them, and no SQLAlchemy.

    group       the group of verbs: help, completion, errors and exit codes
    context     the store that a verb works on: that of the app, or of `--url`
    options     options that several verbs share, and their types
    output      tables for people, JSON for programs
    entries, runs, graphs, operating, transfer, …   the verbs

On failure: one line on stderr and an exit code, which `group` lists; never a traceback, and
never a password.
"""

from __future__ import annotations

import click

from beatstore.cli.group import Verbs, show_version

__all__ = ["beatstore", "main"]

#: The verbs by heading of the help: "module:function" and a one-line summary of each.
VERBS: dict[str, dict[str, tuple[str, str]]] = {
    "Entries": {
        "list": ("entries:list_", "List entries, a page at a time."),
        "show": ("entries:show", "Show everything about one entry."),
        "add": ("entries:add", "Add an entry and show when it is due."),
        "change": ("entries:change", "Change some fields of an entry and keep the rest."),
        "pause": ("bulk:pause", "Pause entries."),
        "resume": ("bulk:resume", "Resume paused or broken entries."),
        "remove": ("bulk:remove", "Delete entries and keep their runs."),
        "trigger": (
            "bulk:trigger",
            "Run entries once now; ignores schedules, dependencies and pause.",
        ),
        "schedule": (
            "entries:schedule",
            "Send a task once: at a time, after a delay, or after other entries.",
        ),
        "cancel": ("bulk:cancel", "Cancel entries for good, if it is not too late."),
    },
    "Runs and diagnosis": {
        "next": (
            "coming:next_",
            "List the next due times of all entries, or of one.",
        ),
        "runs": (
            "runs:runs",
            "List runs, newest first, with due times that were missed or skipped.",
        ),
        "run": ("run:run", "Show everything about one run, by its id or its task id."),
        "errors": (
            "runs:errors",
            "List the last runs that failed or were lost, newest first.",
        ),
        "rerun": (
            "actions:rerun",
            "Send runs that have ended again, as the next attempt.",
        ),
        "end": (
            "actions:end",
            "End runs that no worker will report, such as after a purge.",
        ),
        "why": ("runs:why", "Explain why an entry has or has not run."),
        "graph": (
            "graphs:graph",
            "Draw the dependencies of all entries, or around one.",
        ),
        "audit": (
            "runs:audit",
            "List who changed what through beatstore, newest first.",
        ),
    },
    "Operating": {
        "migrate": (
            "operating:migrate",
            "Create the tables, or upgrade them to this version.",
        ),
        "status": (
            "operating:status",
            "Show entries, runs, lateness, beats, workers, and what needs attention.",
        ),
        "top": (
            "top:top",
            "Show what needs attention, the load and failures, live.",
        ),
        "check": (
            "operating:check",
            "Check that due entries are sent, for alerts; exit code 1 if not.",
        ),
        "tick": (
            "operating:tick",
            "Send what is due once and exit, to run from cron without a beat.",
        ),
        "prune": (
            "operating:prune",
            "Delete old data: one-shots that are over, runs, and audit records.",
        ),
        "web": ("web:web", "Serve the dashboard to browsers, until Ctrl-C or SIGTERM."),
    },
    "Moving entries": {
        "export": ("transfer:export", "Write entries as JSON lines, for `load`."),
        "load": (
            "transfer:load",
            "Store entries that `export` wrote, from a file or standard input.",
        ),
        "sync": (
            "sync:sync",
            "Store the entries that code declares, as beat does when it starts.",
        ),
        "import": (
            "importing:import_",
            "Move entries from django-celery-beat or sqlalchemy-celery-beat.",
        ),
    },
}


@click.group(cls=Verbs, verbs=VERBS, name="beatstore")
@click.option("--url", metavar="URL", help="SQLAlchemy URL of the database.")
@click.option("--schema", help="Database schema of the tables.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the versions of beatstore, Celery, SQLAlchemy and Python.",
)
def beatstore(url: str | None, schema: str | None) -> None:
    """Manage the entries that beat sends.

    The database is that of the Celery app, or the one given by --url or BEATSTORE_URL
    (with --schema or BEATSTORE_SCHEMA). `beatstore COMMAND --help` shows the options of
    a command.

    \b
    Exit codes:
      0  done
      1  refused, not found, or too late
      2  wrong usage, or an invalid setting
      3  cannot reach the database or the broker, or the tables are missing or
         of another version
    """  # noqa: D301  (click reads the backspace)
    del url, schema  # read off the context, which completion makes without calling this


def main() -> None:
    """Run the command line that needs no Celery app."""
    beatstore(prog_name="beatstore")
