"""Options that several verbs have, and what they take: instants, spans, JSON, edges.

On failure: a usage error that names the option, and what to write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from beatstore.cli.times import Given, read
from beatstore.definition.values import decoded
from beatstore.errors import InvalidEntryError, ScheduleError
from beatstore.rules.states import ENTRY_STATES
from beatstore.schedules import zone
from beatstore.store import After

__all__ = [
    "AGO",
    "DURATION",
    "EDGE",
    "INSTANT",
    "JSON_ARRAY",
    "JSON_OBJECT",
    "PAIR",
    "ROW_ID",
    "RUN_ID",
    "SOLAR",
    "ZONE",
    "Clearable",
    "filters",
    "json_option",
    "printing",
]

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _ParamType = click.ParamType[Any]
else:  # generic from click 8.4 on
    _ParamType = click.ParamType

_EDGE_FIELDS = frozenset(field.name for field in fields(After)) - {"name"}

F = TypeVar("F", bound=Callable[..., Any])

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)?\s*)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


class _Instant(_ParamType):
    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Given:
        """Read a time; which instant it is depends on a zone, see `fields.instant`."""
        if isinstance(value, Given):
            return value
        try:
            return read(str(value))
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no time: write 2030-01-31T09:30+01:00, or '2030-01-31 09:30', "
                "'01-31 09:30' or 09:30 for the clock in --timezone",
                param,
                ctx,
            )


class _Ago(_ParamType):
    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Given | timedelta:
        """Read a time as `INSTANT` does, or how long ago it was."""
        if isinstance(value, Given | timedelta):
            return value
        given = str(value).strip().lower().removesuffix("ago").strip()
        # A bare number may be a year.
        if not given.isdecimal() and given and not _DURATION.sub("", given).strip():
            seconds = DURATION.convert(given, param, ctx)
            try:
                return timedelta(seconds=seconds)
            except OverflowError:
                self.fail(f"{value!r} is too long ago", param, ctx)
        return INSTANT.convert(value, param, ctx)


class _Duration(_ParamType):
    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read seconds, or numbers with units, the larger ones first or not: 1h30m."""
        if isinstance(value, int | float):
            return float(value)
        given = str(value).strip().lower()
        parts = _DURATION.findall(given)
        whole = re.sub(r"\s", "", "".join(f"{number}{unit}" for number, unit in parts))
        bare = [unit for _, unit in parts if not unit]
        if not parts or whole != re.sub(r"\s", "", given) or (bare and len(parts) > 1):
            self.fail(f"{value!r} is no span: write seconds, or 90s, 5m, 1h30m, 2d", param, ctx)
        return float(sum(float(number) * _SECONDS[unit or "s"] for number, unit in parts))


class _Json(_ParamType):
    def __init__(self, kind: type, example: str) -> None:
        self.name = "json"
        self.kind = kind
        self.example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read JSON of one kind."""
        if isinstance(value, self.kind):
            return value
        try:
            found = json.loads(value, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            self.fail(f"{_short(value)} is no JSON ({error}): write {self.example}", param, ctx)
        if not isinstance(found, self.kind):
            wanted = "a JSON array" if self.kind is list else "a JSON object"
            self.fail(f"{_short(value)} is not {wanted}: write {self.example}", param, ctx)
        return _values_in(self, found, param, ctx)


class _Pair(_ParamType):
    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """Read a key and a value, which is JSON or else text."""
        if isinstance(value, tuple):
            return value
        key, equals, rest = str(value).partition("=")
        if not equals or not key.strip():
            self.fail(f"{value!r} has no value: write queue=etl", param, ctx)
        try:
            found = json.loads(rest, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return key.strip(), rest
        return key.strip(), _values_in(self, found, param, ctx)


class _Edge(_ParamType):
    name = "name"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> After:
        """Read the name of an upstream, and after a colon what is asked of it.

        A name may have colons too: what follows the last one is a part of it unless it
        reads like the fields of `After`.
        """
        if isinstance(value, After):
            return value
        given = str(value)
        name, colon, rest = given.rpartition(":")
        pairs = [part.partition("=") for part in rest.split(",")]
        if not colon or not all(key.strip() in _EDGE_FIELDS for key, _, _ in pairs):
            return After(given)
        told: dict[str, Any] = {}
        for key, equals, word in pairs:
            told[key.strip()] = self._value(key.strip(), word.strip() if equals else "true")
        return After(name, **told)

    def _value(self, key: str, word: str) -> Any:
        if key == "first_free":
            if word.lower() not in ("true", "false"):
                self.fail(f"first_free={word}: write first_free, or first_free=false")
            return word.lower() == "true"
        return DURATION.convert(word, None, None) if key == "timeout" else word


class _RunId(_ParamType):
    name = "run"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Read the id of a run, which is a number, or of its task."""
        given = str(value).strip()
        if given.isascii() and given.isdecimal():
            return int(ROW_ID.convert(int(given), param, ctx))
        if not given:
            self.fail("write the id of a run, or of its task", param, ctx)
        return given


