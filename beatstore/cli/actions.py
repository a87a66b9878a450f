"""The verbs that act on runs: rerun, end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from beatstore.cli.context import open_store
from beatstore.cli.group import REFUSED
from beatstore.cli.options import RUN_ID, json_option, reason_option
from beatstore.cli.output import View
from beatstore.cli.writing import note
from beatstore.errors import EntryError
from beatstore.records import Run
from beatstore.store.actions import END_STATES
from beatstore.types import EndState

__all__ = ["end", "rerun"]


@click.command()
@click.argument("runs", nargs=-1, required=True, type=RUN_ID, metavar="RUN_ID|TASK_ID...")
@reason_option
@json_option
@click.pass_context
def rerun(
    context: click.Context,
    runs: tuple[int | str, ...],
    audit_reason: str | None,
    as_json: bool,
) -> None:
    """Send runs that have ended again, as the next attempt.

    `runs` and `errors` show the id of a run; the worker's log shows its task id. The new
    attempt has the same due time; beat sends it at its next tick, and ignores dependencies
    and pause.
    """
    store = open_store(context)
    _for_each(
        View(context, json=as_json),
        runs,
        lambda run_id: {"new_run_id": (made := store.rerun(run_id)).id, **_facts(made)},
        lambda row: f"attempt {row['attempt']}, run {row['new_run_id']}",
    )


@click.command()
@click.argument("runs", nargs=-1, required=True, type=RUN_ID, metavar="RUN_ID|TASK_ID...")
@click.option(
    "--as", "state", type=click.Choice(END_STATES), required=True, help="The state to give them."
)
@click.option("--reason", help="Why; shown with the run, and noted in the audit.")
@json_option
@click.pass_context
def end(
    context: click.Context,
    runs: tuple[int | str, ...],
    state: EndState,
    reason: str | None,
    as_json: bool,
) -> None:
    """End runs that no worker will report, such as after a purge.

    Only for runs that are sent or started. At its next tick, beat releases the entries that
    wait for these runs, and retries failed ones whose entry has retries left.
    """
    store = open_store(context)
    _for_each(
        View(context, json=as_json),
        runs,
        lambda run_id: {
            **_facts(made := store.end(run_id, state, reason=reason)),
            "state": made.state,
        },
        lambda row: f"attempt {row['attempt']}, {row['state']}",
    )


def _for_each(
    view: View,
    runs: Sequence[int | str],
    act: Callable[[int | str], dict[str, Any]],
    describe: Callable[[dict[str, Any]], str],
) -> None:
    """Call `act` for each run, print the results, and exit with 1 if any run was refused."""
    done = []
    for run_id in runs:
        row: dict[str, Any] = {"run_id": run_id, "error": None}
        try:
            done.append({**row, **act(run_id)})
        except EntryError as error:
            done.append({**row, "error": str(error)})
            note(f"run {run_id}: {view.advised(str(error))}")
    good = [row for row in done if row["error"] is None]
    if view.json:
        view.rows((), done, nothing="")
    else:
        for row in good:
            view.line(f"{row['name']}, due {view.with_zone(row['due_at'])}: {describe(row)}")
    if len(good) < len(done):
        raise click.exceptions.Exit(REFUSED)


def _facts(run: Run) -> dict[str, Any]:
    return {
        "name": run.entry_name,
        "due_at": run.due_at,
        "attempt": run.attempt,
        "task_id": run.task_id,
    }
