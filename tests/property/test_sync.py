"""Code, users and syncs in any order: no edit is lost, and a second sync finds nothing to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beatstore import Declared, Store
from tests.support.marks import on_servers, on_sqlite
from tests.support.thorough import tries

NAMES = ("a", "b")
FIELDS: dict[str, list[Any]] = {
    # When it is due is one thing, so its parts are edited together.
    "due": [("0 2 * * *", "UTC"), ("0 3 * * *", "Asia/Tokyo"), ("*/5 * * * *", "UTC")],
    "args": [[], [1], [True], [1.0]],
    "tags": [[], ["x"], ["x", "y"]],
    "after": [[], ["up"], ["up", "upper"]],
    "grace": [None, 5.0],
    "paused": [False, True],
}
START: dict[str, Any] = {name: values[0] for name, values in FIELDS.items()}

A_VALUE = st.sampled_from(
    [(name, value) for name, values in FIELDS.items() for value in range(len(values))]
)
A_STEP = st.tuples(
    st.sampled_from(["code", "code", "user", "user", "leave", "enter", "cancel", "run", "sync"]),
    st.sampled_from(NAMES),
    A_VALUE,
)


@dataclass
class Entry:
    """What one entry should be.

    Attributes:
        code: what code says now; None while it does not declare it.
        said: what it said at the last sync that declared it; None before the first.
        mine: what a user gave other values than code had said, and which.
        is_cancelled: whether a user cancelled it.
        is_let_go: whether it was away from the code at the last sync.
        runs: how often it was run by hand.
    """

    code: dict[str, Any] | None = None
    said: dict[str, Any] | None = None
    mine: dict[str, Any] = field(default_factory=dict)
    is_cancelled: bool = False
    is_let_go: bool = False
    runs: int = 0

    @property
    def is_in_service(self) -> bool:
        """Whether a user may edit it without putting it back into service by that."""
        return self.said is not None and not self.is_cancelled and not self.is_let_go

    def sync(self) -> None:
        """Note that code and database were compared."""
        self.is_let_go = self.code is None
        if self.code is not None:
            code = self.said = dict(self.code)
            self.mine = {
                name: value for name, value in self.mine.items() if repr(value) != repr(code[name])
            }

    def edit(self, name: str, value: Any) -> None:
        """Note that a user gave a field a value."""
        assert self.said is not None
        self.mine.pop(name, None)
        if repr(value) != repr(self.said[name]):
            self.mine[name] = value


class World:
    """A store, and beside it what its entries should be."""

    def __init__(self, store: Store, number: int) -> None:
        self.store = store
        self.source = f"code{number}"
        self.entries = {name: Entry() for name in NAMES}

    def name(self, name: str) -> str:
        """Return a name that no other example has."""
        return f"{self.source}-{name}"

    def step(self, kind: str, name: str, change: tuple[str, int]) -> None:
        """Let code, a user or a sync do something."""
        entry = self.entries[name]
        what, value = change[0], FIELDS[change[0]][change[1]]
        if kind == "code" and entry.code is not None:
            entry.code[what] = value
        elif kind == "enter" and entry.code is None:
            entry.code = dict(entry.said or START)
        elif kind == "leave":
            entry.code = None
        elif kind == "sync":
            self.sync()
        elif entry.is_in_service:
            self.by_user(kind, name, what, value)

    def by_user(self, kind: str, name: str, what: str, value: Any) -> None:
        """Let a user do something to an entry that is in service."""
        entry, row = self.entries[name], self.name(name)
        edits: dict[str, Callable[[], Any]] = {
            "due": lambda: self.store.change(row, schedule=value[0], timezone=value[1]),
            "paused": lambda: (self.store.pause if value else self.store.resume)(row),
        }
        if kind == "user":
            edits.get(what, lambda: self.store.change(row, **{what: value}))()
            entry.edit(what, value)
        elif kind == "cancel":
            self.store.cancel(row)
            entry.is_cancelled = True
        elif kind == "run":
            self.store.trigger(row)
            entry.runs += 1

    def sync(self) -> None:
        """Sync, compare everything, and sync again."""
        declared = [
            self.declared(name, entry.code)
            for name, entry in self.entries.items()
            if entry.code is not None
        ]
        dry = self.store.sync(declared, source=self.source, dry_run=True)
        report = self.store.sync(declared, source=self.source)
        assert dry == report
        assert not report.refused
        new = {self.name(name) for name, entry in self.entries.items() if entry.said is None}
        assert set(report.created) == new & {one.name for one in declared}
        for entry in self.entries.values():
            entry.sync()
        self.compare()
        versions = self.versions()
        again = self.store.sync(declared, source=self.source)
        assert set(again.unchanged) == {one.name for one in declared}
        assert (again.created, again.updated, again.deactivated) == ((), (), ())
        assert again.kept == report.kept
        assert self.versions() == versions

    def declared(self, name: str, code: dict[str, Any]) -> Declared:
        """Return an entry as code has it."""
        rest = {key: value for key, value in code.items() if key != "due"}
        schedule, timezone = code["due"]
        return Declared(self.name(name), "t", schedule, timezone=timezone, **rest)

    def compare(self) -> None:
        """Find each entry as it should be."""
        for name, entry in self.entries.items():
            if entry.said is None:
                continue
            row = self.store.get(self.name(name))
            should = {**entry.said, **entry.mine}
            assert (row.spec, row.timezone) == should["due"]
            assert repr(row.args) == repr(should["args"])
            assert row.grace_s == should["grace"]
            assert list(row.tags) == should["tags"]
            edges = self.store.graph(name=row.name).edges
            assert sorted(edge.upstream for edge in edges) == should["after"]
            is_over = entry.is_cancelled or entry.is_let_go
            state = "cancelled" if is_over else "paused" if should["paused"] else "active"
            assert row.state == state
            assert state != "active" or row.wake_at is not None
            assert len(self.store.runs(row.name)) == entry.runs
            differs = set() if entry.is_let_go else {*entry.mine} - {"due", "paused"}
            assert {*row.edited} - {"schedule", "timezone", "state"} == differs

    def versions(self) -> list[tuple[str, int]]:
        """Return how often each entry was edited."""
        found = self.store.entries(source=self.source)
        return [(entry.name, entry.version) for entry in found]


@pytest.fixture(scope="module")
def numbers() -> count[int]:
    """Number the examples."""
    return count()


def play(store: Store, steps: list[tuple[str, str, tuple[str, int]]], number: int) -> None:
    """Let all this happen, and a sync at the end."""
    for upstream in ("up", "upper"):
        store.put(upstream, "t", 3600)
    world = World(store, number)
    for name in NAMES:
        world.step("enter", name, ("due", 0))
    world.step("sync", "a", ("due", 0))
    for step in steps:
        world.step(*step)
    world.sync()


FREELY = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@on_sqlite
@settings(max_examples=tries(40), **FREELY)
@given(steps=st.lists(A_STEP, max_size=15))
def test_no_edit_is_lost(store: Store, steps: list[Any], numbers: count[int]) -> None:
    """Whatever code and users do in turns: edits stand, code's changes arrive, history stays."""
    play(store, steps, next(numbers))


@on_servers
@settings(max_examples=tries(12), **FREELY)
@given(steps=st.lists(A_STEP, max_size=15))
def test_no_edit_is_lost_elsewhere(store: Store, steps: list[Any], numbers: count[int]) -> None:
    """The same holds on the other databases."""
    play(store, steps, next(numbers))
