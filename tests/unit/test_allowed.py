"""What a message can make a worker run: every name is found, and no header speaks for celery."""

from __future__ import annotations

from typing import Any

import pytest
from celery import chain, chord, group
from celery.app.task import Context

from beatstore.definition.allowed import PROTOCOL, check_headers
from beatstore.definition.calls import Call, check_allowed, make_call
from beatstore.definition.values import encoded
from beatstore.errors import InvalidEntryError
from tests.support.signatures import SIGNATURES, add, app, total

# -- headers ---------------------------------------------------------------------------


def test_every_header_of_the_protocol_is_known() -> None:
    """What celery writes into a message's headers, and what a request reads, is listed."""
    message = app.amqp.as_task_v2("id", "calls.add")
    own = {name for name in vars(Context) if not name.startswith("_")}
    own -= {name for name in own if callable(getattr(Context, name))}
    own -= {name for name in own if isinstance(vars(Context)[name], property)}
    assert set(message.headers) | own | {"compression"} <= PROTOCOL


@pytest.mark.parametrize("header", [*sorted(PROTOCOL), "beatstore_run_id", "beatstore_part"])
def test_a_header_never_speaks_for_the_protocol(header: str) -> None:
    """A header of celery's protocol, or of beatstore, is refused by name, at any depth."""
    headers = {"mine": 1, header: "calls.other"}
    inner = add.s(1).set(headers=headers)
    for task, options in (
        (add, {"headers": headers}),
        (add.s(1).set(headers=headers), None),
        (add, {"link": inner}),
        (add, {"link_error": [add.s(1), inner]}),
        (chain(add.s(1), inner), None),
        (group(add.s(1), group(add.s(2), inner)), None),
        (chord([add.s(1)], inner), None),
        (add.s(1).set(link=add.s(2).set(link=inner)), None),
    ):
        with pytest.raises(InvalidEntryError, match=header) as caught:
            make_call(task, options=options)
        assert caught.value.field.endswith(f"['headers'][{header!r}]")


@pytest.mark.parametrize("value", [float("nan"), [1, {"a": float("-inf")}]])
def test_a_header_has_finite_numbers(value: Any) -> None:
    """RabbitMQ closes the connection over any other, also if a row has it by plain SQL."""
    stamped = add.s(1)
    stamped.stamp(order=value)
    for task, options in (
        (add, {"headers": {"mine": value}}),
        (add, {"link": add.s(1).set(headers={"mine": value})}),
        (stamped, None),
    ):
        with pytest.raises(InvalidEntryError, match="RabbitMQ"):
            make_call(task, options=options)
    assert make_call(add, [value])
    stored = {"mine": encoded("headers", value)}
    with pytest.raises(InvalidEntryError, match="RabbitMQ"):
        check_headers("calls.add", {}, {"headers": stored}, ours=False)


def test_an_option_that_has_a_header_is_named_instead() -> None:
    """The error of such a header says which option does what it would have done."""
    for header, option in (("shadow", "shadow"), ("id", "task_id"), ("group", "group_id")):
        with pytest.raises(InvalidEntryError, match=f"write the option '{option}'"):
            make_call(add, options={"headers": {header: "x"}})
    with pytest.raises(InvalidEntryError, match="write another name"):
        make_call(add, options={"headers": {"task": "x"}})


# -- which tasks -----------------------------------------------------------------------


def test_only_allowed_tasks_can_be_stored() -> None:
    """With patterns set, the task's name must match one of them, by case."""
    assert make_call("reports.daily", allowed=["reports.*"]).task == "reports.daily"
    for task in ("Reports.daily", "shell.run"):
        with pytest.raises(InvalidEntryError, match="allows: reports"):
            make_call(task, allowed=["reports.*"])


