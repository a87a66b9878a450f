"""Chains, groups and chords: runs of several messages.

Each task of a canvas carries the headers of the run and the name of its part. So the run can
end with the right task: a chain with its last task, a chord with its body, a group when all its
tasks have succeeded, and any of them with the first failure. If a task replaces itself by a
canvas (`self.replace`), that canvas continues the run and completes the part of the task.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from celery import Celery, signature
from celery.canvas import _chain, chord, chunks, group

from beatstore.definition.allowed import OURS
from beatstore.definition.calls import CANVAS as PARTS
from beatstore.definition.calls import LINKS
from beatstore.headers import PART, RUN_ID, STEP, UNLOCK, run_id_in
from beatstore.tick.parts import is_last, nested
from beatstore.worker.again import facts_of, is_retry_of, ours_in

__all__ = [
    "CANVAS",
    "assign",
    "canvas_of",
    "check_backend",
    "disown",
    "follow",
    "goes_on",
    "unfrozen",
]

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


def assign(request: Any, part: str | None, headers: dict[str, Any], body: Any) -> str | None:
    """Give a message the run's headers if it belongs to the task's run, or take them away.

    Args:
        request: the task's request.
        part: the part of the run that the task is.
        headers: the message's headers; they are changed.
        body: the message's body; the signatures that follow are changed.

    Returns:
        "retried", or what `follow` returns; None also for what follows in a chain or chord.
    """
    disown(request, headers, body)
    given = ours_in(vars(request))
    if is_retry_of(request, facts_of(headers, body)):
        headers.update(given)
        return "retried"
    return None if RUN_ID in headers else follow(request, part, headers, body, given)


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
    message = _message(headers, body, _targets(request))
    nodes = list(_walk(message, last=True))
    how = _continues(request, nodes, _nesting(headers, message))
    if how is None:
        return None
    part = STEP if how == "joined" else part
    headers.update(given)
    if part is not None or len(nodes) > 1:
        # The tasks that follow the task itself have the headers already.
        new = [(node, last) for node, last in nodes if RUN_ID not in _headers_of(node)]
        _mark(new, given, part)
        headers[PART] = _headers_of(message)[PART]
    return how


def disown(request: Any, headers: dict[str, Any], body: Any) -> None:
    """Take the run out of headers that a task has copied, as by `headers=self.request.headers`.

    A message has the run's headers by right if it is the task's own, which is retried, or stands
    in the rest of its chain or chord. `follow` adds them to others that continue the run.

    Args:
        request: the task's request.
        headers: the message's headers; they are changed.
        body: the message's body; the signatures that follow are changed.
    """
    run_id, message = run_id_in(request), _message(headers, body)
    message["options"]["headers"] = headers
    nodes = [node for node, _ in _walk(message, last=True)]
    marked = [node for node in nodes if _headers_of(node).get(RUN_ID) == run_id]
    own = _own_ids(request) if marked else set()
    for node in marked:
        if _id_of(node) in own:
            continue
        kept = _theirs(_headers_of(node))
        if node is message:
            headers.clear()
            headers.update(kept)
        else:
            node["options"]["headers"] = kept


def _theirs(given: dict[str, Any]) -> dict[str, Any]:
    """Return headers without those of the run, which tracers also copy to one called `headers`."""
    kept = {name: given[name] for name in given if not str(name).startswith(OURS)}
    within = kept.get("headers")
    return kept | {"headers": _theirs(within)} if isinstance(within, dict) else kept


def goes_on(request: Any, options: Mapping[str, Any]) -> bool:
    """Return whether a message belongs to the task's run, as `disown` and `follow` find.

    Args:
        request: the task's request.
        options: the options of the message's `apply_async`.
    """
    if options.get("task_id") in _own_ids(request):
        return True
    nodes = _walk({"task": None, "options": options}, last=True)
    return _continues(request, nodes, options.get("replaced_task_nesting")) is not None


def _message(
    headers: Mapping[str, Any], body: Any, targets: Collection[Any] = ()
) -> dict[str, Any]:
    """Return a message as a signature, without its own headers.

    Args:
        headers: the message's headers.
        body: the message's body.
        targets: the ids of the tasks that it may lead to by its links, with `task_protocol = 1`.
    """
    facts = facts_of(headers, body)
    after: dict[str, Any] = {}
    if isinstance(body, Mapping):
        args, kwargs = body.get("args"), body.get("kwargs")
        chain = _linked(body.get("callbacks"), targets)
        after = {"chain": chain[::-1], "chord": body.get("chord")}
    elif isinstance(body, tuple) and isinstance(body[-1], dict):
        args, kwargs = body[0], body[1] if len(body) > 1 else None
        after = {name: body[-1].get(name) for name in ("chain", "chord")}
    if after and facts.get("task") == UNLOCK:
        after["chord"] = _callback(args, kwargs)
    return {"task": facts.get("task"), "options": {"task_id": facts.get("id"), **after}}


def _linked(callbacks: Any, targets: Collection[Any]) -> list[Any]:
    """Return the tasks by which links lead to one of the targets, in their order.

    With `task_protocol = 1` the next task of a chain is a link of the one before.
    """
    for callback in callbacks if targets and isinstance(callbacks, list | tuple) else ():
        if not isinstance(callback, dict):
            continue
        if any(_id_of(node) in targets for node, _ in _walk(callback, last=True)):
            return [callback]
        rest = _linked((callback.get("options") or {}).get("link"), targets)
        if rest:
            return [callback, *rest]
    return []


def _targets(request: Any) -> set[Any]:
    """Return the ids of a task and of the body of its chord: what leads to them is of its run."""
    return {request.id, _id_of(request.chord or {})} - {None}


def _nesting(headers: Mapping[str, Any], message: dict[str, Any]) -> Any:
    """Return how often the task of a message was replaced, or that of the body it waits for."""
    body = message["options"].get("chord") if message["task"] == UNLOCK else None
    given = body.get("options") or {} if isinstance(body, dict) else headers
    return given.get("replaced_task_nesting")


def _callback(args: Any, kwargs: Any) -> Any:
    """Return the body of the chord that a `celery.chord_unlock` waits for."""
    given = args[1:2] if isinstance(args, list | tuple) else ()
    return given[0] if given else (kwargs or {}).get("callback")


def _own_ids(request: Any) -> set[Any]:
    """Return the ids of a task, and of what follows it in its chain and chord."""
    chain = [*(request.get("noted_chain") or request.chain or ())]
    # With `task_protocol = 1` the next task is a link, and has the run's headers; others have not.
    chain += [link for link in request.callbacks or () if _is_marked(link, run_id_in(request))]
    own = {"task": request.task, "options": {"task_id": request.id, "chain": chain}}
    own["options"]["chord"] = request.chord
    return {_id_of(node) for node, _ in _walk(own, last=True)} - {None}


def _is_marked(signed: Any, run_id: int | None) -> bool:
    nodes = [node for node, _ in _walk(signed, last=True)]
    return any(_headers_of(node).get(RUN_ID) == run_id for node in nodes)


def _continues(
    request: Any, nodes: Iterable[tuple[dict[str, Any], bool | None]], nesting: Any
) -> str | None:
    ids = {_id_of(node) for node, _ in nodes}
    if request.id in ids or nesting == (request.replaced_task_nesting or 0) + 1:
        return "replaced"
    return "joined" if request.chord and _id_of(request.chord) in ids else None


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
