"""The dashboard's first page as lines of a terminal.

    parts = sections(found, view, width)
    for line in fitted(parts, height):
        say(line.shown(width))

Invariants:
    * `fitted` returns at most as many lines as there is room for, and says how many things it
      left out.
    * Shown lines are printable text in the encoding of the output, without passwords.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from beatstore.cli.figures import by_state, lateness, overdue, processes, runs_last_hour
from beatstore.cli.output import View
from beatstore.cli.table import Column, Layout, clipped, folded, padded, width_of
from beatstore.cli.writing import clean, writable
from beatstore.schedules import shown_in, zone
from beatstore.store import Status
from beatstore.store.today import Load, LoadStep, Today
from beatstore.text.secrets import hide

__all__ = ["Line", "Section", "fitted", "sections"]

_STYLES: Mapping[str, Mapping[str, Any]] = {
    "bold": {"bold": True},
    "dim": {"dim": True},
    "red": {"fg": "red"},
    "yellow": {"fg": "yellow"},
    "green": {"fg": "green"},
}

#: The width of a page that is not cut.
_ENDLESS = 100_000

#: Text is not folded to fewer columns than these.
_FOLDS_AT = 20

#: While lists are cut, they keep so many things first, and so many in the end.
_KEPT = 3
_LAST = 1

#: A step of the load, from few to many.
_BARS = "▁▂▃▄▅▆▇█"

#: A step of the load is at most this many characters wide.
_WIDEST_BAR = 2

_FAILURES = (
    Column("count", right=True),
    Column("error", least=16),
    Column("entries", least=12, rank=2),
    Column("last", rank=1),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line in parts, each with the name of its style; "" for none."""

    parts: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(text: str, style: str = "") -> Line:
        """Return a line in one style."""
        return Line(((text, style),))

    def shown(self, width: int | None, *, coloured: bool = False) -> str:
        """Return the line, cut to a width and maybe with escape codes."""
        room, dots, found = _ENDLESS if width is None else width, "", ""
        if sum(width_of(text) for text, _ in self.parts) > room:
            dots = writable("…")[:room]
            room -= len(dots)
        for text, style in self.parts:
            kept = text if width_of(text) <= room else clipped(text, 0, room)
            room -= width_of(kept)
            found += click.style(kept, **_STYLES[style]) if coloured and style else kept
        return found.rstrip() + dots


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Attributes:
        head: its heading; none if it is empty.
        items: things, each in lines.
        is_list: whether the last things may be left out.
        more: how many things are left out already.
        unknown: whether there are things beyond those, nobody knows how many.
    """

    head: Sequence[Line]
    items: Sequence[Sequence[Line]]
    is_list: bool = False
    more: int = 0
    unknown: bool = False

    def lines(self, count: int) -> list[Line]:
        """Return the section with its first things, and how many are left out."""
        found = [*self.head, *(line for item in self.items[:count] for line in item)]
        left = len(self.items) - count + self.more
        if left or self.unknown:
            said = f"{left:,}{' or' if self.unknown else ''} more" if left else "more"
            found.append(Line.of(writable(f"… and {said}"), "dim"))
        return found


# -- fitting the page ----------------------------------------------------------------------


def fitted(parts: Sequence[Section], height: int | None) -> list[Line]:
    """Return the lines of sections.

    What does not fit is left out in this order: the ends of the longest lists, blank lines,
    more of the lists, and then the end of the page.

    Args:
        parts: the sections, from the top.
        height: how many lines there is room for; None: any number.
    """
    counts = [len(part.items) for part in parts]
    if height is None:
        return _joined(parts, counts, gaps=True)
    lines: list[Line] = []
    for least, gaps in ((_KEPT, True), (_KEPT, False), (_LAST, False)):
        lines = _joined(parts, counts := _cut(parts, height, least, gaps=gaps), gaps=gaps)
        if len(lines) <= height:
            return lines
    left = len(lines) - height + 1
    return [*lines[: height - 1], Line.of(writable(f"… and {left:,} more lines"), "dim")][:height]


def _cut(parts: Sequence[Section], height: int, least: int, *, gaps: bool) -> list[int]:
    """Return how many things each section shows; what needs attention is cut last."""
    counts = [len(part.items) for part in parts]
    while len(_joined(parts, counts, gaps=gaps)) > height:
        lists = [at for at, part in enumerate(parts) if part.is_list and counts[at] > least]
        if not lists:
            break
        counts[max(lists[1:] or lists, key=counts.__getitem__)] -= 1
    return counts


def _joined(parts: Sequence[Section], counts: Sequence[int], *, gaps: bool) -> list[Line]:
    found: list[Line] = []
    for part, count in zip(parts, counts, strict=True):
        found += [Line()] if gaps and found else []
        found += part.lines(count)
    return found


# -- the sections --------------------------------------------------------------------------


def sections(
    found: Today | None, view: View, width: int | None, *, outage: str = ""
) -> list[Section]:
    """Return the sections of the page.

    Args:
        found: what was read; None: nothing yet.
        view: how times are shown. Its time must be that of `found`.
        width: of the terminal; None: nothing is folded.
        outage: why the database was not read the last time; "" if it was.
    """
    room = _ENDLESS if width is None else max(width, 1)
    head = [Line.of(_said(view.store.url), "bold")]
    if found is not None:
        now = _said(f"{view.at(found.status.now)} {view.zone_name}")
        head = [Line(((now, "bold"), (f"  {_said(view.store.url)}", "dim")))]
    lost = [_noted(outage, "red", room)] if outage else []
    if found is None:
        return [Section(head, lost or [[Line.of(writable("reading …"), "dim")]])]
    return [
        Section(head, lost),
        _attention(found.status, view, room),
        Section([], [[line] for line in _figures(found.status, view)]),
        Section([Line.of("load, 12 hours back and on", "bold")], [_load(found.load, view, room)]),
        _failures(found, view, room),
        _processes(found.status, view),
    ]


def _said(text: str) -> str:
    return writable(clean(hide(text)))


def _noted(text: str, style: str, room: int) -> list[Line]:
    """Return a remark, folded."""
    width = max(room - 2, _FOLDS_AT)
    lines = folded(_said(text), width) if room < _ENDLESS else [_said(text)]
    return [Line.of(f"{'  ' if at else '! '}{line}", style) for at, line in enumerate(lines)]


def _attention(status: Status, view: View, room: int) -> Section:
    told = (view.localized(warning, name_zone=True) for warning in status.warnings)
    items = [_noted(warning, "yellow", room) for warning in told]
    return Section([], items or [[Line.of("nothing needs attention", "green")]], is_list=True)


def _figures(status: Status, view: View) -> Iterator[Line]:
    facts = {
        "entries": by_state(status.entries) or "none",
        "overdue": overdue(status, view),
        "waiting": f"{status.waiting:,}" if status.waiting else "none",
        "sent late by": lateness(status) or "no runs in the last hour",
        "last hour": runs_last_hour(status, view) or "no runs",
    }
    width = max(map(len, facts)) + 1
    for name, value in facts.items():
        yield Line(((padded(f"{name}:", width), "bold"), (f" {_said(value)}", "")))


def _failures(found: Today, view: View, room: int) -> Section:
    head = [Line.of("failures of the last day", "bold")]
    rows = [
        [_said(text) for text in (str(group.count), group.error or "no error text")]
        + [_said(", ".join(group.names)), _said(view.ago(group.due_at))]
        for group in found.failures
    ]
    if not rows:
        return Section(head, [[Line.of("none")]], is_list=True, unknown=found.failures.more)
    # The table may be too wide for a tiny terminal; then its lines are cut.
    layout = Layout(_FAILURES, rows, room, writable("…"))
    items = [[Line.of(line) for line in layout.lines(row, "", _plain)] for row in rows]
    return Section(head, items, is_list=True, unknown=found.failures.more)


def _plain(column: Column, cell: str, shown: str) -> str:
    return shown


def _processes(status: Status, view: View) -> Section:
    beats, more_beats = processes(status.beats, view)
    workers, more_workers = processes(status.workers, view)
    lines = [f"beat {line}" for line in beats] or ["no beat is on record"]
    lines += [f"worker {line}" for line in workers] or ["no worker has reported"]
    head = [Line.of("beats and workers", "bold")]
    items = [[Line.of(_said(line))] for line in lines]
    return Section(head, items, is_list=True, more=more_beats + more_workers)


# -- the load ------------------------------------------------------------------------------


def _load(load: Load, view: View, room: int) -> list[Line]:
    """Return the load as bars, a line that marks failures, one with times, and a sentence."""
    each = max(1, -(-len(load.steps) // room))
    groups = [load.steps[at : at + each] for at in range(0, len(load.steps), each)]
    wide = min(max(room // max(len(groups), 1), 1), _WIDEST_BAR)
    now_at = max(sum(group[0].at <= load.middle for group in groups) - 1, 0)
    bars = [_bar(group, load, groups) * wide for group in groups]
    ran, due = "".join(bars[: now_at + 1]), "".join(bars[now_at + 1 :])
    lines = [Line(((writable(ran), ""), (writable(due), "dim")))]
    if any(step.failed for step in load.steps):
        marks = ("✗" if any(step.failed for step in group) else " " for group in groups)
        lines.append(Line.of(writable("".join(mark.ljust(wide) for mark in marks).rstrip()), "red"))
    lines.append(Line.of(_axis(load, view, now_at * wide, len(groups) * wide), "dim"))
    text = f"{load.text}. {load.cut}." if load.cut else load.text
    told = folded(text, max(room, _FOLDS_AT)) if room < _ENDLESS else [text]
    return [*lines, *map(Line.of, told)]


def _bar(group: Iterable[LoadStep], load: Load, groups: Sequence[Sequence[LoadStep]]) -> str:
    """Return the bar of some steps; where there is anything, it is not empty."""
    most = max(sum(step.total for step in one) for one in groups)
    total = sum(step.total for step in group)
    return _BARS[(total * len(_BARS) - 1) // most] if total else " "


def _axis(load: Load, view: View, now_at: int, width: int) -> str:
    """Return the line with the local times of the first step, of now, and of the end."""
    last = load.steps[-1].at + (load.steps[1].at - load.steps[0].at)
    begin, end = _clock(load.steps[0].at, view), _clock(last, view)
    now = f"└ now {_clock(view.now, view)}"
    line = padded(begin, now_at) + now if len(begin) < now_at else f"{' ' * now_at}{now}"
    return writable(f"{line}{end.rjust(width - len(line))}" if len(line + end) < width else line)


def _clock(at: datetime, view: View) -> str:
    return f"{shown_in(at, zone(view.zone_name))[0]:%H:%M}"
