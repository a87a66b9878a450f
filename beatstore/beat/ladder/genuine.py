"""Find out whether anybody has hooked into the way of a message, or patched it.

Monitoring packages replace methods of celery, kombu or a client, at any time; users override
methods in subclasses, or connect signals. All of that is found by looking where the code of a
function comes from: a function that is not from the library's own file is somebody else's.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

import celery.app.amqp
import celery.app.base
import celery.app.routes
import celery.app.task
import celery.beat
import celery.utils.saferepr
import kombu.messaging
import kombu.utils.json
from celery import signals
from kombu.serialization import registry  # type: ignore[attr-defined]  # its stubs lack it

from beatstore.worker import signals as own_signals
from beatstore.worker import task as own_task

__all__ = ["hook_of_app", "hook_of_task", "is_genuine", "replaced_in"]

#: The signals of a message that is published, and the receivers of them that beat may ignore:
#: ours continues the run of a task that is running, and none runs in beat.
_SIGNALS = ("before_task_publish", "after_task_publish", "task_sent")
_IGNORED = (own_signals.on_publish,)

#: The methods that a message passes: the attribute, and the modules that it may come from.
_OF_TASK = ("shadow_name", "_get_exec_options", "_get_app", "AsyncResult")
_OF_PRODUCER = ("publish", "_publish", "_prepare", "_delivery_details", "maybe_declare")


def is_genuine(owner: object, name: str, *modules: Any) -> bool:
    """Return whether a method of an object, or of its class, comes from one of these modules."""
    function = vars(owner).get(name) if hasattr(owner, "__dict__") else None
    if function is None:
        kinds = (kind for kind in type(owner).__mro__ if name in vars(kind))
        function = vars(next(kinds, object)).get(name)
    if isinstance(function, (MethodType, classmethod, staticmethod)):
        function = function.__func__
    if type(function) is not FunctionType or hasattr(function, "__wrapped__"):
        return False
    return function.__code__.co_filename in {module.__file__ for module in modules}


def hook_of_app(scheduler: Any) -> str | None:
    """Return what is hooked into the messages of all tasks, in words; None: nothing."""
    app, amqp = scheduler.app, scheduler.app.amqp
    for name in _SIGNALS:
        for receiver in _receivers(getattr(signals, name)):
            if receiver not in _IGNORED:
                return f"{_called(receiver)} is connected to {name}"
    if why := _setting(app):
        return why
    # celery makes these functions when they are first asked for
    _ = amqp.send_task_message, amqp.create_task_message
    replaced = replaced_in(
        (scheduler, "apply_entry", celery.beat),
        (app, "send_task", celery.app.base),
        (app, "producer_or_acquire", celery.app.base),
        (amqp, "as_task_v2", celery.app.amqp),
        (amqp, "create_task_message", celery.app.amqp),
        (amqp, "send_task_message", celery.app.amqp),
        (amqp.router, "route", celery.app.routes),
        (amqp.router, "query_router", celery.app.routes),
        *((scheduler.producer, method, kombu.messaging) for method in _OF_PRODUCER),
    )
    if replaced is not None:
        return replaced
    if any(type(router) is not celery.app.routes.MapRoute for router in amqp.router.routes):
        return "task_routes has a router that may look at the arguments"
    return None


def hook_of_task(task: Any) -> str | None:
    """Return why the messages of a registered task have to pass its own methods; None: no."""
    if not is_genuine(task, "apply_async", celery.app.task, own_task):
        return f"{task.name}.apply_async is replaced"
    for name in _OF_TASK:
        if not is_genuine(task, name, celery.app.task):
            return f"{task.name}.{name} is replaced"
    if getattr(task, "_dump_pydantic_arguments", None) is not None:
        return f"{task.name} converts its arguments"
    return None


def replaced_in(*ways: tuple[object, str, Any]) -> str | None:
    """Return which of these methods does not come from its module, in words; None: all do."""
    for owner, name, module in ways:
        if not is_genuine(owner, name, module):
            return f"{type(owner).__name__}.{name} is replaced"
    return None


def _setting(app: Any) -> str | None:
    conf = app.conf
    if conf.task_always_eager:
        return "task_always_eager is set"
    if conf.task_protocol != 2:  # noqa: PLR2004  (of celery's own documentation)
        return f"task_protocol is {conf.task_protocol}"
    if conf.task_send_sent_event:
        return "task_send_sent_event is set"
    if not is_genuine(celery.app.amqp, "saferepr", celery.utils.saferepr):
        return "celery's saferepr is replaced"
    for name, codec in registry._encoders.items():
        if codec.content_type == "application/json" and codec.encoder is not kombu.utils.json.dumps:
            return f"the serializer {name!r} is not kombu's"
    return "beat runs inside a task" if app.current_worker_task else None


def _receivers(signal: Any) -> Iterator[Any]:
    for _, receiver in signal.receivers:
        alive = receiver() if isinstance(receiver, weakref.ReferenceType) else receiver
        if alive is not None:
            yield alive


def _called(receiver: Any) -> str:
    name = getattr(receiver, "__qualname__", type(receiver).__name__)
    return f"{getattr(receiver, '__module__', '?')}.{name}"
