"""What a message can make a worker run: its task, and all that its signatures name.

A message names tasks in more places than one: its callbacks and errbacks, the rest of a
chain, the body of a chord, the members of a canvas, and the headers and options of each of
these signatures, at any depth.

Invariants:
    * `check` finds every name that celery would read as a task, in any shape that JSON has.
    * With patterns set, what is not understood is refused.
    * Without patterns, `check` costs nothing.

Arguments of an ordinary task are its own affair: a task that calls what its arguments name
is code, which the patterns trust.

On failure: `InvalidEntryError`, naming the place.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from beatstore.errors import InvalidEntryError
from beatstore.store import fields

__all__ = ["CANVAS", "LINKS", "OURS", "PROTOCOL", "check", "check_headers"]

#: The tasks whose keyword arguments hold signatures, and the names of those arguments.
CANVAS: Mapping[str, tuple[str, ...]] = {
    "celery.chain": ("tasks",),
    "celery.group": ("tasks",),
    "celery.chord": ("header", "body"),
    "celery.map": ("task",),
    "celery.starmap": ("task",),
    "celery.chunks": ("task",),
}

#: The options that hold signatures.
LINKS = ("link", "link_error", "chain", "chord")

#: The headers by which celery's protocol speaks to a worker. They are made from the options.
PROTOCOL = frozenset(
    (
        *("lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries"),
        *("timelimit", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin"),
        *("ignore_result", "replaced_task_nesting", "stamped_headers", "stamps", "compression"),
        # A worker reads these as attributes of the request.
        *("args", "kwargs", "callbacks", "errbacks", "chain", "chord", "called_directly"),
        *("correlation_id", "reply_to", "delivery_info", "headers", "hostname", "properties"),
        *("is_eager", "logfile", "loglevel", "taskset", "time_limit", "soft_time_limit", "utc"),
    )
)

#: What beatstore's own headers begin with.
OURS = "beatstore_"

#: The options of which a header is made, where they have another name.
_OPTIONS = {
    **{"id": "task_id", "group": "group_id", "timelimit": "time_limit", "stamps": "stamped_headers"}
}

#: Built-in tasks that call what they are given, beside those that stand for a canvas.
_CALLING: Mapping[str, tuple[str, ...]] = {**CANVAS, "celery.chord_unlock": ("callback",)}

#: The types of signatures, by which celery makes a canvas of a dict whatever its task is.
_KINDS = {
    **{kind: f"celery.{kind}" for kind in ("chain", "group", "chord", "chunks")},
    **{f"x{kind}": f"celery.{kind}" for kind in ("map", "starmap")},
}


def check_headers(
    task: str, kwargs: Mapping[str, Any], options: Mapping[str, Any], *, ours: bool = True
) -> None:
    """Refuse headers that would speak in the name of celery's protocol, or of beatstore.

    Those of the signatures in the call are looked at too.

    Args:
        task: its name.
        kwargs: its keyword arguments.
        options: of its message.
        ours: whether names of beatstore's own are refused on the message itself.
    """
    _check_headers("options['headers']", options.get("headers"), ours=ours)
    for path, inner in _signatures(task, kwargs, options):
        held = inner.get("options")
        if isinstance(held, Mapping):
            _check_headers(f"{path}['options']['headers']", held.get("headers"), ours=True)


def _check_headers(field: str, headers: object, *, ours: bool) -> None:
    if not isinstance(headers, Mapping) or (not ours and PROTOCOL.isdisjoint(headers)):
        return
    for name in headers:
        if name in PROTOCOL:
            option = _OPTIONS.get(name, name)
            write = f"the option {option!r}" if option in _SETTABLE else "another name"
            expected = "no header of celery's own protocol"
            raise InvalidEntryError(f"{field}[{name!r}]", headers[name], expected, write)
        if ours and isinstance(name, str) and name.startswith(OURS):
            expected = f"no header that begins with {OURS!r}, by which workers know a run"
            raise InvalidEntryError(f"{field}[{name!r}]", headers[name], expected, "another name")


_SETTABLE = frozenset(
    (
        *("shadow", "expires", "group_id", "group_index", "retries", "time_limit", "root_id"),
        *("parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "task_id"),
        *("replaced_task_nesting", "stamped_headers", "compression", "chain", "chord"),
        *("reply_to", "soft_time_limit"),
    )
)


def check(
    task: str,
    args: object,
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    allowed: Sequence[str] | None,
) -> None:
    """Refuse a call that could start a task outside the patterns of `allowed`.

    Raises:
        InvalidEntryError: it could, or it can't be told whether it could.
    """
    if allowed is None:
        return
    for path, name in _named("", task, args, kwargs, options, fields.DEPTH):
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed):
            patterns = ", ".join(allowed) or "none"
            expected = f"a task that beatstore_allowed_tasks allows: {patterns}"
            # The task of the entry is known by its field; others by where they stand.
            where = f" (it is named in {path})" if path else ""
            raise InvalidEntryError("task", name, f"{expected}{where}")


def _signatures(
    task: str, kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the signatures in a call, at any depth, and where each stands.

    What is no signature is passed over.
    """
    held: list[tuple[str, Any]] = []
    held += [(f"options[{link!r}]", options[link]) for link in LINKS if link in options]
    held += [(f"kwargs[{part!r}]", kwargs.get(part)) for part in _CALLING.get(task, ())]
    # Not by recursion, so that no depth is too deep.
    while held:
        path, value = held.pop()
        if isinstance(value, list | tuple):
            held += [(f"{path}[{at}]", item) for at, item in enumerate(value)]
        elif isinstance(value, Mapping) and isinstance(value.get("task"), str):
            yield path, value
            inner, more = value.get("options"), value.get("kwargs")
            if isinstance(inner, Mapping):
                held += [(f"{path}['options'][{link!r}]", inner.get(link)) for link in LINKS]
            parts = _CALLING.get(value["task"], ())
            if isinstance(more, Mapping):
                held += [(f"{path}['kwargs'][{part!r}]", more.get(part)) for part in parts]


