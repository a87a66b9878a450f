"""Documents that are refused, and those that replace what is there, on every database."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete
from sqlalchemy.orm import Session

from beatstore import (
    After,
    EntryNotFoundError,
    InvalidEntryError,
    LoadError,
    LoadReport,
    Store,
)
from beatstore.database.tables import ENTRY
from beatstore.store.transfer import load
from tests.support.documents import columns, without_header
from tests.support.harness.play import Play
from tests.support.marks import on_sqlite

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`

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


def test_upstreams_that_change_places_are_replaced(store: Store) -> None:
    """What is loaded has no cycle, so none of the old edges closes one on the way."""
    store.add("a", "t", "0 * * * *")
    store.add("b", "t", "0 * * * *", after=["a"])
    store.add("c", "t", "0 * * * *", after=[After("b", timeout=60)])
    documents = {one["name"]: one for one in without_header(store)}
    documents["a"]["after"] = [{"name": "c"}]
    del documents["b"]["after"]
    documents["c"]["after"] = [{"name": "b", "timeout": 90.0}]
    assert store.load(documents.values(), replace=True) == LoadReport(replaced=3)
    assert {edge.downstream: edge.upstream for edge in store.graph().edges} == {"a": "c", "c": "b"}
    assert store.load(documents.values()) == LoadReport(unchanged=3)


def test_what_an_entry_can_not_become_is_refused_by_its_line(store: Store) -> None:
    """The other documents replace theirs all the same, and a cancelled entry stays cancelled."""
    store.add("held", "t", 60)
    store.add("job", "t", 60)
    never = {"kind": "cron", "spec": "0 0 1 1 * 0 2020"}
    documents = [
        {**one, "description": "new", **({"schedule": never} if one["name"] == "held" else {})}
        for one in without_header(store)
    ]
    store.cancel("held")
    with pytest.raises(LoadError, match=r"line 1: schedule: expected a schedule that is due"):
        store.load(documents, replace=True)
    assert columns(store, "job", "description") == (None,)
    report = store.load(documents, replace=True, keep_going=True)
    assert (report.replaced, list(report.refused)) == (1, [1])
    assert columns(store, "held", "state", "spec", "description") == ("cancelled", "60", None)
    assert columns(store, "job", "description") == ("new",)


@pytest.mark.parametrize("step", ["_compare", "_edit"])
def test_an_entry_that_is_removed_meanwhile_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Somebody may remove it between two statements of the load."""
    store.add("a", "t", 60)
    changed = {**without_header(store)[0], "description": "new"}
    remove_before(step, "a", monkeypatch)
    with pytest.raises(LoadError, match="line 1: somebody has just removed or renamed the entry"):
        store.load([changed], replace=True)
    assert store.load([changed, GOOD], replace=True, keep_going=True).created == 1


def test_an_upstream_that_is_removed_meanwhile_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is loaded, as there is nothing to wait for."""
    store.add("up", "t", 60)
    remove_before("_link", "up", monkeypatch)
    with pytest.raises(EntryNotFoundError, match="'up'"):
        store.load([{**GOOD, "after": ["up"]}])
    assert [one.name for one in store.entries()] == ["up"]


def remove_before(step: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an entry be gone when a load comes to a step."""
    done: Any = getattr(load._Writing, step)

    def gone(writing: Any, *given: Any) -> None:
        writing._tx.execute(delete(ENTRY).where(ENTRY.c.name == name))
        done(writing, *given)

    monkeypatch.setattr(load._Writing, step, gone)


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
