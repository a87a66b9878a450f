"""The types of the public API say what the code accepts: no more, and no less."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, get_args

import pytest

from beatstore import (
    After,
    Audit,
    Cron,
    Entry,
    Every,
    InvalidEntryError,
    Once,
    RRule,
    Run,
    Solar,
    Store,
    scheduled,
    testing,
    types,
)
from beatstore.definition import edges
from beatstore.definition.spec import DEFAULTS
from tests.support.entry_values import VALUES

#: A value of each option.
OPTIONS = {**VALUES, "new_name": "other"}

#: The schedules there are.
KINDS = (Once, Cron, Every, RRule, Solar)

#: What takes options: which they are, how it is called, and itself.
TAKERS: dict[str, tuple[Any, Callable[..., Any], Any]] = {
    "add": (types.EntryOptions, lambda store, **o: store.add("a", "t", 60, **o), Store.add),
    "put": (types.EntryOptions, lambda store, **o: store.put("a", "t", 60, **o), Store.put),
    "change": (types.ChangeOptions, lambda store, **o: store.change("it", **o), Store.change),
    "schedule": (
        types.OneShotOptions,
        lambda store, **o: store.schedule("t", countdown=60, **o),
        Store.schedule,
    ),
    "scheduled": (types.ScheduledOptions, lambda _, **o: scheduled(60, **o)(lambda: 0), scheduled),
}


@pytest.fixture
def store() -> Iterator[Store]:
    """Yield a store in virtual time, with two entries."""
    store = testing.store()
    store.add("up", "t", 60)
    store.add("it", "t", 60)
    yield store
    store.close()


@pytest.mark.parametrize("taker", TAKERS)
def test_every_option_is_accepted(store: Store, taker: str) -> None:
    """What the types offer, the function takes."""
    options, call, _ = TAKERS[taker]
    for name in options.__annotations__:
        call(store, **{name: OPTIONS[name]})
        if taker == "add":
            store.remove("a")
        if name == "new_name":
            store.change("other", new_name="it")


@pytest.mark.parametrize("taker", TAKERS)
def test_no_other_option_is(store: Store, taker: str) -> None:
    """What the types do not offer is refused, and the nearest option is named."""
    options, call, _ = TAKERS[taker]
    with pytest.raises(InvalidEntryError, match=r"^misfir: .*; write misfire$"):
        call(store, misfir="skip")
    for name in OPTIONS.keys() - options.__annotations__.keys() - {"task", "schedule"}:
        with pytest.raises(InvalidEntryError, match=f"^{name}: expected a known option, got"):
            call(store, **{name: OPTIONS[name]})


@pytest.mark.parametrize("taker", TAKERS)
def test_help_shows_every_option(taker: str) -> None:
    """`help` lists the options with what they mean, and with their defaults where there are."""
    options, _, function = TAKERS[taker]
    shown = pydoc.plain(pydoc.render_doc(function))
    parameters = inspect.signature(function).parameters
    for name in set(options.__annotations__) - {"new_name", "task", "schedule"}:
        assert f"\n        {name}: " in shown
        if taker != "change":
            assert parameters[name].default == DEFAULTS[name]
    assert shown.count("\n        misfire: ") == 1
    assert "as in `" not in shown


def test_the_kinds_are_those_of_schedules() -> None:
    """The words of an entry's kind are those of the schedules there are, and "after"."""
    assert get_args(types.EntryKind) == (*(kind.kind for kind in KINDS), "after")


@pytest.mark.parametrize("kind", [Entry, Run, Audit])
def test_every_field_is_explained(kind: type) -> None:
    """The docstring of what the store returns says what each field means, in their order."""
    said = re.findall(r"^    (\w+): ", inspect.getdoc(kind) or "", re.MULTILINE)
    assert said == [field.name for field in fields(kind) if not field.name.startswith("_")]


def test_every_word_is_accepted(store: Store) -> None:
    """Each word of a policy and of a state is one that the store knows."""
    for word in get_args(types.Misfire):
        assert store.change("it", misfire=word).misfire == word
    for word in get_args(types.Overlap):
        assert store.change("it", overlap=word).overlap == word
    for on in get_args(types.On):
        for align in get_args(types.Align):
            for end in get_args(types.OnUpstreamFailure):
                store.link("it", After("up", on=on, align=align, on_upstream_failure=end))
    for word in get_args(types.EntryState):
        assert isinstance(store.entries(state=word), list)
    for word in get_args(types.RunState):
        assert isinstance(store.runs(state=word), list)


def test_the_types_of_after_are_those_of_its_fields() -> None:
    """What a type checker is told of `After(…)` has its fields, in their order and as optional."""
    (told,) = (
        node
        for node in ast.walk(ast.parse(inspect.getsource(edges.After)))
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    )
    one = inspect.signature(After).parameters
    defaults = [ast.literal_eval(default) for default in told.args.defaults]
    assert [argument.arg for argument in told.args.args] == ["self", *one]
    assert defaults == [p.default for p in one.values() if p.default is not p.empty]