# -- the names of tasks ----------------------------------------------------------------------


def _named(  # noqa: PLR0917  (a signature has these parts)
    path: str,
    task: str,
    args: object,
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    depth: int,
) -> Iterator[tuple[str, str]]:
    """Yield where a call names a task, and the name."""
    if task not in CANVAS:
        yield path, task
    within = f"{path}['{{}}']" if path else "{}"
    if task in _CALLING:
        if args:
            expected = f"no positional arguments for {task}, which calls what it is given"
            raise _unclear(within.format("args"), args, expected)
        for part in _CALLING[task]:
            place = f"{within.format('kwargs')}[{part!r}]"
            yield from _in_signatures(place, kwargs.get(part), depth)
    for link in LINKS:
        if link in options:
            place = f"{within.format('options')}[{link!r}]"
            yield from _in_signatures(place, options[link], depth)


def _in_signatures(path: str, value: object, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the names in what celery reads as a signature, or as several."""
    if value is None:
        return
    if depth == 0:
        raise _unclear(path, "deeper signatures", f"signatures of at most {fields.DEPTH} levels")
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list | tuple):
        for at, item in enumerate(value):
            yield from _in_signatures(f"{path}[{at}]", item, depth - 1)
    elif isinstance(value, Mapping):
        yield from _in_signature(path, value, depth - 1)
    else:
        raise _unclear(path, value, "a signature, or a list of them")


def _in_signature(path: str, given: Mapping[str, Any], depth: int) -> Iterator[tuple[str, str]]:
    task, kind = given.get("task"), given.get("subtask_type")
    if not isinstance(task, str):
        raise _unclear(f"{path}['task']", task, "the name of a task")
    if kind and (not isinstance(kind, str) or _KINDS.get(kind) != task):
        raise _unclear(f"{path}['subtask_type']", kind, f"the type of a signature of {task}")
    args, kwargs, options = (given.get(part) or None for part in ("args", "kwargs", "options"))
    if not isinstance(args, list | tuple | None):
        raise _unclear(f"{path}['args']", args, "a list")
    if not isinstance(kwargs, Mapping | None):
        raise _unclear(f"{path}['kwargs']", kwargs, "a dict")
    if not isinstance(options, Mapping | None):
        raise _unclear(f"{path}['options']", options, "a dict")
    yield from _named(path, task, args, kwargs or {}, options or {}, depth)


def _unclear(path: str, given: object, expected: str) -> InvalidEntryError:
    return InvalidEntryError(
        path, given, f"{expected}, since beatstore_allowed_tasks is set", "task.s(…)"
    )
