"""What an edge costs: one upstream of many downstreams, and many of one.

A beat without a broker, and a worker's reports, in this process: what is measured is the
database's part, from the completions to the claims, marked.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import sqlalchemy as sa

from beatstore import ManualClock, Store
from beatstore.database.tables import DEPENDENCY, ENTRY
from beatstore.tick.claims import Claim
from beatstore.tick.queue import Queue
from beatstore.tick.reports import Origin, Report, Reports
from benchmarks.places import Places, optimize, reset, server_of
from benchmarks.report import Table
from tests.support.harness.ticks import tick

__all__ = ["measure"]

_NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)
_BATCH = 20


def measure(places: Places) -> list[Table]:
    """Compare ten times as many edges."""
    sizes = (100, 1000) if places.quick else (1000, 10_000)
    table = Table(
        "Cost of an edge, from completion to claim",
        ["edges", *(f"{size:,}" for size in sizes), "ratio", "target"],
    )
    with places.database("postgresql") as url:
        for title, ways in _WAYS.items():
            costs = [_run(url, size, *ways) for size in sizes]
            ratio = costs[1] / costs[0]
            target = f"< 2: {'met' if ratio < 2 else '**missed**'}"
            table.add(title, *(f"{cost * 1e6:.0f} us" for cost in costs), f"{ratio:.2f}", target)
        table.notes.append(server_of(url))
        table.notes.append(f"Completions are written {_BATCH} at a time, each followed by a tick.")
    return [table]


#: Whether many wait for one, and in which order the many end.
_WAYS = {
    "one upstream, many downstreams": (True, 1),
    "many upstreams of one, ending in order": (False, 1),
    "many upstreams of one, the newest first": (False, -1),
}


def _run(url: str, size: int, out: bool, order: int) -> float:
    """Return the seconds for an edge."""
    reset(url)
    clock = ManualClock(_NOON)
    store = Store(url, clock=clock)
    queue = Queue(store.database, store.settings, "bench")
    reports = Reports(store.database, store.settings)
    _link(store, size, out=out)
    optimize(url)
    tick(queue)
    clock.set(_NOON + timedelta(hours=1))
    ups = sorted(tick(queue), key=lambda claim: order * claim.run_id)
    assert len(ups) == (1 if out else size)
    started = time.perf_counter()
    downs = _complete(queue, reports, ups)
    took = time.perf_counter() - started
    assert len(downs) == len({claim.name for claim in downs}) == (size if out else 1)
    for each in (queue, reports, store):
        each.close()
    return took / size


def _link(store: Store, size: int, *, out: bool) -> None:
    """Store one entry and `size` others, with the edges between them."""
    cron = {"kind": "cron", "spec": "0 13 * * *", "timezone": "UTC", "created_at": _NOON}
    after = {"kind": "after", "spec": "", "timezone": "UTC", "created_at": _NOON}
    the_one = ENTRY.alias("the_one")
    many = ENTRY.alias("many")
    ends = (many.c.id, the_one.c.id) if out else (the_one.c.id, many.c.id)
    others = sa.and_(the_one.c.name == "one", many.c.name != "one")
    pairs = sa.select(*ends).select_from(the_one.join(many, others))
    with store.database.engine.begin() as connection:
        one, others = (cron, after) if out else (after, cron)
        connection.execute(sa.insert(ENTRY), {"name": "one", "task": "bench.work", **one})
        names = [{"name": f"n{number:06}", "task": "bench.work"} for number in range(size)]
        connection.execute(sa.insert(ENTRY), [{**row, **others} for row in names])
        columns = ["downstream_id", "upstream_id"]
        edges = sa.insert(DEPENDENCY).from_select(columns, pairs, include_defaults=False)
        connection.execute(edges)


def _complete(queue: Queue, reports: Reports, ups: Sequence[Claim]) -> list[Claim]:
    """Let all runs succeed, with ticks between, and return what was sent."""
    sent: list[Claim] = []
    for at in range(0, len(ups), _BATCH):
        now = time.monotonic()
        origins = [Origin(claim.run_id, claim.task_id) for claim in ups[at : at + _BATCH]]
        reports.write([Report(origin, "succeeded", now, "bench") for origin in origins])
        sent += tick(queue)
    return sent
