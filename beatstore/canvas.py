"""Chains, groups and chords: many messages that are one run.

Each task of a canvas carries the headers of the run, and which part of it it is, so that
the run ends with the last of them: a chain with its last task, a chord with its body, a group
when all have succeeded; and any of them with the first that fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from celery import Celery, signature
from celery.canvas import Signature, chord, chunks, group
from celery.canvas import _chain as chain

from beatstore.store.calls import CANVAS as PARTS
from beatstore.store.calls import LINKS
from beatstore.tracking import PART, STEP

__all__ = ["CANVAS", "canvas_of", "thawed"]

#: What freezing a signature writes into its options.
_FROZEN = frozenset(
    ("task_id", "root_id", "parent_id", "group_id", "group_index", "chord", "reply_to")
)

#: celery's own tasks that stand for a canvas, and the types of their signatures, which
#: their rows hold whole.
CANVAS = {
    **{f"celery.{kind}": kind for kind in ("chain", "group", "chord", "chunks")},
    **{f"celery.{kind}": f"x{kind}" for kind in ("map", "starmap")},
}


def canvas_of(
    name: str, args: list[Any], kwargs: dict[str, Any], headers: Mapping[str, Any], app: Celery
) -> Any:
    """Return the signature of a canvas, each of whose tasks carries `headers`."""
    given = {
        "task": name,
        "args": args,
        "kwargs": kwargs,
        "options": {},
        "subtask_type": CANVAS[name],
        "immutable": False,
    }
    canvas = signature(given, app=app)
    if isinstance(canvas, chunks):
        canvas = canvas.group()
    leaves = list(_leaves(canvas, last=True))
    count = sum(last for _, last in leaves)
    number = 0
    for leaf, last in leaves:
        number += last
        part = f"{number}/{count}" if last else STEP
        own = leaf.options.get("headers") or {}
        leaf.options["headers"] = {**own, **headers, PART: part}
    return canvas


def thawed(name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a canvas with no id on any signature in them.

    A frozen canvas can be sent once: the next attempt would have the same ids, and its
    chords would count on from what the first has left.
    """
    parts = PARTS[name]
    return {key: _thawed(value) if key in parts else value for key, value in kwargs.items()}


def _thawed(value: Any) -> Any:
    if isinstance(value, list):
        return [_thawed(item) for item in value]
    if not isinstance(value, dict) or not isinstance(value.get("task"), str):
        return value
    found = {**value}
    if isinstance(value.get("options"), dict):
        options = {key: given for key, given in value["options"].items() if key not in _FROZEN}
        found["options"] = {
            key: _thawed(given) if key in LINKS else given for key, given in options.items()
        }
    if value["task"] in PARTS and isinstance(value.get("kwargs"), dict):
        found["kwargs"] = thawed(value["task"], value["kwargs"])
    return found


def _leaves(canvas: Any, *, last: bool) -> Iterator[tuple[Signature[Any], bool]]:
    """Yield the tasks of a canvas, and whether nothing of it comes after each."""
    if isinstance(canvas, chain):
        *steps, end = canvas.tasks
        for step in steps:
            yield from _leaves(step, last=False)
        yield from _leaves(end, last=last)
    elif isinstance(canvas, group):
        for member in canvas.tasks:
            yield from _leaves(member, last=last)
    elif isinstance(canvas, chord):
        yield from _leaves(canvas.tasks, last=False)
        yield from _leaves(canvas.body, last=last)
    elif isinstance(canvas, list | tuple):
        for member in canvas:
            yield from _leaves(member, last=last)
    else:
        yield canvas, last
