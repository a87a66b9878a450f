"""The pages on what code declares: their tables are carried, their code is imported."""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.schedules import crontab, schedule, solar

from beatstore import Store
from beatstore.cli import VERBS
from beatstore.discovery.beatschedule import evaluated
from beatstore.discovery.modules import import_code

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = {"crontab": crontab, "schedule": schedule, "solar": solar, "timedelta": timedelta}


@pytest.fixture
def proj(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Stand in for the reader's module, with an app and an empty database."""
    module: Any = types.ModuleType("proj")
    module.app = Celery("proj", broker="memory://", set_as_current=False)
    module.app.conf.update(
        beatstore_url=f"sqlite:///{tmp_path / 'proj.db'}", result_expires=None, timezone="UTC"
    )
    monkeypatch.setitem(sys.modules, "proj", module)
    yield module
    module.app.close()


@pytest.fixture
def store(proj: Any) -> Iterator[Store]:
    """Return the store of the reader's app."""
    store = Store.from_app(proj.app)
    store.migrate()
    yield store
    store.close()


def table(page: str, header: str) -> list[list[str]]:
    """Return the cells of the table that begins with this header, without their backquotes."""
    _, _, after = (DOCS / f"{page}.md").read_text().partition(f"{header}\n")
    lines = after.partition("\n\n")[0].splitlines()[1:]
    assert lines
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a page."""
    found = re.findall(
        rf"^```{language}\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.M | re.S
    )
    assert found
    return found


@pytest.mark.parametrize(
    ("header", "relative"),
    [
        ("| in `beat_schedule` | kind | spec |", False),
        ("| `relative=True` and | kind | spec |", True),
    ],
)
def test_what_is_in_the_table_is_carried_so(
    proj: Any, store: Store, header: str, *, relative: bool
) -> None:
    """Each row of the tables of schedules is imported as it says."""
    for given, kind, spec in table("beat-schedule", header):
        if "solar" in given:
            pytest.importorskip("ephem", reason="solar needs ephem, of the extra `solar`")
        rule = eval(given, NAMES)
        proj.app.conf.beat_schedule = {given: {"task": "t", "schedule": rule, "relative": relative}}
        (report,) = import_code(store, proj.app)
        assert report.created == (given,)
        assert (store.get(given).kind, " ".join(store.get(given).spec.split())) == (kind, spec)


def test_a_function_is_named_as_the_page_says(proj: Any, store: Store) -> None:
    """The block is imported, and its row is the one that is shown."""
    (block,) = blocks("beat-schedule", "python")
    exec(compile(block, "beat-schedule.md", "exec"), vars(proj))
    import_code(store, proj.app)
    (shown,) = blocks("beat-schedule", "json")
    kwargs = store.get("report").kwargs
    assert kwargs == json.loads(shown)
    assert evaluated(proj.app, kwargs["day"]) == proj.today()


def test_what_the_page_declares_is_stored(proj: Any, store: Store) -> None:
    """The blocks of the page are a module that a sync accepts as a whole."""
    for block in blocks("declared", "python")[:2]:
        exec(compile(block, "declared.md", "exec"), vars(proj))
    _, report = import_code(store, proj.app)
    assert not report.refused
    assert report.created == (
        *("extract", "load"),
        *("proj.mail", "proj.report", "proj.synchronize", "sync-fast"),
    )
    edges = {(edge.upstream, edge.downstream) for edge in store.graph().edges}
    assert edges == {("extract", "load"), ("proj.report", "proj.mail")}
    assert store.get("proj.synchronize").args == ["all"]


def test_the_command_is_a_verb() -> None:
    """The pages name `sync`, which the command line has."""
    assert any("sync" in verbs for verbs in VERBS.values())
    for page in ("beat-schedule", "declared"):
        assert "celery -A proj beatstore sync" in (DOCS / f"{page}.md").read_text()
