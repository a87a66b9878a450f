"""Entries out of one database and into another, and back, on every database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import product
from typing import Any

import pytest
from sqlalchemy.orm import Session

from beatstore import (
    After,
    Cron,
    Every,
    InvalidEntryError,
    LoadError,
    LoadReport,
    Once,
    RRule,
    Solar,
    Store,
)
from beatstore.clock import ManualClock
from beatstore.models import DependencyModel, EntryModel
from beatstore.store.transfer import export as transfer
from beatstore.store.transfer import load
from tests.support.databases import BACKENDS
from tests.support.marks import on_sqlite
from tests.support.play import Play
from tests.support.written import DAY, HOUR, MINUTE, NOON, alter, write

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`

NewStore = Callable[..., Store]


@pytest.fixture
def new_store(_database_servers: Any, clock: ManualClock) -> Iterator[NewStore]:
    """Return a function that makes a store on an empty database of a kind."""
    made: list[tuple[Any, str, Store]] = []

    def new(kind: str) -> Store:
        server = _database_servers.get(kind)
        url = server.create_migrated()
        made.append((server, url, Store(url, clock=clock)))
        return made[-1][2]

    yield new
    for server, url, store in made:
        store.close()
        server.drop(url)


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


def without_header(store: Store, **chosen: Any) -> list[dict[str, Any]]:
    """Return the documents of a store."""
    return [one for one in store.export(**chosen) if "beatstore" not in one]


def columns(store: Store, name: str, *chosen: str) -> tuple[Any, ...]:
    """Return columns of an entry."""
    entry = store.get(name)
    return tuple(getattr(entry, column) for column in chosen)


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
    assert [at for at, _, _ in there.runs("hourly")] == ["14:00"]
    assert there.at("16:30") == ["hourly", "hourly"]
    there.queue.close()
    there.store.close()


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
    assert there.runs("timed") == [("14:05", "sent", 1)]
    there.queue.close()
    there.store.close()


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


GOOD = {"name": "good", "task": "t", "schedule": "0 2 * * *"}

BAD: list[tuple[object, str]] = [
    ("{", "not JSON"),
    ("[" * 100_000, "not JSON"),
    (b"\xff", "not JSON"),
    ("[1]", "expected a JSON object"),
    ("null", "expected a JSON object"),
    ({**GOOD, "name": ""}, "name: expected"),
    ({**GOOD, "name": 7}, "name: expected"),
    ({"name": "x", "schedule": "0 2 * * *"}, "task: expected"),
    ({"name": "x", "task": "t"}, "schedule: expected"),
    ({**GOOD, "schedule": "no"}, "expected"),
    ({**GOOD, "schedule": 60}, "schedule: expected"),
    ({**GOOD, "schedule": {"kind": "cron", "spec": "* * *"}}, "spec: expected"),
    ({**GOOD, "schedule": {"kind": "never", "spec": ""}}, "kind: expected"),
    ({**GOOD, "schedule": {"kind": "every", "spec": "60", "start": 1}}, "schedule['start']"),
    ({**GOOD, "timezone": "Mars/Olympus"}, "timezone"),
    ({**GOOD, "args": {}}, "args: expected"),
    ({**GOOD, "kwargs": {"a": {"unreadable": "x"}}, "options": [1]}, "options: expected"),
    ({**GOOD, "colour": "red"}, "colour: expected a field"),
    ({**GOOD, "state": "asleep"}, "state: expected one of"),
    ({**GOOD, "start_at": "soon"}, "start_at: expected an instant"),
    ({**GOOD, "start_at": "2026-01-01T00:00:00"}, "start_at: expected"),
    ({**GOOD, "grace": -1}, "grace: expected"),
    ({**GOOD, "grace": {"unreadable": "inf"}}, "grace: expected"),
    ({**GOOD, "tags": "etl"}, "tags: expected a list"),
    ({**GOOD, "after": "etl"}, "after: expected a list"),
    ({**GOOD, "after": [{"name": "good", "colour": 1}]}, "after: expected a field of After"),
    (
        {**GOOD, "after": ["nobody"]},
        "after: expected an entry that exists or is loaded with this one",
    ),
    ({**GOOD, "after": ["good"]}, "after: 'good' would create a dependency cycle: 'good' → 'good'"),
    ({**GOOD, "declared": [1]}, "declared: expected"),
    ({**GOOD, "progress": 5}, "progress: expected"),
    ({**GOOD, "progress": {"cursor_at": 5}}, "progress['cursor_at']"),
    ({**GOOD, "progress": {"run_count": -5}}, "progress['run_count']"),
    ({**GOOD, "progress": {"steps": 5}}, "progress['steps']"),
    ({**GOOD, "progress": {"upstreams": {"x": [1]}}}, "progress['upstreams']"),
    ({**GOOD, "end_at": "2020-01-01T00:00:00+00:00"}, "end_at: expected"),
]


@pytest.mark.parametrize(("given", "reason"), BAD, ids=range(len(BAD)))
@on_sqlite
def test_a_bad_document_is_refused_by_its_line(store: Store, given: object, reason: str) -> None:
    """What is wrong is said with its line; nothing is loaded, unless the caller goes on."""
    documents = [{"beatstore": 1}, {**GOOD, "name": "first"}, given, {**GOOD, "name": "last"}]
    with pytest.raises(LoadError) as caught:
        store.load(documents)
    assert list(caught.value.refused) == [3]
    assert reason in caught.value.refused[3]
    assert f"line 3: {caught.value.refused[3]}" in str(caught.value)
    assert store.entries() == []
    report = store.load(documents, keep_going=True)
    assert (report.created, list(report.refused)) == (2, [3])
    assert [entry.name for entry in store.entries()] == ["first", "last"]


@on_sqlite
def test_a_value_that_could_not_be_read_is_shown_and_refused(store: Store) -> None:
    """A row written by hand goes out as far as it can, and does not come in again."""
    store.add("good", "t", 60)
    store.add("bad", "t", 60)
    with store.database.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE beatstore_entry SET args = '[1', cursor_at = 'x' WHERE name = 'bad'"
        )
    documents = without_header(store)
    assert documents[1]["args"] == {"unreadable": "[1"}
    assert documents[1]["progress"]["cursor_at"] == {"unreadable": "x"}
    store.remove("good")
    report = store.load(documents, keep_going=True)
    assert report.created == 1
    assert "unreadable" in report.refused[2]


def test_another_format_is_refused_at_once(store: Store) -> None:
    """A later version's file is not read at all, even with keep_going."""
    with pytest.raises(InvalidEntryError, match="beatstore: expected the format 1"):
        store.load([{"beatstore": 2}, GOOD], keep_going=True)
    assert store.entries() == []


