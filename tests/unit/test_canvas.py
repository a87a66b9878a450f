"""Canvases as one run: which of their messages begin it, go on with it and end it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from celery import Celery, chain, chord, group, signature

from beatstore.headers import PART
from beatstore.tick.parts import Parts, is_last, nested
from beatstore.worker.canvas import canvas_of
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_app

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


@pytest.fixture
def app(memory_broker: Broker) -> Celery:
    """Return an app with the task `t`."""
    app = new_app(memory_broker, "sqlite://")

    @app.task(name="t", shared=False)
    def t(*args: Any) -> None:
        """Do nothing."""

    return app


def parts(app: Celery, canvas: Any) -> list[str]:
    """Return the parts that the tasks of a stored canvas carry, in their order."""
    stored = dict(canvas)
    made = canvas_of(stored["task"], [], dict(stored["kwargs"]), {"beatstore_run_id": 7}, app)
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict) and isinstance(node.get("options"), dict):
            headers = node["options"].get("headers") or {}
            if PART in headers:
                assert headers["beatstore_run_id"] == 7
                found.append(headers[PART])
        for child in node.values() if isinstance(node, dict) else node:
            if isinstance(child, dict | list | tuple):
                walk(child)

    walk(made["kwargs"])
    return found


def t(app: Celery) -> Any:
    """Return a signature of the task."""
    return signature("t", app=app, immutable=True)


def test_a_chain_ends_with_its_last_task(app: Celery) -> None:
    """All tasks of a chain but the last are steps."""
    assert parts(app, chain(t(app), t(app), t(app), app=app)) == ["step", "step", "1/1"]


def test_a_group_ends_with_all_its_members(app: Celery) -> None:
    """Each member of a group is one of as many parts."""
    assert parts(app, group([t(app), t(app), t(app)], app=app)) == ["1/3", "2/3", "3/3"]


def test_a_chord_ends_with_its_body(app: Celery) -> None:
    """The members of a chord's header are steps."""
    assert parts(app, chord([t(app), t(app)], t(app), app=app)) == ["step", "step", "1/1"]


def test_canvases_in_canvases(app: Celery) -> None:
    """What ends a run is whatever nothing comes after, however deep."""
    inner = chain(t(app), t(app), app=app)
    assert parts(app, group([inner, t(app)], app=app)) == ["step", "1/2", "2/2"]


def test_a_chord_ends_with_each_task_of_its_body(app: Celery) -> None:
    """A body that is a group has as many last tasks, and so has a chain that ends with one."""
    body = group([t(app), t(app)], app=app)
    assert parts(app, chord([t(app)], body, app=app)) == ["step", "1/2", "2/2"]
    canvas = chain(t(app), group([t(app), t(app)], app=app), app=app)
    assert parts(app, canvas) == ["step", "1/2", "2/2"]


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("1/1", True),
        ("3/10.1/2", True),
        ("step", False),
        ("0/1", False),
        ("2/1", False),
        ("1/2.3/2", False),
        ("1/2.", False),
        ("1/2\n", False),
        ("１/２", False),  # digits, but not ours
        ("9999999999/9999999999", False),
        ("", False),
    ],
)
def test_names_of_parts(name: str, last: bool) -> None:
    """Only a number of so many, and those within it, name what nothing comes after."""
    assert is_last(name) is last


def test_names_within_names() -> None:
    """What replaces a task goes by its name if that is one task, and by numbers within it else."""
    assert nested(None, 1, 1) == "1/1"
    assert nested(None, 2, 3) == "2/3"
    assert nested("2/3", 1, 1) == "2/3"
    assert nested("2/3", 1, 2) == "2/3.1/2"


def test_parts_as_they_are_stored() -> None:
    """What is read back is what was written, and anything else is nothing."""
    parts = Parts()
    parts.start("1/2", NOON)
    parts.until = NOON
    assert not parts.succeed("2/2")
    assert Parts.read(parts.as_json()) == parts
    for spoiled in (None, 3, [], "{}", {"open": [], "done": 4, "until": 0}):
        assert Parts.read(spoiled) == Parts()
