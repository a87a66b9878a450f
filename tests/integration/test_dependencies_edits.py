"""Edits of edges: what has been completed counts as long as an edge waits for the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from beatstore import After, Declared, Store
from tests.support.harness.play import Play

pytestmark = pytest.mark.every_database

HOURS = "0 13,15 * * *"
HALF_PAST = "30 13,15 * * *"


def _sync(store: Store, **conditions: Any) -> None:
    up = Declared("import", "tests.import", HOURS)
    after = [After("import", **conditions)]
    store.sync([up, Declared("report", "tests.report", HALF_PAST, after=after)], source="app")


def _load(store: Store, **conditions: Any) -> None:
    documents: list[Any] = list(store.export())
    for one in documents:
        if one.get("after"):
            one["after"] = [{"name": "import", **conditions}]
    store.load(documents, replace=True)


def _put(store: Store, **conditions: Any) -> None:
    store.put("report", "tests.report", HALF_PAST, after=[After("import", **conditions)])


EDITS: dict[str, Callable[..., Any]] = {
    "link": lambda store, **one: store.link("report", After("import", **one)),
    "change": lambda store, **one: store.change("report", after=[After("import", **one)]),
    "put": _put,
    "sync": _sync,
    "load": _load,
}


def edited(play: Play, edit: str, **conditions: Any) -> list[str]:
    """Edit the edge between a completion and its downstream; return what is sent by 15:30."""
    _sync(play.store)
    assert play.at("13:00") == ["import"]
    assert play.end("import") == []
    assert play.at("13:30") == ["report"]
    play.end("report")
    assert play.at("15:00") == ["import"]
    assert play.end("import") == []
    version = play.store.get("report").version
    EDITS[edit](play.store, **conditions)
    assert play.store.get("report").version > version
    return play.at("15:30")


@pytest.mark.parametrize("conditions", [{"timeout": 3600.0}, {"on_upstream_failure": "skip"}])
@pytest.mark.parametrize("edit", EDITS)
def test_another_limit_keeps_what_was_completed(
    play: Play, edit: str, conditions: dict[str, Any]
) -> None:
    """An edge that only waits less long, or ends otherwise, still counts what has come."""
    assert edited(play, edit, **conditions) == ["report"]
    [edge] = play.store.get("report").after
    assert edge == After("import", align="latest", **conditions)
    # And the new limit is in force.
    play.end("report")
    play.clock.advance(86400)
    play.tick()
    play.end("import", "failed")
    play.clock.advance(2 * 3600)
    play.tick()
    assert play.last("report").state == "skipped"


@pytest.mark.parametrize("edit", EDITS)
def test_another_outcome_is_another_wait(play: Play, edit: str) -> None:
    """An edge that waits for something else asks for what comes from then on."""
    assert edited(play, edit, on="done") == []