@on_sqlite
@pytest.mark.parametrize("given", ["entries.jsonl", b"{}", GOOD, None, 5])
def test_what_is_no_sequence_of_documents_is_refused(store: Store, given: Any) -> None:
    """A file's name, one document, or nothing at all is taken for a mistake."""
    with pytest.raises(
        InvalidEntryError, match=r"documents: expected an iterable of JSON lines or dicts.*open\("
    ):
        store.load(given)


def test_a_name_twice_is_refused_the_second_time(store: Store) -> None:
    """Two documents of one name would make the outcome a matter of order."""
    report = store.load([GOOD, {**GOOD, "task": "other"}], keep_going=True)
    assert (report.created, report.refused) == (1, {2: "name: 'good' is already on line 1"})
    assert columns(store, "good", "task") == ("t",)


def test_what_waits_for_what_is_refused_is_refused_too(store: Store) -> None:
    """However long the chain, nothing is stored that waits for what is not there."""
    chain = [{**GOOD, "name": f"e{n}", "after": [f"e{n + 1}"]} for n in range(50)]
    cycle = [{**GOOD, "name": a, "after": [b]} for a, b in ("xy", "yz", "zx")]
    down = {**GOOD, "name": "down", "after": ["x"]}
    report = store.load([GOOD, *chain, *cycle, down], keep_going=True)
    assert report.created == 1
    assert list(report.refused) == list(range(2, 56))
    assert "'y' would create a dependency cycle: 'y' → 'x' → 'z' → 'y'" in report.refused[52]
    assert "'x'" in report.refused[55]


