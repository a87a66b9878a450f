"""Check which tasks a message can start: its own task, and those in its signatures.

A message names tasks in several places: its callbacks and errbacks, the rest of a chain, the
body of a chord, the members of a canvas, and the options of each of these signatures, at any
depth.

Invariants:
    * `check` finds every name that celery would read as a task, in any JSON.
    * With patterns, `check` refuses what it does not understand.
    * Without patterns, `check` does nothing.

The arguments of an ordinary task are not checked: a task that calls what its arguments name is
code, which the patterns trust.

On failure: `InvalidEntryError`, naming the place.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from beatstore.definition import fields, values
from beatstore.errors import InvalidEntryError

if TYPE_CHECKING:
    from beatstore.definition.calls import Call

__all__ = ["CANVAS", "LINKS", "OURS", "PROTOCOL", "check", "check_headers"]

#: The tasks whose keyword arguments are signatures, with the names of these arguments.
CANVAS: Mapping[str, tuple[str, ...]] = {
    "celery.chain": ("tasks",),
    "celery.group": ("tasks",),
    "celery.chord": ("header", "body"),
    "celery.map": ("task",),
    "celery.starmap": ("task",),
    "celery.chunks": ("task",),
}

#: The options that are signatures.
LINKS = ("link", "link_error", "chain", "chord")

#: The headers of celery's protocol. celery makes them from the options.
PROTOCOL = frozenset(
    (
        *("lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries"),
        *("timelimit", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin"),
        *("ignore_result", "replaced_task_nesting", "stamped_headers", "stamps", "compression"),
        # Workers read these as attributes of the request.
        *("args", "kwargs", "callbacks", "errbacks", "chain", "chord", "called_directly"),
        *("correlation_id", "reply_to", "delivery_info", "headers", "hostname", "properties"),
        *("is_eager", "logfile", "loglevel", "taskset", "time_limit", "soft_time_limit", "utc"),
    )
)

#: The prefix of beatstore's own headers.
OURS = "beatstore_"

#: The options that become headers with another name.
_OPTIONS = {
    **{"id": "task_id", "group": "group_id", "timelimit": "time_limit", "stamps": "stamped_headers"}
}

#: The built-in tasks that call their arguments: canvases, and one more.
_CALLING: Mapping[str, tuple[str, ...]] = {**CANVAS, "celery.chord_unlock": ("callback",)}

#: Those of them that call one task, within a worker.
_APPLYING = frozenset(("celery.map", "celery.starmap", "celery.chunks"))

#: Their other arguments.
_ARGUMENTS: Mapping[str, frozenset[str]] = {
    "celery.chain": frozenset(),
    "celery.group": frozenset(("result", "group_id", "partial_args", "add_to_parent")),
    "celery.chord": frozenset(
        ("kwargs", "partial_args", "interval", "countdown", "max_retries", "eager")
    ),
    **dict.fromkeys(("celery.map", "celery.starmap"), frozenset(("it",))),
    "celery.chunks": frozenset(("it", "n")),
    "celery.chord_unlock": frozenset(("group_id", "interval", "max_retries", "result")),
}

#: The names of arguments that are signatures, or that contain such arguments.
_PARTS = frozenset(("kwargs", *(name for names in _CALLING.values() for name in names)))

#: The parts of a signature; older celery versions add `chord_size`.
_SIGNATURE = frozenset(
    ("task", "args", "kwargs", "options", "subtask_type", "immutable", "chord_size")
)

#: The options that celery would read as parts of a signature or of a canvas.
_PARAMETERS = _SIGNATURE | {"type", "app", "tasks", "header", "body", "it", "header_delay"}

#: Options that a signature in a canvas may have, but an entry may not.
_TIMES = frozenset(("eta", "countdown", "interval", "max_retries"))

#: The types of signatures: celery makes a canvas of a dict with such a type, for any task.
_KINDS = {
    **{kind: f"celery.{kind}" for kind in ("chain", "group", "chord", "chunks")},
    **{f"x{kind}": f"celery.{kind}" for kind in ("map", "starmap")},
}


def check_headers(
    task: str, kwargs: Mapping[str, Any], options: Mapping[str, Any], *, ours: bool = True
) -> None:
    """Refuse headers with names of celery's protocol or of beatstore, in the call's signatures too.

    Also refuse NaN and the infinities in headers and stamps: RabbitMQ closes the connection for
    them, which fails other messages.

    Args:
        task: the task's name.
        kwargs: its keyword arguments.
        options: the options of its message.
        ours: whether to refuse beatstore's own names on the message itself.
    """
    _check_headers("options", options, ours=ours)
    for path, inner in _signatures(task, kwargs, options):
        held = inner.get("options")
        if isinstance(held, Mapping):
            _check_headers(f"{path}['options']", held, ours=True)


def _check_headers(within: str, options: Mapping[str, Any], *, ours: bool) -> None:
    headers, stamps = options.get("headers"), options.get("stamped_headers")
    if isinstance(headers, Mapping) and headers:
        _check_names(f"{within}['headers']", headers, ours=ours)
        _check_finite(f"{within}['headers']", headers)
    if isinstance(stamps, list | tuple):
        for name in stamps:
            if isinstance(name, str):
                _check_finite(f"{within}[{name!r}]", options.get(name))


def _check_finite(field: str, value: object) -> None:
    held = [values.decoded(field, value)]
    while held:
        one = held.pop()
        if isinstance(one, float) and not math.isfinite(one):
            expected = "finite numbers in headers, since RabbitMQ refuses others"
            raise InvalidEntryError(field, one, expected, "it as text")
        if isinstance(one, list | tuple):
            held += one
        elif isinstance(one, Mapping):
            held += one.values()


def _check_names(field: str, headers: Mapping[Any, Any], *, ours: bool) -> None:
    for name in headers:
        if name in PROTOCOL:
            option = _OPTIONS.get(name, name)
            write = f"the option {option!r}" if option in _SETTABLE else "another name"
            expected = "no header of celery's own protocol"
            raise InvalidEntryError(f"{field}[{name!r}]", headers[name], expected, write)
        if ours and isinstance(name, str) and name.startswith(OURS):
            expected = f"no header that begins with {OURS!r}, which is reserved for beatstore"
            raise InvalidEntryError(f"{field}[{name!r}]", headers[name], expected, "another name")


_SETTABLE = frozenset(
    (
        *("shadow", "expires", "group_id", "group_index", "retries", "time_limit", "root_id"),
        *("parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "task_id"),
        *("replaced_task_nesting", "stamped_headers", "compression", "chain", "chord"),
        *("reply_to", "soft_time_limit"),
    )
)


def check(call: Call, allowed: Sequence[str] | None, known: Collection[str]) -> None:
    """Refuse a call that could start a task outside the patterns of `allowed`.

    Args:
        call: the task, arguments and options of the message.
        allowed: patterns of task names; None allows all.
        known: the options that a message may have.

    Raises:
        InvalidEntryError: the call could start such a task, or is not understood.
    """
    if allowed is None:
        return
    whole = _Part("", call.task, call.args, call.kwargs, call.options)
    for path, name in _Finder(known).names(whole, fields.DEPTH):
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed):
            patterns = ", ".join(allowed) or "none"
            expected = f"a task that beatstore_allowed_tasks allows: {patterns}"
            # The field names the entry's own task; for other tasks, show the place.
            where = f" (named in {path})" if path else ""
            raise InvalidEntryError("task", name, f"{expected}{where}")


def _signatures(
    task: str, kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the signatures in a call, at any depth, with the path of each.

    Ignore values that are not signatures.
    """
    held: list[tuple[str, Any]] = []
    held += [(f"options[{link!r}]", options[link]) for link in LINKS if link in options]
    held += [(f"kwargs[{part!r}]", kwargs.get(part)) for part in _CALLING.get(task, ())]
    # Without recursion, so that any depth works.
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


