"""For the tests of your schedules: virtual time, without broker, workers or waiting.

    from beatstore import testing

    store = testing.store(start=datetime(2026, 1, 15, tzinfo=timezone.utc))
    store.add("extract", "etl.extract", "0 2 * * *")
    store.add("load", "etl.load", after=["extract"])
    ledger = testing.simulate(store, until=timedelta(days=1), outcome={"load": "failed"})
    print(ledger)

What is simulated are the workers, the broker and time. What decides is what decides in
earnest: the tick's statements and the workers' reports, on the store's own database.

Invariants:
    * The same store and arguments give the same ledger.
    * However a span of time is cut into calls, the same happens: a call goes on with the
      runs that the one before has left under way.
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

#: Where the clock of `store` stands if nothing else is asked for: a quiet Thursday.
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def store(start: datetime = START, *, settings: Settings | None = None) -> Store:
    """Return a store with a clock to be moved by hand, on empty tables of its own.

    They are in a temporary SQLite file, which is gone when the store is. `close()` the store
    when the test is over, as any other.

    Args:
        start: where the clock stands; an aware datetime.
        settings: the defaults of the rule, as beat will have them.
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
    """Let time pass, and the entries of a store and their dependencies run in it.

    The clock jumps from each instant at which something is to be done to the next, and
    stands at `until` in the end. The rows are those that beat and workers would have
    written, so that `store.runs()`, `store.explain()` and the like tell of it too.

    Args:
        store: whose clock is a `ManualClock`, as of `beatstore.testing.store()`.
        until: when it ends: what is due at that instant is not in it; or how long it takes.
        start: where the clock is put first; None: where it stands. Beat was not there in
            between.
        outcome: how runs end: "succeeded", "failed", "lost" or "cancelled", an exception, or
            an `Outcome`; a list of these, for the first runs of each entry; a callable that
            is given a `Work` and returns one of these; or a mapping from the names of
            entries to any of these. What is not said succeeds.
        duration: how many seconds a run takes; a list, a callable or a mapping likewise.
            What is not said takes a second.
        concurrency: how many runs the workers can do at the same time; None: all.
        downtime: when beat is away, from and to. Workers go on.

    Returns:
        What happened, in order, and what is left waiting.

    Raises:
        ConfigError: an argument can't be used.
        EntryNotFoundError: a mapping names an entry that the store does not have.
        UnavailableError: the database did not answer.
    """
    clock = _clock_of(store)
    begin = clock.now() if start is None else _aware("start", start)
    if begin < clock.now():
        now = clock.now().isoformat()
        raise ConfigError("start", begin.isoformat(), f"{now}, where the clock stands, or later")
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
        "a store with a ManualClock, by which time is moved",
        "beatstore.testing.store(), or Store(url, clock=ManualClock(datetime(…, tzinfo=…)))",
    )


def _aware(field: str, at: object) -> datetime:
    if isinstance(at, datetime) and at.tzinfo is not None:
        return at.astimezone(timezone.utc)
    raise ConfigError(field, at, "an aware datetime", "datetime(2026, 1, 15, tzinfo=timezone.utc)")
