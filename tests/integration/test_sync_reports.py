"""What a sync refuses, and how it tells what it did."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from beatstore import After, Declared, Store
from beatstore.errors import InvalidEntryError
from tests.support.harness.play import NOON
from tests.support.synced import NIGHTLY, one, sync, verdicts

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`


# -- what can't be done ----------------------------------------------------------------


def test_what_cant_be_stored_is_refused_alone(store: Store) -> None:
    """Each is reported with its reason, and the others go on."""
    report = sync(
        store,
        *(one("cron", "nonsense"), one("zone", timezone="Nowhere/None"), one("args", args=[{1}])),
        *(one("", NIGHTLY), one("never", None), one("over", end_at=NOON), one("up", after=["no"])),
        *(one("good"), one("waits", after=["up"]), one("own", after=["own"])),
        *(one(7), one("a\0b"), one("\ud800")),  # type: ignore[arg-type]
        refused={"elsewhere": "unreadable"},
    )
    assert report.created == ("good",)
    words = {
        **{"cron": "expression", "zone": "Nowhere/None", "args": "args[0]", "": "name"},
        **{"never": "schedule", "over": "end_at", "up": "no entry is named 'no'", "7": "name"},
        **{"waits": "no entry is named 'up', because it was refused", "own": "first_free=True"},
        **{"elsewhere": "unreadable", repr("a\0b"): "name", repr("\ud800"): "name"},
    }
    assert report.refused.keys() == words.keys()
    for name, word in words.items():
        assert word in report.refused[name], name


def test_a_refused_entry_stays_as_it_is(store: Store) -> None:
    """What code can't say properly any more goes on as it said it last."""
    sync(store, one("a"), one("b"), one("c"), one("d"))
    report = sync(
        store,
        *(one("a", "nonsense"), one("c", after=["d"]), one("d", after=["c"])),
        refused={"b": "unreadable"},
    )
    assert verdicts(report) == dict.fromkeys("abcd", "refused")
    assert [(entry.state, entry.version, entry.spec) for entry in store.entries()] == [
        ("active", 1, NIGHTLY)
    ] * 4


def test_a_cycle_is_refused_with_all_its_members(store: Store) -> None:
    """Edges are judged by what all of them become: a turned edge is none, a new cycle is."""
    sync(store, one("a"), one("b", after=["a"]), one("c"))
    turned = sync(store, one("a", after=["b"]), one("b"), one("c"))
    assert verdicts(turned) == {"a": "updated", "b": "updated", "c": "unchanged"}
    cycle = sync(store, one("a", after=["b"]), one("b", after=["c"]), one("c", after=["a"]))
    assert verdicts(cycle) == {"a": "unchanged", "b": "refused", "c": "refused"}
    assert "'a' would create a dependency cycle: 'a' → 'c' → 'b' → 'a'" in cycle.refused["c"]
    free = After("a", first_free=True)
    fine = sync(store, one("a", after=["b"]), one("b", after=["c"]), one("c", after=[free]))
    assert verdicts(fine) == {"a": "unchanged", "b": "updated", "c": "updated"}


def test_declared_twice(store: Store) -> None:
    """Twice the same is once; two of one name that differ are refused."""
    sync(store, one("b"))
    odd = object()
    report = sync(
        store,
        *(one("a"), one("a"), one("b"), one("b", grace=5), one("c", 60), one("c", 60.0)),
        *(one("d", args=[odd]), one("d", args=[odd])),
    )
    assert (report.created, sorted(report.refused)) == (("a", "c"), ["b", "d"])
    assert report.refused["b"] == "is declared twice, with different options"
    assert store.get("b").grace_s is None


def test_an_edit_that_the_code_leaves_impossible_is_refused(store: Store) -> None:
    """Where only the two together are impossible, the row stays and the reason is given."""
    end = NOON + timedelta(days=30)
    sync(store, one("a", end_at=end), one("b", after=["a"]))
    store.change("a", start_at=NOON + timedelta(days=20))
    store.unlink("b", "a")
    report = sync(store, one("a", end_at=NOON + timedelta(days=10)), one("b", None, after=["a"]))
    assert "start_at" in report.refused["a"]
    assert "removed all" in report.refused["b"]
    assert store.get("a").end_at == end


