"""The verbs of those who run it: migrate, status, check, tick, prune."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from beatstore.beat.pulse import directory, signs
from beatstore.cli.bulk import can_ask
from beatstore.cli.context import app_of, open_store
from beatstore.cli.group import REFUSED, UNREACHABLE, fail, hide
from beatstore.cli.options import DURATION, json_option, printing
from beatstore.cli.output import View
from beatstore.cli.values import as_json as json_of
from beatstore.cli.values import span
from beatstore.cli.writing import clean, note, say
from beatstore.database.migrate import revision_of
from beatstore.database.transaction import explained
from beatstore.store import BeatStatus, Health, Status, Store, WorkerStatus

__all__ = ["check", "migrate", "prune", "status", "tick"]

P = TypeVar("P", BeatStatus, WorkerStatus)

_DAY_S = 86_400

#: So many of the processes that were stopped are shown.
_STOPPED_SHOWN = 3


@click.command()
@click.pass_context
def migrate(context: click.Context) -> None:
    """Create the tables, or bring them to the revision this version needs."""
    store = open_store(context, make=True)
    with explained(store.database):
        before = revision_of(store.database)
        store.migrate()
        after = revision_of(store.database)
    done = f"at revision {after} already" if before == after else f"now at revision {after}"
    say(f"beatstore: {store.url} is {done}")


# -- how things stand ----------------------------------------------------------------------


@click.command()
@printing
@click.pass_context
def status(context: click.Context, *, as_json: bool, timezone: str | None) -> None:
    """Show how things stand: entries, runs, lateness, beats, workers, and what to mend."""
    store = open_store(context)
    view = View(context, json=as_json, timezone=timezone)
    found = store.status()
    facts = {"database": store.url, **asdict(found)}
    view.facts(facts, _status_lines(store, found, view))


def _status_lines(store: Store, found: Status, view: View) -> Iterator[tuple[str, str]]:
    yield "database", store.url
    yield view.title("now"), view.at(found.now)
    waiting = f"; {found.waiting:,} waiting" if found.waiting else ""
    yield "entries", (_counts(found.entries) or "none") + waiting
    yield "overdue", _overdue(found, view)
    yield "runs not ended", _counts(found.runs) or "none"
    yield "runs of the last hour", _counts(found.runs_last_hour) or "none"
    if found.lateness_p50_s is not None and found.lateness_p99_s is not None:
        half, most = f"{found.lateness_p50_s:.3g} s", f"{found.lateness_p99_s:.3g} s"
        yield "sent late by", f"{half} (half of them), {most} (99 %)"
    yield "beats", _listed(found.beats, partial(_beat, view=view)) or "none was heard of"
    yield "workers", _listed(found.workers, partial(_worker, view=view)) or "none has reported"
    yield "to mend", "\n".join(view.told(one, name_zone=True) for one in found.warnings)


def _counts(by_state: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in sorted(by_state.items()))


def _overdue(found: Status, view: View) -> str:
    if found.oldest_overdue_at is None:
        return "none"
    return f"{found.overdue:,}, the first since {view.named(found.oldest_overdue_at)}"


def _listed(found: Sequence[P], line: Callable[[P], str]) -> str:
    """Return a line for each process, and of those that were stopped for the newest few."""
    stopped = [one for one in found if one.stopped_at is not None]
    shown = [one for one in found if one.stopped_at is None] + stopped[:_STOPPED_SHOWN]
    more = len(stopped) - _STOPPED_SHOWN
    lines = [line(one) for one in shown] + ([f"and {more:,} more, stopped"] if more > 0 else [])
    return "\n".join(lines)


def _beat(beat: BeatStatus, view: View) -> str:
    took = "" if beat.tick_s is None else f", last tick {beat.tick_s:.3g} s"
    lives = _lives(beat, view)
    return f"{beat.host} pid {beat.pid}: {lives}, {beat.sent:,} sent{took}, {beat.version}"


def _worker(worker: WorkerStatus, view: View) -> str:
    lives = _lives(worker, view)
    return f"{worker.name} pid {worker.pid}: {lives}, {worker.running:,} running, {worker.version}"


def _lives(process: BeatStatus | WorkerStatus, view: View) -> str:
    if process.stopped_at is not None:
        return f"stopped at {view.named(process.stopped_at)}"
    return "alive" if process.alive else f"silent since {view.named(process.heartbeat_at)}"


@click.command()
@click.option(
    "--max-overdue",
    type=DURATION,
    default="60s",
    show_default=True,
    help="For how long something may be due and not looked at.",
)
@click.option("--no-beat", is_flag=True, help="No beat need be alive, where `tick` sends.")
@click.option(
    "--self",
    "of_host",
    is_flag=True,
    help="Only whether a beat of this host ticks, for liveness probes; asks no database.",
)
@click.option("--pid", type=int, help="With --self: which beat, where a host has several.")
@click.option(
    "--max-silence",
    type=DURATION,
    default="2m",
    show_default=True,
    help="With --self: for how long a beat need not have ticked.",
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
    """Say whether what is due is sent, by the exit code: for monitors that call a person.

    0: the tables are of this version, a beat is alive, nothing is overdue, and no entry is
    broken or stands still. 1: something is wrong, which is printed. 3: the database can't say.

    With --self, for probes that restart a beat: 0 if a beat of this host ticks, whatever the
    state of the database, the broker and the entries; 1 if none does.
    """
    _refuse_mixed(context, of_host=of_host)
    if of_host:
        facts, reasons, well = _self(pid, max_silence)
    else:
        facts, reasons, well = _whole(open_store(context), max_overdue, no_beat=no_beat)
    if as_json:
        say(json_of({"healthy": not reasons, "reasons": reasons, **facts}))
    else:
        for line in reasons or [well]:
            say(clean(line))
    if reasons:
        raise click.exceptions.Exit(REFUSED)


def _refuse_mixed(context: click.Context, *, of_host: bool) -> None:
    """Refuse options that the other kind of check does not know."""
    others = ("max_overdue", "no_beat") if of_host else ("pid", "max_silence")
    for name in others:
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            option = "--" + name.replace("_", "-")
            words = "asks no database, and has no" if of_host else "must be given, for"
            raise click.UsageError(f"--self {words} {option}", context)


def _self(pid: int | None, max_silence: float) -> tuple[dict[str, Any], list[str], str]:
    """Ask whether a beat of this host ticks; return facts, what is wrong, or else what is well."""
    found = [sign for sign in signs() if pid is None or sign.pid == pid]
    facts = {"beats": [{"pid": sign.pid, "silent_s": round(sign.silent_s, 3)} for sign in found]}
    which = "no beat of this host" if pid is None else f"no beat with pid {pid} on this host"
    if not found:
        return facts, [f"{which} ticks: none has written to {directory()}"], ""
    last = found[0]
    said = f"the beat with pid {last.pid} ticked {span(timedelta(seconds=last.silent_s))} ago"
    ticking = any(sign.silent_s <= max_silence + sign.sleeps_s for sign in found)
    allowed = span(max_silence + last.sleeps_s)
    return facts, [] if ticking else [f"{which} ticks: {said} ({allowed} allowed)"], said


def _whole(
    store: Store, max_overdue: float, *, no_beat: bool
) -> tuple[dict[str, Any], list[str], str]:
    """Ask how all of it stands; return facts, what is wrong, or else what is well."""
    store.check()
    found = store.health()
    waited = found.overdue_since and (found.now - found.overdue_since).total_seconds()
    facts = {
        "beats_alive": found.beats_alive,
        "beat_stopped_at": found.beat_stopped_at,
        "overdue_s": waited or 0.0,
        "overdue_since": found.overdue_since,
        "broken": found.broken,
    }
    beats = "1 beat is" if found.beats_alive == 1 else f"{found.beats_alive} beats are"
    well = f"healthy: {beats} alive, nothing is overdue, and nothing stands still"
    return facts, _reasons(found, max_overdue, no_beat=no_beat), well


def _reasons(found: Health, max_overdue: float, *, no_beat: bool) -> list[str]:
    reasons = []
    if not found.beats_alive and not no_beat:
        why = "none was heard of in the last minute"
        if found.beat_stopped_at is not None:
            ago = span(found.now - found.beat_stopped_at)
            why = f"the last one was stopped in order {ago} ago"
        reasons.append(f"no beat is alive: {why}")
    if found.overdue_since is not None:
        waited = found.now - found.overdue_since
        if waited.total_seconds() > max_overdue:
            allowed = span(max_overdue)
            reasons.append(f"something is due for {span(waited)}, and not sent ({allowed} allowed)")
    return [*reasons, *found.warnings]


# -- sending without a beat ----------------------------------------------------------------


@click.command()
@click.option("--tag", help="Only entries with this tag.")
@click.option(
    "--timeout",
    type=DURATION,
    default="60s",
    show_default=True,
    help="For how long to go on, if there is so much to do.",
)
@json_option
@click.pass_context
def tick(context: click.Context, *, tag: str | None, timeout: float, as_json: bool) -> None:
    """Send what is due once, and end: for a system's cron, without a beat.

    It may run beside beats, and beside itself. The exit code is 1 if a message could not be
    made, or something was left for the next tick; 3 if the database or broker is away.
    """
    app = app_of(context)
    if app is None:
        raise click.UsageError(
            "Sending takes the tasks and the broker of an app: write `celery -A proj beatstore "
            "tick`.",
            context,
        )
    store = open_store(context, make=True)
    from beatstore.beat.once import tick as send  # noqa: PLC0415
    from beatstore.beat.sender import BrokerError  # noqa: PLC0415  (imports celery)

    with _log_lines():
        try:
            report = send(_app_on(app, store), tag=tag, timeout=timeout)
        except BrokerError as error:
            raise fail(f"the broker is away: {error}", UNREACHABLE) from None
    view = View(context, json=as_json)
    counted = (f"{report.sent:,} sent", *_some(report.skipped, "skipped"))
    counted += (*_some(report.failed, "failed"), *_some(report.left, "left for the next tick"))
    view.facts(asdict(report), [])
    if not as_json:
        view.line(f"{', '.join(counted)}, in {report.seconds:.3g} s")
    if report.failed or report.left:
        raise click.exceptions.Exit(REFUSED)


def _app_on(app: Any, store: Store) -> Any:
    """Return the app, on the database that was named beside it."""
    settings = store.settings
    names = {"beatstore_url": settings.url, "beatstore_schema": settings.schema}
    if any(app.conf.get(name) != value for name, value in names.items()):
        app.conf.update(names, beatstore_engine_options=dict(settings.engine_options))
    return app


def _some(count: int, what: str) -> tuple[str, ...]:
    return (f"{count:,} {what}",) if count else ()


class _Lines(logging.Handler):
    """Writes what is logged as one line each, without a traceback or a password."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        said = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            said += f": {record.exc_info[1]!r}"
        note(hide(" ".join(said.split())))


