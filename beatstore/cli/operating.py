"""The verbs for operators: migrate, status, check, tick, prune."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import click
from click.core import ParameterSource

from beatstore.beat.pulse import directory, signs
from beatstore.cli.advice import as_commands
from beatstore.cli.bulk import can_ask
from beatstore.cli.context import app_of, open_store
from beatstore.cli.figures import by_state, lateness, overdue, processes, runs_last_hour
from beatstore.cli.group import REFUSED, UNREACHABLE, fail
from beatstore.cli.options import DURATION, json_option, printing
from beatstore.cli.output import View
from beatstore.cli.writing import clean, is_terminal, note, say
from beatstore.database.migrate import revision_of
from beatstore.database.transaction import explained
from beatstore.errors import BrokerError
from beatstore.store import BeatStatus, Health, Status, Store, WorkerStatus
from beatstore.text.secrets import hide
from beatstore.text.values import as_json as json_of
from beatstore.text.values import span

__all__ = ["check", "migrate", "prune", "status", "tick"]

_DAY_S = 86_400


@click.command()
@click.pass_context
def migrate(context: click.Context) -> None:
    """Create the tables, or upgrade them to this version."""
    store = open_store(context, make=True)
    with explained(store.database):
        before = revision_of(store.database)
        store.migrate()
        after = revision_of(store.database)
    done = f"already at revision {after}" if before == after else f"now at revision {after}"
    say(f"beatstore: {store.url} is {done}")


# -- status and alerts ---------------------------------------------------------------------


@click.command()
@printing
@click.pass_context
def status(context: click.Context, *, as_json: bool, timezone: str | None) -> None:
    """Show entries, runs, lateness, beats, workers, and what needs attention."""
    store = open_store(context)
    view = View(context, json=as_json, timezone=timezone)
    found = store.status()
    facts = {"database": store.url, **asdict(found)}
    view.facts(facts, _status_lines(store, found, view))


def _status_lines(store: Store, found: Status, view: View) -> Iterator[tuple[str, str]]:
    yield "database", store.url
    yield view.title("now"), view.at(found.now)
    waiting = f"; {found.waiting:,} waiting" if found.waiting else ""
    yield "entries", (by_state(found.entries) or "none") + waiting
    yield "overdue", overdue(found, view)
    yield "unfinished runs", by_state(found.runs) or "none"
    yield "runs in the last hour", runs_last_hour(found, view) or "none"
    yield "sent late by", lateness(found)
    yield "beats", _listed(found.beats, view) or "none on record"
    yield "workers", _listed(found.workers, view) or "none has reported"
    yield "attention", "\n".join(view.localized(one, name_zone=True) for one in found.warnings)


def _listed(found: Sequence[BeatStatus] | Sequence[WorkerStatus], view: View) -> str:
    lines, more = processes(found, view)
    return "\n".join(lines + ([f"and {more:,} more, stopped"] if more else []))


@click.command()
@click.option(
    "--max-overdue",
    type=DURATION,
    default="60s",
    show_default=True,
    help="How long an entry may be overdue.",
)
@click.option("--no-beat", is_flag=True, help="Do not expect a beat, because `tick` sends.")
@click.option(
    "--self",
    "of_host",
    is_flag=True,
    help="Only check that a beat of this host ticks, for liveness probes; asks no database.",
)
@click.option(
    "--pid", type=int, help="With --self: process id of the beat, if the host has several."
)
@click.option(
    "--max-silence",
    type=DURATION,
    default="2m",
    show_default=True,
    help="With --self: how long ago the last tick may be.",
)
@json_option
@click.pass_context
def check(
    context: click.Context,
    *,
    max_overdue: float,
    no_beat: bool,
    of_host: bool,
    pid: int | None,
    max_silence: float,
    as_json: bool,
) -> None:
    """Check that due entries are sent, for alerts; exit code 1 if not.

    \b
    Exit codes:
      0  a beat is alive, no entry is overdue, and nothing is broken or stuck
      1  something is wrong; the reasons are printed
      3  cannot reach the database, or its tables are missing or of another
         version

    With --self, for probes that restart a beat: 0 if a beat of this host ticks, and 1 if
    none does. The state of the database, the broker and the entries does not matter.
    """  # noqa: D301  (click reads the backspace)
    _refuse_mixed(context, of_host=of_host)
    if of_host:
        facts, reasons, well = _self(pid, max_silence)
    else:
        facts, reasons, well = _whole(open_store(context), max_overdue, no_beat=no_beat)
    if as_json:
        say(json_of({"healthy": not reasons, "reasons": reasons, **facts}))
    else:
        for line in reasons or [well]:
            say(clean(as_commands(line, of_app=app_of(context) is not None)))
    if reasons:
        raise click.exceptions.Exit(REFUSED)


def _refuse_mixed(context: click.Context, *, of_host: bool) -> None:
    """Refuse options of the other kind of check."""
    others = ("max_overdue", "no_beat") if of_host else ("pid", "max_silence")
    for name in others:
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            option = "--" + name.replace("_", "-")
            why = f"{option} does not go with --self" if of_host else f"{option} needs --self"
            raise click.UsageError(f"{why}; see `check --help`", context)


def _self(pid: int | None, max_silence: float) -> tuple[dict[str, Any], list[str], str]:
    """Check that a beat of this host ticks; return facts, problems, and a summary if none."""
    found = [sign for sign in signs() if pid is None or sign.pid == pid]
    facts = {"beats": [{"pid": sign.pid, "silent_s": round(sign.silent_s, 3)} for sign in found]}
    which = "no beat of this host" if pid is None else f"no beat with pid {pid} on this host"
    if not found:
        return facts, [f"{which} ticks: there is no heartbeat file in {directory()}"], ""
    last = found[0]
    last_tick = f"the beat with pid {last.pid} ticked {span(timedelta(seconds=last.silent_s))} ago"
    ticking = any(sign.silent_s <= max_silence + sign.sleeps_s for sign in found)
    allowed = span(max_silence + last.sleeps_s)
    return facts, [] if ticking else [f"{which} ticks: {last_tick} ({allowed} allowed)"], last_tick


def _whole(
    store: Store, max_overdue: float, *, no_beat: bool
) -> tuple[dict[str, Any], list[str], str]:
    """Check the whole system; return facts, problems, and a summary if none."""
    store.check()
    found = store.health()
    waited = found.overdue_since and (found.now - found.overdue_since).total_seconds()
    facts = {
        "beats_alive": found.beats_alive,
        "beat_stopped_at": found.beat_stopped_at,
        "overdue_s": waited or 0.0,
        "overdue_since": found.overdue_since,
        "overdue_name": found.overdue_name,
        "overdue_run": found.overdue_run,
        "broken": found.broken,
    }
    beats = "1 beat is" if found.beats_alive == 1 else f"{found.beats_alive} beats are"
    well = f"healthy: {beats} alive, no entry is overdue, and nothing is stuck"
    return facts, _reasons(found, max_overdue, no_beat=no_beat), well


def _reasons(found: Health, max_overdue: float, *, no_beat: bool) -> list[str]:
    reasons = []
    if not found.beats_alive and not no_beat:
        why = "no heartbeat in the last minute"
        if found.beat_stopped_at is not None:
            ago = span(found.now - found.beat_stopped_at)
            why = f"the last one was shut down {ago} ago"
        reasons.append(f"no beat is alive: {why}")
    if found.overdue_since is not None:
        waited = found.now - found.overdue_since
        if waited.total_seconds() > max_overdue:
            reasons.append(f"{_overdue(found, span(waited))} ({span(max_overdue)} allowed)")
    return [*reasons, *found.warnings]


def _overdue(found: Health, waited: str) -> str:
    """Say what has waited for so long."""
    if found.overdue_run is None:
        return f"{found.overdue_name!r} has been due for {waited} and no beat has picked it up"
    which = f"run {found.overdue_run} of {found.overdue_name!r}"
    return f"{which} has been waiting for a beat for {waited}"


# -- sending without a beat ----------------------------------------------------------------


@click.command()
@click.option("--tag", help="Only entries with this tag.")
@click.option(
    "--timeout",
    type=DURATION,
    default="60s",
    show_default=True,
    help="Stop after this time, even if more is due.",
)
@json_option
@click.pass_context
def tick(context: click.Context, *, tag: str | None, timeout: float, as_json: bool) -> None:
    """Send what is due once and exit, to run from cron without a beat.

    It can run at the same time as beats and other ticks. The exit code is 1 if a message
    could not be built or something is left for the next tick, and 3 if it cannot reach the
    database or the broker.
    """
    app = app_of(context)
    if app is None:
        raise click.UsageError(
            "tick needs the tasks and the broker of an app: write `celery -A proj beatstore tick`.",
            context,
        )
    store = open_store(context, make=True)
    from beatstore.beat.once import tick as send  # noqa: PLC0415  (imports celery)

    with _log_lines():
        try:
            report = send(_app_on(app, store), tag=tag, timeout=timeout)
        except BrokerError as error:
            raise fail(f"cannot reach the broker: {error}", UNREACHABLE) from None
    view = View(context, json=as_json)
    counted = (f"{report.sent:,} sent", *_some(report.skipped, "skipped"))
    counted += (*_some(report.failed, "failed"), *_some(report.left, "left for the next tick"))
    counted += ("more is due",) if report.more else ()
    view.facts(asdict(report), [])
    if not as_json:
        view.line(f"{', '.join(counted)}, in {report.seconds:.3g} s")
    if report.failed or report.left or report.more:
        raise click.exceptions.Exit(REFUSED)


def _app_on(app: Any, store: Store) -> Any:
    """Return the app, set to the database of `--url`."""
    settings = store.settings
    names = {"beatstore_url": settings.url, "beatstore_schema": settings.schema}
    if any(app.conf.get(name) != value for name, value in names.items()):
        app.conf.update(names, beatstore_engine_options=dict(settings.engine_options))
    return app


def _some(count: int, what: str) -> tuple[str, ...]:
    return (f"{count:,} {what}",) if count else ()


class _Lines(logging.Handler):
    """Writes log records as one line each, without tracebacks and passwords."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        line = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            line += f": {record.exc_info[1]!r}"
        note(hide(" ".join(line.split())))


