"""The layout of a table on a terminal.

Names of entries, states, ids and instants are never cut. A table that is too wide for its
terminal is made narrower in these steps:

1. Columns without any value are dropped.
2. Titles are folded.
3. The text that explains a row goes behind or below the row.
4. Columns that may be cut are cut, the widest first.
5. A long name gets a line of its own.
6. The least important columns are left out, and a note names them.

Pure: cells are printable text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["GAP", "Column", "Layout", "clipped", "folded", "padded", "width_of"]

GAP = "  "

#: A name up to this width stays in its row on any terminal.
_NAME = 22

#: Columns are cut to this width before a long name is moved.
_FIRST_CUT = 24

#: The indent of text below a row.
_INDENT = "    "

#: The blank inside an instant, and the no-break space that replaces it while folding.
_INSTANT_BLANK = re.compile(r"(?<=\d\d-\d\d) (?=\d\d:\d\d)")
_NO_BREAK = "\u00a0"

#: The least width to which text is folded.
_NARROWEST = 20


@dataclass(frozen=True)
class Column:
    """A column that people see.

    Attributes:
        field: of the row.
        title: heading; None takes the name of the field, with blanks.
        show: turns the value into text; None takes `values.text`.
        right: whether to align right, for numbers.
        of_row: turns the whole row into text, instead of `show`.
        least: the width to which the column may be cut; None: never cut.
        tail: whether a cut keeps the end of the text.
        name: whether a text that is too long gets a line of its own.
        below: whether a text that is too long goes behind or below the row.
        rank: the column with the highest rank is left out first; 0: never left out.
    """

    field: str
    title: str | None = None
    show: Callable[[Any], str] | None = None
    right: bool = False
    of_row: Callable[[Mapping[str, Any]], str] | None = None
    least: int | None = None
    tail: bool = False
    name: bool = False
    below: bool = False
    rank: int = 0

    @property
    def heading(self) -> str:
        """The heading."""
        return self.field.replace("_", " ") if self.title is None else self.title

    @property
    def word(self) -> int:
        """The width of the longest word of the heading."""
        return max(map(width_of, self.heading.split(" ")))

    def least_of(self, natural: int) -> int:
        """Return the least width of the column, given the width of its text."""
        least = _NAME if self.name else self.least
        return max(natural if least is None else min(natural, least), self.word)


class Layout:
    """Which columns a table shows, and their widths.

    Args:
        columns: all of them, in order.
        page: the first rows of the table, as cells.
        room: width of a line.
        dots: mark a cut.
    """

    def __init__(
        self, columns: Sequence[Column], page: Sequence[Sequence[str]], room: int, dots: str
    ) -> None:
        self.columns = columns
        self.room = room
        self.dots = dots
        self.filled = _filled(page)
        self.left_out: list[str] = []
        shown = sorted(self.filled)
        widths = {at: max(width_of(cells[at]) for cells in page) for at in shown}
        ranked = sorted((at for at in shown if columns[at].rank), key=self._rank)
        while (found := self._fitted(shown, widths)) is None and ranked:
            shown.remove(out := ranked.pop())
            self.left_out.insert(0, columns[out].heading.partition(" (")[0])
        if found is None:  # the terminal is too narrow for columns that must not be cut
            inside = [at for at in shown if not columns[at].below]
            found = {at: columns[at].least_of(widths[at]) for at in inside}
        self.widths = found
        self.name = next((at for at in found if columns[at].name), None)
        #: The column whose text goes below each row.
        self.below = next((at for at in shown if at not in found), None)

    def suits(self, page: Sequence[Sequence[str]]) -> bool:
        """Return whether further rows have values only in the same columns."""
        return self.filled >= _filled(page)

    def _rank(self, at: int) -> int:
        return self.columns[at].rank

    def _fitted(self, shown: list[int], natural: Mapping[int, int]) -> dict[int, int] | None:
        """Return widths with which these columns fit, or None."""
        titles = {at: self.columns[at].heading for at in shown}
        lines = {at: max(natural[at], width_of(title)) for at, title in titles.items()}
        broken = {at: max(natural[at], self.columns[at].word) for at in shown}
        inside = [at for at in shown if not self.columns[at].below]
        for widths in (lines, broken, {at: broken[at] for at in inside}):
            if self._over(widths) <= 0:
                return widths
        widths = {at: broken[at] for at in inside}
        least = {at: self.columns[at].least_of(natural[at]) for at in inside}
        names = {at: least[at] for at in inside if self.columns[at].name}
        # Columns are cut a little, then a long name is moved, then columns are cut more.
        little = {
            at: max(least[at], min(broken[at], _FIRST_CUT)) for at in inside if at not in names
        }
        for limits in (little, names, least):
            self._narrow(widths, limits)
        return widths if self._over(widths) <= 0 else None

    def _over(self, widths: Mapping[int, int]) -> int:
        """Return by how many characters a line is too wide."""
        return sum(widths.values()) + len(GAP) * (len(widths) - 1) - self.room

    def _narrow(self, widths: dict[int, int], least: Mapping[int, int]) -> None:
        """Make columns narrower, the widest first, as far as needed and possible."""
        while self._over(widths) > 0:
            wide = [at for at in least if widths[at] > least[at]]
            if not wide:
                return
            widths[max(wide, key=widths.__getitem__)] -= 1

    # -- lines -----------------------------------------------------------------------------

    def heading(self) -> list[str]:
        """Return the lines of the heading."""
        folds = {at: folded(self.columns[at].heading, width) for at, width in self.widths.items()}
        return [
            self._joined({at: "".join(fold[row : row + 1]) for at, fold in folds.items()})
            for row in range(max(map(len, folds.values())))
        ]

    def lines(
        self, cells: Sequence[str], margin: str, style: Callable[[Column, str, str], str]
    ) -> Iterator[str]:
        """Yield the lines of a row.

        Args:
            cells: of all columns.
            margin: the start of further lines of the row.
            style: colours a cell, given its column, its text and the shown text.
        """
        shown = {at: self._cut(at, cells[at]) for at in self.widths}
        name = "" if self.name is None else cells[self.name]
        hangs = self.name is not None and width_of(name) > self.widths[self.name]
        first = self.name == min(self.widths)
        if hangs and self.name is not None:
            shown[self.name] = margin if first else ""
        if hangs and first:
            yield name
        shown = self._padded(shown)
        styled = [style(self.columns[at], cells[at], text) for at, text in shown.items()]
        line, more = GAP.join(styled).rstrip(), "" if self.below is None else cells[self.below]
        taken = width_of(GAP.join(shown.values()))
        if more and taken + len(GAP) + width_of(more) <= self.room and (first or not hangs):
            line, more = f"{GAP.join(styled)}{GAP}{more}", ""
        yield line
        before = f"{margin}{_INDENT}"
        if hangs and not first:
            yield before + name
        if more:
            room = max(self.room - width_of(before), _NARROWEST)
            yield from (before + part for part in folded(more, room))

    def _joined(self, texts: Mapping[int, str]) -> str:
        return GAP.join(self._padded(texts).values()).rstrip()

    def _padded(self, texts: Mapping[int, str]) -> dict[int, str]:
        last = max(texts)
        return {
            at: text if at == last and not self.columns[at].right else self._fill(at, text)
            for at, text in texts.items()
        }

    def _fill(self, at: int, text: str) -> str:
        return padded(text, self.widths[at], right=self.columns[at].right)

    def _cut(self, at: int, cell: str) -> str:
        """Return a cell cut to the width of its column, with dots."""
        column, room = self.columns[at], self.widths[at]
        width = width_of(cell)
        if column.least is None or width <= room:
            return cell
        kept = room - len(self.dots)
        if column.tail:
            return self.dots + clipped(cell, width - kept, width)
        return clipped(cell, 0, kept).rstrip() + self.dots


def _filled(page: Sequence[Sequence[str]]) -> frozenset[int]:
    """Return the columns that have a value in any row."""
    found = frozenset(at for cells in page for at, cell in enumerate(cells) if cell)
    return found or frozenset({0})


# -- text ----------------------------------------------------------------------------------
# ASCII needs no tables of wide characters, which are slow to import.


def width_of(text: str) -> int:
    """Return the width of a text on a terminal."""
    if text.isascii():
        return len(text)
    from wcwidth import width  # noqa: PLC0415

    return width(text)


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Return a text padded with blanks."""
    blanks = " " * (width - width_of(text))
    return blanks + text if right else text + blanks


def folded(text: str, width: int) -> list[str]:
    """Return a text folded to a width, between words if possible.

    An instant stays on one line, so that it can be copied.
    """
    if width_of(text) <= width:
        return [text]
    from wcwidth import wrap  # noqa: PLC0415

    tied = _INSTANT_BLANK.sub(_NO_BREAK, text)
    lines = wrap(tied, width, break_on_hyphens=False) or [text]
    return [line.replace(_NO_BREAK, " ") for line in lines]


def clipped(text: str, start: int, end: int) -> str:
    """Return the part of a text between two columns of a terminal."""
    if text.isascii():
        return text[start:end]
    from wcwidth import clip  # noqa: PLC0415

    return clip(text, start, end)
