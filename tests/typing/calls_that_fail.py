"""Calls that are wrong: a type checker says so about each line that ends in a comment.

The comment is what makes it a test: where a checker has nothing to say, it complains about
the comment. Nothing here is run; `make type` reads it.
"""

from __future__ import annotations

from datetime import date, timedelta

from celery import Celery
from sqlalchemy.ext.asyncio import AsyncSession

from beatstore import After, Declared, Settings, Store, retryable, scheduled, testing
from beatstore.types import EntryOptions

app = Celery("proj")


def words(store: Store) -> None:
    store.add("a", "t", 60, misfire="coalese")  # type: ignore[arg-type]
    store.add("a", "t", 60, overlap="never")  # type: ignore[arg-type]
    store.put("a", "t", 60, misfire="none")  # type: ignore[arg-type]
    store.change("a", overlap="no")  # type: ignore[arg-type]
    store.schedule("t", countdown=1, misfire="late")  # type: ignore[arg-type]
    store.entries(state="activ")  # type: ignore[arg-type]
    store.names(state="sent")  # type: ignore[arg-type]
    store.names(only="failed")  # type: ignore[arg-type]
    store.runs(state="activ")  # type: ignore[arg-type]
    store.runs(state=["failed", "loste"])  # type: ignore[list-item]
    list(store.export(state="done"))  # type: ignore[arg-type]
    After("b", on="succes")  # type: ignore[arg-type]
    After("b", align="latests")  # type: ignore[arg-type]
    After("b", on_upstream_failure="fail")  # type: ignore[arg-type]
    Declared("a", "t", 60, overlap="never")  # type: ignore[arg-type]
    Declared("a", "t", 60, misfire="none")  # type: ignore[arg-type]
    scheduled("0 2 * * *", misfire="none")  # type: ignore[arg-type]


def unknown(store: Store) -> None:
    store.add("a", "t", 60, misfires="skip")  # type: ignore[call-arg]
    store.put("a", "t", 60, max_retires=3)  # type: ignore[call-arg]
    store.change("a", schedul="0 3 * * *")  # type: ignore[call-arg]
    store.change("a", max_retires=3)  # type: ignore[call-arg]
    store.put("a", "t", 60, if_version=3)  # type: ignore[call-arg]
    store.add("a", "t", 60, new_name="b")  # type: ignore[call-arg]
    store.schedule("t", countdown=1, overlap="skip")  # type: ignore[call-arg]
    store.schedule("t", countdown=1, timezone="UTC")  # type: ignore[call-arg]
    scheduled("0 2 * * *", source="mine")  # type: ignore[call-arg]
    scheduled("0 2 * * *", tag="etl")  # type: ignore[call-arg]
    Declared("a", "t", 60, tag="etl")  # type: ignore[call-arg]
    made: EntryOptions = {"misfires": "skip"}  # type: ignore[typeddict-unknown-key]
    store.add("a", "t", 60, **made)


def tasks(store: Store) -> None:
    store.add("a", 17, 60)  # type: ignore[arg-type]
    store.add("a", None, 60)  # type: ignore[arg-type]
    store.put("a", ["t"], 60)  # type: ignore[arg-type]
    store.change("a", task=17)  # type: ignore[arg-type]
    store.change("a", if_version="3")  # type: ignore[arg-type]
    store.by("me", 7)  # type: ignore[arg-type]
    store.schedule(17, countdown=1)  # type: ignore[arg-type]
    Declared("a", 17, 60)  # type: ignore[arg-type]
    retryable("proj.report")  # type: ignore[arg-type]


def schedules(store: Store) -> None:
    store.add("a", "t", object())  # type: ignore[arg-type]
    store.add("a", "t", date(2030, 1, 1))  # type: ignore[arg-type]
    store.put("a", "t", ["0 2 * * *"])  # type: ignore[arg-type]
    store.change("a", schedule=b"0 2 * * *")  # type: ignore[arg-type]
    store.schedule("t", at="2030-01-01")  # type: ignore[arg-type]
    store.reschedule("a", 60)  # type: ignore[arg-type]
    scheduled(object())  # type: ignore[arg-type]


def values(store: Store) -> None:
    store.add("a", "t", 60, max_retries="3")  # type: ignore[arg-type]
    store.add("a", "t", 60, grace="5m")  # type: ignore[arg-type]
    store.add("a", "t", 60, start_at="2030-01-01")  # type: ignore[arg-type]
    store.add("a", "t", 60, kwargs=[1])  # type: ignore[arg-type]
    store.add("a", "t", 60, after=[1])  # type: ignore[list-item]
    store.put("a", "t", 60, paused=None)  # type: ignore[arg-type]
    store.entries(limit="all")  # type: ignore[arg-type]
    store.link("a", 1)  # type: ignore[arg-type]
    store.rerun(1.5)  # type: ignore[arg-type]
    store.end(7, "lost")  # type: ignore[arg-type]
    store.run(None)  # type: ignore[arg-type]
    store.runs(sort="name")  # type: ignore[arg-type]
    store.sync(["a"], source="mine")  # type: ignore[list-item]
    store.load([1])  # type: ignore[list-item]
    Store(5)  # type: ignore[arg-type]
    Store.from_app("proj")  # type: ignore[arg-type]


async def sessions(store: Store, session: AsyncSession) -> None:
    store.pause("a", session=session)  # type: ignore[arg-type]
    store.add("a", "t", 60, session=session)  # type: ignore[arg-type]
    store.change("a", session=session)  # type: ignore[arg-type]
    store.schedule("t", countdown=1, session=session)  # type: ignore[arg-type]
    store.status(session=session)  # type: ignore[arg-type]
    store.now(session="session")  # type: ignore[arg-type]


def returned(store: Store) -> None:
    entry = store.get("a")
    entry.state = "paused"  # type: ignore[misc]
    entry.args.append(1)  # type: ignore[attr-defined]
    entry.kwargs["a"] = 1  # type: ignore[index]
    entry.schedule.next_after(entry.created_at)  # type: ignore[union-attr]
    entry.tags = ("x",)  # type: ignore[misc]
    store.runs()[0].state = "failed"  # type: ignore[misc]
    store.audit()[0].actor = "me"  # type: ignore[misc]
    store.entries(include="tag")  # type: ignore[arg-type]
    store.add_many(["a"])  # type: ignore[list-item]
    store.schedule_many(["a"])  # type: ignore[list-item]
    store.pause_many([1])  # type: ignore[list-item]
    store.schedule_many([("a", "2030-01-01")])  # type: ignore[list-item]
    store.entries(include=["tags", "runs"])  # type: ignore[list-item]


def virtual(store: Store) -> None:
    testing.store("2030-01-01")  # type: ignore[arg-type]
    testing.simulate(store, 60)  # type: ignore[arg-type]
    testing.simulate(store, timedelta(days=1), outcome="fails")  # type: ignore[arg-type]
    testing.Outcome("failde")  # type: ignore[arg-type]
    Settings(default_misfire="none")  # type: ignore[arg-type]
