"""What is printed: tables for people, JSON for programs, times in one zone.

A verb makes rows, which are dicts of plain values, and says which fields a person sees.
`--json` prints all the fields of the same rows, as one array with an object on each line.

Invariants:
    * A table fits the terminal; what goes into a pipe or a file is not shortened.
    * No character of a name or an error moves the cursor or changes a colour.
    * Rows are printed as they come, so that any number of them takes little memory.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import date, datetime, timedelta, timezone
from functools import cached_property
from itertools import chain, islice
from typing import Any

import click

from beatstore.cli.context import open_store
from beatstore.cli.group import clean
from beatstore.schedules import local_time, zone
from beatstore.store import Store

__all__ = ["Column", "View", "as_json", "note", "span", "text"]

#: Rows whose widths are looked at before the first is printed.
_PAGE = 1000

#: A column is not made narrower than this, however narrow the terminal.
_NARROW = 8

_GAP = "  "

_UNITS = (("y", 31_557_600), ("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))

#: Below so many of the largest unit, the next one is said too.
_COARSE = 10

_COLOURS = {
    **dict.fromkeys(("broken", "failed", "lost"), "red"),
    **dict.fromkeys(("missed", "skipped", "paused", "cancelled"), "yellow"),
    **dict.fromkeys(("succeeded", "active"), "green"),
}


@dataclass(frozen=True)
class Column:
    """A field of the rows that people see.

    Attributes:
        field: of the row.
        title: over the column; None: the field's name, with blanks.
        show: makes text of the value; None: `text`.
        right: numbers stand right.
        of_row: makes the text of the whole row instead.
    """

    field: str
    title: str | None = None
    show: Callable[[Any], str] | None = None
    right: bool = False
    of_row: Callable[[Mapping[str, Any]], str] | None = None

    def cell(self, row: Mapping[str, Any]) -> str:
        """Return the text for a row."""
        if self.of_row is not None:
            return self.of_row(row)
        return (self.show or text)(row.get(self.field))


class View:
    """How one call prints: for whom, and in which zone.

    Args:
        context: of the verb.
        json: for programs.
        timezone: IANA name; None takes the default zone of the settings.
        store: whose clock and default zone count; None: the one of the context.
    """

    def __init__(
        self,
        context: click.Context,
        *,
        json: bool = False,
        timezone: str | None = None,
        store: Store | None = None,
    ) -> None:
        self.json = json
        self.store = store or open_store(context)
        self.zone_name = timezone or self.store.settings.default_timezone
        self._zone = zone(self.zone_name)
        self._context = context

    # -- times -----------------------------------------------------------------------------

    @cached_property
    def now(self) -> datetime:
        """The database's time, read once."""
        return self.store.now()

    def title(self, words: str) -> str:
        """Return the title of a column of times, which names their zone."""
        return f"{words} ({self.zone_name})"

    def at(self, instant: object) -> str:
        """Return an instant in the zone, to the second; "" for None."""
        if not isinstance(instant, datetime):
            return text(instant)
        local = local_time(instant, self._zone)
        said = local.replace(tzinfo=None, microsecond=0).isoformat(" ")
        return said if local.tzinfo is self._zone else f"{said}+00:00"

    def ago(self, instant: datetime) -> str:
        """Return how far away an instant is: "in 5 min", "3 h 20 min ago"."""
        away = instant - self.now
        if abs(away) < timedelta(seconds=1):
            return "now"
        return f"in {span(away)}" if away > timedelta(0) else f"{span(-away)} ago"

    def when(self, instant: object) -> str:
        """Return an instant in the zone, and how far away it is."""
        if not isinstance(instant, datetime):
            return text(instant)
        return f"{self.at(instant)}, {self.ago(instant)}"

    # -- printing --------------------------------------------------------------------------

    def rows(
        self, columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], *, nothing: str
    ) -> None:
        """Print rows as they come.

        Args:
            columns: what people see of them.
            rows: plain values by field; instants are aware.
            nothing: what people are told where there is no row, such as "no entry matches".
        """
        coming = iter(rows)
        if self.json:
            _print_array(coming)
            return
        first = list(islice(coming, _PAGE))
        if not first:
            note(nothing)
            return
        shown = (self._cells(columns, row) for row in chain(first, coming))
        self._print_table(columns, shown)

    def line(self, said: str) -> None:
        """Print a line for people."""
        self._echo(clean(said))

    def facts(self, facts: Mapping[str, Any], shown: Iterable[tuple[str, str]]) -> None:
        """Print one thing: its facts as a JSON object, or the lines `shown` with their titles."""
        if self.json:
            click.echo(as_json(facts))
            return
        lines = [(title, value) for title, value in shown if value]
        width = max((_width(title) for title, _ in lines), default=0)
        for title, value in lines:
            label = click.style(_padded(f"{title}:", width + 1), bold=True)
            first, *more = [clean(line) for line in value.split("\n")] or [""]
            self._echo(f"{label} {first}")
            for line in more:
                self._echo(f"{' ' * (width + 1)} {line}")

    def _cells(self, columns: Sequence[Column], row: Mapping[str, Any]) -> list[str]:
        return [clean(column.cell(row)) for column in columns]

    def _print_table(self, columns: Sequence[Column], rows: Iterator[list[str]]) -> None:
        titles = [column.title or column.field.replace("_", " ") for column in columns]
        page = list(islice(rows, _PAGE))
        widths = [max(_width(cell) for cell in cells) for cells in zip(titles, *page, strict=True)]
        if sys.stdout.isatty():
            widths = _fitted(widths, shutil.get_terminal_size().columns)
        heading = self._line(columns, titles, widths)
        self._echo(click.style(heading, bold=True))
        while page:
            self._echo("\n".join(self._line(columns, cells, widths) for cells in page))
            page = list(islice(rows, _PAGE))

    def _line(self, columns: Sequence[Column], cells: list[str], widths: list[int]) -> str:
        cut = sys.stdout.isatty()
        shown = [
            _padded(_cut(cell, width) if cut else cell, width, right=column.right)
            for column, cell, width in zip(columns, cells, widths, strict=True)
        ]
        if not self._colours():
            return _GAP.join(shown).rstrip()
        coloured = (
            click.style(padded, fg=_COLOURS.get(cell) if column.field == "state" else None)
            for column, cell, padded in zip(columns, cells, shown, strict=True)
        )
        return _GAP.join(coloured)

    def _echo(self, line: str) -> None:
        click.echo(line, color=None if self._colours() else False)

    def _colours(self) -> bool:
        plain = getattr(self._context.obj, "no_color", False) or os.environ.get("NO_COLOR")
        return sys.stdout.isatty() and not plain


