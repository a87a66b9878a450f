"""Names with a space after them: MariaDB compares texts without those, and nobody means them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from beatstore import Store
from beatstore.errors import EntryNotFoundError, InvalidEntryError

pytestmark = pytest.mark.every_database

CALLS: dict[str, Callable[[Store], Any]] = {
    "get": lambda store: store.get("berlin "),
    "pause": lambda store: store.pause("berlin "),
    "cancel": lambda store: store.cancel("berlin "),
    "remove": lambda store: store.remove("berlin "),
    "trigger": lambda store: store.trigger("berlin "),
    "change": lambda store: store.change("berlin ", description="x"),
    "runs": lambda store: store.runs("berlin "),
    "explain": lambda store: store.explain("berlin "),
    "preview": lambda store: store.preview("berlin "),
}


@pytest.fixture
def filled(store: Store) -> Store:
    """Return a store with one entry, and a run of it."""
    store.add("berlin", "proj.load", 60, tags=["etl"])
    store.trigger("berlin")
    return store


@pytest.mark.parametrize("call", CALLS)
def test_a_name_is_exact(filled: Store, call: str) -> None:
    """No call takes an entry for one whose name has a space after it; it says what is there."""
    before = filled.get("berlin")
    with pytest.raises(EntryNotFoundError, match="'berlin'"):
        CALLS[call](filled)
    assert filled.get("berlin") == before


def test_names_of_many(filled: Store) -> None:
    """Nor does one that is given many names."""
    report = filled.pause_many(["berlin ", "berlin"])
    assert (report.states, [one.index for one in report.refused]) == ({"berlin": "paused"}, [0])
    assert filled.last_runs(["berlin "]) == {"berlin ": ()}
    with pytest.raises(InvalidEntryError):
        filled.run(filled.runs("berlin")[0].task_id + " ")


@pytest.mark.parametrize("given", [{"tag": "etl "}, {"source": "api "}])
def test_what_entries_are_chosen_by(filled: Store, given: dict[str, str]) -> None:
    """A tag or a source with a space after it is another one, which nobody has."""
    assert filled.entries(**given) == []  # type: ignore[arg-type]
    assert list(filled.names(**given)) == []  # type: ignore[arg-type]


def test_what_others_are_chosen_by(filled: Store) -> None:
    """So it is with runs, the audit and the graph."""
    assert filled.runs(tag="etl ") == filled.runs(task="proj.load ") == []
    assert len(filled.runs(tag="etl")) == len(filled.runs(task="proj.load")) == 1
    assert filled.audit("berlin ") == []
    assert not filled.graph(tag="etl ").nodes
