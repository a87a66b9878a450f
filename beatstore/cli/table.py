"""How a table is laid out on a terminal: what stands in a line, how wide, and what below it.

Nothing that names something is cut: not an entry, a state, an id or an instant. A table that
is too wide for its terminal is made narrower in this order: columns with no value go; titles
are broken; the text that explains a row goes behind or below it; columns that may be cut are,
the widest first; a name that is too long has a line of its own; and last, columns that matter
least are left out, which is said.

Pure: cells are text that can be printed as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["GAP", "Column", "Layout", "folded", "padded", "width_of"]

GAP = "  "

#: A name no longer than that stands in its row on any terminal.
_NAME = 22

#: What may be cut is cut to that first.
_LITTLE = 24

#: What stands below a row begins here.
_INDENT = "    "

#: The blank inside an instant, and one at which no line is broken.
_INSIDE = re.compile(r"(?<=\d\d-\d\d) (?=\d\d:\d\d)")
_TIED = "\u00a0"

#: Narrower than that no text is folded.
_NARROWEST = 20


@dataclass(frozen=True)
class Column:
    """A field of the rows that people see.

    Attributes:
        field: of the row.
        title: over the column; None: the field's name, with blanks.
        show: makes text of the value; None: `View.text`.
        right: numbers stand right.
        of_row: makes the text of the whole row instead.
        least: it may be cut to so many characters; None: not at all.
        tail: where it is cut, its end is kept.
        name: what is too long has a line of its own, with the rest of the row below.
        below: what is too long for a column stands behind the row, or below it.
        rank: of the columns that may be left out, the highest goes first; 0: none may.
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
        """What stands over it."""
        return self.field.replace("_", " ") if self.title is None else self.title

    @property
    def word(self) -> int:
        """How wide the longest word of the heading is."""
        return max(map(width_of, self.heading.split(" ")))

    def least_of(self, natural: int) -> int:
        """Return how narrow the column may be where its text is so wide."""
        least = _NAME if self.name else self.least
        return max(natural if least is None else min(natural, least), self.word)


class Layout:
    """Where the columns of a table stand.

    Args:
        columns: all of them, in order.
        page: the first rows of the table, as cells.
        room: how many characters a line has.
        dots: stand for what is cut.
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
        if found is None:  # a terminal that is too narrow for what must not be cut
            inside = [at for at in shown if not columns[at].below]
            found = {at: columns[at].least_of(widths[at]) for at in inside}
        self.widths = found
        self.name = next((at for at in found if columns[at].name), None)
        #: The column whose text stands below each row.
        self.below = next((at for at in shown if at not in found), None)

    def suits(self, page: Sequence[Sequence[str]]) -> bool:
        """Say whether further rows have values in no other columns."""
        return self.filled >= _filled(page)

    def _rank(self, at: int) -> int:
        return self.columns[at].rank

    def _fitted(self, shown: list[int], natural: Mapping[int, int]) -> dict[int, int] | None:
        """Return the widths with which these columns fit, or None."""
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
        # A little is cut before a name is moved, and more only then.
        little = {at: max(least[at], min(broken[at], _LITTLE)) for at in inside if at not in names}
        for limits in (little, names, least):
            self._narrow(widths, limits)
        return widths if self._over(widths) <= 0 else None

    def _over(self, widths: Mapping[int, int]) -> int:
        """Return by how much a line is too wide."""
        return sum(widths.values()) + len(GAP) * (len(widths) - 1) - self.room

    def _narrow(self, widths: dict[int, int], least: Mapping[int, int]) -> None:
        """Make columns narrower, the widest first, until the line fits or none can be."""
        while self._over(widths) > 0:
            wide = [at for at in least if widths[at] > least[at]]
            if not wide:
                return
            widths[max(wide, key=widths.__getitem__)] -= 1

    # -- lines -----------------------------------------------------------------------------

    def heading(self) -> list[str]:
        """Return the lines over the table."""
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
            margin: what the further lines of the row begin with.
            style: given a column, its cell, and the cell as it is shown, colours that.
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
        """Return a cell as long as its column is wide; what is cut has dots."""
        column, room = self.columns[at], self.widths[at]
        width = width_of(cell)
        if column.least is None or width <= room:
            return cell
        kept = room - len(self.dots)
        if column.tail:
            return self.dots + _clipped(cell, width - kept, width)
        return _clipped(cell, 0, kept).rstrip() + self.dots


def _filled(page: Sequence[Sequence[str]]) -> frozenset[int]:
    """Return which columns have a value in any row."""
    found = frozenset(at for cells in page for at, cell in enumerate(cells) if cell)
    return found or frozenset({0})


# -- text ----------------------------------------------------------------------------------
# ASCII needs none of the tables of wide characters, which take some time to import.


def width_of(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from wcwidth import width  # noqa: PLC0415

    return width(text)


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Return a text filled up with blanks."""
    blanks = " " * (width - width_of(text))
    return blanks + text if right else text + blanks


def folded(text: str, width: int) -> list[str]:
    """Return a text as lines of at most so many columns, broken between words where that goes.

    An instant stays in one piece, so that it can be copied.
    """
    if width_of(text) <= width:
        return [text]
    from wcwidth import wrap  # noqa: PLC0415

    tied = _INSIDE.sub(_TIED, text)
    lines = wrap(tied, width, break_on_hyphens=False) or [text]
    return [line.replace(_TIED, " ") for line in lines]


def _clipped(text: str, start: int, end: int) -> str:
    if text.isascii():
        return text[start:end]
    from wcwidth import clip  # noqa: PLC0415

    return clip(text, start, end)