def test_only_declared_entries_are_taken(store: Store) -> None:
    """What is no `Declared` is a mistake of the caller's."""
    with pytest.raises(InvalidEntryError, match="Declared"):
        sync(store, "a")  # type: ignore[arg-type]


# -- how it is told --------------------------------------------------------------------


def test_a_dry_run_says_the_same_and_writes_nothing(store: Store) -> None:
    """The report of a dry run is that of the sync, and the database is as it was."""
    sync(store, one("a"), one("b"), one("c"), one("d"))
    store.change("c", grace=7)
    now = [one("a", args=[1]), one("c", grace=5), one("d"), one("e", after=["a"]), one("f", "x")]

    def everything() -> list[Any]:
        with store.database.engine.connect() as connection:
            tables = ("entry", "dependency", "audit", "tag", "run")
            return [
                connection.execute(text(f"SELECT * FROM beatstore_{name}")).all() for name in tables
            ]

    before = everything()
    dry = sync(store, *now, dry_run=True)
    assert everything() == before
    assert dry == sync(store, *now)
    assert verdicts(dry) == {
        **{"a": "updated", "b": "deactivated", "c": "unchanged"},
        **{"d": "unchanged", "e": "created", "f": "refused"},
    }


def test_a_report_is_read_by_people(store: Store) -> None:
    """A report prints a line for each entry that needs a look, and counts the others."""
    sync(store, one("a"), one("b"), one("c"))
    store.change("c", grace=7)
    many = [one(f"e{number:02}") for number in range(25)]
    said = str(sync(store, one("a", args=[1]), one("c"), *many, refused={"x": "no"}))
    lines = said.splitlines()
    assert lines[0] == "app: 25 created, 1 updated, 1 deactivated, 1 unchanged"
    assert "  created: e19" in lines
    assert lines[21:] == [
        *("  created: 5 more", "  updated: a", "  deactivated: b"),
        *("  kept as edited: c (grace)", "  refused: x: no"),
    ]


def test_the_audit_tells_what_a_sync_did(store: Store) -> None:
    """Each entry that a sync changed has a row that says how, and by whom."""
    sync(store.by("deploy"), one("a", tags=["x"]), one("b"))
    sync(store.by("deploy"), one("a", "0 3 * * *", tags=["y"], after=["up"]), one("up"))
    told = {(row.entry, row.action, row.actor): (row.before, row.after) for row in store.audit()}
    assert {key[1:] for key in told} == {("sync", "deploy")}
    rows = store.audit("a")
    assert len(rows) == 2
    before, after = rows[0].before, rows[0].after
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert (before["spec"], after["spec"]) == (NIGHTLY, "0 3 * * *")
    assert (before["tags"], after["tags"]) == (["x"], ["y"])
    assert (before["after"], after["after"]) == ([], [{"name": "up"}])
    first = rows[1]
    assert first.before is None
    assert isinstance(first.after, dict)
    assert (first.after["task"], first.after["tags"], first.after["state"]) == (
        "t",
        ["x"],
        "active",
    )
    [gone] = store.audit("b", limit=1)
    assert (gone.before, gone.after) == ({"state": "active"}, {"state": "cancelled"})


def test_a_sync_takes_part_in_the_callers_transaction(store: Store) -> None:
    """Nothing is seen before the caller's commit, and all is undone by their rollback."""
    sync(store, one("old"))
    with Session(store.database.engine) as session:
        report = sync(store, one("a"), session=session)
        assert verdicts(report) == {"a": "created", "old": "deactivated"}
        assert store.get("a", session=session).state == "active"
        session.rollback()
    assert [(entry.name, entry.state) for entry in store.entries()] == [("old", "active")]
    with Session(store.database.engine) as session:
        assert verdicts(sync(store, one("a"), session=session, dry_run=True))["a"] == "created"
        sync(store, one("a"), session=session)
        session.commit()
    assert [(entry.name, entry.state) for entry in store.entries()] == [
        ("a", "active"),
        ("old", "cancelled"),
    ]


def test_lists_that_can_be_read_once(store: Store) -> None:
    """What is declared with generators is stored as with lists."""
    given = Declared("a", "t", NIGHTLY, tags=(tag for tag in "xy"), after=iter(["b"]))
    store.sync((each for each in [given, one("b")]), source="app")
    assert store.get("a").tags == ("x", "y")
    assert [edge.upstream for edge in store.graph(name="a").edges] == ["b"]
