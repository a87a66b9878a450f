"""The dashboard's first page in a terminal: printed once, and live on a real pseudo-terminal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import click
import pytest
from sqlalchemy import make_url, text

from beatstore import Every, Store
from beatstore.cli.output import View
from beatstore.cli.table import width_of
from beatstore.cli.today import fitted, sections
from beatstore.cli.top import _Live
from beatstore.models import BeatModel, RunModel
from beatstore.store.today import today
from tests.support.command import Command
from tests.support.processes import ROOT
from tests.support.proxy import Proxy
from tests.support.terminal import ENTERED, LEFT, Terminal
from tests.support.wait import wait_until
from tests.support.written import HOUR, MINUTE, run, write

pytestmark = [pytest.mark.quick_on("sqlite"), pytest.mark.any_database]

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
on_servers = pytest.mark.parametrize("backend", ["postgresql", "mariadb"], indirect=True)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Hand out `terminal(*command, columns=, lines=)`."""
    with ExitStack() as stack:

        def started(*command: str, **size: int) -> Terminal:
            found = Terminal(*command, **size)
            stack.callback(found.close)
            return found

        yield started


def scene(store: Store, beats: int = 1) -> None:
    """Store entries, runs of the last hours that failed and succeeded, and beats."""
    now = store.now()
    entry = store.add("etl.load", "t.a", Every(3600), paused=True)
    store.add("日本の-report", "t.b", Every(600))
    times = {"sent_at": now - 3 * HOUR, "finished_at": now - 3 * HOUR}
    rows = [
        run(entry, now - 3 * HOUR - number * MINUTE, state="failed", error=said, **times)
        for number, said in enumerate(["ValueError: row 17", "ValueError: row 4", "日本: né"])
    ]
    rows += [
        run(entry, now - (number + 1) * MINUTE, state="succeeded", finished_at=now, sent_at=now)
        for number in range(4)
    ]
    write(store, RunModel, *rows)
    alive = {"heartbeat_at": now, "started_at": now - HOUR, "version": "1", "tzdata": "1"}
    write(
        store,
        BeatModel,
        *({"id": f"b{n}", "host": f"h{n}", "pid": n, **alive} for n in range(beats)),
    )


# -- printed once --------------------------------------------------------------------------


@pytest.mark.parametrize("given", [[], ["--once"]])
def test_a_pipe_gets_the_page_once(migrated_url: str, store: Store, given: list[str]) -> None:
    """In a pipe the page is printed once, with all that the dashboard's first page shows."""
    scene(store)
    done = Command(migrated_url)("top", *given)
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    assert "s3cr3t" not in done.out
    said = "\n".join(" ".join(line.split()) for line in done.lines)
    for part in (
        "entries: 1 active, 1 paused",
        "overdue: ",
        "waiting: none",
        "sent late by: ",
        "last hour: 4 succeeded",
        "7 runs in the last 12 hours, 3 of them failed, lost or missed; ",
        "2 ValueError: row # etl.load 3 h ago",
        "1 日本: né etl.load 3 h 2 min ago",
        "beat h0 pid 0: alive",
        "no worker has reported",
    ):
        assert part in said, f"{part}\n{said}"
    for warning in store.status().warnings:
        assert f"! {warning[:20]}" in done.out
    bars = done.lines[done.lines.index("load, 12 hours back and on") + 1 :]
    assert re.fullmatch(r"[ ▁▂▃▄▅▆▇█]{96}", bars[0].ljust(96))
    assert "█" in bars[0]
    assert bars[1].index("✗") in range(2 * 24 - 2 * 8, 2 * 24 - 2 * 5)
    assert bars[2].index("└ now ") == 2 * 24


def test_an_empty_database(migrated_url: str) -> None:
    """Without entries, runs and beats, each part says that there is nothing."""
    done = Command(migrated_url)("top")
    assert done.code == 0, done.err
    said = "\n".join(" ".join(line.split()) for line in done.lines)
    assert "entries: none\noverdue: none\nwaiting: none" in said
    assert "failures of the last day\nnone" in said
    assert "no beat is on record\nno worker has reported" in said


@on_sqlite
def test_times_in_a_zone(migrated_url: str, store: Store) -> None:
    """Times and the axis of the load are in the zone that is asked for."""
    done = Command(migrated_url)("top", "--timezone", "Asia/Kolkata")
    assert "Asia/Kolkata" in done.lines[0]
    there = store.now() + timedelta(hours=5, minutes=30)
    near = [f"└ now {there - late:%H:%M}" for late in (0 * MINUTE, MINUTE)]
    assert any(one in done.out for one in near)


