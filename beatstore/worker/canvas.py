"""Chains, groups and chords: runs of several messages.

Each task of a canvas carries the headers of the run and the name of its part. So the run can
end with the right task: a chain with its last task, a chord with its body, a group when all its
tasks have succeeded, and any of them with the first failure. If a task replaces itself by a
canvas (`self.replace`), that canvas continues the run and completes the part of the task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from celery import Celery, signature
from celery.canvas import _chain, chord, chunks, group

from beatstore.definition.calls import CANVAS as PARTS
from beatstore.definition.calls import LINKS
from beatstore.headers import PART, RUN_ID, STEP
from beatstore.tick.parts import is_last, nested

__all__ = ["CANVAS", "canvas_of", "check_backend", "follow", "unfrozen"]

#: The options that freezing a signature sets.
_FROZEN = frozenset(
    ("task_id", "root_id", "parent_id", "group_id", "group_index", "chord", "reply_to")
)

#: Celery's built-in tasks for a canvas, and the types of their signatures.
CANVAS = {
    **{f"celery.{kind}": kind for kind in ("chain", "group", "chord", "chunks")},
    **{f"celery.{kind}": f"x{kind}" for kind in ("map", "starmap")},
}


def canvas_of(
    name: str, args: list[Any], kwargs: dict[str, Any], headers: Mapping[str, Any], app: Celery
) -> Any:
    """Return the signature of a canvas, with `headers` on each of its tasks."""
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
    _mark(_walk(canvas, last=True), headers, None)
    return canvas


def check_backend(backend: Any, canvas: Any) -> None:
    """Raise if a canvas begins with a chord and its Redis result backend is unavailable.

    Celery writes the chord's size there only after sending all but one of its tasks, so each
    retry would send those tasks again.
    """
    first = canvas.tasks[0] if isinstance(canvas, _chain) and canvas.tasks else canvas
    # A group with something after it is a chord, once it is sent.
    counted = isinstance(first, chord) or (isinstance(first, group) and first is not canvas)
    if counted and hasattr(backend, "ensure") and hasattr(backend.client, "ping"):
        backend.ensure(backend.client.ping, ())


def unfrozen(name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a canvas without the ids of frozen signatures.

    A frozen canvas can be sent only once: the next attempt would have the same ids, and its
    chords would continue the counts of the first attempt.
    """
    parts = PARTS[name]
    return {key: _unfrozen(value) if key in parts else value for key, value in kwargs.items()}


def _unfrozen(value: Any) -> Any:
    if isinstance(value, list):
        return [_unfrozen(item) for item in value]
    if not isinstance(value, dict) or not isinstance(value.get("task"), str):
        return value
    found = {**value}
    if isinstance(value.get("options"), dict):
        options = {key: given for key, given in value["options"].items() if key not in _FROZEN}
        found["options"] = {
            key: _unfrozen(given) if key in LINKS else given for key, given in options.items()
        }
    if value["task"] in PARTS and isinstance(value.get("kwargs"), dict):
        found["kwargs"] = unfrozen(value["task"], value["kwargs"])
    return found


def follow(
    request: Any, part: str | None, headers: dict[str, Any], body: Any, given: Mapping[str, Any]
) -> str | None:
    """Add the run's headers to a message that a task sends, if it continues the task's run.

    It does if the message, or a task that follows it, has the task's id: Celery gives that id to
    the last task of the replacement. A group as the body of a chord loses the id, but there
    each message counts how often tasks were replaced. A message also belongs to the run if it
    leads to the body of the chord that the task is in, as with `add_to_chord`.

    Args:
        request: the task's request.
        part: the part of the run that the task is.
        headers: the message's headers; the run's headers are added.
        body: the message's body; the run's headers are added to the signatures that follow.
        given: the run's headers.

    Returns:
        "replaced", "joined", or None if the message does not belong to the run.
    """
    embedded = body[-1] if isinstance(body, tuple) and isinstance(body[-1], dict) else None
    after = {name: embedded.get(name) for name in ("chain", "chord")} if embedded else {}
    message = {"task": headers.get("task"), "options": {"task_id": headers.get("id"), **after}}
    nodes = list(_walk(message, last=True))
    ids = {_id_of(node) for node, _ in nodes}
    nesting = headers.get("replaced_task_nesting")
    if request.id in ids or nesting == (request.replaced_task_nesting or 0) + 1:
        how = "replaced"
    elif request.chord and _id_of(request.chord) in ids:
        how, part = "joined", STEP
    else:
        return None
    headers.update(given)
    if part is not None or len(nodes) > 1:
        # The tasks that follow the task itself have the headers already.
        new = [(node, last) for node, last in nodes if RUN_ID not in _headers_of(node)]
        _mark(new, given, part)
        headers[PART] = _headers_of(message)[PART]
    return how


def _mark(
    nodes: Iterable[tuple[dict[str, Any], bool | None]],
    headers: Mapping[str, Any],
    part: str | None,
) -> None:
    """Add the run's headers and the name of its part to each task of a canvas.

    Args:
        nodes: the result of `_walk`.
        headers: the run's headers.
        part: the part of the run that the canvas is; None if it is the whole run.
    """
    leaves = [(node, last) for node, last in nodes if last is not None]
    # A task that appears twice, as a chord's body after each member, counts once.
    ids = [_id_of(leaf) or id(leaf) for leaf, _ in leaves]
    ends = dict.fromkeys(key for key, (_, last) in zip(ids, leaves, strict=True) if last)
    numbers = {key: number for number, key in enumerate(ends, 1)}
    within = part is None or is_last(part)
    for key, (leaf, last) in zip(ids, leaves, strict=True):
        name = nested(part, numbers[key], len(numbers)) if last and within else STEP
        options = leaf["options"] = leaf.get("options") or {}
        options["headers"] = {**_headers_of(leaf), **headers, PART: name}


def _walk(node: Any, *, last: bool) -> Iterator[tuple[dict[str, Any], bool | None]]:
    """Yield a canvas and its nodes, and for each task whether it is a final one."""
    if isinstance(node, list | tuple):
        for member in node:
            yield from _walk(member, last=last)
    if not isinstance(node, dict):
        return
    stages = [*_stages(node), *_after(node)]
    if not any(stage is node for stage in stages):
        yield node, None
    for number, stage in enumerate(stages, 1):
        ends = last and number == len(stages)
        if stage is node:
            yield node, ends
        else:
            yield from _walk(stage, last=ends)


def _stages(node: dict[str, Any]) -> list[Any]:
    """Return the stages of a canvas in order; a task is its own stage."""
    kwargs = node.get("kwargs") or {}
    kind = CANVAS.get(str(node.get("task")))
    if kind == "chain":
        return list(kwargs.get("tasks") or ())
    if kind == "group":
        return [kwargs.get("tasks")]
    if kind == "chord":
        return [kwargs.get("header"), kwargs.get("body")]
    return [node]


def _after(node: dict[str, Any]) -> list[Any]:
    """Return what follows a frozen signature: the rest of its chain, and its chord."""
    options = node.get("options") or {}
    chain, body = options.get("chain"), options.get("chord")
    return [*reversed(chain if isinstance(chain, list | tuple) else ()), *([body] if body else ())]


def _id_of(node: Any) -> Any:
    return (node.get("options") or {}).get("task_id")


def _headers_of(node: dict[str, Any]) -> dict[str, Any]:
    return (node.get("options") or {}).get("headers") or {}
