"""The verb `sync`, called in this process; `tests/e2e/test_code_start.py` has real ones."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
from celery.schedules import crontab

from beatstore import Declared, Store
from tests.support.command import Command
from tests.support.marks import on_sqlite

pytestmark = pytest.mark.quick_on("sqlite")


@pytest.fixture
def call(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return the command line of an app with an entry in `beat_schedule` and one in a module."""
    call = Command(migrated_url, "app", result_expires=None, timezone="Europe/Berlin")
    app = call.context.app
    app.conf.beat_schedule = {"conf": {"task": "t", "schedule": crontab(minute=0, hour=4)}}
    module: Any = types.ModuleType("plan")
    module.app, module.SCHEDULES = app, [Declared("mine", "t", 60, tags=["x"])]
    monkeypatch.setitem(sys.modules, "plan", module)
    return call


def test_it_says_what_it_did(call: Command, store: Store) -> None:
    """By source: what is created, then that nothing differs, and after an edit what is kept."""
    assert call("sync").lines == [
        "beat_schedule: 1 created, 0 updated, 0 deactivated, 0 unchanged",
        "  created: conf",
        "module:plan: 1 created, 0 updated, 0 deactivated, 0 unchanged",
        "  created: mine",
    ]
    assert store.get("conf").timezone == "Europe/Berlin"
    assert [line.split(": ")[1] for line in call("sync").lines] == [
        "0 created, 0 updated, 0 deactivated, 1 unchanged",
        "0 created, 0 updated, 0 deactivated, 1 unchanged",
    ]
    store.change("mine", args=[1])
    again = call("sync")
    assert again.code == 0
    assert "  kept as edited: mine (args)" in again.lines


@on_sqlite
def test_a_dry_run_writes_nothing(call: Command, store: Store) -> None:
    """It says what would be done, and does not do it."""
    planned = call("sync", "--dry-run")
    assert "  created: mine" in planned.lines
    assert store.entries() == []
    assert planned.lines == call("sync").lines


@on_sqlite
def test_for_programs(call: Command) -> None:
    """`--json` has each source with all the names, whatever their number."""
    done = call("sync", "--json")
    assert done.json == [
        {
            **{"source": source, "created": [name], "updated": [], "deactivated": []},
            **{"unchanged": [], "kept": {}, "refused": {}},
        }
        for source, name in (("beat_schedule", "conf"), ("module:plan", "mine"))
    ]


@on_sqlite
def test_a_refusal_is_an_exit_code(call: Command, store: Store) -> None:
    """1, with the reason in the report; the others are stored."""
    call.context.app.conf.beat_schedule["bad"] = {"task": "t", "schedule": object()}
    done = call("sync")
    assert done.code == 1
    assert any(line.startswith("  refused: bad: schedule: expected") for line in done.lines)
    assert [entry.name for entry in store.entries()] == ["conf", "mine"]


@on_sqlite
def test_one_module(call: Command, store: Store) -> None:
    """`--module` stores what it declares; a name that is no module of the app is refused."""
    assert len(call("sync", "--module", "plan").lines) == 2
    assert [entry.name for entry in store.entries()] == ["mine"]
    done = call("sync", "--module", "plam")
    assert (done.code, done.out) == (1, "")
    assert "module: expected a module that the app imports" in done.err


@on_sqlite
def test_code_that_can_not_be_imported_is_one_line(call: Command, store: Store) -> None:
    """A module that is not there ends the verb before anything is stored."""
    call.context.app.conf.imports = ["no_such_module"]
    done = call("sync")
    assert done.code == 1
    assert "no_such_module" in done.err
    assert len(done.err.splitlines()) == 1
    assert store.entries() == []


@on_sqlite
def test_it_needs_an_app(migrated_url: str) -> None:
    """Without an app there is no code to read: wrong usage, with what to write."""
    done = Command(migrated_url)("sync")
    assert done.code == 2
    assert "celery -A proj beatstore sync" in done.err