@on_sqlite
def test_once_on_a_terminal(
    migrated_url: str, store: Store, terminal: Callable[..., Terminal]
) -> None:
    """`--once` prints the page without escape codes on a terminal too."""
    scene(store)
    shown = terminal("--url", migrated_url, "top", "--once")
    assert shown.ended() == 0
    assert "\x1b" not in shown.written
    assert "entries:      1 active, 1 paused" in shown.written


@on_sqlite
def test_the_extra_web_is_not_needed(migrated_url: str) -> None:
    """The page is shown where neither werkzeug nor jinja2 is installed."""
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(['werkzeug', 'jinja2', 'markupsafe'])\n"
        "from beatstore.cli import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--url", migrated_url, "top"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "entries:" in done.stdout


@on_sqlite
@pytest.mark.parametrize("given", ["0.5", "0", "2d", "nan", "x"])
def test_an_interval_that_is_refused(migrated_url: str, given: str) -> None:
    """An interval below a second, or that is none, is a wrong usage."""
    done = Command(migrated_url)("top", "--interval", given)
    assert done.code == 2
    assert "--interval" in done.err


# -- what fits -----------------------------------------------------------------------------


@on_sqlite
def test_the_page_fits_every_terminal(migrated_url: str, store: Store) -> None:
    """No line is too wide and no page too high, whatever the size; what is cut is counted."""
    scene(store, beats=30)
    with store.reading() as session:
        found = today(store, session)
    with click.Context(click.Command("x")) as context:
        view = View(context, store=store)
        view.now = found.status.now
        parts = {width: sections(found, view, width) for width in (*range(1, 130, 3), 80, 300)}
    for width, page in parts.items():
        for height in (*range(1, 60, 3), 24, 200):
            lines = [line.shown(width) for line in fitted(page, height)]
            assert len(lines) <= height, (width, height)
            assert max(map(width_of, lines)) <= width, (width, height)
    whole = [line.shown(80) for line in fitted(parts[80], 200)]
    assert sum(line.startswith("beat h") for line in whole) == 30
    for height in (20, 24, 30, 40):
        lines = [line.shown(80) for line in fitted(parts[80], height)]
        shown = sum(line.startswith("beat h") for line in lines)
        assert f"… and {31 - shown} more" in lines, height
        assert any("ValueError" in line for line in lines)


# -- live ----------------------------------------------------------------------------------


@on_sqlite
def test_the_page_is_drawn_again(
    migrated_url: str, store: Store, terminal: Callable[..., Terminal]
) -> None:
    """A change shows up by itself, in place, and `q` brings back the screen before."""
    scene(store)
    shown = terminal("--url", migrated_url, "top", "--interval", "1")
    shown.shows(r"entries: +1 active, 1 paused")
    assert shown.frame[-1] == "every 1s; p pauses, q quits"
    assert not shown.is_as_before()
    store.add("more", "t.c", Every(60))
    shown.shows(r"entries: +2 active, 1 paused")
    shown.type("q")
    assert shown.ended() == 0
    assert shown.written.count(ENTERED) == 1
    assert shown.written.endswith(LEFT)
    assert shown.is_as_before()


@on_sqlite
@pytest.mark.parametrize(
    ("end", "code"), [("\x03", 0), (signal.SIGINT, 0), (signal.SIGTERM, 143), ("\x1c", 131)]
)
def test_the_terminal_is_as_before(
    migrated_url: str, terminal: Callable[..., Terminal], end: Any, code: int
) -> None:
    r"""Ctrl-C, Ctrl-\ and SIGTERM leave the screen, the cursor and the modes as they were."""
    shown = terminal("--url", migrated_url, "top", "--interval", "60")
    shown.shows("entries:")
    shown.type(end) if isinstance(end, str) else shown.process.send_signal(end)
    assert shown.ended() == code
    assert shown.is_as_before()
    assert "Traceback" not in shown.written


@on_sqlite
def test_the_page_follows_the_size(
    migrated_url: str, store: Store, terminal: Callable[..., Terminal]
) -> None:
    """A terminal that changes its size gets a page of that size at once."""
    scene(store, beats=30)
    shown = terminal("--url", migrated_url, "top", "--interval", "1h", columns=100, lines=60)
    shown.shows("beat h29")
    for columns, lines in ((40, 20), (20, 6), (120, 60)):
        shown.resize(columns, lines)
        shown.shows("beat h29" if lines == 60 else r"… and \d+ more")
        wait_until(lambda: len(shown.frame) <= lines and max(map(width_of, shown.frame)) <= columns)  # noqa: B023
        assert shown.frame[-1].startswith("every 1h; p ")
    shown.type("q")
    assert shown.ended() == 0


