"""What does a person with the dashboard open cost a beat and workers at full speed?

A real beat and two real workers have more to do than they can. By turns, a reader loads pages of
a real `beatstore web`, one each two seconds, or nobody does. Turns are short and many, since what
else a machine does comes and goes; what counts is the ratio of each pair of turns. Where it is too
noisy for that, the CPU that the pages took says what they can have cost at most.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.cookiejar import CookieJar
from statistics import median
from typing import Any
from urllib.request import HTTPCookieProcessor, build_opener

import sqlalchemy as sa

from beatstore.models import RunModel
from benchmarks.app import TASK
from benchmarks.beat import RealBeat, cpu_of
from benchmarks.cli import fill_history
from benchmarks.places import Places, insert_due, server_of
from benchmarks.report import Table, ms, quantile, verdict
from tests.support.brokers import Broker
from tests.support.processes import Process, below
from tests.support.project import Project
from tests.support.wait import wait_until

__all__ = ["measure"]

#: The pages that are loaded, one after another.
PAGES = ("", "entries", "entry?name=far-4711", "runs")

#: Seconds from the start of a page to the start of the next one.
PAUSE = 2.0

#: With a reader, the rates are to be at least this part of those without.
TARGET = 0.95

#: Entries that are due each second: more than any beat here sends.
DUE = 20_000

_RUN: Any = RunModel.__table__

_BACKENDS = sa.text(
    "SELECT pid, application_name FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@dataclass
class Turn:
    """What happened in some seconds.

    Attributes:
        began: its start.
        ended: its end.
        cpu: CPU seconds, by who used them.
        pages: the seconds that each page took; empty: nobody read.
        sent: messages that the beat sent.
        done: tasks that the workers ended.
    """

    began: datetime
    ended: datetime
    cpu: dict[str, float]
    pages: list[float] = field(default_factory=list)
    sent: int = 0
    done: int = 0

    @property
    def seconds(self) -> float:
        """How long it was."""
        return (self.ended - self.began).total_seconds()


#: What is compared: a label, the figure of a turn, and how it is written.
_RATES: dict[str, Callable[[Turn], float]] = {
    "messages sent per second": lambda turn: turn.sent / turn.seconds,
    "tasks ended per second": lambda turn: turn.done / turn.seconds,
}
_COSTS: dict[str, Callable[[Turn], float]] = {
    "CPU of the beat, µs a message": lambda turn: 1e6 * turn.cpu["beat"] / turn.sent,
    "CPU of the workers, µs a task": lambda turn: 1e6 * turn.cpu["workers"] / turn.done,
    "CPU of the database for them, µs a task": lambda turn: 1e6 * turn.cpu["database"] / turn.done,
}


def measure(places: Places) -> list[Table]:
    """Measure on PostgreSQL and Redis."""
    stored, pairs = (20_000, 8) if places.quick else (100_000, 24)
    seconds = len(PAGES) * PAUSE
    with places.database("postgresql") as url, places.broker("redis") as broker:
        fill_history(url, stored, 10)
        first = datetime.now(timezone.utc) - timedelta(seconds=1)
        insert_due(url, _each_second(first), task=TASK, kind="every")
        with _scene(places, url, broker) as scene:
            turns = [
                scene.turn(seconds, reading=reading)
                for pair in range(pairs)
                for reading in ((False, True), (True, False))[pair % 2]
            ]
        table = _compared(turns, f"{stored:,} entries, {10 * stored:,} runs")
        table.notes.append(f"{server_of(url)}; {len(turns)} turns of {seconds:g} s.")
    return [table]


def _each_second(first: datetime) -> list[dict[str, Any]]:
    spec = f"1 from {first.isoformat()}"
    return [
        {"name": f"due-{n}", "spec": spec, "wake_at": first, "created_at": first, "args": [n]}
        for n in range(DUE)
    ]


def _compared(turns: list[Turn], stored: str) -> Table:
    quiet = [turn for turn in turns if not turn.pages]
    read = [turn for turn in turns if turn.pages]
    table = Table(
        f"A reader beside a beat and two workers at full speed; {stored}",
        ["", "nobody reads", f"a page each {PAUSE:g} s", "ratio", "its quartiles", "target"],
    )
    for label, figure in (_RATES | _COSTS).items():
        pairs = [(figure(a), figure(b)) for a, b in zip(quiet, read, strict=True)]
        ratios = [b / a for a, b in pairs]
        middle = median(ratios)
        shown = [f"{median(side):,.0f}" for side in zip(*pairs, strict=True)]
        quartiles = f"{quantile(ratios, 0.25):.2f} to {quantile(ratios, 0.75):.2f}"
        rate = label in _RATES
        met = f"> {TARGET}: {verdict(middle, TARGET, above=True)}" if rate else ""
        table.add(label, *shown, f"{middle:.3f}", quartiles, met)
        table.ratios[f"{label}: with a reader to without"] = middle
    seconds, total = sum(turn.seconds for turn in read), 0.0
    for who in ("dashboard", "database for the dashboard"):
        share = sum(turn.cpu[who] for turn in read) / seconds
        total += share
        table.add(f"CPU of the {who}", "", f"{share:.1%} of a core", "", "", "")
    cores = os.cpu_count() or 1
    table.figures[f"CPU of the pages, part of {cores} cores"] = total / cores
    met = f"< {1 - TARGET:.0%}: {verdict(total / cores, 1 - TARGET)}"
    table.add(f"CPU of both, of {cores} cores", "", f"{total / cores:.1%}", "", "", met)
    pages = [page for turn in read for page in turn.pages]
    table.add("a page: median, slowest", "", f"{ms(median(pages))}, {ms(max(pages))}", "", "", "")
    table.notes.append("A ratio is the median of the ratios of pairs of turns.")
    return table


# -- the processes, and the turns ------------------------------------------------------------


@contextmanager
def _scene(places: Places, url: str, broker: Broker) -> Iterator[_Scene]:
    """Start a beat, two workers and a dashboard."""
    directory = places.directory / "readers"
    # An entry is always late by more than 0 s, so that each look at it sends one run.
    with RealBeat(directory, broker, url, beatstore_default_grace=0) as beat:
        (directory / "others").mkdir()
        project = Project(directory / "others", broker, url, None, "benchmarks.tracked")
        try:
            workers = [project.worker("--loglevel=WARNING", "-Q", broker.queue) for _ in range(2)]
            web = project.celery("beatstore", "web", "--port", "0", "--read-only")
            web.wait_for_output("works once")
            engine = sa.create_engine(url)
            scene = _Scene(engine, broker, beat.process, workers, web)
            wait_until(scene.all_work, 60, "the workers end nothing")
            yield scene
            engine.dispose()
        finally:
            project.close()


class _Scene:
    """Who is measured, and who looks at them."""

    def __init__(
        self,
        engine: sa.Engine,
        broker: Broker,
        beat: Process,
        workers: list[Process],
        web: Process,
    ) -> None:
        self.engine, self.broker = engine, broker
        self.beat, self.workers, self.web = beat, workers, web
        found = re.search(r"(http://\S+/)(\?token=\S+)", web.output())
        assert found is not None, web.output()
        self.address = found[1]
        self.opener = build_opener(HTTPCookieProcessor(CookieJar()))
        self._load(found[2])
        for page in PAGES:
            self._load(page)

    def all_work(self) -> bool:
        """Say whether each worker has ended a task."""
        workers = sa.select(sa.func.count(sa.distinct(_RUN.c.worker)))
        with self.engine.connect() as connection:
            found = connection.scalar(workers.where(_RUN.c.worker != "celery@bench"))
        return found == len(self.workers)

    def turn(self, seconds: float, *, reading: bool) -> Turn:
        """Let everybody work for some seconds, after one that does not count."""
        self.broker.purge()  # so that no turn begins with more messages than the others
        time.sleep(1)
        began, before = datetime.now(timezone.utc), self._cpu()
        pages = self._read(seconds) if reading else time.sleep(seconds)
        after, ended = self._cpu(), datetime.now(timezone.utc)
        spent = {who: after[who] - before[who] for who in after}
        turn = Turn(began, ended, spent, pages or [])
        turn.sent, turn.done = (
            self._count(_RUN.c.sent_at, turn),
            self._count(_RUN.c.finished_at, turn),
        )
        return turn

    def _read(self, seconds: float) -> list[float]:
        began, took = time.monotonic(), []
        for number in range(int(seconds / PAUSE)):
            time.sleep(max(0.0, began + number * PAUSE - time.monotonic()))
            took.append(self._load(PAGES[number % len(PAGES)]))
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        return took

    def _load(self, page: str) -> float:
        started = time.perf_counter()
        with self.opener.open(self.address + page, timeout=60) as answer:
            answer.read()
        return time.perf_counter() - started

    def _cpu(self) -> dict[str, float]:
        """Return the CPU seconds that each has used so far."""
        with self.engine.connect() as connection:
            backends = connection.execute(_BACKENDS).all()
        of_web = {pid for pid, name in backends if name == "beatstore-web"}
        return {
            "beat": cpu_of(self.beat.pid),
            "workers": sum(
                cpu_of(pid) for each in self.workers for pid in (each.pid, *below(each.pid))
            ),
            "dashboard": cpu_of(self.web.pid),
            "database": sum(cpu_of(pid) for pid, _ in backends if pid not in of_web),
            "database for the dashboard": sum(map(cpu_of, of_web)),
        }

    def _count(self, column: Any, turn: Turn) -> int:
        """Return how many runs have an instant of the turn in a column."""
        statement = sa.select(sa.func.count()).where(column >= turn.began, column < turn.ended)
        with self.engine.connect() as connection:
            return int(connection.scalar(statement.select_from(_RUN)) or 0)
