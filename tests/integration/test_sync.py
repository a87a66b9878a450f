"""Entries that code declares, on every database: what a sync makes of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from celery.schedules import crontab, schedule
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from beatstore import After, Declared, Every, Settings, Store
from beatstore.database.tables import ENTRY
from beatstore.definition import edits
from tests.support.harness.play import NOON, Play
from tests.support.synced import NIGHTLY, one, sync, verdicts

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`


UTC = timezone.utc


# -- what code says --------------------------------------------------------------------


def test_what_is_declared_becomes_entries(store: Store) -> None:
    """A declared entry is stored as `add` would store it, with its tags and edges."""
    given = {"args": [1], "kwargs": {"b": 2}, "options": {"queue": "q"}, "grace": 5}
    given |= {"timezone": "Europe/Berlin", "tags": ["y", "x"], "description": "d"}
    report = sync(store, one("b", after=["a", After("c", on="done")], **given), one("a"), one("c"))
    assert report.created == ("a", "b", "c")
    store.add("as_b", "t", NIGHTLY, after=["a", After("c", on="done")], source="app", **given)
    ours, added = store.get("b"), store.get("as_b")
    beside = {"id", "name", "declared", "created_at", "updated_at"}
    for column in set(ENTRY.columns.keys()) - beside:
        assert getattr(ours, column) == getattr(added, column), column
    assert store.get("b").tags == ("x", "y")
    graph = {(edge.upstream, edge.downstream, edge.on) for edge in store.graph(name="b").edges}
    assert graph >= {("a", "b", "success"), ("c", "b", "done")}


def test_a_sync_counts_at_the_next_tick(play: Play) -> None:
    """What was created runs at its time, and what was updated at its new time."""
    sync(play.store, one("a", "0 13 * * *"), one("b", "0 14 * * *"))
    assert play.at("13:00") == ["a"]
    sync(play.store, one("a", "0 13 * * *"), one("b", "30 13 * * *"))
    assert play.at("13:30") == ["b"]


def test_the_same_code_changes_nothing(store: Store) -> None:
    """Synced again, no entry is written, none is audited, and the report says so."""
    given = [
        *(one("a", args=[1], tags=["x"]), one("b", None, after=["a"])),
        *(one("c", timedelta(minutes=5)), one("d", crontab(hour=3)), one("e", schedule(30))),
    ]
    sync(store, *given)
    before = [(entry.version, entry.updated_at) for entry in store.entries()]
    store.database.clock.set(NOON + timedelta(hours=1))  # type: ignore[union-attr]
    again = sync(store, *given)
    assert again.unchanged == ("a", "b", "c", "d", "e")
    assert (again.created, again.updated, again.deactivated, again.kept) == ((), (), (), {})
    assert [(entry.version, entry.updated_at) for entry in store.entries()] == before
    assert len(store.audit()) == 5


def test_unchanged_entries_are_not_read_in_full(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schedule that is declared as it was is not parsed again, celery's included."""
    given = [one("a"), one("b", crontab(minute="*/5")), one("c", Every(5)), one("d", 60)]
    sync(store, *given)

    def check(*_: object) -> None:
        raise AssertionError("read in full")

    monkeypatch.setattr(edits, "check", check)
    assert sync(store, *given).unchanged == ("a", "b", "c", "d")


def test_an_interval_keeps_its_phase(play: Play) -> None:
    """However often it is synced, an interval counts from when it was first stored."""
    sync(play.store, one("a", Every(600)))
    for minutes in (7, 13, 19):
        play.clock.set(NOON + timedelta(minutes=minutes))
        sync(play.store, one("a", Every(600)), one(f"b{minutes}"))
        play.tick()
    assert [due for due, *_ in play.history("a")] == ["12:10"]
    assert play.store.preview("a", 1) == [NOON + timedelta(minutes=20)]


def test_what_changed_in_code_is_updated(store: Store) -> None:
    """Each field follows the code where nobody has edited it, and only what changed is written."""
    sync(store, one(args=[1], tags=["x"], grace=5), one("b"))
    report = sync(
        store,
        one(schedule="0 3 * * *", args=[True], tags=["y"], after=["b"], max_retries=2),
        one("b"),
    )
    assert verdicts(report) == {"a": "updated", "b": "unchanged"}
    entry = store.get("a")
    assert (entry.spec, entry.args, entry.grace_s, entry.max_retries) == (
        "0 3 * * *",
        [True],
        None,
        2,
    )
    assert entry.next_due_at == datetime(2026, 1, 16, 3, tzinfo=UTC)
    assert store.get("a").tags == ("y",)
    assert [edge.upstream for edge in store.graph(name="a").edges] == ["b"]
    assert (store.get("a").edited, store.get("b").edited) == ((), ())


