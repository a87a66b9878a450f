"""The arguments of `Store.add` as options, for the verbs that add and change entries.

What is not named is not passed on, so the defaults are those of the API. Where an entry is
changed, an empty value or `--no-OPTION` clears what was set.

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
from beatstore.config import MISFIRES
from beatstore.rules.gate import OVERLAPS
from beatstore.schedules import Every, Once, RRule, Solar

__all__ = ["call_fields", "given_fields", "policy_fields", "schedule_fields"]

F = TypeVar("F", bound=Callable[..., Any])

#: An option that can't be cleared, since the argument has no "none".
_KEPT = object()


@dataclass(frozen=True)
class _Field:
    """An argument of `Store.add`, and the option for it.

    Attributes:
        argument: its name there; the option is --argument.
        type: what the option takes.
        help: its line.
        none: what clears it, in `Store.change`.
        many: it can be given several times, and is a list.
    """

    argument: str
    type: Any
    help: str
    none: Any = _KEPT
    many: bool = False

    @property
    def option(self) -> str:
        return "--" + ("tag" if self.argument == "tags" else self.argument).replace("_", "-")

    @property
    def param(self) -> str:
        return self.option[2:].replace("-", "_")


_CALL = (
    _Field("args", JSON_ARRAY, "Positional arguments, a JSON array.", []),
    _Field("kwargs", JSON_OBJECT, "Keyword arguments, a JSON object.", {}),
    _Field("options", JSON_OBJECT, "Options of the message, a JSON object.", {}),
    _Field("option", PAIR, "One option of the message, such as queue=etl.", many=True),
)

_ZONE = _Field("timezone", ZONE, "Zone of the schedule, and of the times given and shown.", None)

_RULES = (
    _Field("cron", str, "Due by a cron expression, as in SCHEDULE."),
    _Field("every", DURATION, "Due every so often: 30s, 5m, 1h30m."),
    _Field("at", INSTANT, "Due once, at this time."),
    _Field("rrule", str, "Due by an RFC 5545 rule: FREQ=MONTHLY;BYDAY=1MO"),
    _Field("solar", SOLAR, "Due at an event of the sun: sunset,52.5,13.4"),
)

_WITHIN = (
    _Field("start_at", INSTANT, "Nothing is due before.", None),
    _Field("end_at", INSTANT, "Nothing is due after.", None),
    _Field("max_runs", click.IntRange(1), "Finished after so many runs.", None),
    _Field("jitter", DURATION, "Sent up to so much later, to spread.", None),
    _Field("overlap", click.Choice(OVERLAPS), "When due while a run has not ended.", "allow"),
)

_POLICIES = (
    _Field("misfire", click.Choice(MISFIRES), "What happens to what is seen too late.", None),
    _Field("grace", DURATION, "How late is too late.", None),
    _Field("after", EDGE, "Run after this entry: NAME, or NAME:on=done,first_free", (), many=True),
    _Field("run_timeout", DURATION, "Given up after so long without a report.", None),
    _Field("max_retries", click.IntRange(0), "More attempts for a run that failed.", 0),
    _Field("retry_delay", DURATION, "From a failure to the next attempt.", 300),
    _Field("retry_backoff", float, "Each delay is so many times the one before.", 1),
    _Field("retry_jitter", DURATION, "Up to so much more, to spread.", 0),
    _Field("tags", str, "A word to find it by.", (), many=True),
    _Field("description", str, "For people.", None),
)

_FIELDS = (*_CALL, _ZONE, *_WITHIN, *_POLICIES)


def call_fields(change: bool = False) -> Callable[[F], F]:
    """Add the options of the message."""
    return _added(_CALL, change)


def schedule_fields(change: bool = False) -> Callable[[F], F]:
    """Add the schedule, as an argument or an option, and what goes with one that recurs."""

    def add(command: F) -> F:
        command = _added((*_RULES, _ZONE, *_WITHIN), change)(command)
        if change:
            command = click.option("--no-schedule", is_flag=True, hidden=True)(command)
        return click.argument("schedule", required=False)(command)

    return add


def policy_fields(change: bool = False) -> Callable[[F], F]:
    """Add the options of the policies, which one-shots have too."""
    return _added(_POLICIES, change)


def given_fields(params: Mapping[str, Any], view: View) -> dict[str, Any]:
    """Return the arguments for `Store.add`, `put`, `change` or `schedule` that were named.

    Args:
        params: the options, as click found them.
        view: whose zone has the clock that shows the times that were given without an offset.
    """
    given: dict[str, Any] = {}
    for field in _FIELDS:
        value = params.get(field.param)
        if params.get(f"no_{field.param}") or _is_cleared(value):
            given[field.argument] = field.none
        elif value is not None and value != ():
            given[field.argument] = view.instant(value)
    pairs = given.pop("option", ())
    if pairs:
        given["options"] = {**given.get("options", {}), **dict(pairs)}
    return {**given, **_schedule(params, view)}


def _schedule(params: Mapping[str, Any], view: View) -> dict[str, Any]:
    """Return the argument `schedule`, if one is asked for."""
    ways = ("schedule", *(field.param for field in _RULES))
    named = [way for way in ways if params.get(way) is not None]
    if params.get("no_schedule"):
        named.append("no_schedule")
    if len(named) > 1:
        said = " and ".join("SCHEDULE" if way == "schedule" else f"--{way}" for way in named)
        raise click.UsageError(f"{said.replace('_', '-')}: an entry has one schedule")
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


def _added(found: tuple[_Field, ...], change: bool) -> Callable[[F], F]:
    def add(command: F) -> F:
        for field in reversed(found):
            clearable = change and field.none is not _KEPT
            if clearable:
                command = click.option(f"--no-{field.option[2:]}", is_flag=True, hidden=True)(
                    command
                )
            command = click.option(
                field.option,
                type=Clearable(field.type) if clearable else field.type,
                multiple=field.many,
                metavar="N" if isinstance(field.type, click.IntRange) else None,
                help=field.help,
                shell_complete=complete_edge if field.type is EDGE else None,
            )(command)
        return command

    return add
