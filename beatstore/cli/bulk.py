"""The verbs that do one thing to one or many entries: pause, resume, remove, trigger, cancel.

Entries are named, or chosen by the filters of `list`. Each is a transaction of its own: one
that is refused does not keep the others from being done, and is told, and makes the exit
code 1.

On failure: a database that goes away ends the verb; what was told is done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click

from beatstore.cli.context import open_store
from beatstore.cli.group import REFUSED, fail
from beatstore.cli.names import complete_entry
from beatstore.cli.options import filters, json_option
from beatstore.cli.output import View
from beatstore.cli.writing import note
from beatstore.errors import EntryError, ScheduleError
from beatstore.store import Store

__all__ = ["cancel", "pause", "remove", "resume", "trigger"]

F = TypeVar("F", bound=Callable[..., Any])

#: How many names are read at a time.
_PAGE = 10_000

#: What is said to people beside the state.
_SAID = "said"

_CHOSEN = ("tag", "state", "name", "source")

#: What a verb does to one entry: it returns what came of it, as facts.
_Act = Callable[[Store, str], Mapping[str, Any]]


def _many(command: F) -> F:
    """Add the entries, by name or by filter, and what every such verb prints."""
    command = click.pass_context(command)  # type: ignore[assignment]
    command = json_option(command)
    command = click.option("--yes", "-y", is_flag=True, help="Don't ask.")(command)
    command = click.option("--all", "all_", is_flag=True, help="Every entry.")(command)
    command = filters(command)
    return click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_entry)(
        command
    )


@click.command()
@_many
def pause(context: click.Context, /, **params: Any) -> None:
    """Let entries send nothing until they are resumed.

    One that is over or broken sends nothing anyway, and is left as it is.
    """

    def act(store: Store, name: str) -> Mapping[str, Any]:
        state = store.pause(name).state
        return {"state": state, _SAID: "" if state == "paused" else ", left as it is"}

    _do(context, params, "pause", act, "active")


@click.command()
@_many
def resume(context: click.Context, /, **params: Any) -> None:
    """Put paused or broken entries back into service.

    What was due while they were paused is neither run nor counted as missed.
    """

    def act(store: Store, name: str) -> Mapping[str, Any]:
        return {"state": store.resume(name).state}

    _do(context, params, "resume", act, "paused", "broken")


@click.command()
@_many
def remove(context: click.Context, /, **params: Any) -> None:
    """Delete entries; their runs stay on record.

    Runs that are not sent yet are cancelled.
    """

    def act(store: Store, name: str) -> Mapping[str, Any]:
        store.remove(name)
        return {"state": "removed"}

    _do(context, params, "remove", act)


@click.command()
@_many
def trigger(context: click.Context, /, **params: Any) -> None:
    """Run entries now, beside their schedules; also paused ones, or those that are over."""

    def act(store: Store, name: str) -> Mapping[str, Any]:
        run = store.trigger(name)
        facts = {"state": "triggered", "run_id": run.id, "task_id": run.task_id}
        return {**facts, _SAID: f" (run {run.id})"}

    _do(context, params, "trigger", act, "active", "paused", "finished", "missed")


@click.command()
@_many
def cancel(context: click.Context, /, **params: Any) -> None:
    """End entries for good, if that is in time.

    A far-off task is named by its task id. Too late is: its last run has been sent or is
    about to be, or its time was missed; then the exit code is 1.
    """

    def act(store: Store, name: str) -> Mapping[str, Any]:
        if store.cancel(name):
            return {"state": "cancelled"}
        entry = store.get(name)
        return {"state": entry.state, "error": f"too late: it is {entry.state} already"}

    _do(context, params, "cancel", act, "active", "paused", "broken")


# -- which, and whether ----------------------------------------------------------------------


def _do(
    context: click.Context, params: Mapping[str, Any], verb: str, act: _Act, *states: str
) -> None:
    """Do one thing to each entry that is meant.

    Args:
        context: of the verb.
        params: its options.
        verb: what is done, for questions.
        act: does it.
        states: of the entries that a filter means where it names no state; none: all.
    """
    store = open_store(context)
    names, by_name = _meant(context, store, params, states)
    if not names:
        View(context, json=params["as_json"]).rows((), (), nothing="no entry matches")
        return
    if verb in ("remove", "cancel") or not by_name:
        _ask(context, params, verb, names)
    view = View(context, json=params["as_json"])
    if _told(view, _done(store, names, act)):
        raise click.exceptions.Exit(REFUSED)


def _meant(
    context: click.Context, store: Store, params: Mapping[str, Any], states: Sequence[str]
) -> tuple[list[str], bool]:
    """Return the names of the entries that are meant, and whether they were named one by one."""
    chosen = {key: params[key] for key in _CHOSEN if params[key] is not None}
    names = list(dict.fromkeys(params["names"]))
    if bool(names) + bool(chosen) + params["all_"] != 1:
        raise click.UsageError(
            "Which entries? Write their names, or filters such as --tag etl or --name 'etl*', "
            "or --all.",
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
    """Go on only if the person says so, or said so before."""
    if params["yes"]:
        return
    which = repr(names[0]) if len(names) == 1 else f"{len(names):,} entries"
    if not can_ask():
        raise fail(f"{verb} {which}? Nobody is here to answer: write --yes if you mean it")
    if not click.confirm(f"{verb.capitalize()} {which}?", err=True):
        raise fail("nothing was done")


def can_ask() -> bool:
    """Say whether somebody sits at a terminal."""
    return sys.stdin.isatty()


def _done(store: Store, names: Sequence[str], act: _Act) -> Iterator[dict[str, Any]]:
    """Do it to each, and yield what came of it."""
    for name in names:
        told: dict[str, Any] = {"name": name, "state": None, "error": None}
        try:
            yield {**told, **act(store, name)}
        except (EntryError, ScheduleError) as error:
            yield {**told, "error": str(error)}


def _told(view: View, done: Iterator[dict[str, Any]]) -> int:
    """Tell what was done as it is done, and return how many were refused."""
    refused = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal refused
        for row in done:
            refused += row["error"] is not None
            yield row

    if view.json:
        facts = ({key: row[key] for key in row if key != _SAID} for row in counted())
        view.rows((), facts, nothing="")
        return refused
    for row in counted():
        if row["error"] is not None:
            note(f"{row['name']}: {row['error']}")
        else:
            view.line(f"{row['name']}: {row['state']}{row.get(_SAID, '')}")
    return refused