def test_other_defaults_change_what_is_stored(store: Store) -> None:
    """What the settings decide for an entry is decided anew when they change."""
    sync(store, one())
    store.settings = Settings(default_timezone="Asia/Tokyo")
    assert sync(store, one()).updated == ("a",)
    assert store.get("a").timezone == "Asia/Tokyo"
    store.settings = Settings(default_timezone="Asia/Tokyo", allowed_tasks=("reports.*",))
    assert "beatstore_allowed_tasks" in sync(store, one()).refused["a"]
    assert store.get("a").state == "active"


# -- how much it asks, and of what -----------------------------------------------------


def test_statements_do_not_grow_with_the_entries(store: Store) -> None:
    """A sync, and `edited`, ask the database as often about 200 entries as about 20."""

    def count(work: Callable[[], object]) -> int:
        asked: list[str] = []

        def note(*given: Any) -> None:
            asked.append(given[2])

        event.listen(store.database.engine, "before_cursor_execute", note)
        work()
        event.remove(store.database.engine, "before_cursor_execute", note)
        return len(asked)

    counts: dict[int, list[int]] = {}
    for size in (20, 200):
        names = [f"{size}-{number}" for number in range(size)]

        source = f"source{size}"

        def declare(names: list[str] = names, source: str = source, **given: Any) -> None:
            declared = [one(name, tags=["x"], after=["up"], **given) for name in names]
            assert not store.sync(declared, source=source).refused

        store.put("up", "t", 60)
        steps: list[Callable[[], object]] = [
            *(declare, declare, partial(declare, grace=5)),
            *(partial(store.sync, [], source=source), declare),
            partial(store.entries, source=source, limit=1000, include="edited"),
        ]
        counts[size] = [count(step) for step in steps]
    assert counts[20] == counts[200]


def test_edited_names_what_differs(store: Store) -> None:
    """Each of many entries has the fields in which it differs from its code."""
    names = [f"e{number:03}" for number in range(10)]
    sync(store, *(one(name) for name in names))
    for name in names[::2]:
        store.change(name, tags=["x"])
    edited = {entry.name: entry.edited for entry in store.entries(include="edited")}
    assert edited == {name: ("tags",) if name in names[::2] else () for name in names}


def test_rows_that_no_sync_has_seen_are_taken_over(store: Store) -> None:
    """A row of the source without a word of its code follows the code, but for a pause."""
    store.add("a", "old", 60, source="app")
    store.add("b", "old", 60, source="app", paused=True)
    report = sync(store, one("a"), one("b"))
    assert (report.updated, report.kept) == (("a", "b"), {"b": ("state",)})
    assert [(entry.task, entry.state) for entry in store.entries()] == [
        ("t", "active"),
        ("t", "paused"),
    ]


def test_an_entry_that_waits_no_longer_goes_on(play: Play) -> None:
    """Where code drops the edge that an entry waits for, it runs at the next tick."""
    up = one("up", "0 20 * * *")
    sync(play.store, up, one("a", "0 13 * * *", after=["up"]))
    assert play.at("13:00") == []
    sync(play.store, up, one("a", "0 13 * * *"))
    assert play.tick() == ["a"]


def test_an_edge_that_code_adds_waits_from_now(play: Play) -> None:
    """An edge added to an entry that has run waits for the upstream's next completion."""
    up = one("up", "0 * * * *")
    sync(play.store, up, one("a", "5 13-20 * * *"))
    assert play.at("13:00") == ["up"]
    assert play.end("up") == []
    assert play.at("13:05") == ["a"]
    sync(play.store, up, one("a", "5 13-20 * * *", after=["up"]))
    assert play.at("14:00") == ["up"]
    assert play.at("14:05") == []
    assert play.end("up") == ["a"]


def test_plans_are_made_for_the_tables_as_they_are(store: Store) -> None:
    """PostgreSQL is not held to plans that it made while the table was empty."""
    if store.database.url.get_backend_name() != "postgresql":
        pytest.skip("only PostgreSQL keeps plans for us")
    with Session(store.database.engine) as session:
        store.sync([Declared("one", "t", "0 2 * * *")], source="app", session=session)
        assert session.execute(text("SHOW plan_cache_mode")).scalar() == "force_custom_plan"
        session.commit()
        assert session.execute(text("SHOW plan_cache_mode")).scalar() == "auto"
