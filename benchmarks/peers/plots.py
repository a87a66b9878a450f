"""Pictures of what was measured, drawn from its JSON: the same file gives the same bytes.

Their background is clear, and every colour can be read on white and on black.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.peers.peer import NAMES
from benchmarks.peers.results import Result

__all__ = ["PICTURES", "draw"]

#: A cell, the figure of it that is drawn by stored entries, and what stands beside its axis.
PICTURES = {
    "start": ("start", "start_s", "start, s"),
    "memory": ("idle", "peak_mb", "peak memory, MB"),
    "idle": ("idle", "cpu_s_a_minute", "nothing due: CPU s a minute"),
    "burst": ("burst", "msgs_per_s", "burst, messages a second"),
    "change": ("change", "median_s", "new entry to message, s"),
    "kill": ("kill", "doubled", "kill -9: sent twice"),
}

#: Mid greys and colours: at least 3 to 1 against white and against black.
_INK = "#7d838c"
_COLOURS = dict(zip(NAMES, ("#2f81f7", "#2da44e", "#bf8700", "#e5534b", "#986ee2"), strict=True))
_MARKS = dict(zip(NAMES, "osD^v", strict=True))

_STYLE = {
    "svg.hashsalt": "beatstore",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
    ),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _INK,
    "grid.alpha": 0.25,
}


def draw(results: Sequence[Result], directory: Path) -> list[Path]:
    """Draw a picture for each broker, and return the files.

    Args:
        results: medians of turns.
        directory: where `peers-<broker>.svg` goes.
    """
    files = []
    for broker in dict.fromkeys(one.broker for one in results):
        file = directory / f"peers-{broker}.svg"
        with mpl.rc_context(_STYLE):
            figure = _figure([one for one in results if one.broker == broker])
            figure.savefig(file, transparent=True, metadata={"Date": None, "Creator": None})
        files.append(file)
    return files


def _figure(results: Sequence[Result]) -> Figure:
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    FigureCanvasSVG(figure)
    lines: dict[str, Any] = {}
    for axes, (cell, name, label) in zip(
        figure.subplots(2, 3).flat, PICTURES.values(), strict=True
    ):
        axes.set_title(label, fontsize=9)
        axes.grid(visible=True)
        axes.set_xscale("log")
        axes.set_yscale("symlog" if name == "doubled" else "log")
        for who, points in _lines(results, cell, name).items():
            (lines[who],) = axes.plot(*zip(*points, strict=True), **_look(who))
        axes.set_xlabel("entries stored")
    handles = [lines[who] for who in sorted(lines, key=_order)]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _lines(results: Sequence[Result], cell: str, name: str) -> dict[str, list[tuple[int, float]]]:
    """Return points by what the legend calls them."""
    several = {one.kept_in for one in results if one.peer == "beatstore"}
    found: dict[str, list[tuple[int, float]]] = {}
    for one in sorted(results, key=lambda one: one.stored):
        if one.cell == cell and name in one.figures:
            place = f", {one.kept_in}" if len(several) > 1 and one.kept_in in several else ""
            found.setdefault(f"{one.peer}{place}", []).append((one.stored, one.figures[name]))
    return found


def _look(who: str) -> dict[str, Any]:
    peer, _, place = who.partition(", ")
    dashes = {"mariadb": "--", "sqlite": ":"}.get(place, "-")
    return {
        "label": who,
        "color": _COLOURS[peer],
        "marker": _MARKS[peer],
        "markersize": 4,
        "linestyle": dashes,
    }


def _order(who: str) -> tuple[int, str]:
    return NAMES.index(who.partition(", ")[0]), who
