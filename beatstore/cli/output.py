"""Output: tables for people, JSON for programs, times in one zone.

A verb makes rows, which are dicts of plain values, and the columns that people see.
`--json` prints all fields of the same rows, as one array with an object on each line.

Invariants:
    * A table fits the terminal. In a pipe or a file, each row is one line with all columns,
      and nothing is shortened.
    * Rows are printed as they come, so any number of rows takes little memory.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import Any, TypeAlias

import click

from beatstore.cli.advice import as_commands
from beatstore.cli.context import app_of, open_store
from beatstore.cli.table import GAP, Column, Layout, folded, padded, width_of
from beatstore.cli.writing import clean, in_json, is_terminal, note, say, writable
from beatstore.rules.states import CANCELS_RUNS, ERRORS, RECORDS
from beatstore.schedules import retold, zone
from beatstore.store import Store
from beatstore.text import times
from beatstore.text.values import as_json, away, span, text

__all__ = ["View"]

#: How many rows determine the widths of a table.
_PAGE = 1000

_Page: TypeAlias = list[Mapping[str, Any]]

_COLOURS: dict[str, str] = {
    "broken": "red",
    **dict.fromkeys(ERRORS, "red"),
    **dict.fromkeys(RECORDS | CANCELS_RUNS, "yellow"),
    "active": "green",
    "succeeded": "green",
}

#: Text is not folded to fewer columns than these.
_FOLDS_AT = 40


def terminal_width() -> int | None:
    """Return the width of the terminal; None if stdout is not a terminal."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None


