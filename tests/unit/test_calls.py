"""What an entry sends: any task, signature or canvas is stored so that it sends the same."""

from __future__ import annotations

import inspect
import json
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, _state, chain
from celery.app.amqp import AMQP
from celery.app.task import Task
from celery.beat import BeatLazyFunc
from celery.canvas import Signature
from kombu import Queue
from kombu.messaging import Producer

from beatstore.definition import calls
from beatstore.definition.calls import Call, make_call, split_time
from beatstore.definition.values import decoded
from beatstore.errors import InvalidEntryError
from tests.support.signatures import SIGNATURES, add, app

UTC = timezone.utc


def as_json(value: Any) -> Any:
    """Return what celery's own JSON would make of a signature."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list | tuple) else value


def restored(call: Call) -> Signature:
    """Make a signature of stored columns, after a round trip through JSON."""
    kind = call.task.removeprefix("celery.")
    stored: dict[str, Any] = json.loads(
        json.dumps(
            {
                "task": call.task,
                "args": call.args,
                "kwargs": call.kwargs,
                "options": call.options,
                "subtask_type": kind if kind in ("chain", "group", "chord") else None,
                "immutable": False,
            }
        )
    )
    signature: Signature = Signature.from_dict(stored, app=app)
    return signature


@pytest.mark.parametrize("kind", SIGNATURES)
def test_a_stored_signature_is_the_signature(kind: str) -> None:
    """Any signature, chain, group or chord is equal after being stored and made again."""
    signature = SIGNATURES[kind]()
    back = as_json(restored(make_call(signature)))
    for part in ("task", "args", "kwargs", "options"):
        assert back[part] == as_json(signature)[part], part


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        ("signature", 3),
        ("callback", 1),
        ("piped", 6),
        ("chain", 10),
        ("group", [3, 7]),
        ("lazy group", [0, 2, 4]),
        ("chord", 10),
        ("group into task", 7),
        ("nested", 11),
        ("map", [1, 2]),
        ("starmap", [0, 2, 4]),
    ],
)
def test_a_stored_signature_runs_as_the_signature(
    monkeypatch: pytest.MonkeyPatch, kind: str, result: Any
) -> None:
    """A signature made again from its columns computes what the first would have."""
    monkeypatch.setattr(_state._tls, "current_app", app)  # as in a worker of that app
    assert restored(make_call(SIGNATURES[kind]())).apply().get() == result


def test_storing_a_signature_leaves_it_alone() -> None:
    """The signature given can be used again: neither it nor what it contains is changed."""
    signature = chain(add.s(1, 2), add.s(3)).set(queue="q", countdown=5)
    before = json.dumps(signature)
    make_call(split_time(signature)[0])
    assert json.dumps(signature) == before


def test_a_task_may_be_a_name_a_task_or_a_signature() -> None:
    """The three ways to name a task store the same name."""
    names = {
        make_call(task).task
        for task in ("calls.add", add, add.s(), SimpleNamespace(name="calls.add"))
    }
    assert names == {"calls.add"}


@pytest.mark.parametrize(
    "task", [None, 1, "", " x", lambda: 1, {"name": "x"}, {"task": None}, "x" * 256]
)
def test_what_names_no_task_is_refused(task: Any) -> None:
    """A function, a number or a nameless dict is refused, saying what a task is."""
    with pytest.raises(InvalidEntryError) as caught:
        make_call(task)
    assert caught.value.field == "task"


def test_explicit_arguments_are_stronger_than_the_signatures() -> None:
    """Arguments given beside a signature replace its args and join its kwargs and options."""
    signature = add.s(1, y=2).set(queue="q", priority=1)
    call = make_call(signature, [5], {"z": 3}, {"queue": "r"})
    assert call == Call("calls.add", [5], {"y": 2, "z": 3}, {"queue": "r", "priority": 1})
    assert make_call(signature, []).args == []


@pytest.mark.parametrize(
    ("field", "given"),
    [("args", "abc"), ("args", {1}), ("kwargs", [1]), ("kwargs", {1: 2}), ("options", "queue")],
)
def test_arguments_of_the_wrong_shape_are_refused(field: str, given: Any) -> None:
    """The args are a list, the kwargs and options dicts with text for keys."""
    with pytest.raises(InvalidEntryError) as caught:
        make_call("t", **{field: given})
    assert caught.value.field == field


def test_a_lazy_value_is_refused_with_its_path() -> None:
    """What celery evaluates at sending can't be stored; the error says where it is."""
    with pytest.raises(InvalidEntryError, match="compute in the task") as caught:
        make_call("t", [BeatLazyFunc(datetime.now)])
    assert caught.value.field == "args[0]"


