"""Entries out of one database and into another, and back, on every database."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from itertools import product

import pytest

from beatstore import After, Cron, Every, LoadReport, Once, RRule, Solar, Store
from beatstore.models import DependencyModel, EntryModel
from beatstore.store.transfer import export as transfer
from beatstore.store.transfer import load
from tests.support.databases import BACKENDS
from tests.support.documents import columns, without_header
from tests.support.harness.play import Play
from tests.support.written import DAY, HOUR, MINUTE, NOON, alter, write

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`

NewStore = Callable[..., Store]


def fill(store: Store) -> None:
    """Store entries of every kind, in every state, with everything that can be said of one."""
    store.add("cron", "t.cron", Cron("0 2 * * mon", "Europe/Berlin"), tags=["b", "a"])
    store.add(
        "every",
        "t.every",
        Every(90.5),
        args=[1, 2.5, "drei", None, {"vier": [True]}],
        kwargs={"ü": "✓", "n": 2**60},
        options={"queue": "etl", "headers": {"x": "y"}, "expires": 60},
        start_at=NOON + HOUR,
        end_at=NOON + 10 * DAY,
        max_runs=5,
        jitter=30,
        misfire="all",
        grace=12.5,
        overlap="wait",
        run_timeout=77,
        max_retries=3,
        retry_delay=1.5,
        retry_backoff=2,
        retry_jitter=4,
        description="zwei\nZeilen",
        source="module:etl",
    )
    store.add("once", "t.once", Once(datetime.max.replace(year=9998, tzinfo=NOON.tzinfo)))
    store.add("rrule", "t.rrule", RRule("FREQ=MONTHLY;BYDAY=-1FR", "Asia/Tokyo"))
    store.add("solar", "t.solar", Solar("sunset", 52.5, 13.4))
    edges = [After("cron", on="done", first_free=True), After("every", align="same", timeout=60)]
    store.add("after", "t.after", after=[*edges, After("once", on_upstream_failure="skip")])
    store.add("self", "t.self", 60, after=[After("self", on="done", first_free=True)])
    store.add("paused", "t", 60, paused=True)
    store.add("cancelled", "t", 60)
    store.cancel("cancelled")
    store.add("broken", "t", 60)
    alter(store, "broken", state="broken", kind="nope", spec="?", error="kind: …", wake_at=None)
    store.add("late", "t", 60)
    counted = {"success_seq": 7, "failure_seq": 2, "done_seq": 9, "run_count": 9}
    alter(store, "late", cursor_at=NOON - HOUR, last_run_at=NOON, wake_at=NOON, **counted)
    declared = {"task": "t", "nested": {"deep": [1]}}
    alter(store, "cron", declared=declared, wake_at=NOON + DAY)
    write(store, EntryModel, {"name": "plain", "task": "t", "kind": "every", "spec": "60"})


@pytest.mark.parametrize(("backend", "target"), list(product(BACKENDS, BACKENDS)), indirect=False)
def test_what_goes_out_comes_in(new_store: NewStore, backend: str, target: str) -> None:
    """From any database into any other and out again, it is the same to the last character."""
    here, there = new_store(backend), new_store(target)
    fill(here)
    lines = [json.dumps(one) for one in here.export()]
    report = there.load(lines)
    assert (report.created, report.refused) == (12, {})
    assert list(map(json.dumps, without_header(there))) == lines[1:]
    assert there.load(lines) == LoadReport(unchanged=12)
    for name in ("cron", "every", "once", "rrule", "solar", "after", "late", "paused", "plain"):
        compared = ("kind", "spec", "args", "kwargs", "options", "cursor_at", "created_at")
        assert columns(there, name, *compared) == columns(here, name, *compared)
        assert there.preview(name) == here.preview(name)
        assert there.get(name).tags == here.get(name).tags
    assert there.graph().edges == here.graph().edges


def test_a_document_is_the_arguments_of_add(store: Store) -> None:
    """What is the default is left out; the rest stands under the names that `add` has."""
    store.add("up", "t", 60)
    store.add("one", "t.one", "0 2 * * *", after=["up"], grace=5, tags=["x"], timezone="Asia/Tokyo")
    header, _, made = store.export()
    assert header == {"beatstore": 1, "at": NOON.isoformat(), "unsent_runs": 0}
    assert made == {
        "name": "one",
        "task": "t.one",
        "schedule": {"kind": "cron", "spec": "0 2 * * *", "timezone": "Asia/Tokyo"},
        "grace": 5.0,
        "tags": ["x"],
        "after": [{"name": "up"}],
        "progress": {"created_at": NOON.isoformat(), "upstreams": {"up": [0, 0]}},
    }


def test_the_filters_are_those_of_entries(store: Store) -> None:
    """An export keeps to a tag, a state, names like a pattern, and an owner."""
    store.add("a.1", "t", 60, tags=["x"])
    store.add("a.2", "t", 60, source="code", paused=True)
    store.add("b", "t", 60)
    for chosen, expected in [
        ({"tag": "x"}, ["a.1"]),
        ({"state": "paused"}, ["a.2"]),
        ({"name": "a.*"}, ["a.1", "a.2"]),
        ({"source": "code"}, ["a.2"]),
        ({"source": "code", "state": "active"}, []),
    ]:
        assert [one["name"] for one in without_header(store, **chosen)] == expected


def test_many_are_read_and_written_in_pages(
    store: Store, new_store: NewStore, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However pages are cut, and whether they go through a file, each entry arrives once."""
    monkeypatch.setattr(transfer, "_PAGE", 3)
    monkeypatch.setattr(load, "_PAGE", 2)
    monkeypatch.setattr(load, "_MEMORY", 100)
    for number in range(10):
        store.add(f"e{number}", "t", 60, tags=["x"], after=[f"e{number - 1}"] if number else [])
    there = new_store(backend)
    # Backwards, so that every upstream comes after its downstream.
    documents = without_header(store)[::-1]
    assert there.load(documents).created == 10
    by_name = sorted(documents, key=lambda one: one["name"])
    assert sorted(without_header(there), key=lambda one: one["name"]) == by_name


