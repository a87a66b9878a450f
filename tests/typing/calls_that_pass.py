"""Calls as people write them: a type checker has nothing to say about any of them.

Nothing here is run; `make type` reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

from alembic import context
from celery import Celery, chain, chord, group, shared_task
from celery.schedules import crontab, schedule, solar
from sqlalchemy import create_engine, make_url, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, scoped_session

import beatstore
from beatstore import (
    After,
    Audit,
    Cron,
    Declared,
    Entry,
    Every,
    Once,
    RRule,
    Run,
    Schedule,
    Solar,
    Store,
    daily,
    scheduled,
    testing,
)
from beatstore.alembic import include_object
from beatstore.models import EntryModel, RunModel
from beatstore.types import EntryOptions, EntryState, Misfire, SessionLike

UTC = timezone.utc
AT = datetime(2030, 1, 31, 9, 30, tzinfo=UTC)

app = Celery("proj", broker="memory://")
beatstore.setup(app)


@app.task
def report(city: str) -> None: ...


@app.task(bind=True, max_retries=3)
def bound(self: Any, number: int) -> int:
    return number


@app.task(base=beatstore.Task)
def kept(number: int) -> int:
    return number


@shared_task
def shared(one: int, *, two: str = "") -> str:
    return two


@scheduled("0 9 * * mon-fri", timezone="Europe/Berlin", args=["Berlin"], misfire="skip")
@scheduled(Every(60), name="often", overlap="wait", after=[shared, After(report, on="done"), "x"])
@app.task
def marked(city: str) -> None: ...


@app.task
@scheduled(crontab(minute="0"), paused=True, max_retries=3, retry_delay=timedelta(minutes=1))
def marked_below() -> None: ...


@scheduled(after=report)
@shared_task
def marked_shared() -> None: ...


SCHEDULES = [
    Declared("nightly", "etl.extract", "0 2 * * *", timezone="Europe/Berlin", misfire="all"),
    Declared("load", report, after=["nightly"], max_retries=3, overlap="skip"),
    Declared("signed", report.s("Rome"), Every(60), tags=["a"], grace=timedelta(minutes=5)),
]


def stores() -> None:
    for target in ("sqlite://", make_url("sqlite://"), create_engine("sqlite://")):
        Store(target, schema=None).by("me").migrate()
    Store.from_app(app).check()
    Store.from_app(app, engine=create_engine("sqlite://")).close()
    Store("sqlite://", settings=beatstore.Settings(default_misfire="skip"), engine_options={})


def tasks(store: Store) -> None:
    store.add("a", "proj.report", "0 2 * * *")
    store.add_many(Declared(f"a{number}", report, 60) for number in range(3))
    store.schedule_many([(report, AT), ("proj.report", 60)], tags=["x"], page=100)
    store.pause_many(store.names(tag="x"), page=100).states["a"].upper()
    store.resume_many(["a", "b"]).refused[0].error.upper()
    store.add("a", report, "0 2 * * *")
    store.add("a", bound, "0 2 * * *")
    store.add("a", kept, "0 2 * * *")
    store.add("a", shared, "0 2 * * *")
    store.add("a", report.s("Rome"), "0 2 * * *")
    store.add("a", shared.si(1, two="x"), "0 2 * * *")
    store.add("a", chain(report.s("Rome"), shared.s()), "0 2 * * *")
    store.add("a", group(report.s("Rome"), report.s("Oslo")), "0 2 * * *")
    store.add("a", chord([report.s("Rome")], shared.s()), "0 2 * * *")
    store.add("a", {"task": "proj.report", "args": [1]}, "0 2 * * *")


def schedules(store: Store) -> None:
    store.put("a", "t", Cron("0 9 * * *", "Europe/Berlin"))
    store.put("a", "t", RRule("FREQ=DAILY"))
    store.put("a", "t", Once(AT))
    store.put("a", "t", Solar("sunset", 52.52, 13.4))
    store.put("a", "t", daily(9, 30))
    store.put("a", "t", AT)
    store.put("a", "t", timedelta(hours=1))
    store.put("a", "t", 30)
    store.put("a", "t", 0.5)
    store.put("a", "t", crontab(minute="0", hour="4"))
    store.put("a", "t", schedule(run_every=30))
    store.put("a", "t", solar("sunset", 52.52, 13.4))
    store.put("a", "t", None, after=["b"])
    store.put("a", "t", after="b")
    store.put("a", "t", after=After("b"))
    store.put("a", "t", after=("b", After("c", on="failure", timeout=timedelta(hours=1))))


def options(store: Store, policy: Misfire, session: Session) -> None:
    store.add(
        "a",
        "t",
        "0 2 * * *",
        args=(1, "two", None),
        kwargs={"three": [3]},
        options={"queue": "etl", "priority": 5},
        timezone="Europe/Berlin",
        start_at=AT,
        end_at=None,
        max_runs=3,
        jitter=timedelta(seconds=30),
        misfire=policy,
        grace=300,
        overlap="skip",
        run_timeout=3600.5,
        max_retries=3,
        retry_delay=60,
        retry_backoff=2,
        retry_jitter=None or 0,
        tags={"etl", "nightly"},
        description="for people",
        source="mine",
        paused=True,
        session=session,
    )
    shared_options: EntryOptions = {"misfire": "skip", "tags": ["etl"]}
    store.put("b", "t", 60, **shared_options)
    store.change("a", schedule="0 3 * * *", max_retries=3, new_name="b", task=report, end_at=None)
    store.change("a", after=[], tags=[], misfire=None, paused=False)
    store.change("a", if_version=store.get("a").version, schedule="0 3 * * *", session=session)
    store.by("me", "new disks").pause("a")
    store.by("me", reason=None).change("a", if_version=None, tags=["etl"])
    store.schedule(report.s("Rome"), at=AT, misfire="skip", name="once")
    store.schedule(report, countdown=timedelta(hours=1), max_retries=3, tags=["x"])
    store.schedule("proj.report", after=["a"], session=session)


def sessions(store: Store, session: Session, scoped: scoped_session[Session]) -> None:
    store.pause("a", session=session)
    store.resume("a", session=scoped)
    store.entries(session=scoped)

    def by(mine: SessionLike) -> None:
        store.trigger("a", session=mine)

    by(session)


async def asynchronous(store: Store, session: AsyncSession) -> None:
    await session.run_sync(lambda sync: store.add("a", "t", 60, session=sync))


def reading(store: Store, state: EntryState) -> None:
    for entry in store.entries(state=state, tag="etl", name="a*", source="api", limit=10):
        print(entry.name, entry.next_due_at)
    store.names(state="active", only="failing")
    print(store.entries(only="edited").after)
    runs = store.runs("a", state="failed", since=AT, worker="celery@here")
    runs += store.runs(state=["failed", "lost"])
    store.rerun(runs[0])
    store.rerun(7)
    store.rerun("6f9619ff-8b86-d011-b42d-00c04fc964ff")
    store.run(runs[0]).attempts[0].state.upper()
    store.run("6f9619ff-8b86-d011-b42d-00c04fc964ff")
    assert store.runs(sort="lateness").more in (True, False)
    store.end(runs[0], "failed", reason="the queue was purged")
    store.end(7, "cancelled")
    print(store.explain("a", AT), store.preview("a", 5)[0].isoformat(), store.status().warnings)
    lines: Iterable[str] = open("entries.jsonl")  # noqa: SIM115
    store.load(lines)
    store.load(store.export(state="paused"))
    store.link("a", "b", After("c", align="same", on_upstream_failure="skip"))
    store.sync(SCHEDULES, source="mine", dry_run=True)
    store.prune(timedelta(days=30))
    print(store.run_counts("a", since=AT, step=60)[0].states["failed"])
    print(
        store.failures(since=AT, limit=3)[0].names,
        store.upcoming_counts(until=AT).fullest[0][0].hour,
    )
    print(store.storage().tables[0].name.upper())
    with store.reading(timeout=2.5) as within:
        names: list[str] = store.names(session=within)
        print([run.state for run in store.last_runs(names, limit=5, session=within)["a"]])


def returned(store: Store, session: Session) -> None:
    entry: Entry = store.get("a")
    schedule_of_it: Schedule | None = entry.schedule
    if schedule_of_it is not None:
        print(schedule_of_it.next_after(AT))
    tags: tuple[str, ...] = entry.tags
    ups: list[str] = [edge.name for edge in entry.after]
    state: EntryState = entry.state
    store.put("b", entry.task, entry.schedule, args=entry.args, kwargs=entry.kwargs, tags=tags)
    store.put("c", entry.task, entry.schedule, misfire=entry.misfire, overlap=entry.overlap)
    print(ups, state, dataclasses.replace(entry, name="b"), dataclasses.asdict(entry))
    for other in store.entries(include=["tags", "edited"]):
        print(other.edited)
    store.entries(include="after")
    run: Run = store.runs(state="failed")[0]
    change: Audit = store.audit()[0]
    print(run.finished_at, change.before)
    session.add(EntryModel(name="a", task="t", kind="cron", spec="0 2 * * *"))
    session.scalars(select(RunModel).where(RunModel.state == "failed")).all()


def far(session: Session) -> None:
    print(kept.apply_async(args=[1], countdown=60).id)
    notify = beatstore.retryable(kept, max_retries=3, retry_delay=60, session=session)
    notify(1)


def virtual(work: testing.Work) -> None:
    store = testing.store(AT)
    ends: dict[str, testing.Outcome] = {"a": testing.Outcome("failed", duration=3)}
    testing.simulate(store, timedelta(days=1), outcome=ends, duration=lambda work: work.number)
    testing.simulate(store, AT, outcome={"a": ["failed", ValueError()]}, duration=[1, 2.5])
    testing.simulate(store, AT, outcome=lambda work: "lost" if work.attempt == 1 else None)


def env() -> None:
    context.configure(include_object=include_object)