def test_an_eta_inside_a_canvas_is_kept() -> None:
    """A step's own time is celery's affair: it is stored as celery's JSON sends it."""
    at = datetime(2030, 1, 1, tzinfo=UTC)
    call = make_call(chain(add.s(1), add.s(2).set(eta=at)))
    assert decoded("kwargs", call.kwargs)["tasks"][1]["options"] == {"eta": at}


@pytest.mark.parametrize("canvas", ["chain", "group", "chord", "map", "chunks"])
def test_arguments_beside_a_canvas_are_refused(canvas: str) -> None:
    """Celery would drop them or mix them up, so they go onto the first signature."""
    for field, given in (("args", [1]), ("kwargs", {"x": 1})):
        with pytest.raises(InvalidEntryError) as caught:
            make_call(SIGNATURES[canvas](), **{field: given})
        assert caught.value.field == field


def test_a_canvas_may_be_given_by_its_columns() -> None:
    """What was stored of a canvas can be stored again as name and kwargs."""
    call = make_call(SIGNATURES["chain"]())
    assert make_call(call.task, call.args, call.kwargs, call.options) == call


@pytest.mark.parametrize(
    ("task", "kwargs"),
    [
        ("celery.chain", {}),
        ("celery.group", {"tasks": []}),
        ("celery.chord", {"header": [{"task": "a"}], "body": None}),
        ("celery.map", {"task": 3, "it": []}),
    ],
)
def test_a_canvas_without_signatures_is_refused(task: str, kwargs: dict[str, Any]) -> None:
    """A canvas that could not be sent is refused when it is stored."""
    with pytest.raises(InvalidEntryError, match="signatures"):
        make_call(task, kwargs=kwargs)


def test_a_callback_on_a_group_is_refused() -> None:
    """Celery raises for it at sending, when nobody is there to see it."""
    with pytest.raises(InvalidEntryError, match="chord"):
        make_call(SIGNATURES["group"](), options={"link": add.s()})


# -- options ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "given", "stored"),
    [
        ("expires", 60, 60.0),
        ("expires", timedelta(minutes=1), 60.0),
        ("expires", datetime(2030, 1, 1, tzinfo=UTC), "2030-01-01T00:00:00+00:00"),
        ("expires", "2030-01-01T01:00:00+01:00", "2030-01-01T00:00:00+00:00"),
        ("expires", "2030-01-01T00:00:00Z", "2030-01-01T00:00:00+00:00"),
        ("expires", None, None),
        ("priority", 0, 0),
        ("time_limit", 30, 30),
        ("time_limit", 0.5, 0.5),
        ("queue", "q", "q"),
        ("ignore_result", True, True),
        ("headers", {"a": [1]}, {"a": [1]}),
        ("retry_policy", {"max_retries": 3}, {"max_retries": 3}),
        ("delivery_mode", 1, 1),
        ("delivery_mode", "persistent", "persistent"),
        ("MessageGroupId", "g", "g"),
        ("link", [], []),
    ],
)
def test_an_option_is_stored_as_celery_takes_it(option: str, given: Any, stored: Any) -> None:
    """Each option of apply_async is stored in the form in which celery reads it back."""
    call = make_call("t", options={option: given})
    assert call.options == {option: stored}
    assert type(call.options[option]) is type(stored)