@on_sqlite
def test_ctrl_z(migrated_url: str, terminal: Callable[..., Terminal]) -> None:
    """While the process is stopped the shell has its terminal back; then the page goes on."""
    shown = terminal("--url", migrated_url, "top", "--interval", "60")
    shown.shows("entries:")
    shown.type("\x1a")
    stopped = lambda: os.WIFSTOPPED(os.waitpid(shown.process.pid, os.WUNTRACED | os.WNOHANG)[1])  # noqa: E731
    wait_until(stopped)
    assert shown.is_as_before()
    shown.process.send_signal(signal.SIGCONT)
    wait_until(lambda: shown.written.count(ENTERED) == 2)
    shown.type("q")
    assert shown.ended() == 0
    assert shown.is_as_before()


@on_sqlite
def test_an_error_is_told_after_the_page(
    migrated_url: str, store: Store, terminal: Callable[..., Terminal]
) -> None:
    """An error that is no outage ends the page: one line below the screen before."""
    shown = terminal("--url", migrated_url, "top", "--interval", "1")
    shown.shows("entries:")
    with store.database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE beatstore_entry RENAME TO gone"))
    assert shown.ended() == 3
    screen, _, after = shown.written.rpartition(LEFT)
    assert screen
    assert re.fullmatch(r"beatstore: .+\n", after), after
    assert shown.is_as_before()


@on_servers
def test_an_outage_is_shown(
    migrated_url: str, store: Store, terminal: Callable[..., Terminal]
) -> None:
    """Without the database the page says so, keeps its figures, and goes on when it is back."""
    scene(store)
    url = make_url(migrated_url)
    with Proxy(url.port or 0) as proxy:
        there = url.set(host="127.0.0.1", port=proxy.port, query={})
        given = there.render_as_string(hide_password=False)
        shown = terminal("--url", given, "top", "--interval", "1", columns=200)
        shown.shows(r"entries: +1 active, 1 paused")
        assert not shown.frame[1].startswith("!")
        proxy.refuse = True
        proxy.cut()
        shown.shows(r"\n! .*127\.0\.0\.1")
        shown.shows(r"entries: +1 active, 1 paused")
        store.add("more", "t.c", Every(60))
        proxy.refuse = False
        shown.shows(r"entries: +2 active, 1 paused")
        assert not shown.frame[1].startswith("!")
        assert not url.password or f":{url.password}@" not in shown.written
        proxy.hold()  # while the database is silent, keys are answered
        shown.shows("waiting for the database for")
        shown.type("q")
        assert shown.ended() == 0
        assert shown.is_as_before()


def test_a_server_that_is_away_at_first(terminal: Callable[..., Terminal]) -> None:
    """A page that begins during an outage says so too, without the password."""
    shown = terminal("--url", "postgresql+psycopg://me:s3cr3t@127.0.0.1:1/db", "top")
    shown.shows(r"\n! .*127\.0\.0\.1")
    shown.type("\x1bOP")  # F1, which is no p
    shown.resize(30, 30)
    wait_until(lambda: max(map(len, shown.frame)) <= 30)
    assert shown.frame[-1].startswith("every 5s; p pauses")
    shown.type("q")
    assert shown.ended() == 0
    assert "s3cr3t" not in shown.written


class Scripted:
    """A screen whose keys are known; `drawn` has its pages, and `waited` how long it may wait."""

    def __init__(self, *keys: str) -> None:
        self.ended_by: int | None = None
        self.size = (100, 40)
        self.drawn: list[str] = []
        self.waited: list[float | None] = []
        self._keys = list(keys)
        self.live: _Live | None = None

    def draw(self, lines: list[str]) -> None:
        self.drawn.append("\n".join(lines))

    def wake(self) -> None:
        pass

    def wait(self, timeout: float | None) -> str:
        assert self.live is not None
        self.live._reader.close()
        wait_until(lambda: self.live is None or self.live._reader.since is None)
        self.waited.append(timeout)
        return self._keys.pop(0) if self._keys else "q"


@on_sqlite
def test_p_pauses(store: Store) -> None:
    """While the page is paused nothing is read, however long; another `p` reads at once."""
    screen = Scripted("", "p", "", "", "p", "", "q")
    with click.Context(click.Command("x")) as context:
        view = View(context, store=store)
        given: Any = screen
        screen.live = _Live(context, given, store, view, 60.0)
        screen.live.run()
    paused = [page.endswith("paused; p goes on, q quits") for page in screen.drawn]
    assert paused == [False, False, True, True, True, False, False]
    assert [timeout is None for timeout in screen.waited] == paused
    assert "reading …" in screen.drawn[0]
    assert "entries:" in screen.drawn[1]
    # Before the pause the next page would have come after a minute.
    assert screen.waited[1] is not None
    assert 50 < screen.waited[1] <= 60
    assert screen.waited[5] == screen.waited[0]
