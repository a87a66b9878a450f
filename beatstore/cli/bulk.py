"""The verbs that do one thing to one or many entries: pause, resume, remove, trigger, cancel.

Entries are chosen by name, or by the filters of `list`. Each entry is a transaction of its
own; for pause and resume, each thousand. One that is refused does not stop the others: the verb
reports it, and exits with 1.

On failure: the verb ends when it loses the database; what it has printed is done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click

from beatstore.cli.context import open_store
from beatstore.cli.group import REFUSED, fail
from beatstore.cli.names import complete_entry
from beatstore.cli.options import filters, json_option, reason_option
from beatstore.cli.output import View
from beatstore.cli.writing import is_terminal, note
from beatstore.errors import EntryError, ScheduleError
from beatstore.store import StateReport, Store

__all__ = ["cancel", "pause", "remove", "resume", "trigger"]

F = TypeVar("F", bound=Callable[..., Any])

#: How many names are read at a time.
_PAGE = 10_000

#: The key of a remark for people, printed after the state.
_REMARK = "remark"

_CHOSEN = ("tag", "state", "name", "source")

#: What a verb does to one entry; returns the result as facts.
_Act = Callable[[Store, str], Mapping[str, Any]]

#: What a verb does to a page of entries.
_ActOnMany = Callable[[Store, Sequence[str]], StateReport]

#: Does a verb's work on entries, and yields what came of each as facts.
_Work = Callable[[Store, Sequence[str]], Iterator[dict[str, Any]]]

#: The facts about an entry, before anything is done to it.
_NOTHING: Mapping[str, Any] = {"name": None, "state": None, "error": None}

#: How many entries are changed in a transaction.
_AT_ONCE = 1000


def _many(command: F) -> F:
    """Add the arguments that choose entries, and the options `--reason`, `--yes` and `--json`."""
    command = click.pass_context(command)  # type: ignore[assignment]
    command = json_option(command)
    command = reason_option(command)
    command = click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")(
        command
    )
    command = click.option("--all", "all_", is_flag=True, help="Choose every entry.")(command)
    command = filters(command)
    return click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_entry)(
        command
    )


@click.command()
@_many
def pause(context: click.Context, /, **params: Any) -> None:
    """Pause entries.

    A paused entry sends nothing until you resume it. Entries that are over or broken stay
    as they are.
    """
    _do(context, params, "pause", _in_pages(Store.pause_many, "paused"), "active")


@click.command()
@_many
def resume(context: click.Context, /, **params: Any) -> None:
    """Resume paused or broken entries.

    Due times during the pause are not run, and do not count as missed.
    """
    _do(context, params, "resume", _in_pages(Store.resume_many, "active"), "paused", "broken")


@click.command()
@_many
def remove(context: click.Context, /, **params: Any) -> None:
    """Delete entries and keep their runs.

    Runs that have not been sent are cancelled.
    """

    def act(store: Store, name: str) -> Mapping[str, Any]:
        store.remove(name)
        return {"state": "removed"}

    _do(context, params, "remove", _one_by_one(act))


@click.command()
@_many
def trigger(context: click.Context, /, **params: Any) -> None:
    """Run entries once now; ignores schedules, dependencies and pause.

    Also runs entries that are finished or missed. The schedule stays as it is.
    """

    def act(store: Store, name: str) -> Mapping[str, Any]:
        run = store.trigger(name)
        facts = {"state": "triggered", "run_id": run.id, "task_id": run.task_id}
        return {**facts, _REMARK: f" (run {run.id})"}

    _do(context, params, "trigger", _one_by_one(act), "active", "paused", "finished", "missed")


@click.command()
@_many
def cancel(context: click.Context, /, **params: Any) -> None:
    """Cancel entries for good, if it is not too late.

    It is too late if the last run has been sent or is about to be, or if its time was
    missed; the exit code is then 1. A task that was stored because its ETA is far off is
    named by its task id.
    """

    def act(store: Store, name: str) -> Mapping[str, Any]:
        if store.cancel(name):
            return {"state": "cancelled"}
        entry = store.get(name)
        return {"state": entry.state, "error": f"too late to cancel: it is already {entry.state}"}

    _do(context, params, "cancel", _one_by_one(act), "active", "paused", "broken")


# -- which, and whether ----------------------------------------------------------------------


def _do(
    context: click.Context, params: Mapping[str, Any], verb: str, work: _Work, *states: str
) -> None:
    """Do the work on the chosen entries, and report it.

    Args:
        context: of the verb.
        params: its options.
        verb: its name, for questions.
        work: what it does to them.
        states: the states that a filter without --state selects; none: all.
    """
    store = open_store(context)
    names, by_name = _chosen(context, store, params, states)
    if not names:
        View(context, json=params["as_json"]).rows((), (), nothing="no entry matches")
        return
    if verb in ("remove", "cancel") or not by_name:
        _ask(context, params, verb, names)
    view = View(context, json=params["as_json"])
    if _report(view, work(store, names)):
        raise click.exceptions.Exit(REFUSED)


def _chosen(
    context: click.Context, store: Store, params: Mapping[str, Any], states: Sequence[str]
) -> tuple[list[str], bool]:
    """Return the names of the chosen entries, and whether they were given by name."""
    chosen = {key: params[key] for key in _CHOSEN if params[key] is not None}
    names = list(dict.fromkeys(params["names"]))
    if bool(names) + bool(chosen) + params["all_"] != 1:
        raise click.UsageError(
            "No entries chosen. Write their names, or filters such as --tag etl or "
            "--name 'etl*', or --all; not several of these.",
            context,
        )
    if names:
        return names, True
    asked: Sequence[str | None] = [chosen["state"]] if "state" in chosen else states or [None]
    return sorted(name for state in asked for name in _all_names(store, chosen, state)), False


def _all_names(store: Store, chosen: Mapping[str, Any], state: str | None) -> Iterator[str]:
    after: str | None = None
    while True:
        page = store.names(**{**chosen, "state": state}, limit=_PAGE, after=after)
        yield from page
        if not page.more:
            return
        after = page[-1]


def _ask(
    context: click.Context, params: Mapping[str, Any], verb: str, names: Sequence[str]
) -> None:
    """Ask for confirmation, unless --yes was given."""
    if params["yes"]:
        return
    which = repr(names[0]) if len(names) == 1 else f"{len(names):,} entries"
    if not can_ask():
        raise fail(
            f"cannot ask whether to {verb} {which}, since this is not a terminal: write --yes"
        )
    if not click.confirm(f"{verb.capitalize()} {which}?", err=True):
        raise fail("nothing was changed")


def can_ask() -> bool:
    """Return whether standard input is a terminal."""
    return is_terminal(sys.stdin)


def _one_by_one(act: _Act) -> _Work:
    """Return work that calls `act` for each entry."""

    def work(store: Store, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        for name in names:
            try:
                yield {**_NOTHING, "name": name, **act(store, name)}
            except (EntryError, ScheduleError) as error:
                yield {**_NOTHING, "name": name, "error": str(error)}

    return work


def _in_pages(act: _ActOnMany, state: str) -> _Work:
    """Return work that calls `act` for a thousand entries at a time; they are to have `state`."""

    def work(store: Store, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(names), _AT_ONCE):
            page = names[start : start + _AT_ONCE]
            report = act(store, page)
            errors = {page[one.index]: one.error for one in report.refused}
            for name in page:
                found = report.states.get(name)
                remark = "" if found == state else ", unchanged"
                facts = {"state": found, "error": errors.get(name), _REMARK: remark}
                yield {"name": name, **facts}

    return work


def _report(view: View, done: Iterator[dict[str, Any]]) -> int:
    """Print each result as it comes, and return how many entries were refused."""
    refused = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal refused
        for row in done:
            refused += row["error"] is not None
            yield row

    if view.json:
        facts = ({key: row[key] for key in row if key != _REMARK} for row in counted())
        view.rows((), facts, nothing="")
        return refused
    for row in counted():
        if row["error"] is not None:
            note(f"{row['name']}: {view.advised(row['error'])}")
        else:
            view.line(f"{row['name']}: {row['state']}{row.get(_REMARK, '')}")
    return refused
