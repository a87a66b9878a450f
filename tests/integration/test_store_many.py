"""`Store.add_many` and `Store.schedule_many`: what is written, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import event
from sqlalchemy.orm import Session

from beatstore import After, Declared, Store
from beatstore.clock import ManualClock
from beatstore.errors import InvalidEntryError
from tests.support.marks import on_mariadb
from tests.support.written import HOUR, NOON

pytestmark = pytest.mark.every_database

app = Celery("many", broker="memory://", set_as_current=False)


@pytest.fixture
def store(migrated_url: str, clock: ManualClock) -> Iterator[Store]:
    """Return ann's store, whose clock stands at noon."""
    store = Store(migrated_url, clock=clock, actor="ann")
    yield store
    store.close()


def plain(entry: Any) -> dict[str, Any]:
    """Return what two entries that were added alike have in common."""
    found = {name: getattr(entry, name) for name in entry.__dataclass_fields__ if name[0] != "_"}
    return {**found, "id": None, "name": None}


OPTIONS: dict[str, Any] = {
    "args": [1, "zwei", None, {"a": 1.5}],
    "kwargs": {"q": '" \\ % : é \U0001f600'},
    "options": {"queue": "etl", "priority": 3},
    "timezone": "Europe/Berlin",
    "misfire": "skip",
    "grace": 60,
    "max_retries": 2,
    "tags": ["b", "a"],
    "description": "100 % :yes",
}


@pytest.mark.parametrize(
    ("schedule", "options"),
    [
        ("30 2 * * *", OPTIONS),
        (timedelta(hours=1), {"jitter": 30, "max_runs": 4}),
        (NOON + HOUR, {"paused": True}),
    ],
)
def test_each_is_what_add_makes_of_it(store: Store, schedule: Any, options: dict[str, Any]) -> None:
    """An entry of many, its tags and its audit are those of an entry that was added alone."""
    alone = store.add("alone", "app.t", schedule, **options)
    report = store.add_many([Declared("one", "app.t", schedule, **options)])
    assert report.names == ("one",)
    assert report.refused == ()
    made = store.get("one")
    assert plain(made) == plain(store.get("alone"))
    assert made.tags == store.get("alone").tags
    theirs, ours = store.audit("alone")[0], store.audit("one")[0]
    assert (ours.actor, ours.action, ours.at, ours.before) == ("ann", "add", theirs.at, None)
    assert ours.after == {**(theirs.after or {}), "id": made.id, "name": "one"}
    assert alone.id != made.id


def test_what_they_have_in_common_and_what_not(store: Store) -> None:
    """Entries that differ in any of their fields are each what `add` makes of them."""
    given: list[tuple[str, Any, dict[str, Any]]] = [
        ("app.t", "30 2 * * *", OPTIONS),
        ("app.t", "30 2 * * *", {**OPTIONS, "args": [2], "tags": ["c"], "description": None}),
        ("app.u", "0 3 * * *", {**OPTIONS, "misfire": "all", "max_retries": 0, "tags": []}),
        ("app.u", 60, {"jitter": 30}),
        ("app.v", NOON + HOUR, {"paused": True, "options": {"priority": 1}}),
    ]
    report = store.add_many(
        Declared(f"many-{number}", task, schedule, **options)
        for number, (task, schedule, options) in enumerate(given)
    )
    assert report.refused == ()
    for name, (task, schedule, options) in zip(report.names, given, strict=True):
        alone, made = store.add(f"alone-{name}", task, schedule, **options), store.get(name)
        assert plain(made) == plain(store.get(alone.name))
        assert made.tags == store.get(alone.name).tags
        theirs, ours = store.audit(alone.name)[0], store.audit(name)[0]
        assert ours.after == {**(theirs.after or {}), "id": made.id, "name": name}


