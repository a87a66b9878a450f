"""Test your schedules in virtual time, without a broker, workers or waiting.

    from beatstore import testing

    store = testing.store(start=datetime(2026, 1, 15, tzinfo=timezone.utc))
    store.add("extract", "etl.extract", "0 2 * * *")
    store.add("load", "etl.load", after=["extract"])
    ledger = testing.simulate(store, until=timedelta(days=1), outcome={"load": "failed"})
    print(ledger)

Workers, broker and time are simulated. The tick's statements and the workers' reports are the
real ones, and run on the store's database.

Invariants:
    * Equal stores and arguments give equal ledgers.
    * Several calls give the same result as one call for the whole time: each continues the
      unfinished runs of the call before. Only messages whose runs were given up before a worker
      took them are gone then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone

from beatstore.clock import ManualClock
from beatstore.config import Settings
from beatstore.errors import ConfigError
from beatstore.store import Store, virtual
from beatstore.testing.ledger import Ledger, Row, Waiting, read_ledger
from beatstore.testing.simulation import Simulation
from beatstore.testing.workers import Durations, Outcome, Outcomes, Script, Work, Workers

__all__ = ["Ledger", "ManualClock", "Outcome", "Row", "Waiting", "Work", "simulate", "store"]

#: The default start of `store`, a Thursday.
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def store(start: datetime = START, *, settings: Settings | None = None) -> Store:
    """Return a store with a manual clock and empty tables of its own.

    The tables are in a temporary SQLite file that is deleted with the store. `close()` the store
    at the end of the test.

    Args:
        start: the time of the clock; an aware datetime.
        settings: the settings, with the same defaults as in beat.
    """
    return virtual.scratch(ManualClock(_aware("start", start)), settings)


def simulate(
    store: Store,
    until: datetime | timedelta,
    start: datetime | None = None,
    *,
    outcome: Outcomes | Mapping[str, Outcomes] | None = None,
    duration: Durations | Mapping[str, Durations] = 1.0,
    concurrency: int | None = None,
    downtime: Iterable[tuple[datetime, datetime]] = (),
) -> Ledger:
    """Run the entries of a store in virtual time.

    The clock jumps to each instant at which beat or a worker has something to do, and ends at
    `until`. The rows are those that beat and workers would write, so `store.runs()`,
    `store.explain()` and other methods show the simulation too.

    Args:
        store: a store with a `ManualClock`, such as `beatstore.testing.store()`.
        until: the end, exclusive; or the length, as a timedelta.
        start: the time to set the clock to first; None keeps it. Beat is down until then.
        outcome: how runs end: "succeeded", "failed", "lost" or "cancelled", an exception, or
            an `Outcome`; a list of these for the first runs of each entry; a callable that
            takes a `Work` and returns one of these; or a mapping from names of entries to any
            of these. The default is "succeeded".
        duration: how many seconds a run takes; or a list, a callable or a mapping, as for
            `outcome`. The default is one second.
        concurrency: the most runs that the workers do at the same time; None: no limit.
        downtime: periods in which beat is down, as pairs of start and end. Workers continue.

    Returns:
        What happened, in order, and what is left waiting.

    Raises:
        ConfigError: an argument is invalid.
        EntryNotFoundError: a mapping names an unknown entry.
        UnavailableError: the database did not answer.
    """
    clock = _clock_of(store)
    begin = clock.now() if start is None else _aware("start", start)
    if begin < clock.now():
        now = clock.now().isoformat()
        raise ConfigError("start", begin.isoformat(), f"{now}, the time of the clock, or later")
    end = begin + until if isinstance(until, timedelta) else _aware("until", until)
    if end < begin:
        raise ConfigError("until", end.isoformat(), f"{begin.isoformat()}, the start, or later")
    if concurrency is not None and concurrency < 1:
        raise ConfigError("concurrency", concurrency, "1 or more, or None for no limit")
    for given in (outcome, duration):
        for name in given if isinstance(given, Mapping) else ():
            store.get(name)
    workers = Workers(Script(outcome, duration), concurrency)
    away = sorted((_aware("downtime", a), _aware("downtime", b)) for a, b in downtime)
    clock.set(begin)
    before = virtual.mark(store.database)
    Simulation(store, clock, workers, away).run(end)
    return read_ledger(store, before, begin, end)


def _clock_of(store: Store) -> ManualClock:
    clock = store.database.clock
    if isinstance(clock, ManualClock):
        return clock
    raise ConfigError(
        "clock",
        clock,
        "a store with a ManualClock",
        "beatstore.testing.store(), or Store(url, clock=ManualClock(datetime(…, tzinfo=…)))",
    )


def _aware(field: str, at: object) -> datetime:
    if isinstance(at, datetime) and at.tzinfo is not None:
        return at.astimezone(timezone.utc)
    raise ConfigError(field, at, "an aware datetime", "datetime(2026, 1, 15, tzinfo=timezone.utc)")
