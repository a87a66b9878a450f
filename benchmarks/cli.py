"""How soon do the verbs of the command line answer, with many entries stored and beat running?

Each verb is called in this process, for the work that is its own, and as a process, as a
person waits for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import datetime, timezone
from statistics import median
from typing import Any

import sqlalchemy as sa
from click.testing import CliRunner

from beatstore.cli import beatstore
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN, TAG
from benchmarks.beat import RealBeat
from benchmarks.places import Places, fill, optimize, server_of
from benchmarks.report import Table, ms, verdict
from tests.support.processes import ROOT

__all__ = ["fill_history", "measure", "median_of"]

#: A verb may take so long of its own, in seconds.
TARGET = 1.0

_MAIN = "from beatstore.cli import main; main()"

VERBS = (
    ("list",),
    ("list", "--after", "far-7", "--limit", "1000"),
    ("list", "--tag", "many"),
    ("list", "--tag", "few"),
    ("list", "--state", "paused"),
    ("list", "--name", "*999*"),
    ("list", "--source", "nobody"),
    ("show", "far-4711"),
    ("next",),
    ("next", "--count", "1000"),
    ("next", "--tag", "few"),
    ("next", "--name", "*999*"),
    ("next", "far-4710", "--count", "100"),
    ("runs",),
    ("runs", "far-1"),
    ("runs", "--since", "1d"),
    ("runs", "--tag", "many"),
    ("runs", "--tag", "few"),
    ("runs", "--state", "failed"),
    ("runs", "--worker", "nobody", "--since", "1d"),
    ("errors",),
    ("errors", "far-1"),
    ("errors", "--since", "30d"),
    ("why", "far-4711"),
    ("audit",),
    ("graph", "far-1"),
    ("graph", "--tag", "few"),
    ("graph", "--format", "dot"),
    ("status",),
    ("check",),
    ("export", "--tag", "few"),
)


#: Verbs that are called as processes too.
AS_PROCESSES = {("list",), ("next",), ("runs",), ("status",), ("check",)}


def measure(places: Places) -> list[Table]:
    """Measure on PostgreSQL and SQLite, with a beat."""
    stored = 20_000 if places.quick else 100_000
    table = Table(
        f"The command line: {stored:,} entries, {3 * stored:,} runs",
        ["verb", "PostgreSQL", "as a process", "SQLite", "as a process", f"< {TARGET:g} s"],
    )
    took: dict[tuple[str, ...], list[float | None]] = {verb: [] for verb in VERBS}
    for kind in ("postgresql", "sqlite"):
        with places.database(kind) as url, places.broker("redis") as broker:
            fill_history(url, stored, 3)
            table.notes.append(f"{server_of(url)}.")
            with RealBeat(places.directory / f"cli-{kind}", broker, url) as beat:
                beat.wait_for_ticks(3)
                for verb in VERBS:
                    whole = _as_process(url, verb) if verb in AS_PROCESSES else None
                    took[verb] += [_in_process(url, verb), whole]
    for verb, seconds in took.items():
        own = [each for each in seconds[0::2] if each is not None]
        shown = ["" if each is None else ms(each) for each in seconds]
        table.add(" ".join(verb), *shown, verdict(max(own), TARGET))
    table.notes.append("The median of three calls after a first, in this process; or all of one.")
    return [table]


def _in_process(url: str, verb: tuple[str, ...]) -> float:
    def call() -> None:
        result = CliRunner().invoke(beatstore, ["--url", url, *verb])
        assert result.exit_code == 0, (verb, result.output)

    return median_of(call)


def _as_process(url: str, verb: tuple[str, ...]) -> float:
    command = [sys.executable, "-c", _MAIN, "--url", url, *verb]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}

    def call() -> None:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (verb, done.stderr)

    return median_of(call)


def median_of(call: Any) -> float:
    call()
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def fill_history(url: str, count: int, runs_each: int) -> None:
    """Store entries, two tags, a chain and a fan of edges, and a month of runs.

    A third of the entries is due once in the coming day, each at a time of its own.
    """
    total = runs_each * count
    fill(url, count)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        rows = connection.execute(sa.select(ENTRY.c.id, ENTRY.c.name).order_by(ENTRY.c.id)).all()
        ids = [row.id for row in rows]
        tags = [{"entry_id": entry_id, "tag": "many"} for entry_id in ids[::10]]
        tags += [{"entry_id": entry_id, "tag": "few"} for entry_id in ids[:: count // 10]]
        connection.execute(sa.insert(TAG), tags)
        now = time.time()
        for last in range(total, 0, -10_000):
            numbers = range(last - 1, max(last - 10_001, -1), -1)
            runs = [_run(rows[n % count], n, now - 30 * 86_400 * n / total) for n in numbers]
            connection.execute(sa.insert(RUN), runs)
    with engine.begin() as connection:
        far = {row.name: row.id for row in rows}
        edges = [(far[f"far-{n}"], far[f"far-{n + 1}"]) for n in range(10)]
        edges += [(far["far-20"], entry_id) for entry_id in ids[-1000:]]
        connection.execute(
            sa.insert(DEPENDENCY),
            [{"upstream_id": up, "downstream_id": down} for up, down in edges],
        )
        held = (
            sa.update(ENTRY).where(ENTRY.c.id.in_(ids[::1000])).values(state="paused", wake_at=None)
        )
        # Last, since the triggers have beats look at whatever is new or edited.
        _spread(connection)
        connection.execute(held)
    engine.dispose()
    optimize(url)


def _spread(connection: sa.Connection) -> None:
    """Give the rows the instants that beats leave in them."""
    after = {
        "postgresql": "statement_timestamp() + (600 + {0}) * interval '1 s'",
        "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now', (600 + {0}) || ' seconds')",
    }.get(connection.dialect.name, "UTC_TIMESTAMP(6) + INTERVAL (600 + {0}) SECOND")
    within = after.format("id * 7919 % 85000")
    day_ago, week_ago = (after.format(f"id * 7919 % 85000 - {days} * 86400") for days in (1, 7))
    for kind, columns in {
        "every": f"wake_at = {within}, next_due_at = {within}, cursor_at = {day_ago}, "
        f"created_at = {week_ago}",
        "once": "wake_at = '2999-01-01', next_due_at = '2999-01-01'",
        "cron": "wake_at = '2028-02-29', next_due_at = '2028-02-29'",
    }.items():
        connection.execute(sa.text(f"UPDATE {ENTRY.name} SET {columns} WHERE kind = '{kind}'"))


def _run(entry: Any, number: int, due_at: float) -> dict[str, Any]:
    at = datetime.fromtimestamp(due_at, timezone.utc)
    failed = number % 1000 == 1
    return {
        "entry_id": entry.id,
        "entry_name": entry.name,
        "due_at": at,
        "task_id": f"{entry.id}-{number}",
        "state": "failed" if failed else "succeeded",
        "error": "ValueError: no" if failed else None,
        "worker": "celery@bench",
        "sent_at": at,
        "started_at": at,
        "finished_at": at,
    }