def test_one_shots_are_what_schedule_makes_of_them(store: Store) -> None:
    """One-shots of many differ from each other in task, arguments, name and time only."""
    options: dict[str, Any] = {"tags": ["t"], "max_retries": 3, "description": "d"}
    calls: list[tuple[Any, Any]] = [
        (app.signature("app.a", args=(1,)), NOON + HOUR),
        (app.signature("app.b", kwargs={"x": 2}, queue="q"), NOON - HOUR),
        ("app.c", NOON + 2 * HOUR),
    ]
    report = store.schedule_many(iter(calls), **options)
    assert report.refused == ()
    for name, (task, at) in zip(report.names, calls, strict=True):
        alone, made = store.schedule(task, at=at, **options), store.get(name)
        assert plain(made) == plain(alone)
        assert made.tags == ("t",)
        assert name.rpartition("-")[0] == alone.name.rpartition("-")[0]
        theirs, ours = store.audit(alone.name)[0], store.audit(name)[0]
        assert ours.action == "schedule"
        assert ours.after == {**(theirs.after or {}), "id": made.id, "name": name}


def test_times_and_ids_of_one_shots(store: Store) -> None:
    """A time may be a countdown, and the id of a task is the name."""
    own = app.signature("app.c", options={"task_id": "an-id"})
    report = store.schedule_many([("t", 90), ("t", timedelta(hours=3)), (own, NOON)])
    assert report.names[2] == "an-id"
    assert store.get("an-id").options == {"task_id": "an-id"}
    due = [store.get(name).next_due_at for name in report.names]
    assert due == [NOON + timedelta(seconds=90), NOON + timedelta(hours=3), NOON]


def test_what_is_refused(store: Store) -> None:
    """Each refused one has its place, its name and the reason; the others are added."""
    store.add("taken", "t", 60)
    given: list[Any] = [
        Declared("a", "t", 60),
        Declared("taken", "t", 60),
        Declared("b", "t", "61 * * * *"),
        Declared("a", "t", 70),
        "nonsense",
        Declared("", "t", 60),
        Declared("c", "t", NOON + HOUR),
        Declared("d", "t", after=["nobody"]),
    ]
    report = store.add_many(given)
    assert report.names == ("a", "c")
    said = {one.index: (one.name, one.error) for one in report.refused}
    assert {index: name for index, (name, _) in said.items()} == {
        1: "taken",
        2: "b",
        3: "a",
        4: None,
        5: "",
        7: "d",
    }
    for index, word in {
        1: "taken",
        2: "61",
        3: "'a'",
        4: "Declared",
        5: "name",
        7: "nobody",
    }.items():
        assert word in said[index][1]
    assert store.get("taken").spec == store.get("a").spec
    assert {one.name for one in store.entries()} == {"taken", "a", "c"}


def test_one_shots_that_are_refused(store: Store) -> None:
    """A time that is missing, naive or given twice refuses a one-shot, and no other."""
    given: list[Any] = [
        ("t", NOON.replace(tzinfo=None)),
        ("t", -1),
        ("t", NOON),
        "t",
        (app.signature("t", options={"countdown": 5}), NOON),
        (7, NOON),
    ]
    report = store.schedule_many(given)
    assert [one.index for one in report.refused] == [0, 1, 3, 4, 5]
    assert len(report.names) == 1


def test_upstreams(store: Store) -> None:
    """Entries with upstreams are added as well, also after one that is added with them."""
    report = store.add_many(
        [Declared("up", "t", 60), Declared("down", "t", after=["up"]), Declared("x", "t", 60)]
    )
    assert report.names == ("up", "down", "x")
    assert store.get("down").after == (After("up", align="same"),)
    after = store.schedule_many([("t", NOON), ("t", NOON)], after=["up"])
    assert [store.get(name).after for name in after.names] == [(After("up", align="latest"),)] * 2


def test_pages(store: Store) -> None:
    """With pages, what was written before an error of the iterable stays; without, nothing."""

    def broken() -> Iterator[Any]:
        for number in range(25):
            yield f"t{number}", NOON + HOUR
        raise RuntimeError("the file ends here")

    with pytest.raises(RuntimeError):
        store.schedule_many(broken())
    assert store.entries() == []
    with pytest.raises(RuntimeError):
        store.schedule_many(broken(), page=10)
    assert len(store.entries()) == 20


def test_tags_that_are_read_once(store: Store) -> None:
    """Tags from an iterator are those of the second page too."""
    report = store.schedule_many([("t", NOON)] * 4, page=2, tags=iter(["a", "b"]))
    assert [store.get(name).tags for name in report.names] == [("a", "b")] * 4