def test_a_cycle_with_what_is_stored_is_refused(store: Store) -> None:
    """An edge of a document may create a cycle with stored edges."""
    store.add("a", "t", 60)
    store.add("b", "t", 60, after=["a"])
    document = {"name": "a", "task": "t", "schedule": {"kind": "every", "spec": "60"}}
    with pytest.raises(LoadError, match="dependency cycle: 'a' → 'b' → 'c' → 'a'"):
        store.load(
            [{**document, "after": ["c"]}, {**GOOD, "name": "c", "after": ["b"]}], replace=True
        )
    assert store.graph().cycle() is None
    assert len(store.entries()) == 2


def test_an_entry_that_differs_is_refused_or_replaced(play: Play) -> None:
    """Replaced, it has the new definition and its own progress: nothing is sent again."""
    store = play.store
    play.add("job", "0 * * * *", tags=["old"])
    play.add("up", 3600)
    documents = without_header(store)
    assert play.at("13:00") == ["job", "up"]
    changed = {**documents[0], "grace": 5, "tags": ["new"], "after": [{"name": "up"}]}
    with pytest.raises(LoadError, match=r"'job' exists already, and differs in tags, grace, after"):
        store.load([changed])
    dry = store.load([changed], replace=True, dry_run=True)
    assert dry == LoadReport(replaced=1, dry_run=True)
    assert store.get("job").tags == ("old",)
    assert store.load([changed, documents[1]], replace=True) == LoadReport(replaced=1, unchanged=1)
    assert store.get("job").tags == ("new",)
    assert columns(store, "job", "grace_s", "run_count") == (5.0, 1)
    assert [edge.upstream for edge in store.graph().edges] == ["up"]
    assert play.tick() == []
    assert store.load([documents[0]], replace=True).replaced == 1
    assert store.graph().edges == ()
    assert play.tick() == []


@pytest.mark.parametrize(
    ("was", "said", "becomes"),
    [
        ("active", "paused", "paused"),
        ("paused", None, "active"),
        ("active", "cancelled", "cancelled"),
        ("cancelled", None, "active"),
        ("cancelled", "paused", "paused"),
    ],
)
def test_replacing_takes_the_state_along(
    store: Store, was: str, said: str | None, becomes: str
) -> None:
    """What somebody has paused or cancelled is so in the document, and then here."""
    store.add("job", "t", 60)
    document = without_header(store)[0]
    store.pause("job") if was == "paused" else None
    store.cancel("job") if was == "cancelled" else None
    given = {**document, "state": said} if said else document
    assert store.load([given], replace=True).replaced == 1
    assert columns(store, "job", "state") == (becomes,)
    assert (store.get("job").wake_at is not None) == (becomes == "active")
    assert store.load([given]).unchanged == 1


def test_a_dry_run_writes_nothing(store: Store) -> None:
    """The report is the same, with what would be refused, and the tables are as before."""
    report = store.load([GOOD, {**GOOD, "name": ""}], dry_run=True)
    assert (report.created, list(report.refused), report.dry_run) == (1, [2], True)
    assert (store.entries(), store.audit()) == ([], [])


def test_loading_joins_the_callers_transaction(store: Store) -> None:
    """With `session=` their rollback undoes it, and a refusal leaves what they wrote."""
    store.add("there", "t", 60)
    with Session(store.database.engine) as session:
        store.add("theirs", "t", 60, session=session)
        with pytest.raises(LoadError):
            store.load([GOOD, {**GOOD, "name": ""}], session=session)
        store.load([{**GOOD, "name": "loaded"}], session=session)
        names = [one["name"] for one in store.export(session=session) if "name" in one]
        assert names == ["there", "theirs", "loaded"]
        session.commit()
        store.load([{**GOOD, "name": "undone"}], session=session)
        session.rollback()
    assert [entry.name for entry in store.entries()] == ["loaded", "theirs", "there"]
