"""The message of an entry: a task's name, its arguments and its options.

The task may be a name, a Task, or a Signature (also a chain, group or chord). This module does
not import celery: a Task has a name, and a Signature is a dict.

Invariants:
    * The columns are JSON, and send the same message as the given object would (see
      `beatstore.definition.values`).
    * No option sets the time of sending; the schedule does.

On failure: `InvalidEntryError`, naming the argument or option.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from beatstore.definition import allowed as permission
from beatstore.definition import fields, values
from beatstore.definition.allowed import CANVAS, LINKS
from beatstore.errors import InvalidEntryError

__all__ = [
    "CANVAS",
    "LINKS",
    "Call",
    "check_allowed",
    "check_id",
    "make_call",
    "own_id",
    "split_time",
]

#: The most characters of a task id that result backends accept.
_ID_LENGTH = 155


@dataclass(frozen=True, slots=True)
class Call:
    """The four columns of a message; plain JSON."""

    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any]


def make_call(
    task: object,
    args: object = None,
    kwargs: object = None,
    options: object = None,
    *,
    allowed: Sequence[str] | None = None,
) -> Call:
    """Return the columns for a task and its arguments.

    Args:
        task: a name, a Task or a Signature.
        args: they replace those of the signature; None keeps these.
        kwargs: they are merged into those of the signature, and override them.
        options: they are merged into those of the signature, and override them.
        allowed: patterns of task names; None allows all. Tasks inside a canvas and in
            callbacks must match too.
    """
    signature = task if isinstance(task, Mapping) else {}
    name = _task_name(task)
    given_args = signature.get("args", ()) if args is None else args
    if not isinstance(given_args, list | tuple):
        raise InvalidEntryError("args", given_args, "a list or tuple", "[…]")
    call = Call(
        name,
        values.encoded("args", given_args),
        _object("kwargs", _merged("kwargs", signature, kwargs)),
        _options(name, _merged("options", signature, options)),
    )
    if name in CANVAS:
        _check_canvas(call, kwargs if signature else None)
    permission.check_headers(name, call.kwargs, call.options)
    serializer = call.options.get("serializer")
    if serializer is not None:
        links = {link: call.options[link] for link in LINKS if link in call.options}
        values.check_serializer(serializer, call.args, call.kwargs, links)
    check_allowed(call, allowed)
    return call


def split_time(task: object) -> tuple[object, dict[str, Any]]:
    """Separate the time of sending from a signature.

    Returns:
        The task without the time (a copy), and the time: `eta`, `countdown`, both or neither.
    """
    if not isinstance(task, Mapping) or not isinstance(task.get("options"), Mapping):
        return task, {}
    options = dict(task["options"])
    found = {key: options.pop(key, None) for key in ("eta", "countdown")}
    time = {key: value for key, value in found.items() if value is not None}
    if isinstance(time.get("eta"), str):
        time["eta"] = _read_iso("eta", time["eta"])
    return {**task, "options": options}, time


def own_id(task: object) -> str | None:
    """Return the id of a signature's result, if it is frozen or has a `task_id`.

    The id of a chord is that of its body; the id of a chain is that of its last task.
    """
    if not isinstance(task, Mapping):
        return None
    options, parts = task.get("options"), task.get("kwargs")
    given = options.get("task_id") if isinstance(options, Mapping) else None
    if isinstance(parts, Mapping):
        steps = parts.get("tasks")
        if task.get("task") == "celery.chord":
            given = own_id(parts.get("body")) or given  # its own id belongs to its header
        elif task.get("task") == "celery.chain" and isinstance(steps, list | tuple) and steps:
            given = given or own_id(steps[-1])
    return None if given is None else _id("options['task_id']", given)


def check_id(options: Mapping[str, Any], *, once: bool) -> str | None:
    """Return the `task_id` in the options of an entry, or None.

    Args:
        options: the options of the entry.
        once: whether the entry is sent only once.

    Raises:
        InvalidEntryError: the id is invalid, or the entry recurs.
    """
    given = options.get("task_id")
    if given is None:
        return None
    if not once:
        raise InvalidEntryError("options['task_id']", given, *_NO_ID)
    return _id("options['task_id']", given)


def check_allowed(call: Call, allowed: Sequence[str] | None) -> None:
    """Refuse a call that could start a task outside the patterns of `allowed`."""
    permission.check(call, allowed, _KNOWN)


def _task_name(task: object) -> str:
    name = task.get("task") if isinstance(task, Mapping) else task
    if not isinstance(name, str):
        name = getattr(name, "name", None)
    if isinstance(name, str):
        return fields.text("task", name, write="the name under which the task is registered")
    raise InvalidEntryError(
        "task", task, "the name of a task, a Task or a Signature", "'package.tasks.send_mail'"
    )


def _merged(field: str, signature: Mapping[str, Any], given: object) -> dict[Any, Any]:
    for value in (signature.get(field), given):
        if value is not None and not isinstance(value, Mapping):
            raise InvalidEntryError(field, value, "a dict", "{…}")
    return {**(signature.get(field) or {}), **(given or {})}  # type: ignore[dict-item]


# -- canvases --------------------------------------------------------------------------


def _check_canvas(call: Call, given_kwargs: object) -> None:
    """Refuse arguments and callbacks that celery would not send with a chain, group or chord.

    celery drops the arguments of a canvas when it restores it from a dict, and fails to send a
    group with a callback.
    """
    if call.args:
        raise InvalidEntryError(
            "args",
            call.args,
            f"no arguments for {call.task}",
            "them on its first signature: first.s(…)",
        )
    if given_kwargs:
        raise InvalidEntryError(
            "kwargs",
            given_kwargs,
            f"no keyword arguments for {call.task}",
            "them on its first signature",
        )
    for part in CANVAS[call.task]:
        found = call.kwargs.get(part)
        if not _signatures(found):
            raise InvalidEntryError(
                f"kwargs[{part!r}]", found, "signatures", f"a signature for {call.task}"
            )
    for link in ("link", "link_error"):
        if call.task == "celery.group" and call.options.get(link):
            raise InvalidEntryError(
                f"options[{link!r}]",
                call.options[link]["task"] if isinstance(call.options[link], dict) else "a list",
                "no callback on a group",
                "chord(group, callback), or the callback on each of its tasks",
            )


def _signatures(value: object) -> list[dict[str, Any]]:
    """Return the signatures in a signature, a name, or a list of them; [] for other values."""
    items = value if isinstance(value, list) else [value]
    made: list[Any] = [{"task": item} if isinstance(item, str) else item for item in items]
    good = all(isinstance(item, dict) and isinstance(item.get("task"), str) for item in made)
    return made if good else []


# -- options ---------------------------------------------------------------------------


def _options(task: str, given: Mapping[Any, Any]) -> dict[str, Any]:
    known = {**_KNOWN, **(_CHORD if task == "celery.chord" else {})}
    # A stamp is an option of any name that `stamped_headers` lists.
    stamps = given.get("stamped_headers") or ()
    found: dict[str, Any] = {}
    for key, value in given.items():
        field = f"options[{key!r}]"
        if key in _REFUSED:
            expected, write = _REFUSED[key]
            raise InvalidEntryError(field, value, expected, write)
        if key in known:
            found[key] = None if value is None else known[key](field, value)
        elif isinstance(key, str) and isinstance(stamps, list | tuple | set) and key in stamps:
            found[key] = values.encoded(field, value)
        else:
            nearest = repr(fields.nearest(key, known))
            raise InvalidEntryError(field, value, "an option of apply_async", nearest)
    return found


def _line(field: str, value: object) -> str:
    if isinstance(value, str) and value:
        return str(fields.plain(field, value))
    name = getattr(value, "name", None)
    raise InvalidEntryError(
        field, value, "text", f"its name, {name!r}" if isinstance(name, str) else "'name'"
    )


def _id(field: str, value: object) -> str:
    return fields.text(field, value, _ID_LENGTH, write="str(uuid.uuid4())")


def _object(field: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidEntryError(field, value, "a dict with text for keys", "{…}")
    for key in value:
        if not isinstance(key, str):
            raise InvalidEntryError(field, key, "text for a key", repr(str(key)))
    return dict(values.encoded(field, value))


def _callbacks(field: str, value: object) -> Any:
    found = values.encoded(field, value)
    if found == [] or (not isinstance(found, str) and _signatures(found)):
        return found
    raise InvalidEntryError(field, value, "a signature, or a list of them", "task.s(…)")


def _words(field: str, value: object) -> list[str]:
    if isinstance(value, list | tuple | set):
        return [_line(field, word) for word in value]
    raise InvalidEntryError(field, value, "a list of names", "[…]")


def _expires(field: str, value: object) -> float | str:
    """Return seconds from sending, or an instant as ISO 8601 text."""
    if isinstance(value, str):
        value = _read_iso(field, value)
    if isinstance(value, datetime):
        return fields.instant(field, value).isoformat()
    if isinstance(value, int | float | timedelta):
        return fields.seconds(field, value, above=True)
    raise InvalidEntryError(
        field, value, "seconds from sending, a timedelta or an aware datetime", "3600"
    )


def _read_iso(field: str, value: str) -> datetime:
    try:
        # Python 3.10 does not read the Z that others write.
        return datetime.fromisoformat(f"{value[:-1]}+00:00" if value.endswith("Z") else value)
    except ValueError:
        now = datetime(2030, 1, 31, 9, 30, tzinfo=timezone.utc).isoformat()
        raise InvalidEntryError(field, value, "an instant as ISO 8601 text", repr(now)) from None


def _delivery_mode(field: str, value: object) -> int | str:
    if isinstance(value, int):
        return fields.whole(field, value, least=1, most=2)
    return fields.choice(field, value, ("persistent", "transient"))


_Check = Callable[[str, object], Any]
_positive: _Check = partial(fields.number, above=True)

#: Every option of `Task.apply_async`, `Celery.send_task` and kombu's `Producer.publish`
#: that can be stored, in celery 5.6 and 5.7, with the message properties that RabbitMQ
#: and SQS know.
_KNOWN: Mapping[str, _Check] = {
    **dict.fromkeys(
        (
            *("queue", "exchange", "exchange_type", "routing_key", "route_name"),
            *("serializer", "compression"),
            *("shadow", "argsrepr", "kwargsrepr", "origin", "reply_to"),
            *("group_id", "root_id", "parent_id"),
            *("message_id", "type", "user_id", "app_id", "cluster_id"),
            *("MessageGroupId", "MessageDeduplicationId"),
        ),
        _line,
    ),
    **dict.fromkeys(
        ("retry", "ignore_result", "add_to_parent", "mandatory", "immediate"), fields.flag
    ),
    **dict.fromkeys(
        ("time_limit", "soft_time_limit", "expiration", "timeout", "confirm_timeout"), _positive
    ),
    **dict.fromkeys(("group_index", "retries", "replaced_task_nesting", "timestamp"), fields.whole),
    **dict.fromkeys(("headers", "retry_policy", "message_attributes"), _object),
    **dict.fromkeys(LINKS, _callbacks),
    "priority": partial(fields.whole, most=255),
    "expires": _expires,
    "delivery_mode": _delivery_mode,
    "stamped_headers": _words,
    "task_id": _id,
}

#: Further options of a chord: how often its callback checks whether it may start.
_CHORD: Mapping[str, _Check] = {"interval": _positive, "max_retries": fields.whole}

_NO_TIME = (
    "no time of sending in the options",
    "it as the schedule: store.schedule(signature, at=…) or countdown=…",
)
_NO_ID = ("no id: each run of an entry has its own", "the options without it")
_NO_OBJECT = ("a value that can be stored, not an object of one process", "the options without it")

_REFUSED: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("eta", "countdown", "DelaySeconds", "delay_seconds"), _NO_TIME),
    "correlation_id": _NO_ID,
    **dict.fromkeys(("producer", "publisher", "connection", "router", "result_cls"), _NO_OBJECT),
    **dict.fromkeys(("task_type", "event_dispatcher", "declare"), _NO_OBJECT),
    **dict.fromkeys(
        ("content_type", "content_encoding"),
        ("no encoding: with it the message is not serialized", "serializer='json'"),
    ),
    **dict.fromkeys(
        ("args", "kwargs"),
        ("arguments outside the options", "args=[…] and kwargs={…} of the entry"),
    ),
}
