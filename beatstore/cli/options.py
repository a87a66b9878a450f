"""Options that several verbs share, and their types: times, spans, JSON, edges.

On failure: a usage error that names the option and says what to write.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from beatstore.definition.edges import read_edge
from beatstore.definition.values import decoded
from beatstore.errors import InvalidEntryError, ScheduleError
from beatstore.rules.states import ENTRY_STATES
from beatstore.schedules import zone
from beatstore.store import After
from beatstore.text.times import Given, read
from beatstore.text.values import read_span

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
    "reason_option",
]

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _ParamType = click.ParamType[Any]
else:  # generic from click 8.4 on
    _ParamType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])


class _Instant(_ParamType):
    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Given:
        """Read a time; `View.instant` then makes an instant of it, in a zone."""
        if isinstance(value, Given):
            return value
        try:
            return read(str(value))
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is not a time: write 2030-01-31T09:30+01:00, or '2030-01-31 09:30', "
                "'01-31 09:30' or 09:30 for a time in --timezone",
                param,
                ctx,
            )


class _Ago(_ParamType):
    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Given | timedelta:
        """Read a time like `INSTANT`, or how long ago it was."""
        if isinstance(value, Given | timedelta):
            return value
        given = str(value).strip().lower().removesuffix("ago").strip()
        if given.isdecimal():  # it may be a year
            return INSTANT.convert(value, param, ctx)
        try:
            return timedelta(seconds=read_span(given))
        except OverflowError:
            self.fail(f"{value!r} is too long ago", param, ctx)
        except ValueError:
            return INSTANT.convert(value, param, ctx)


class _Duration(_ParamType):
    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read seconds, or numbers with units in any order: 1h30m."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return read_span(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Json(_ParamType):
    def __init__(self, kind: type, example: str) -> None:
        self.name = "json"
        self.kind = kind
        self.example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a JSON array or a JSON object."""
        if isinstance(value, self.kind):
            return value
        try:
            found = json.loads(value, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            self.fail(
                f"{_short(value)} is not valid JSON ({error}): write {self.example}", param, ctx
            )
        if not isinstance(found, self.kind):
            expected = "a JSON array" if self.kind is list else "a JSON object"
            self.fail(f"{_short(value)} is not {expected}: write {self.example}", param, ctx)
        return _values_in(self, found, param, ctx)


class _Pair(_ParamType):
    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """Read a key and a value; a value that is not JSON is text."""
        if isinstance(value, tuple):
            return value
        key, equals, rest = str(value).partition("=")
        if not equals or not key.strip():
            self.fail(f"{value!r} has no value: write KEY=VALUE, such as queue=etl", param, ctx)
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
        """Read the name of an upstream, and its condition after a colon."""
        if isinstance(value, After):
            return value
        try:
            return read_edge(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _RunId(_ParamType):
    name = "run"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Read the id of a run, which is a number, or a task id."""
        given = str(value).strip()
        if given.isascii() and given.isdecimal():
            return int(ROW_ID.convert(int(given), param, ctx))
        if not given:
            self.fail("expected the id of a run, or a task id; `runs` lists the ids", param, ctx)
        return given


class _Solar(_ParamType):
    name = "event,lat,lon"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float, float]:
        """Read a solar event, a latitude and a longitude."""
        if isinstance(value, tuple):
            return value
        try:
            event, lat, lon = str(value).split(",")
            return event.strip(), float(lat), float(lon)
        except ValueError:
            self.fail(f"{value!r} is not EVENT,LAT,LON: write sunset,52.5,13.4", param, ctx)


class Clearable(_ParamType):
    """Takes what another type takes, or an empty value, which clears the field."""

    EMPTY = object()

    def __init__(self, of: Any) -> None:
        self.of: Any = click.types.convert_type(of)
        self.name = self.of.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a value; `EMPTY` for an empty one."""
        return self.EMPTY if value in ("", self.EMPTY) else self.of.convert(value, param, ctx)

    def get_metavar(self, *args: Any, **kwargs: Any) -> str | None:
        """Return the placeholder that the help shows for the value."""
        shown: str | None = self.of.get_metavar(*args, **kwargs)
        return shown

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete like the other type."""
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
    """Return decoded JSON; kombu marks other types, such as dates, in it."""
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


# -- options that several verbs share ------------------------------------------------------


def json_option(command: F) -> F:
    """Add the option `--json`, as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        command
    )


def printing(command: F) -> F:
    """Add the options `--json` and `--timezone`; see `output.View`."""
    zone_help = "Zone of the given and shown times; default: that of the settings."
    command = click.option("--timezone", type=ZONE, help=zone_help)(command)
    return json_option(command)


def reason_option(command: F) -> F:
    """Add the option `--reason`; `open_store` notes it with every change."""
    return click.option("--reason", "audit_reason", help="Why; noted in the audit.")(command)


def filters(command: F) -> F:
    """Add the filters of `Store.entries`: `tag`, `state`, `name` and `source`."""
    states = click.Choice(ENTRY_STATES)
    for option in (
        click.option("--source", help="Only entries of this owner."),
        click.option(
            "--name", metavar="GLOB", help="Only names that match; * and ? are wildcards."
        ),
        click.option("--state", type=states, help="Only entries in this state."),
        click.option("--tag", help="Only entries with this tag."),
    ):
        command = option(command)
    return command