@pytest.mark.parametrize(
    ("option", "given", "hint"),
    [
        ("qeue", "q", "'queue'"),
        (1, 2, "apply_async"),
        ("eta", datetime(2030, 1, 1, tzinfo=UTC), "store.schedule"),
        ("countdown", 5, "store.schedule"),
        ("task_id", "x" * 156, "1 to 155 characters"),
        ("correlation_id", "x", "each run of an entry has its own"),
        ("producer", object(), "not an object of one process"),
        ("connection", None, "not an object of one process"),
        ("args", [1], "of the entry"),
        ("queue", Queue("high"), "'high'"),
        ("queue", "", "text"),
        ("priority", 256, "at most 255"),
        ("priority", True, "whole number"),
        ("expires", 0, "more than 0"),
        ("expires", datetime(2030, 1, 1), "time zone"),
        ("expires", "tomorrow", "ISO 8601"),
        ("expires", [1], "seconds from sending"),
        ("time_limit", -1, "above 0"),
        ("ignore_result", 1, "True or False"),
        ("headers", [("a", 1)], "a dict"),
        ("headers", {1: 2}, "text for a key"),
        ("headers", {"a": {1, 2}}, "sorted"),
        ("headers", {"a": {"__type__": "x", "__value__": 1}}, "other keys"),
        ("link", "calls.add", "signature"),
        ("link", {"name": "x"}, "signature"),
        ("delivery_mode", 3, "at most 2"),
        ("interval", 3, "apply_async"),
        ("retry_policy", {"errback": print}, "plain value"),
    ],
)
def test_an_option_that_could_not_be_sent_is_refused(option: Any, given: Any, hint: str) -> None:
    """Unknown, misspelt, process-bound and wrongly typed options are refused with a hint."""
    with pytest.raises(InvalidEntryError) as caught:
        make_call("t", options={option: given})
    assert caught.value.field.startswith(f"options[{option!r}]")
    assert hint in str(caught.value)


def test_every_option_that_celery_and_kombu_name_is_known() -> None:
    """Each parameter of apply_async, send_task and publish can be stored or is refused by name."""
    named: set[str] = set()
    for function in (Task.apply_async, Celery.send_task, Producer.publish, AMQP.as_task_v2):
        named |= {
            name
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        }
    own = {"self", "body", "name", "now", "timezone", "create_sent_event", "callbacks", "errbacks"}
    assert named - own <= set(calls._KNOWN) | set(calls._REFUSED)


@pytest.mark.parametrize("option", sorted(set(calls._KNOWN) - {"group_index", "chain", "chord"}))
def test_every_known_option_can_be_sent(option: str) -> None:
    """Celery takes each option from what was stored, and publishes a message with it."""
    examples = {
        **{"retry": False, "priority": 3, "expires": 60, "expiration": 5, "delivery_mode": 1},
        **{"headers": {"a": 1}, "retry_policy": {"max_retries": 1}, "serializer": "json"},
        **{"compression": "gzip", "stamped_headers": [], "message_attributes": {}},
        **{"link": add.s(1), "link_error": [add.s(1)], "exchange_type": "direct"},
        **dict.fromkeys(("time_limit", "soft_time_limit", "timeout", "confirm_timeout"), 5),
        **dict.fromkeys(("ignore_result", "add_to_parent", "mandatory", "immediate"), False),
        **dict.fromkeys(("retries", "replaced_task_nesting", "timestamp"), 1),
    }
    options = make_call(add, [1], options={option: examples.get(option, "calls")}).options
    assert add.apply_async([1], **json.loads(json.dumps(options))).id


# -- a signature's own time ------------------------------------------------------------


def test_the_time_of_a_signature_is_taken_out_of_it() -> None:
    """Its eta and countdown are returned beside a copy that has neither."""
    at = datetime(2030, 1, 1, tzinfo=UTC)
    task, time = split_time(add.s(1).set(eta=at, queue="q"))
    assert time == {"eta": at}
    assert make_call(task).options == {"queue": "q"}
    assert split_time(add.s(1).set(countdown=5))[1] == {"countdown": 5}
    assert split_time(add.s(1))[1] == split_time("calls.add")[1] == {}


def test_an_eta_in_text_is_read() -> None:
    """An eta that went through JSON is an instant again."""
    stored = json.loads(json.dumps({**add.s(1), "options": {"eta": "2030-01-01T00:00:00+00:00"}}))
    assert split_time(stored)[1] == {"eta": datetime(2030, 1, 1, tzinfo=UTC)}