@contextmanager
def _log_lines() -> Iterator[None]:
    """Show warnings of the logger `beatstore` within this block."""
    logger, handler = logging.getLogger("beatstore"), _Lines(logging.WARNING)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


# -- clearing ------------------------------------------------------------------------------


@click.command()
@click.option(
    "--days",
    type=click.FloatRange(0, 36_500),
    help="Minimum age; default: the setting beatstore_retention.",
)
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@json_option
@click.pass_context
def prune(context: click.Context, *, days: float | None, yes: bool, as_json: bool) -> None:
    """Delete old data: one-shots that are over, runs, and audit records.

    It keeps the newest run and the last five errors of each entry. Beat does the same by
    itself, following the setting.
    """
    store = open_store(context)
    age = store.settings.retention if days is None else days * _DAY_S
    now = store.now()
    if not yes:
        if not can_ask():
            raise fail("cannot ask whether to prune, since this is not a terminal: write --yes")
        if not click.confirm(f"Delete what is older than {span(age)}?", err=True):
            raise fail("nothing was changed")
    with _progress() as progress:
        deleted = store.prune(age, progress=progress)
    view = View(context, json=as_json)
    before = now - timedelta(seconds=age)
    view.facts({"deleted": deleted, "before": before}, [])
    if not as_json:
        what = "entry or run" if deleted == 1 else "entries and runs"
        view.line(f"deleted {deleted:,} {what} older than {view.with_zone(before)}")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar on a terminal, which counts old runs."""
    if not is_terminal(sys.stderr):
        yield None
        return
    with click.progressbar(length=1, label="old runs", file=sys.stderr, show_pos=True) as bar:

        def move(done: int, total: int) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        yield move
        bar.update(max(0, (bar.length or 1) - bar.pos))
