"""What happened, on every database: runs and errors, by entry, state, time and worker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event

from beatstore import Page, Run, Store
from beatstore.errors import EntryNotFoundError, InvalidEntryError
from beatstore.models import RunModel
from beatstore.store import history
from beatstore.types import RunSort
from tests.support.marks import on_sqlite
from tests.support.written import HOUR, MINUTE, NOON, due, run, sql, write

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`


# -- runs ------------------------------------------------------------------------------


def test_the_runs_of_an_entry_are_newest_first(store: Store) -> None:
    """They come by due time, whatever order they were recorded in, and page by page."""
    entry = store.add("a", "t", 60)
    other = store.add("b", "t", 60)
    minutes = [3, 1, 4, 2, 5, 9, 7]
    write(store, RunModel, *(run(entry, NOON + timedelta(minutes=minute)) for minute in minutes))
    write(store, RunModel, run(other, NOON))
    write(store, RunModel, run(entry, NOON + timedelta(minutes=5), attempt=2))
    assert due(store.runs("a")) == [9, 7, 5, 5, 4, 3, 2, 1]
    found: list[Run] = []
    while page := store.runs("a", limit=3, before_id=found[-1].id if found else None):
        assert len(page) <= 3
        found += page
    assert due(found) == [9, 7, 5, 5, 4, 3, 2, 1]
    assert [item.attempt for item in found[2:4]] == [2, 1]


def test_all_runs_are_in_the_order_they_were_recorded(store: Store) -> None:
    """Without a name, the one written last comes first, across entries and page by page."""
    entry, other = store.add("a", "t", 60), store.add("b", "t", 60)
    for minute in range(5):
        write(
            store, RunModel, run(entry if minute % 2 else other, NOON - timedelta(minutes=minute))
        )
    assert due(store.runs()) == [-4, -3, -2, -1, 0]
    first = store.runs(limit=2)
    assert due(store.runs(limit=2, before_id=first[-1].id)) == [-2, -1]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("due", [6, 5, 4, 3, 2, 1]),
        ("sent", [2, 5, 4, 3, 1]),
        ("started", [2, 5, 4, 3, 1]),
        ("finished", [4, 2, 3, 1]),
        # What still runs comes first; then by microseconds, and of equals the newer one.
        ("runtime", [5, 4, 3, 2, 1]),
        ("lateness", [2, 3, 1]),
    ],
)
def test_runs_are_sorted(store: Store, sort: RunSort, expected: list[int]) -> None:
    """By what is asked for, page by page, of an entry and of all; who lacks it is left out."""
    entry = store.add("a", "t", 60)
    micro = timedelta(microseconds=1)

    def ran(minute: int, sent: int, took: timedelta, **columns: Any) -> dict[str, Any]:
        at = NOON + timedelta(minutes=minute) + micro
        times = {"sent_at": at + timedelta(seconds=sent), "started_at": at + MINUTE * sent}
        times["finished_at"] = times["started_at"] + took
        return {**run(entry, at, state="succeeded"), **times, **columns}

    write(
        store,
        RunModel,
        ran(1, 0, timedelta(seconds=1, microseconds=7)),
        ran(2, 300, timedelta(seconds=1, microseconds=7)),
        ran(3, 2, timedelta(seconds=1, microseconds=8)),
        ran(4, 1, timedelta(days=400), attempt=2),
        {**ran(5, 1, timedelta()), "state": "started", "finished_at": None, "attempt": 3},
        run(entry, NOON + timedelta(minutes=6), state="missed"),
    )
    for name in ("a", None):
        assert [one.id for one in store.runs(name, sort=sort)] == expected
        found: list[int] = []
        more = True
        while more:
            last = found[-1] if found else None
            page = store.runs(name, sort=sort, limit=2, before_id=last)
            found, more = found + [one.id for one in page], page.more
        assert found == expected


def test_a_page_can_not_follow_what_is_not_sorted(store: Store) -> None:
    """A run without what is sorted by, or none at all, is no place to go on from."""
    entry = store.add("a", "t", 60)
    write(store, RunModel, run(entry, NOON, state="missed"))
    for before_id in (1, 99):
        with pytest.raises(InvalidEntryError, match="before_id"):
            store.runs(sort="runtime", before_id=before_id)
    with pytest.raises(InvalidEntryError, match="sort"):
        store.runs(sort="name")  # type: ignore[arg-type]


def test_a_page_says_if_more_follow(store: Store) -> None:
    """Lists that a limit has cut say so, and those that are complete say that."""
    entry = store.add("a", "t", 60)
    store.add("b", "t", 60)
    write(store, RunModel, *(run(entry, NOON + MINUTE * at, state="failed") for at in range(2)))
    pages: dict[str, Callable[[int], Page[Any]]] = {
        "entries": lambda limit: store.entries(limit=limit),
        "names": lambda limit: store.names(limit=limit),
        "runs": lambda limit: store.runs(limit=limit),
        "runs of one": lambda limit: store.runs("a", limit=limit),
        "errors": lambda limit: store.errors("a", limit),
        "audit": lambda limit: store.audit(limit=limit),
    }
    for name, read in pages.items():
        cut, whole = read(1), read(2)
        assert (len(cut), cut.more) == (1, True), name
        assert (len(whole), whole.more) == (2, False), name
        assert isinstance(whole, list)
    assert store.upcoming(limit=2).more
    assert not store.upcoming(until=NOON + MINUTE * 1.5, limit=2).more
    assert store.names(name="a").more is False


# -- one run ---------------------------------------------------------------------------


def test_a_run_is_found_by_its_id_or_its_task(store: Store) -> None:
    """It comes with all attempts at its due time, and its entry as it is now."""
    entry = store.add("a", "t", 60, args=[1])
    write(
        store,
        RunModel,
        run(entry, NOON, state="failed", task_id="first"),
        run(entry, NOON, state="sent", attempt=2, task_id="second"),
        run(entry, NOON + MINUTE, task_id="other"),
    )
    for given in (1, "first", store.runs(state="failed")[0]):
        found = store.run(given)
        assert (found.run.id, found.run.task_id) == (1, "first")
        assert [one.task_id for one in found.attempts] == ["first", "second"]
        assert found.entry is not None
        assert found.entry.args == [1]
    store.change("a", new_name="b")
    assert getattr(store.run("second").entry, "name", None) == "b"
    store.remove("b")
    assert store.run("second").entry is None


@pytest.mark.any_database
@pytest.mark.parametrize("given", [99, -1, 2**70, "nobody", "", "x" * 1000, "\ud800", "\0"])
def test_a_run_that_is_not_there(store: Store, given: int | str) -> None:
    """Any other id is refused, with what was given."""
    store.trigger(store.add("a", "t", 60).name)
    for act in (store.run, store.rerun, lambda one: store.end(one, "failed")):
        with pytest.raises(InvalidEntryError, match="run"):
            act(given)


def test_runs_are_named_by_their_task(store: Store) -> None:
    """`rerun` and `end` take the id of a task for its run."""
    entry = store.add("a", "t", 60)
    write(
        store,
        RunModel,
        run(entry, NOON, state="failed", task_id="x"),
        run(entry, NOON - MINUTE, task_id="y"),
    )
    assert store.rerun("x").attempt == 2
    assert store.end("y", "failed").state == "failed"


def test_runs_are_filtered_by_state_and_time(store: Store) -> None:
    """The window starts with the instant x."""
    entry = store.add("a", "t", 60)
    states = ["sent", "failed", "sent", "missed"]
    for minute, state in enumerate(states):
        write(store, RunModel, run(entry, NOON + timedelta(minutes=minute), state=state))
    assert due(store.runs("a", state="sent")) == [2, 0]
    window = {"since": NOON + timedelta(minutes=1), "until": NOON + timedelta(minutes=3)}
    assert due(store.runs("a", **window)) == due(store.runs(**window)) == [2, 1]
    with pytest.raises(InvalidEntryError, match="one of claimed, sent"):
        store.runs(state="done")
    with pytest.raises(InvalidEntryError, match="since"):
        store.runs(since=datetime(2026, 1, 1))


def test_the_runs_of_a_removed_entry_are_found_by_its_name(store: Store) -> None:
    """History outlives its entry; a name that never was is an error."""
    write(store, RunModel, run(store.add("a", "t", 60), NOON))
    store.remove("a")
    assert due(store.runs("a")) == [0]
    with pytest.raises(EntryNotFoundError):
        store.runs("b")


def test_a_renamed_entry_keeps_its_runs(store: Store) -> None:
    """Runs belong to the entry, not to the name it had."""
    write(store, RunModel, run(store.add("a", "t", 60), NOON))
    store.change("a", new_name="b")
    assert [item.entry_name for item in store.runs("b")] == ["a"]


@on_sqlite
def test_pages_follow_an_index(store: Store) -> None:
    """No page of entries or runs is made by reading a table, however long it is."""
    entry = store.add("a", "t", 60, tags=["x"])
    write(store, RunModel, run(entry, NOON))
    seen: list[tuple[str, Any]] = []
    engine = store.database.engine
    event.listen(engine, "before_cursor_execute", lambda *args: seen.append((args[2], args[3])))
    store.get("a")
    store.entries(after="A", limit=5)
    store.entries(tag="x", state="active")
    store.entries(name="a*")
    store.runs(limit=5, before_id=9)
    store.runs("a", limit=5, before_id=1)
    store.runs("a", since=NOON, state="sent")
    store.preview("a")
    asked = list(seen)
    with engine.connect() as connection:
        for statement, parameters in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps = [row.detail for row in plan]
            assert all(" USING " in step for step in steps if step.startswith("SCAN beat")), steps
            # Those of a tag, or what one entry waits for, may be sorted.
            few = any("beatstore_tag" in step or "beatstore_dep" in step for step in steps)
            assert few or "USE TEMP B-TREE FOR ORDER BY" not in steps, steps


def test_runs_are_filtered_by_several_states_tag_task_and_worker(store: Store) -> None:
    """Filters add up, with a name or without, and page like everything else."""
    mail = store.add("mail", "mails.send", 60, tags=["night"])
    sums = store.add("sums", "sums.make", 60, tags=["night", "money"])
    for minute, state in enumerate(["failed", "succeeded", "lost", "sent"]):
        at = NOON + timedelta(minutes=minute)
        write(store, RunModel, run(mail, at, state=state, worker="celery@one"))
        write(store, RunModel, run(sums, at, state=state, worker="celery@two"))
    assert due(store.runs("mail", state=["failed", "lost"])) == [2, 0]
    assert due(store.runs(state={"failed"})) == [0, 0]
    assert {item.entry_name for item in store.runs(tag="money")} == {"sums"}
    assert len(store.runs(tag="night", state="lost")) == 2
    assert {item.entry_name for item in store.runs(task="mails.send")} == {"mail"}
    assert due(store.runs(worker="celery@two", since=NOON + 2 * MINUTE)) == [3, 2]
    first = store.runs(tag="night", limit=3)
    assert len(store.runs(tag="night", before_id=first[-1].id)) == 5
    assert store.runs(tag="day") == store.runs(task="t") == store.runs(state=[]) == []
    for wrong in (["failed", "done"], 7):
        with pytest.raises(InvalidEntryError, match="state"):
            store.runs(state=wrong)  # type: ignore[arg-type]


def test_the_last_errors_of_an_entry_are_one_call_away(store: Store) -> None:
    """What failed or was lost, newest first, with its text; also of an entry that is gone."""
    entry = store.add("a", "t", 60)
    other = store.add("b", "t", 60)
    for minute in range(20):
        state = ("succeeded", "failed", "lost", "missed")[minute % 4]
        error = {"error": f"ValueError: {minute}", "traceback": "Traceback …"}
        write(store, RunModel, run(entry, NOON + timedelta(minutes=minute), state=state, **error))
        write(store, RunModel, run(other, NOON + timedelta(minutes=minute), state="failed"))
    found = store.errors("a")
    assert due(found) == [18, 17, 14, 13, 10]
    assert [item.state for item in found] == ["lost", "failed", "lost", "failed", "lost"]
    assert (found[1].error, found[1].traceback) == ("ValueError: 17", "Traceback …")
    assert due(store.errors("a", 1)) == [18]
    assert len(store.errors("a", 100)) == 10
    store.remove("a")
    assert due(store.errors("a")) == [18, 17, 14, 13, 10]
    with pytest.raises(EntryNotFoundError):
        store.errors("c")
    with pytest.raises(InvalidEntryError, match="limit"):
        store.errors("b", 0)


@pytest.mark.parametrize("near", [(1, 2), (3, 7), (2_000, 20_000)])
@pytest.mark.parametrize("sort", [None, "due"])
def test_runs_of_a_tag_or_task_are_all_found(
    store: Store, monkeypatch: pytest.MonkeyPatch, near: tuple[int, ...], sort: RunSort | None
) -> None:
    """However many of the newest runs are searched first, page after page, and in the order."""
    monkeypatch.setattr(history, "_NEAR", near)
    entries = [store.add(f"e{n}", f"t{n % 2}", 60, tags=["x"] if n % 3 else []) for n in range(6)]
    rows = [(entries[n * 7 % 6], NOON - n * 5 % 11 * MINUTE) for n in range(30)]
    write(store, RunModel, *(run(e, at, attempt=n) for n, (e, at) in enumerate(rows, 1)))
    for chosen in ({"tag": "x"}, {"task": "t1"}, {"tag": "x", "task": "t0", "since": NOON - HOUR}):
        expected = [
            one.id
            for one in store.runs(sort=sort, limit=100)
            if ("tag" not in chosen or store.get(one.entry_name).tags)
            and chosen.get("task") in (None, store.get(one.entry_name).task)
        ]
        found: list[int] = []
        more = True
        while more:
            before = found[-1] if found else None
            page = store.runs(**chosen, sort=sort, limit=3, before_id=before)  # type: ignore[arg-type]
            found += [one.id for one in page]
            more = page.more
        assert found == expected
        of_one = store.runs("e1", **chosen)  # type: ignore[arg-type]
        assert [one.id for one in of_one] == (
            [one.id for one in store.runs("e1")] if chosen.get("task") != "t0" else []
        )


@on_sqlite
def test_an_error_with_an_unreadable_due_time_hides_no_other(store: Store) -> None:
    """SQLite takes any text for an instant; the run is shown with it, beside the others."""
    entry = store.add("a", "t", 60)
    write(store, RunModel, *(run(entry, NOON - hours * HOUR, state="failed") for hours in (1, 2)))
    write(store, RunModel, run(entry, NOON, state="lost"))
    sql(store, "UPDATE beatstore_run SET due_at = 'soon' WHERE state = 'lost'")
    assert [str(item.due_at) for item in store.errors("a")][1:] == [
        str(NOON - HOUR),
        str(NOON - 2 * HOUR),
    ]
    assert len(store.errors("a", limit=1)) == 1
    with pytest.raises(InvalidEntryError, match="due time can be read"):
        store.rerun(store.errors("a")[0].id)


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"], indirect=True)
def test_the_last_errors_are_read_off_the_partial_index(store: Store) -> None:
    """Among many runs of many entries, as many rows are read as are asked for."""
    entry = store.add("a", "t", 60)
    rows = [
        run(number, NOON + timedelta(seconds=second), state=state)
        for number in range(entry.id, entry.id + 100)
        for second in range(100)
        for state in ["failed" if second % 10 == 0 else "succeeded"]
    ]
    write(store, RunModel, *rows)
    engine = store.database.engine
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
    seen: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda *args: seen.append((args[2], args[3])))
    assert len(store.errors("a")) == 5
    asked = [item for item in seen if "succeeded" in item[0]]
    assert len(asked) == 2
    how = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    with engine.connect() as connection:
        for statement, parameters in asked:
            plan = connection.exec_driver_sql(f"{how} {statement}", parameters)
            steps = " / ".join(str(row[-1]) for row in plan)
            assert "ix_beatstore_run_entry_id_state_due_at" in steps, steps
            assert "Seq Scan" not in steps, steps
