"""Beats and workers in threads, for races between completions, plans and edits; and two races.

    with Beats(store) as beats:
        runs = start_runs(store, ["a", "b"])
        at_once(*[ending(worker, run) for worker, run in zip(workers, runs)])
        beats.wait_for("c", 1)

Nothing is sent anywhere: what a beat has claimed it marks as sent, and remembers.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import func, insert, select, update

from beatstore import After, Every, Store
from beatstore.database.engine import rolled_back
from beatstore.database.tables import ENTRY, RUN
from beatstore.errors import UnavailableError
from beatstore.schedules.instants import EPOCH
from beatstore.tick.claims import Outcome
from beatstore.tick.queue import Queue
from beatstore.tick.reports import Origin, Report, Reports
from beatstore.types import Align
from tests.support.wait import wait_until

__all__ = ["SELDOM", "Beats", "at_once", "ending", "fan", "join", "start_runs"]

T = TypeVar("T")

#: A schedule that is not due while a test runs.
SELDOM = Every(timedelta(days=100))

MILLISECOND = timedelta(milliseconds=1)


class Beats:
    """Several beats that tick all the time, each in a thread and with a connection of its own.

    Attributes:
        deadlocks: how many plans the database ended to resolve a deadlock.
    """

    def __init__(self, store: Store, count: int = 2) -> None:
        self.deadlocks = 0
        self._sent: Counter[str] = Counter()
        self._ticks = [0] * count
        self._store = store
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._errors: list[Exception] = []
        self._threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(count)
        ]

    def __enter__(self) -> Beats:
        """Start them."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End them; what has gone wrong in one of them is raised here."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        if self._errors:
            raise self._errors[0]

    def sent(self, name: str) -> int:
        """Return how many runs of an entry were sent."""
        with self._lock:
            return self._sent[name]

    def counts(self) -> Counter[str]:
        """Return how many runs of each entry were sent."""
        with self._lock:
            return self._sent.copy()

    def wait_for(self, name: str, count: int, timeout: float = 60) -> None:
        """Wait until so many runs of an entry were sent; fail if there are more."""

        def there() -> bool:
            assert not self._errors, self._errors
            return self.sent(name) >= count

        wait_until(there, timeout, lambda: self._tell(name, count), interval=0.0005)
        assert self.sent(name) == count, self._tell(name, count)

    def wait_until_quiet(self) -> None:
        """Wait until each beat has looked twice more, and nothing is due."""
        begun = list(self._ticks)

        def looked() -> bool:
            return all(now >= then + 3 for now, then in zip(self._ticks, begun, strict=True))

        wait_until(looked, 60, "the beats have stopped", interval=0.001)
        with self._store.database.session() as session:
            due = select(ENTRY.c.name).where(ENTRY.c.wake_at <= self._store.database.now(session))
            late = list(session.scalars(due))
        assert not late, f"left alone: {late}"

    def _tell(self, name: str, count: int) -> str:
        entry = self._store.get(name)
        columns = {key: getattr(entry, key) for key in ENTRY.c.keys()}  # noqa: SIM118
        return f"{name!r} was sent {self.sent(name)} times, not {count}: {columns}"

    def _run(self, number: int) -> None:
        queue = Queue(self._store.database, self._store.settings, str(uuid.uuid4()))
        try:
            while not self._over.is_set():
                try:
                    self._tick(queue)
                except UnavailableError as error:
                    if not rolled_back(error.__cause__):
                        raise
                    with self._lock:
                        self.deadlocks += 1
                self._ticks[number] += 1
        except Exception as error:  # noqa: BLE001  (raised in the test's own thread)
            self._errors.append(error)
        finally:
            queue.close()

    def _tick(self, queue: Queue) -> None:
        look = queue.look()
        claims = []
        if look.run_wake_at is not None and look.run_wake_at <= look.now:
            claims += queue.sweep(look.now).claims
        if look.entry_wake_at is not None and look.entry_wake_at <= look.now:
            claims += queue.plan(look.now)[0]
        if claims:
            queue.mark([Outcome(claim, "sent") for claim in claims])
            with self._lock:
                self._sent.update(claim.name for claim in claims)


