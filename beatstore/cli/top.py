"""The verb top: the dashboard's first page in the terminal, drawn again every few seconds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

import click

from beatstore.cli.context import open_store
from beatstore.cli.group import in_a_line
from beatstore.cli.options import DURATION, ZONE
from beatstore.cli.output import View
from beatstore.cli.screen import Screen
from beatstore.cli.today import Line, fitted, sections
from beatstore.cli.writing import say
from beatstore.errors import UnavailableError
from beatstore.store import Store
from beatstore.store.today import Today, today
from beatstore.text.values import span, write_span

__all__ = ["top"]

#: The least and the most seconds between two pages.
_LEAST = 1.0
_MOST = 86_400.0

#: Seconds that each statement may take.
_TIMEOUT = 5.0

#: A read that takes longer than this many seconds is mentioned.
_SLOW = 2.0

#: Exit code of a program that a signal ended, minus the signal.
_BY_SIGNAL = 128


def _interval(context: click.Context, param: click.Parameter, value: float) -> float:
    if not _LEAST <= value <= _MOST:
        raise click.BadParameter(f"expected 1 second to 1 day, got {write_span(value)}")
    return value


@click.command()
@click.option(
    "--interval",
    type=DURATION,
    default="5s",
    show_default=True,
    callback=_interval,
    help="Time between two pages, at least 1 s.",
)
@click.option("--once", is_flag=True, help="Print the page once and exit.")
@click.option(
    "--timezone", type=ZONE, help="Zone of the shown times; default: that of the settings."
)
@click.pass_context
def top(context: click.Context, *, interval: float, once: bool, timezone: str | None) -> None:
    """Show what needs attention, the load and failures, live.

    It is the first page of the dashboard: warnings, entries and runs by state, how late
    messages are sent, the load of 12 hours back and on, the failures of the last day, beats
    and workers. If the database does not answer, the page says so, and it is asked again.

    q or Ctrl-C ends it, and p pauses it. In a pipe or a file, the page is printed once.
    """
    store = open_store(context)
    view = View(context, timezone=timezone)
    if once or not view.on_terminal or os.environ.get("TERM") == "dumb":
        found = _read(store)
        view.now = found.status.now
        for line in fitted(sections(found, view, view.width), None):
            say(line.shown(view.width))
        return
    with Screen() as screen:
        _Live(context, screen, store, view, interval).run()
    if screen.ended_by not in (None, signal.SIGINT):
        raise click.exceptions.Exit(_BY_SIGNAL + screen.ended_by)


def _read(store: Store) -> Today:
    with store.reading(timeout=_TIMEOUT) as session:
        return today(store, session)


class _Reader:
    """Reads the page in a thread of its own, so that keys work while the database is silent.

    Attributes:
        found: what was read last; None: nothing yet.
        error: why the last read failed; None: it did not.
        since: when the read that is under way began, on the monotonic clock; None: there is none.
    """

    def __init__(self, store: Store, tell: Callable[[], None]) -> None:
        self.found: Today | None = None
        self.error: Exception | None = None
        self.since: float | None = None
        self._store, self._tell = store, tell
        self._thread = Thread()

    def start(self) -> None:
        """Begin to read."""
        self.since = time.monotonic()
        # When the program ends, it does not wait for a database that is silent.
        self._thread = Thread(target=self._run, name="beatstore-top", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give a read that is under way the time that it takes as a rule."""
        with suppress(RuntimeError):  # there was none
            self._thread.join(0.5)

    def _run(self) -> None:
        try:
            self.found, self.error = _read(self._store), None
        except Exception as error:  # noqa: BLE001  (the main thread raises it)
            self.error = error
        self.since = None
        self._tell()


class _Live:
    """Draws the page, and does what the keys say."""

    def __init__(
        self, context: click.Context, screen: Screen, store: Store, view: View, interval: float
    ) -> None:
        self._context, self._screen, self._view, self._interval = context, screen, view, interval
        self._reader = _Reader(store, screen.wake)
        self._next_at = time.monotonic()
        self._paused = False
        self._found: Today | None = None
        self._outage = ""

    def run(self) -> None:
        """Draw until a key or a signal ends it.

        Raises:
            BeatstoreError: the database answers, but not with the tables of this version.
        """
        try:
            while self._screen.ended_by is None:
                self._read()
                self._draw()
                keys = self._screen.wait(self._waits())
                if "q" in keys.lower():
                    return
                if keys.lower().count("p") % 2:
                    self._paused = not self._paused
                    self._next_at = time.monotonic()
        finally:
            self._reader.close()

    def _read(self) -> None:
        """Take what has been read, and begin to read if it is time."""
        if self._paused:
            return
        if self._reader.since is None:
            self._found = self._reader.found
            self._outage = self._failure(self._reader.error)
            if time.monotonic() >= self._next_at:
                self._next_at = time.monotonic() + self._interval
                self._reader.start()

    def _failure(self, error: Exception | None) -> str:
        if error is None:
            return ""
        if not isinstance(error, UnavailableError):
            raise error
        return in_a_line(self._context, error)

    def _waits(self) -> float | None:
        """Return for how many seconds nothing is to be done."""
        if self._paused:
            return None
        if self._reader.since is not None:
            return _LEAST
        return max(0.0, self._next_at - time.monotonic())

    def _draw(self) -> None:
        width, height = self._screen.size
        if self._found is not None:
            self._view.now = self._found.status.now
        parts = sections(self._found, self._view, width, outage=self._outage)
        foot = [Line.of(self._foot(), "dim")] if height > 1 else []
        lines = [*fitted(parts, height - len(foot)), *foot]
        self._screen.draw([line.shown(width, coloured=self._view.coloured) for line in lines])

    def _foot(self) -> str:
        if self._paused:
            return "paused; p goes on, q quits"
        foot = f"every {write_span(self._interval)}; p pauses, q quits"
        since = self._reader.since
        waited = 0.0 if since is None else time.monotonic() - since
        return f"{foot}; waiting for the database for {span(waited)}" if waited > _SLOW else foot