@pytest.mark.parametrize("kind", ["chain", "chain into group", "chord", "nested", "map", "chunks"])
def test_a_canvas_is_no_way_round_the_allowed_tasks(kind: str) -> None:
    """Each task inside a canvas must be allowed; the canvas itself need not be named."""
    assert make_call(SIGNATURES[kind](), allowed=["calls.*"])
    with pytest.raises(InvalidEntryError) as caught:
        make_call(SIGNATURES[kind](), allowed=["calls.nothing", "celery.*"])
    assert caught.value.given in ("calls.add", "calls.total")


def test_a_callback_is_no_way_round_the_allowed_tasks() -> None:
    """The tasks of callbacks must be allowed too, however deep they are."""
    signature = add.s(1).set(link=[chain(add.s(1), total.s())])
    with pytest.raises(InvalidEntryError) as caught:
        make_call(signature, allowed=["calls.add"])
    assert caught.value.given == "calls.total"


PLAIN = {"task": "calls.total"}

HIDDEN: dict[str, dict[str, Any]] = {
    "a callback": {"options": {"link": PLAIN}},
    "callbacks": {"options": {"link": [{"task": "calls.add"}, PLAIN]}},
    "a list of lists": {"options": {"link": [[[PLAIN]]]}},
    "an errback": {"options": {"link_error": PLAIN}},
    "an errback by name": {"options": {"link_error": ["calls.total"]}},
    "the rest of a chain": {"options": {"chain": [PLAIN]}},
    "a body": {"options": {"chord": PLAIN}},
    "a callback's callback": {
        "options": {"link": {"task": "calls.add", "options": {"link": PLAIN}}}
    },
    "a chain's member": {"task": "celery.chain", "kwargs": {"tasks": [PLAIN]}},
    "a chain's only member": {"task": "celery.chain", "kwargs": {"tasks": PLAIN}},
    "a group in a chain": {
        "task": "celery.chain",
        "kwargs": {
            "tasks": [
                {"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": [[PLAIN]]}}
            ]
        },
    },
    "a header": {"task": "celery.chord", "kwargs": {"header": PLAIN, "body": None}},
    "a chord's body": {"task": "celery.chord", "kwargs": {"header": [], "body": PLAIN}},
    "a map": {"task": "celery.map", "kwargs": {"task": PLAIN, "it": []}},
    "a starmap by name": {"task": "celery.starmap", "kwargs": {"task": "calls.total", "it": []}},
    "chunks": {"task": "celery.chunks", "kwargs": {"task": PLAIN, "it": [], "n": 1}},
    "a group as a callback": {
        "options": {"link": {"task": "celery.group", "kwargs": {"tasks": [PLAIN]}}}
    },
    "an unlock's callback": {"task": "celery.chord_unlock", "kwargs": {"callback": PLAIN}},
}

