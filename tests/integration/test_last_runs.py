"""The last runs of many entries at once."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from beatstore import InvalidEntryError, Store
from beatstore.models import RunModel
from beatstore.store import last_runs
from tests.support.written import MINUTE, NOON, due, run, write

pytestmark = pytest.mark.every_database


@pytest.fixture
def names(store: Store) -> list[str]:
    """Return the names of three entries: of five runs, of two attempts and a run, of none."""
    busy, retried = store.add("busy", "t", 60), store.add("retried", "t", 60)
    store.add("new", "t", 60)
    write(store, RunModel, *(run(busy, NOON + minute * MINUTE) for minute in (3, 1, 5, 2, 4)))
    write(
        store,
        RunModel,
        run(retried, NOON + 2 * MINUTE, attempt=2, state="succeeded"),
        run(retried, NOON + 2 * MINUTE, state="failed", traceback="Traceback"),
        run(retried, NOON + MINUTE, state="lost"),
    )
    return ["new", "retried", "busy"]


def test_the_last_runs_of_each_entry(store: Store, names: list[str]) -> None:
    """Each entry has its newest runs, by due time and attempt, and its own limit."""
    found = store.last_runs(names, limit=2)
    assert list(found) == names
    assert due(list(found["busy"])) == [5, 4]
    assert [(one.state, one.attempt) for one in found["retried"]] == [
        ("succeeded", 2),
        ("failed", 1),
    ]
    assert found["new"] == ()
    assert found["busy"] == tuple(store.runs("busy", limit=2))
    assert due(list(store.last_runs(names)["busy"])) == [5, 4, 3, 2, 1]


def test_names_that_nobody_has(store: Store, names: list[str]) -> None:
    """An unknown name has no runs, and a name that was renamed has those of its entry."""
    store.change("busy", new_name="it's :busy %s")
    found = store.last_runs(["busy", "it's :busy %s", "it's :busy %s"], limit=1)
    assert list(found) == ["busy", "it's :busy %s"]
    assert found["busy"] == ()
    assert due(list(found["it's :busy %s"])) == [5]
    assert store.last_runs([]) == {}


def test_one_statement(store: Store, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """All entries are read in one statement, and more than it takes in several."""
    executed: list[Any] = []
    event.listen(store.database.engine, "before_cursor_execute", lambda *_: executed.append(1))
    many = [*names, *(f"none {number}" for number in range(390))]
    assert len(store.last_runs(many)["busy"]) == 5
    assert len(executed) == 1
    found = store.last_runs(names)
    monkeypatch.setattr(last_runs, "_ENTRIES", 2)
    assert store.last_runs(names) == found


@pytest.mark.parametrize(
    "asked", [{"names": "busy"}, {"names": 7}, {"names": [7]}, {"names": [], "limit": 0}]
)
def test_arguments_that_cant_be_used(store: Store, asked: dict[str, Any]) -> None:
    """One name for a list, something else for a name, and no limit are refused."""
    with pytest.raises(InvalidEntryError):
        store.last_runs(**asked)


def test_a_name_with_a_space_after_it_adds_nothing(
    store: Store, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB finds an entry by both; its runs are there once, also by several statements."""
    for most in (400, 1):
        monkeypatch.setattr(last_runs, "_ENTRIES", most)
        found = store.last_runs(["busy", "busy ", "retried"], limit=2)
        assert due(list(found["busy"])) == [5, 4]
        assert found["busy "] == ()
        assert len(found["retried"]) == 2