class _Solar(_ParamType):
    name = "event,lat,lon"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float, float]:
        """Read an event of the sun, and the place by its degrees."""
        if isinstance(value, tuple):
            return value
        try:
            event, lat, lon = str(value).split(",")
            return event.strip(), float(lat), float(lon)
        except ValueError:
            self.fail(f"{value!r}: write event,latitude,longitude: sunset,52.5,13.4", param, ctx)


class Clearable(_ParamType):
    """Takes what another type takes, or nothing, which clears what was set."""

    EMPTY = object()

    def __init__(self, of: Any) -> None:
        self.of: Any = click.types.convert_type(of)
        self.name = self.of.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a value; `EMPTY` for an empty one."""
        return self.EMPTY if value in ("", self.EMPTY) else self.of.convert(value, param, ctx)

    def get_metavar(self, *args: Any, **kwargs: Any) -> str | None:
        """Return what the help shows for the value."""
        shown: str | None = self.of.get_metavar(*args, **kwargs)
        return shown

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete as the other type does."""
        found: list[CompletionItem] = self.of.shell_complete(ctx, param, incomplete)
        return found


class _Zone(_ParamType):
    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read the IANA name of a zone."""
        try:
            zone(value)
        except ScheduleError as error:
            self.fail(str(error), param, ctx)
        return str(value)


def _values_in(
    kind: _ParamType, found: Any, param: click.Parameter | None, ctx: click.Context | None
) -> Any:
    """Return JSON as the values that it stands for, which kombu marks by their types."""
    try:
        return decoded("JSON", found)
    except InvalidEntryError as error:
        kind.fail(str(error), param, ctx)


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"JSON has no {word}")


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"  # noqa: PLR2004


INSTANT = _Instant()
AGO = _Ago()
DURATION = _Duration()
PAIR = _Pair()
ROW_ID = click.IntRange(0, 2**63 - 1)
RUN_ID = _RunId()
ZONE = _Zone()
EDGE = _Edge()
SOLAR = _Solar()
JSON_ARRAY = _Json(list, "'[1, \"two\"]'")
JSON_OBJECT = _Json(dict, "'{\"key\": 1}'")


# -- options that several verbs have -------------------------------------------------------


def json_option(command: F) -> F:
    """Add the option `--json` of every verb that prints, as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")(command)


def printing(command: F) -> F:
    """Add the options of a verb that prints: `as_json` and `timezone`; see `output.View`."""
    zone_help = "Show times in this zone; default: that of the settings."
    command = click.option("--timezone", type=ZONE, help=zone_help)(command)
    return json_option(command)


def filters(command: F) -> F:
    """Add the filters of entries: `tag`, `state`, `name` and `source`, as `Store.entries` has."""
    states = click.Choice(ENTRY_STATES)
    for option in (
        click.option("--source", help="Only those that this owner keeps."),
        click.option("--name", metavar="GLOB", help="Only names like this: * and ? as in files."),
        click.option("--state", type=states, help="Only those in this state."),
        click.option("--tag", help="Only those with this tag."),
    ):
        command = option(command)
    return command