@dataclass(frozen=True, slots=True)
class _Part:
    """A call, or a signature in it; `path` is "" for the call itself."""

    path: str
    task: str
    args: object
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]

    def at(self, *keys: str) -> str:
        """Return the path of a value in this part."""
        first, *rest = keys
        inner = "".join(f"[{key!r}]" for key in rest)
        return f"{self.path}[{first!r}]{inner}" if self.path else f"{first}{inner}"


class _Finder:
    """Finds the names of tasks; `known` are the options that a message may have."""

    def __init__(self, known: Collection[str]) -> None:
        self._known = known

    def names(self, part: _Part, depth: int) -> Iterator[tuple[str, str]]:
        """Yield the path and the name of each task in a part."""
        if part.task not in CANVAS:
            yield part.path, part.task
        self._check_options(part)
        if part.task in _CALLING:
            self._check_arguments(part)
            for name in _CALLING[part.task]:
                yield from self._in_any(part.at("kwargs", name), part.kwargs[name], depth)
        for link in LINKS:
            if link in part.options:
                yield from self._in_any(part.at("options", link), part.options[link], depth)

    def _check_options(self, part: _Part) -> None:
        """Refuse options that are unknown, or that celery would read as parts of the signature."""
        stamps = part.options.get("stamped_headers")
        stamps = stamps if isinstance(stamps, list | tuple) else ()
        for name in part.options:
            if name in self._known or name in _TIMES:
                continue
            if name in _PARAMETERS or name not in stamps:
                raise _unclear(part.at("options", name), part.options[name], "a known option")

    def _check_arguments(self, part: _Part) -> None:
        """Refuse arguments that would make a built-in task call something unchecked."""
        if part.args:
            expected = f"no positional arguments for {part.task}, which calls its arguments"
            raise _unclear(part.at("args"), part.args, expected)
        needed, known = _CALLING[part.task], _ARGUMENTS[part.task]
        for name in part.kwargs:
            if name not in needed and name not in known:
                raise _unclear(
                    part.at("kwargs", name), part.kwargs[name], f"an argument of {part.task}"
                )
        for name in needed:
            if name not in part.kwargs:
                raise _unclear(part.at("kwargs"), [*part.kwargs], f"{name!r} for {part.task}")
        partial = part.kwargs.get("kwargs") or {}
        if not isinstance(partial, Mapping) or not _PARTS.isdisjoint(partial):
            # celery adds them to the arguments of each task in the header.
            raise _unclear(part.at("kwargs", "kwargs"), partial, "arguments of ordinary tasks")
        if part.task in _APPLYING:
            held = part.kwargs["task"]
            called = held.get("task") if isinstance(held, Mapping) else held
            if not isinstance(called, str) or called in _CALLING:
                raise _unclear(part.at("kwargs", "task"), called, "an ordinary task")

    def _in_any(self, path: str, value: object, depth: int) -> Iterator[tuple[str, str]]:
        """Yield the names in a value that celery reads as one or several signatures."""
        if value is None:
            return
        if depth == 0:
            expected = f"signatures of at most {fields.DEPTH} levels"
            raise _unclear(path, "deeper signatures", expected)
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, list | tuple):
            for at, item in enumerate(value):
                yield from self._in_any(f"{path}[{at}]", item, depth - 1)
        elif isinstance(value, Mapping):
            yield from self.names(_part(path, value), depth - 1)
        else:
            raise _unclear(path, value, "a signature, or a list of them")


def _part(path: str, given: Mapping[str, Any]) -> _Part:
    """Return the signature that celery would make of a dict."""
    for key in given:
        if key not in _SIGNATURE:
            # celery would make it an option of a chord.
            raise _unclear(f"{path}[{key!r}]", given[key], "a part of a signature")
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
    return _Part(path, task, args, kwargs or {}, options or {})


def _unclear(path: str, given: object, expected: str) -> InvalidEntryError:
    return InvalidEntryError(
        path, given, f"{expected}, since beatstore_allowed_tasks is set", "task.s(…)"
    )