def test_a_move_neither_repeats_nor_loses(play: Play, new_store: NewStore, backend: str) -> None:
    """What ran there does not run here, and what fell due on the way is made up for."""
    play.add("hourly", "0 * * * *", misfire="all")
    play.add("once", Once(NOON + 2 * HOUR))
    play.add("twice", 3600, max_runs=2)
    assert play.at("13:00") == ["hourly", "twice"]
    documents = list(play.store.export())
    play.clock.set(NOON + 2 * HOUR + 30 * MINUTE)
    there = Play(str(new_store(backend).database.url.render_as_string(False)), play.clock)
    there.store.load(documents)
    assert there.at("14:30") == ["hourly", "once", "twice"]
    assert [at for at, _, _ in there.history("hourly")] == ["14:00"]
    assert there.at("16:30") == ["hourly", "hourly"]
    there.close()


def test_a_wait_goes_on_where_it_was(play: Play, new_store: NewStore, backend: str) -> None:
    """What an upstream has done, and a downstream used up, is known in the new database."""
    play.add("up", "0 * * * *")
    play.add("other", "0 * * * *")
    play.add("down", after=["up", "other"])
    play.add("timed", "5 * * * *", after=["up"])
    assert sorted(play.at("13:00")) == ["other", "up"]
    assert play.end("up") == ["timed"]
    assert sorted(play.at("14:05")) == ["other", "up"]  # down waits for other, timed for up
    documents = list(play.store.export())
    there = Play(str(new_store(backend).database.url.render_as_string(False)), play.clock)
    there.store.load(documents)
    assert there.tick() == []
    [waiting] = [one for one in there.store.upcoming(limit=3) if one.state == "waiting"]
    assert (waiting.name, waiting.due_at) == ("timed", NOON + HOUR + 5 * MINUTE)
    assert sorted(there.at("15:00")) == ["other", "up"]
    assert there.end("other") == ["down"]
    assert there.end("up") == ["timed"]
    assert there.history("timed") == [("14:05", "sent", 1)]
    there.close()


def test_a_free_first_run_that_was_had_is_not_had_again(
    store: Store, new_store: NewStore, backend: str
) -> None:
    """An edge whose upstream never ran, but whose free run is over, stays used up."""
    store.add("up", "t", 3600)
    store.add("down", "t", 60, after=[After("up", first_free=True)])
    with store.database.engine.begin() as connection:
        connection.execute(DependencyModel.__table__.update().values(consumed_seq=0))  # type: ignore[attr-defined]
    documents = without_header(store)
    there = new_store(backend)
    there.load(documents)
    assert without_header(there) == documents


def test_runs_not_sent_yet_are_announced(play: Play) -> None:
    """Retries, and what was asked for by hand, stay behind; the header says how many."""
    play.add("hourly", "0 * * * *")
    play.store.trigger("hourly")
    assert next(play.store.export())["unsent_runs"] == 1
    play.tick()
    assert next(play.store.export())["unsent_runs"] == 0


def test_a_document_by_hand_is_a_new_entry(store: Store) -> None:
    """Without progress an entry counts from now; a schedule may be a cron expression."""
    lines = [
        '{"name": "hand", "task": "t", "schedule": "0 14 * * *", "timezone": "Asia/Tokyo"}',
        "",
        '{"name": "once", "task": "t", "schedule": {"kind": "once", "spec": "2027-01-01T00:00Z"}}',
        '{"name": "down", "task": "t", "after": ["hand"], "start_at": "2026-02-01T00:00:00Z"}',
        '{"name": "off", "task": "t", "schedule": "* * * * *", "state": "paused"}',
    ]
    assert store.load(lines).created == 4
    assert columns(store, "hand", "timezone", "state", "run_count") == ("Asia/Tokyo", "active", 0)
    assert columns(store, "hand", "next_due_at", "wake_at") == (NOON + 17 * HOUR, NOON + 17 * HOUR)
    assert columns(store, "down", "kind", "start_at") == (
        "after",
        datetime(2026, 2, 1, tzinfo=NOON.tzinfo),
    )
    assert columns(store, "off", "state", "wake_at") == ("paused", None)
    said = [(one.action, one.entry) for one in store.audit()]
    assert sorted(said) == [("load", name) for name in ("down", "hand", "off", "once")]