def at_once(*calls: Callable[[], T]) -> list[T | Exception]:
    """Make the calls in as many threads at the same moment; return results or errors."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T | Exception:
        barrier.wait(30)
        try:
            return call()
        except Exception as error:  # noqa: BLE001  (the test looks at it)
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def start_runs(store: Store, names: Iterable[str]) -> list[Origin]:
    """Insert a run of each of these entries, all due now, as what workers work on.

    A run that is already there may be of this very instant: the clock of SQLite has
    milliseconds. The next one is then due a millisecond later. A one-shot is finished by it.

    Returns:
        What the messages of the runs are of.
    """
    with store.database.session() as session:
        now = store.database.now(session)
        found = []
        for name in names:
            entry_id = session.scalar(select(ENTRY.c.id).where(ENTRY.c.name == name))
            newest = session.scalar(
                select(func.max(RUN.c.due_at)).where(RUN.c.entry_id == entry_id)
            )
            row = {
                "entry_id": entry_id,
                "entry_name": name,
                "due_at": max(now, newest + MILLISECOND) if newest else now,
                "task_id": str(uuid.uuid4()),
                "state": "started",
            }
            session.execute(insert(RUN), row)
            once = update(ENTRY).where(ENTRY.c.id == entry_id, ENTRY.c.kind == "once")
            session.execute(once.values(state="finished", wake_at=None, next_due_at=None))
            of_row = select(RUN.c.id).where(RUN.c.task_id == row["task_id"])
            found.append(Origin(session.scalars(of_row).one(), str(row["task_id"])))
    return found


def ending(
    reports: Reports, runs: Sequence[Origin] | Origin, state: str = "succeeded"
) -> Callable[[], None]:
    """Return what a worker does when these runs have come to `state`.

    It writes again what was held by another transaction, until everything is written.
    """
    origins = [runs] if isinstance(runs, Origin) else runs

    def end() -> None:
        at = time.monotonic()
        held: Sequence[Report] = [Report(one, state, at, "worker@test") for one in origins]

        def written() -> bool:
            nonlocal held
            held = reports.write(held).held
            return not held

        wait_until(written, 60, lambda: f"still held: {held}", interval=0.01)

    return end


def join(store: Store, rounds: int, align: Align = "latest") -> int:
    """Let two upstreams end at the same instant, again and again: one run for each time.

    Returns:
        How many plans the database ended to resolve a deadlock.
    """
    store.add("a", "t", SELDOM)
    store.add("b", "t", SELDOM)
    store.add("down", "t", after=[After("a", align=align), After("b", align=align)])
    workers = [Reports(store.database, store.settings) for _ in range(2)]
    with Beats(store) as beats:
        for number in range(1, rounds + 1):
            runs = start_runs(store, ["a", "b"])
            ends = [ending(*pair) for pair in zip(workers, runs, strict=True)]
            assert at_once(*ends) == [None, None]
            beats.wait_for("down", number)
        beats.wait_until_quiet()
        assert beats.counts() == {"down": rounds}
    assert len(store.runs("down", limit=rounds + 10)) == rounds
    for worker in workers:
        worker.close()
    return beats.deadlocks


def fan(store: Store, rounds: int, width: int) -> int:
    """Let an upstream end while beats look at its downstreams: each runs once each time.

    Returns:
        How many plans the database ended to resolve a deadlock.
    """
    store.add("up", "t", SELDOM)
    names = [f"down-{number}" for number in range(width)]
    for name in names:
        store.add(name, "t", after=["up"])
    worker = Reports(store.database, store.settings)

    def touch() -> None:
        with store.database.session() as session:
            session.execute(update(ENTRY).where(ENTRY.c.kind == "after").values(wake_at=EPOCH))

    with Beats(store) as beats:
        for number in range(1, rounds + 1):
            touch()
            (run,) = start_runs(store, ["up"])
            assert at_once(ending(worker, run)) == [None]
            for name in names:
                beats.wait_for(name, number)
        beats.wait_until_quiet()
        assert beats.counts() == dict.fromkeys(names, rounds)
    worker.close()
    return beats.deadlocks