class View:
    """How one call prints: as text or JSON, and in which zone.

    Args:
        context: of the verb.
        json: whether to print JSON, for programs.
        timezone: IANA name; None takes the default zone of the settings.
        store: gives the clock and the default zone; None takes that of the context.
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
        self._width = terminal_width()

    @property
    def on_terminal(self) -> bool:
        """Whether stdout is a terminal."""
        return self._width is not None

    @property
    def width(self) -> int | None:
        """Width of the terminal; None if stdout is not a terminal."""
        return self._width

    @property
    def coloured(self) -> bool:
        """Whether output may have colours."""
        plain = getattr(self._context.obj, "no_color", False) or os.environ.get("NO_COLOR")
        return is_terminal(sys.stdout) and not plain

    # -- times -----------------------------------------------------------------------------

    @cached_property
    def now(self) -> datetime:
        """The database's time, read once."""
        return self.store.now()

    def title(self, words: str) -> str:
        """Return the title of a column of times, with their zone."""
        return f"{words} ({self.zone_name})"

    def at(self, instant: object) -> str:
        """Return an instant in the zone, to the second; "" for None."""
        if not isinstance(instant, datetime):
            return text(instant)
        if self._width is None:
            return times.full(instant, self._zone)
        return times.short(instant, self._zone, self.now)

    def ago(self, instant: datetime) -> str:
        """Return the time to or since an instant: "in 5 min", "3 h 20 min ago"."""
        return away(instant - self.now, rough=self.on_terminal)

    def when(self, instant: object) -> str:
        """Return an instant in the zone, and the time to or since it."""
        if not isinstance(instant, datetime):
            return text(instant)
        return f"{self.at(instant)}, {self.ago(instant)}"

    def instant(self, given: Any) -> Any:
        """Return the instant of a given time or age; return other values as they are.

        A note says what a time without an offset means.

        Raises:
            UsageError: no such local time exists.
        """
        if isinstance(given, timedelta):
            try:
                return self.now - given
            except OverflowError:
                raise click.UsageError(f"{span(given)} ago is before the first year") from None
        if not isinstance(given, times.Given):
            return given
        try:
            found = given.instant(self.zone_name, lambda: self.now)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        if not given.is_complete:
            zone_name = given.zone_name or self.zone_name
            note(f"{given.text} means {found.isoformat(' ')}, in zone {zone_name}")
        return found

    def with_zone(self, instant: object) -> str:
        """Return an instant for a sentence, with the zone and the time to or since it."""
        if not isinstance(instant, datetime):
            return text(instant)
        return f"{self.at(instant)} {self.zone_name}, {self.ago(instant)}"

    def localized(self, reason: object, *, name_zone: bool = False) -> str:
        """Return a stored reason or warning with its instants converted to the zone."""
        zone_name = f" {self.zone_name}" if name_zone else ""
        return self.advised(retold(text(reason), lambda at: f"{self.at(at)}{zone_name}"))

    def advised(self, sentence: str) -> str:
        """Return a sentence with commands in place of calls of the Python API."""
        return as_commands(sentence, of_app=app_of(self._context) is not None)

    # -- printing --------------------------------------------------------------------------

    def rows(
        self, columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], *, nothing: str
    ) -> None:
        """Print rows as they come.

        Args:
            columns: the columns that people see.
            rows: plain values by field; instants are aware.
            nothing: the message if there are no rows, such as "no entry matches".
        """
        pages = _pages(rows)
        if self.json:
            _print_array(pages)
            return
        whole = self._width is None
        if not (self._print_whole if whole else self._print_fitted)(columns, pages):
            note(nothing)

    def line(self, text: str) -> None:
        """Print a line for people."""
        self._echo(clean(text))

    def prose(self, text: str) -> None:
        """Print a sentence for people, folded to the terminal."""
        for line in self._folded(clean(text), 0):
            self._echo(line)

    def facts(self, facts: Mapping[str, Any], shown: Iterable[tuple[str, str]]) -> None:
        """Print one object: its facts as JSON, or the titles and texts in `shown`."""
        if self.json:
            say(as_json(facts), in_json)
            return
        lines = [(title, value) for title, value in shown if value]
        width = max((width_of(title) for title, _ in lines), default=0) + 1
        for title, value in lines:
            label = click.style(padded(f"{title}:", width), bold=True)
            parts = [part for line in value.split("\n") for part in self._folded(line, width + 1)]
            first, *more = parts or [""]
            self._echo(f"{label} {first}")
            for line in more:
                self._echo(f"{' ' * width} {line}")

    def _folded(self, line: str, indent: int) -> list[str]:
        """Return a line folded to the terminal; JSON stays whole, to be copied."""
        shown = writable(clean(line))
        room = (self._width or 0) - indent
        return [shown] if room < _FOLDS_AT or shown[:1] in ("[", "{") else folded(shown, room)

    def _cells(self, columns: Sequence[Column], row: Mapping[str, Any]) -> list[str]:
        return [writable(clean(_cell(column, row))) for column in columns]

    def _print_whole(self, columns: Sequence[Column], pages: Iterator[_Page]) -> bool:
        """Print a table to a pipe, with all columns; return whether it has rows."""
        widths: list[int] = []
        for page in pages:
            table = [self._cells(columns, row) for row in page]
            if not widths:
                table.insert(0, [column.heading for column in columns])
                widths = [max(map(width_of, cells)) for cells in zip(*table, strict=True)]
            for cells in table:
                shown = (
                    padded(cell, width, right=column.right)
                    for column, cell, width in zip(columns, cells, widths, strict=True)
                )
                say(GAP.join(shown).rstrip())
        return bool(widths)

    def _print_fitted(self, columns: Sequence[Column], pages: Iterator[_Page]) -> bool:
        """Print a table to a terminal; return whether it has rows."""
        layout: Layout | None = None
        width = self._width or 0
        for page in pages:
            table = [self._cells(columns, row) for row in page]
            if layout is None or not layout.suits(table):
                layout = Layout(columns, table, width, writable("…"))
                for line in layout.heading():
                    self._echo(click.style(line, bold=True))
            for cells, row in zip(table, page, strict=True):
                margin = writable(str(row.get("margin", "")))
                for line in layout.lines(cells, margin, _coloured):
                    self._echo(line)
        if layout is not None and layout.left_out:
            left = ", ".join(layout.left_out)
            note(f"the terminal is too narrow for: {left}; a pipe or --json shows them")
        return layout is not None

    def _echo(self, line: str) -> None:
        say(line, color=None if self.coloured else False)


def _cell(column: Column, row: Mapping[str, Any]) -> str:
    """Return the text of a column in a row."""
    if column.of_row is not None:
        return column.of_row(row)
    return (column.show or text)(row.get(column.field))


def _coloured(column: Column, cell: str, shown: str) -> str:
    return click.style(shown, fg=_COLOURS.get(cell)) if column.field == "state" else shown


def _pages(rows: Iterable[Mapping[str, Any]]) -> Iterator[_Page]:
    coming = iter(rows)
    while page := list(islice(coming, _PAGE)):
        yield page


def _print_array(pages: Iterator[_Page]) -> None:
    before = "["
    for page in pages:
        lines = ",\n".join(as_json(dict(row)) for row in page)
        say(f"{before}{lines}", in_json, nl=False)
        before = ",\n"
    say("[]" if before == "[" else "]")