UNCLEAR: dict[str, dict[str, Any]] = {
    "a type that is another's": {
        "options": {
            "link": {
                "task": "calls.add",
                "subtask_type": "chain",
                "kwargs": {"tasks": [{"task": "calls.add"}]},
            }
        }
    },
    "a type that is none": {"options": {"link": {"task": "calls.add", "subtask_type": "x"}}},
    "a type that is a list": {"options": {"link": {"task": "calls.add", "subtask_type": ["x"]}}},
    "a number": {"options": {"link": 5}},
    "a number in a list": {"options": {"link_error": [{"task": "calls.add"}, 5]}},
    "a task that is none": {"options": {"chord": {"task": None}}},
    "a task in a list": {"options": {"link": {"task": ["calls.add"]}}},
    "kwargs in a list": {"options": {"link": {"task": "calls.add", "kwargs": ["x"]}}},
    "options in a list": {"options": {"link": {"task": "calls.add", "options": ["x"]}}},
    "args in a dict": {"options": {"link": {"task": "calls.add", "args": {"x": 1}}}},
    "arguments by position": {"task": "celery.map", "args": [{"task": "calls.add"}, []]},
    "such arguments inside": {
        "options": {"link": {"task": "celery.group", "args": [[{"task": "calls.add"}]]}}
    },
    "a canvas that holds a number": {"task": "celery.chain", "kwargs": {"tasks": 5}},
    "a canvas without its parts": {"options": {"link": {"task": "celery.group"}}},
    "options within options": {
        "options": {"link": {"task": "calls.add", "options": {"options": {"link": PLAIN}}}}
    },
    "options in the name of stamps": {
        "options": {
            "link": {
                "task": "calls.add",
                "options": {"stamped_headers": ["options"], "options": {"link": PLAIN}},
            }
        }
    },
    "arguments in the options": {
        "task": "celery.chain",
        "kwargs": {"tasks": [{"task": "calls.add"}]},
        "options": {"kwargs": {"body": PLAIN}},
    },
    "an option beside the options": {
        "options": {
            "chord": {
                "task": "celery.chord",
                "subtask_type": "chord",
                "kwargs": {"header": [], "body": {"task": "calls.add"}, "kwargs": {}},
                "link": PLAIN,
            }
        }
    },
    "an option in the arguments": {
        "options": {
            "link": {
                "task": "celery.chord",
                "kwargs": {"header": [], "body": {"task": "calls.add"}, "link": PLAIN},
            }
        }
    },
    "parts of a part": {
        "task": "celery.chord",
        "kwargs": {
            "header": [{"task": "calls.add"}],
            "body": {"task": "calls.add"},
            "kwargs": {"body": PLAIN},
        },
    },
    "a map of a group": {
        "task": "celery.starmap",
        "kwargs": {"task": {"task": "celery.group", "kwargs": {"tasks": []}}, "it": [[[PLAIN]]]},
    },
    "a map of a group by name": {
        "task": "celery.map",
        "kwargs": {"task": "celery.group", "it": [[PLAIN]]},
    },
}


def columns(**given: Any) -> Call:
    """Return a call as a row may hold it, written by plain SQL."""
    return Call(**{"task": "calls.add", "args": [], "kwargs": {}, "options": {}, **given})


@pytest.mark.parametrize("kind", SIGNATURES)
def test_every_signature_of_celerys_is_understood(kind: str) -> None:
    """Whatever celery makes of allowed tasks is allowed, also after it was frozen."""
    signature = SIGNATURES[kind]()
    assert make_call(signature, allowed=["calls.*"])
    signature.freeze()
    assert make_call(signature, allowed=["calls.*"])


@pytest.mark.parametrize("shape", HIDDEN)
def test_a_task_is_found_wherever_a_worker_would_find_it(shape: str) -> None:
    """A task that is not allowed is refused in any shape in which celery reads one."""
    call = columns(**HIDDEN[shape])
    check_allowed(call, None)
    check_allowed(call, ["calls.*", "celery.chord_unlock"])
    with pytest.raises(InvalidEntryError, match="beatstore_allowed_tasks") as caught:
        check_allowed(call, ["calls.add", "celery.*"])
    assert caught.value.given == "calls.total"


@pytest.mark.parametrize("shape", UNCLEAR)
def test_what_is_not_understood_is_not_allowed(shape: str) -> None:
    """With patterns set, a shape that is no signature is refused by its place."""
    call = columns(**UNCLEAR[shape])
    check_allowed(call, None)
    with pytest.raises(InvalidEntryError, match="since beatstore_allowed_tasks is set"):
        check_allowed(call, ["*"])


def test_endless_signatures_are_not_allowed() -> None:
    """Signatures that are deeper than JSON may be end in an error, and no other."""
    deep: Any = {"task": "calls.add"}
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InvalidEntryError, match="levels"):
        check_allowed(columns(options={"link": deep}), ["*"])


def test_arguments_that_look_like_signatures_are_arguments() -> None:
    """What an ordinary task does with its arguments is its own affair."""
    call = columns(args=[PLAIN], kwargs={"tasks": [PLAIN], "link": PLAIN})
    check_allowed(call, ["calls.add"])
    check_allowed(
        columns(task="celery.map", kwargs={"task": {"task": "calls.add"}, "it": [PLAIN]}),
        ["calls.add"],
    )