def test_an_index_counts_over_pages(store: Store) -> None:
    """The index of a refused one is its place among all, on whichever page it was."""
    given = [Declared(name, "t", 60) for name in ("a", "b", "a", "c", "b")]
    report = store.add_many(given, page=2)
    assert report.names == ("a", "b", "c")
    assert [(one.index, one.name) for one in report.refused] == [(2, "a"), (4, "b")]


def test_in_a_caller_s_transaction(store: Store) -> None:
    """Nothing is there before the caller's commit, and all is gone by their rollback."""
    with Session(store.database.engine) as session:
        report = store.schedule_many([("t", NOON)] * 3, session=session, page=1)
        assert len(report.names) == len(store.entries(session=session)) == 3
        session.rollback()
    assert store.entries() == []
    assert store.audit() == []


def test_the_number_of_statements(store: Store) -> None:
    """A thousand one-shots take a handful of statements."""
    seen: list[str] = []
    event.listen(store.database.engine, "before_cursor_execute", lambda *said: seen.append(said[2]))
    assert len(store.schedule_many([("t", NOON + HOUR)] * 1000, tags=["a"]).names) == 1000
    # SQLite takes fewer parameters in one statement than a thousand rows have.
    assert len([said for said in seen if said.split()[0] in ("INSERT", "SELECT", "WITH")]) <= 8


@on_mariadb
def test_more_than_one_statement_holds(store: Store) -> None:
    """A thousand entries may be longer than the longest statement that the server takes."""
    text = "x" * 60_000  # 18 MB in all; the limit is 16 by default
    report = store.add_many([Declared(f"a{n}", "t", 60, args=[text]) for n in range(300)])
    assert (len(report.names), report.refused) == (300, ())
    assert store.get("a299").args == [text]


@pytest.mark.parametrize("given", [None, 5, "text", {"a": 1}])
def test_what_is_no_iterable(store: Store, given: Any) -> None:
    """What can't be gone through is refused as a whole."""
    for method in (store.add_many, store.schedule_many):
        with pytest.raises(InvalidEntryError, match="an iterable"):
            method(given)


@pytest.mark.parametrize("page", [0, -1, 1.5, "x"])
def test_a_page_is_a_whole_number(store: Store, page: Any) -> None:
    """A page of no entries would never end."""
    with pytest.raises(InvalidEntryError, match="page"):
        store.add_many(itertools.repeat(Declared("a", "t", 60)), page=page)


def test_texts_that_databases_mind(store: Store) -> None:
    """Texts that a database could take for something else come back as they were given."""
    for number, text in enumerate(
        ("\\u0000", "%s %(a)s :b", "'\"`", "\ud7ff\ue000", "null", "[1]")
    ):
        report = store.add_many(
            [Declared(f"n{number}{text}", "t", 60, args=[text], description=text, tags=["a b"])]
        )
        assert report.refused == ()
        made = store.get(report.names[0])
        assert (list(made.args), made.description, made.tags) == ([text], text, ("a b",))


def test_a_nul_within_json(store: Store) -> None:
    """JSON may hold a NUL, in a key too; the entry is written, and so is the rest of its page."""
    odd: Any = {"args": ["a\0b", {"k\0": "\\u0000"}], "kwargs": {"x": 1e22, "y": "\0"}}
    entries = [Declared("a", "t", 60), Declared("b", "t", 60, **odd), Declared("c", "t", 60)]
    assert store.add_many(entries).names == ("a", "b", "c")
    made = store.get("b")
    assert ([*made.args], {**made.kwargs}) == (odd["args"], odd["kwargs"])
    assert store.audit("b")[0].after["args"] == odd["args"]
    assert store.put("b", "t", 60, **odd).version == 1
    calls = [(app.signature("t", args=(text,)), NOON) for text in ("x", "\0")]
    shots = store.schedule_many(calls)
    assert [[*store.get(name).args] for name in shots.names] == [["x"], ["\0"]]


@on_mariadb
def test_json_that_is_too_deep_for_the_database(store: Store) -> None:
    """Arguments that the database can't hold refuse their entry, not all that come with it."""
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    calls = [("t", NOON), (app.signature("t", args=(deep,)), NOON), ("t", NOON)]
    report = store.schedule_many(calls)
    assert len(report.names) == 2
    assert [one.index for one in report.refused] == [1]
    added = store.add_many([Declared("a", "t", 60), Declared("b", "t", 60, args=[deep])])
    assert (added.names, added.refused[0].name) == (("a",), "b")