@contextmanager
def _log_lines() -> Iterator[None]:
    """Show what sending logs, for a while."""
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
    help="What is older; default: the setting beatstore_retention.",
)
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@json_option
@click.pass_context
def prune(context: click.Context, *, days: float | None, yes: bool, as_json: bool) -> None:
    """Delete what is over and old: one-shots, runs, and what the audit says of then.

    The newest run of each entry stays, and so do its last five errors. Beat does the same
    by itself, by the setting.
    """
    store = open_store(context)
    age = store.settings.retention if days is None else days * _DAY_S
    now = store.now()
    if not yes:
        if not can_ask():
            raise fail("prune? Nobody is here to answer: write --yes if you mean it")
        if not click.confirm(f"Delete what is older than {span(age)}?", err=True):
            raise fail("nothing was done")
    with _progress() as progress:
        deleted = store.prune(age, progress=progress)
    view = View(context, json=as_json)
    before = now - timedelta(seconds=age)
    view.facts({"deleted": deleted, "before": before}, [])
    if not as_json:
        what = "entry or run was" if deleted == 1 else "entries and runs were"
        view.line(f"{deleted:,} {what} deleted, from before {view.named(before)}")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on a terminal, of how many old runs were looked at."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=1, label="old runs", file=sys.stderr, show_pos=True) as bar:

        def move(done: int, total: int) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        yield move
        bar.update(max(0, (bar.length or 1) - bar.pos))