# -- values --------------------------------------------------------------------------------


def note(message: str) -> None:
    """Tell a person something beside the result: on stderr, where no program reads it."""
    click.echo(f"beatstore: {clean(message)}", err=True)


def text(value: object) -> str:
    """Return a value as a person reads it; "" for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    if isinstance(value, dict | list | tuple):
        return as_json(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def span(length: timedelta | float) -> str:
    """Return a span in its largest unit, and the next where the largest says little."""
    left = int(length.total_seconds() if isinstance(length, timedelta) else length)
    for at, (unit, size) in enumerate(_UNITS):
        if left < size:
            continue
        many, left = divmod(left, size)
        if many < _COARSE and at + 1 < len(_UNITS):
            smaller, step = _UNITS[at + 1]
            return f"{many} {unit} {left // step} {smaller}" if left // step else f"{many} {unit}"
        return f"{many:,} {unit}"
    return "0 s"


def as_json(value: object) -> str:
    """Return a value as JSON on one line: instants as ISO 8601 in UTC, spans in seconds."""
    said = json.dumps(value, default=_plain, ensure_ascii=False)
    # Half of a surrogate pair, which no encoding can write, is written as JSON escapes it.
    return said if said.isascii() else said.encode(errors="backslashreplace").decode()


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    # What a row holds that is no JSON or no instant, written by hand.
    return getattr(value, "given", None) or str(value)


def _print_array(rows: Iterator[Mapping[str, Any]]) -> None:
    before = "["
    while page := list(islice(rows, _PAGE)):
        lines = ",\n".join(as_json(dict(row)) for row in page)
        click.echo(f"{before}{lines}", nl=False)
        before = ",\n"
    click.echo("[]" if before == "[" else "]")


# -- cells ---------------------------------------------------------------------------------


def _width(cell: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if cell.isascii():
        return len(cell)
    return sum(_char_width(char) for char in cell)


def _char_width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _padded(cell: str, width: int, *, right: bool = False) -> str:
    blanks = " " * (width - _width(cell))
    return blanks + cell if right else cell + blanks


def _cut(cell: str, width: int) -> str:
    """Return a text of at most `width` columns; what is cut ends in "…"."""
    if _width(cell) <= width:
        return cell
    kept, room = "", width - 1
    for char in cell:
        room -= _char_width(char)
        if room < 0:
            break
        kept += char
    return f"{kept}…"


def _fitted(widths: list[int], terminal: int) -> list[int]:
    """Return the widths made narrower, the widest first, until they fit a terminal."""
    found = list(widths)
    room = terminal - len(_GAP) * (len(found) - 1)
    while sum(found) > room and max(found) > _NARROW:
        widest = max(found)
        at = found.index(widest)
        second = max([_NARROW, *(width for width in found if width < widest)])
        many = found.count(widest)
        less = max(1, min(widest - second, -(-(sum(found) - room) // many)))
        found[at] = widest - less
    return found
