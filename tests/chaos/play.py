"""A chaos run from its beginning to its end: the ledger of it."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from beatstore import BeatstoreError, Store
from tests.chaos.cluster import Cluster
from tests.chaos.collect import read_lines, read_tables, sample, unrest
from tests.chaos.faults import Faults, Trouble, script
from tests.chaos.ledger import Event, Ledger, Sample
from tests.chaos.user import User

__all__ = ["Plan", "play", "play_on"]

#: After the last fault all is healthy, and clocks go on for so long.
_RECOVERY = 20.0

#: And then everything must come to rest within so many seconds.
_REST = 150.0

_SAMPLED_EVERY = 3.0


@dataclass(frozen=True)
class Plan:
    """What to do: the options of the command."""

    seed: int
    minutes: float
    database: str
    broker: str

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.minutes:g} min, {self.database}, {self.broker}"


class _Watcher(threading.Thread):
    """Looks every few seconds at what is overdue."""

    def __init__(self, store: Store, over: threading.Event) -> None:
        super().__init__(name="watcher", daemon=True)
        self.store = store
        self.over = over
        self.samples: list[Sample] = []

    def run(self) -> None:
        """Look until it is over; what can't be read now is read next time."""
        while not self.over.wait(_SAMPLED_EVERY):
            try:
                self.samples.append(sample(self.store))
            except Exception:  # noqa: BLE001  (the database is away, in one of many ways)
                continue


def play(plan: Plan, directory: Path) -> Ledger:
    """Play one run, and return what is known of it.

    Args:
        plan: what to do.
        directory: for logs, the witness and the ledger.
    """
    rng = random.Random(plan.seed)
    faults = script(rng, plan.minutes * 60, plan.database, plan.broker)
    cluster = Cluster(directory, plan.database, plan.broker)
    try:
        trouble = Faults(cluster, faults, threading.Event())
        return play_on(cluster, trouble, str(plan), plan.minutes * 60, rng)
    finally:
        cluster.close()


def play_on(
    cluster: Cluster,
    trouble: Trouble,
    title: str,
    seconds: float,
    rng: random.Random,
    *,
    slack: float = 0.0,
) -> Ledger:
    """Play the world on a cluster while there is trouble, and return what is known of it.

    Args:
        cluster: started by this, and left to the caller to close.
        trouble: what happens to it; its `over` is set at the end.
        title: of the ledger.
        seconds: how long it goes on; less, where the trouble says that it is over.
        rng: what the user's acts are drawn from.
        slack: of the ledger.
    """
    store = Store(cluster.url)
    store.migrate()
    over, watched = trouble.over, threading.Event()
    user = User(store, random.Random(rng.random()), over)
    watcher = _Watcher(store, watched)
    begun = time.time()
    user.set_up()
    cluster.start()
    nobody = Event("no beat", begun, time.time())
    watcher.start()
    user.start()
    trouble.start()
    over.wait(seconds)
    over.set()
    for thread in (trouble, user):
        thread.join(120)
        if thread.error is not None:
            raise thread.error
    time.sleep(_RECOVERY)
    stopped = user.stop_clocks()
    stopped_by = time.time()
    at_rest = _rest(store)
    watched.set()
    watcher.join(30)
    runs, entries, edges, now = read_tables(store)
    store.close()
    return Ledger(
        title,
        begun,
        stopped,
        stopped_by,
        now,
        at_rest,
        runs,
        entries,
        edges,
        user.lives,
        user.acts,
        [nobody, *trouble.events, *user.transactions],
        read_lines(cluster.directory / "runs.jsonl"),
        watcher.samples,
        slack,
    )


def _rest(store: Store) -> bool:
    """Wait until nothing is under way any more; say whether that came to be."""
    deadline = time.monotonic() + _REST
    while time.monotonic() < deadline:
        try:
            if not unrest(read_tables(store)):
                return True
        except BeatstoreError:
            pass
        time.sleep(1)
    return False
