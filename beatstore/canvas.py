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

from beatstore.tracking import PART, STEP

__all__ = ["CANVAS", "canvas_of"]

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
