"""The arguments of `Store.add` as options, for the verbs that add and change entries.

Only given options are passed on, so the defaults are those of the API. For `change`, an empty
value or `--no-OPTION` clears a field.

On failure: a usage error that names the option.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from beatstore.cli.names import complete_edge
from beatstore.cli.options import (
    DURATION,
    EDGE,
    INSTANT,
    JSON_ARRAY,
    JSON_OBJECT,
    PAIR,
    SOLAR,
    ZONE,
    Clearable,
)
from beatstore.cli.output import View
from beatstore.definition.metadata import Field, Option
from beatstore.definition.spec import FIELDS
from beatstore.schedules import Every, Once, RRule, Solar

__all__ = ["call_fields", "given_fields", "policy_fields", "schedule_fields"]

F = TypeVar("F", bound=Callable[..., Any])

#: The click type of each kind of option.
_TYPES: Mapping[str, Any] = {
    "array": JSON_ARRAY,
    "object": JSON_OBJECT,
    "zone": ZONE,
    "time": INSTANT,
    "span": DURATION,
    "number": float,
    "text": str,
    "edge": EDGE,
}


@dataclass(frozen=True)
class _Option:
    """An option, and the argument of `Store.add` that it gives.

    Attributes:
        name: of the option, without the dashes.
        type: its click type.
        help: its help text.
        argument: name of the argument; "" if the option gives only a part of one.
        none: the value that clears the argument in `Store.change`.
        clearable: whether the option can be cleared.
        many: whether the option can be repeated; its value is then a list.
    """

    name: str
    type: Any
    help: str
    argument: str = ""
    none: Any = None
    clearable: bool = False
    many: bool = False

    @classmethod
    def of(cls, field: Field) -> _Option:
        """Return the option of a field; the field's default clears it."""
        one = field.option
        assert one is not None
        name = one.name or field.name.replace("_", "-")
        given = {"argument": field.name, "none": field.default, "many": one.many}
        return cls(name, _type(one), one.help, **given, clearable=True)

    @property
    def param(self) -> str:
        return self.name.replace("-", "_")


def _type(one: Option) -> Any:
    """Return the click type of an option."""
    if one.choices:
        return click.Choice(one.choices)
    return click.IntRange(one.least) if one.kind == "whole" else _TYPES[one.kind]


_WITH_OPTION = [field for field in FIELDS.values() if field.option is not None]

_PAIR_OPTION = _Option(
    "option", PAIR, "One message option, such as queue=etl; repeatable.", many=True
)
_CALL = (*(_Option.of(field) for field in _WITH_OPTION if field.effect == "call"), _PAIR_OPTION)

_RULES = (
    _Option("cron", str, "Due by a cron expression, like SCHEDULE."),
    _Option("every", DURATION, "Due at this interval: 30s, 5m, 1h30m."),
    _Option("at", INSTANT, "Due once, at this time."),
    _Option("rrule", str, "Due by an RFC 5545 rule: FREQ=MONTHLY;BYDAY=1MO."),
    _Option("solar", SOLAR, "Due at a solar event: sunset,52.5,13.4."),
)

#: Options of recurring schedules.
_RECURRING = tuple(
    _Option.of(field) for field in _WITH_OPTION if not field.one_shot and field.effect != "call"
)

#: Options that one-shots have too.
_POLICIES = tuple(_Option.of(field) for field in _WITH_OPTION if field.one_shot)

_OPTIONS = tuple(one for one in (*_CALL, *_RECURRING, *_POLICIES) if one.argument)


def call_fields(change: bool = False) -> Callable[[F], F]:
    """Add the options of the task and its message."""
    return _added(_CALL, change)


def schedule_fields(change: bool = False) -> Callable[[F], F]:
    """Add the schedule as an argument and as options, and the options of recurring ones."""

    def add(command: F) -> F:
        command = _added((*_RULES, *_RECURRING), change)(command)
        if change:
            command = click.option("--no-schedule", is_flag=True, hidden=True)(command)
        return click.argument("schedule", required=False)(command)

    return add


def policy_fields(change: bool = False) -> Callable[[F], F]:
    """Add the policies, which one-shots have too."""
    return _added(_POLICIES, change)


def given_fields(params: Mapping[str, Any], view: View) -> dict[str, Any]:
    """Return the given arguments for `Store.add`, `put`, `change` or `schedule`.

    Args:
        params: the options, as click parsed them.
        view: its zone is that of times without an offset.
    """
    given: dict[str, Any] = {}
    for one in _OPTIONS:
        value = params.get(one.param)
        if params.get(f"no_{one.param}") or _is_cleared(value):
            given[one.argument] = one.none
        elif value is not None and value != ():
            given[one.argument] = view.instant(value)
    if pairs := params.get(_PAIR_OPTION.param):
        given["options"] = {**(given.get("options") or {}), **dict(pairs)}
    return {**given, **_schedule(params, view)}


def _schedule(params: Mapping[str, Any], view: View) -> dict[str, Any]:
    """Return the argument `schedule`, if one is given."""
    ways = ("schedule", *(one.param for one in _RULES))
    named = [way for way in ways if params.get(way) is not None]
    if params.get("no_schedule"):
        named.append("no_schedule")
    if len(named) > 1:
        options = " and ".join("SCHEDULE" if way == "schedule" else f"--{way}" for way in named)
        raise click.UsageError(
            f"{options.replace('_', '-')}: an entry has only one schedule; write one of these"
        )
    if not named:
        return {}
    way, value = named[0], params.get(named[0])
    make: Mapping[str, Callable[[Any], Any]] = {
        "no_schedule": lambda _: None,
        "every": Every,
        "at": lambda at: Once(view.instant(at)),
        "rrule": RRule,
        "solar": lambda place: Solar(*place),
    }
    return {"schedule": make[way](value) if way in make else value}


def _is_cleared(value: Any) -> bool:
    return value is Clearable.EMPTY or (isinstance(value, tuple) and Clearable.EMPTY in value)


def _added(options: tuple[_Option, ...], change: bool) -> Callable[[F], F]:
    def add(command: F) -> F:
        for one in reversed(options):
            clearable = change and one.clearable
            if clearable:
                clearing = click.option(f"--no-{one.name}", is_flag=True, hidden=True)
                command = clearing(command)
            command = click.option(
                f"--{one.name}",
                type=Clearable(one.type) if clearable else one.type,
                multiple=one.many,
                metavar="N" if isinstance(one.type, click.IntRange) else None,
                help=one.help,
                shell_complete=complete_edge if one.type is EDGE else None,
            )(command)
        return command

    return add
