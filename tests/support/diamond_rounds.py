"""Rounds of completions that meet: two upstreams of one downstream, and one of many."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import update

from beatstore import After, Every, Store
from beatstore.database.tables import ENTRY
from beatstore.schedules.instants import EPOCH
from beatstore.tick.reports import Reports
from beatstore.types import Align
from tests.support.diamond_races import Beats, at_once, ending, start_runs

__all__ = ["fan", "join"]

#: A schedule that is not due while a test runs.
SELDOM = Every(timedelta(days=100))


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
