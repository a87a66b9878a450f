"""What was measured: medians of turns, ratios, tables, and the file of it all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import Table, ms

__all__ = ["Result", "medians", "read", "tables", "times_ours", "write"]


@dataclass(frozen=True)
class Result:
    """What one cell measured of one scheduler, in one turn.

    Attributes:
        cell: what was measured.
        peer: the scheduler.
        kept_in: the kind of place of its entries.
        broker: the kind of broker.
        stored: how many entries were stored that were not due.
        figures: what was measured; `bare_msgs_per_s` is the bare loop of the same turn.
        said: why there are no figures, or not all: how far it came within the limit.
    """

    cell: str
    peer: str
    kept_in: str
    broker: str
    stored: int
    figures: dict[str, float] = field(default_factory=dict)
    said: str = ""


def medians(results: Iterable[Result]) -> list[Result]:
    """Return one result for each cell: of each figure the median over the turns."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for one in results:
        key = (one.cell, one.broker, one.stored, one.figures.get("rate"), one.peer, one.kept_in)
        groups.setdefault(key, []).append(one)
    found = []
    for group in groups.values():
        names = dict.fromkeys(name for one in group for name in one.figures)
        figures = {
            name: median(one.figures[name] for one in group if name in one.figures)
            for name in names
        }
        said = next((one.said for one in group if one.said), "")
        first = group[0]
        found.append(
            Result(first.cell, first.peer, first.kept_in, first.broker, first.stored, figures, said)
        )
    return found


#: What is compared in each cell: the figure, and whether more of it is better.
_COMPARED = {
    "start": ("start_s", False),
    "idle": ("cpu_s_a_minute", False),
    "burst": ("to_bare", True),
    "steady": ("lateness_p99_s", False),
    "change": ("median_s", False),
    "kill": ("back_s", False),
}


def times_ours(one: Result, results: Iterable[Result]) -> float | None:
    """Return how many times better beatstore is in the same cell; None: one of both has no figure.

    Where a scheduler can keep its entries in a place that beatstore can't, it is compared with
    beatstore on PostgreSQL, or on what else there is.
    """
    name, more = _COMPARED[one.cell]
    theirs = one.figures.get(name)
    same = [
        other
        for other in results
        if other.peer == "beatstore"
        and (other.cell, other.broker, other.stored) == (one.cell, one.broker, one.stored)
        and other.figures.get("rate") == one.figures.get("rate")
        and name in other.figures
    ]
    same.sort(key=lambda other: (other.kept_in != one.kept_in, other.kept_in != "postgresql"))
    if not theirs or not same or not same[0].figures[name]:
        return None
    ours = same[0].figures[name]
    return ours / theirs if more else theirs / ours


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else ms(value)


_Write = Callable[[float], str]

#: The columns of each cell's table: a label, a figure, and how it is written.
_COLUMNS: dict[str, Sequence[tuple[str, str, _Write]]] = {
    "start": (
        ("spawn to end of first tick", "start_s", _seconds),
        ("CPU until then", "cpu_s", _seconds),
        ("peak memory", "peak_mb", "{:.0f} MB".format),
    ),
    "idle": (
        ("CPU of an idle tick", "cpu_ms_a_tick", "{:.2f} ms".format),
        ("CPU a minute", "cpu_s_a_minute", _seconds),
        ("peak memory", "peak_mb", "{:.0f} MB".format),
    ),
    "burst": (
        ("due at once", "due", "{:,.0f}".format),
        ("messages per second", "msgs_per_s", "{:,.1f}".format),
        ("to the bare loop", "to_bare", "{:.3f}".format),
        ("lateness p50", "lateness_p50_s", _seconds),
        ("p99", "lateness_p99_s", _seconds),
        ("CPU a message", "cpu_us_a_message", "{:,.0f} µs".format),
    ),
    "steady": (
        ("due per second", "rate", "{:,.0f}".format),
        ("sent", "sent_share", "{:.1%}".format),
        ("lateness p50", "lateness_p50_s", _seconds),
        ("p99", "lateness_p99_s", _seconds),
        ("CPU of the beat", "cpu_share", "{:.0%} of a core".format),
        ("CPU a message", "cpu_ms_a_message", "{:.2f} ms".format),
    ),
    "change": (
        ("commit to message, median", "median_s", _seconds),
        ("slowest", "slowest_s", _seconds),
        ("CPU of the beat a change", "cpu_s_a_change", _seconds),
    ),
    "kill": (
        ("due", "due", "{:,.0f}".format),
        ("sent before the kill", "sent_before", "{:,.0f}".format),
        ("lost", "lost", "{:,.0f}".format),
        ("doubled", "doubled", "{:,.0f}".format),
        ("start to first message", "back_s", _seconds),
    ),
}

_TITLES = {
    "start": "Start, nothing due",
    "idle": "A beat with nothing due",
    "burst": "A burst: all due at the same instant",
    "steady": "A steady load",
    "change": "A new entry that is due at once",
    "kill": "kill -9 in the middle of a burst, and another beat",
}


def tables(results: Sequence[Result]) -> list[Table]:
    """Return a table for each cell that was measured."""
    found = []
    for cell, columns in _COLUMNS.items():
        rows = [one for one in results if one.cell == cell]
        if not rows:
            continue
        name, more = _COMPARED[cell]
        label = next(label for label, figure, _ in columns if figure == name)
        table = Table(
            _TITLES[cell],
            ["stored", "broker", "scheduler", "entries in", *(label for label, _, _ in columns),
             "ratio", "said"],
        )  # fmt: skip
        order = sorted(rows, key=lambda one: (one.stored, one.broker, one.figures.get("rate", 0)))
        for one in order:
            better = None if one.peer == "beatstore" else times_ours(one, results)
            table.add(
                f"{one.stored:,}",
                one.broker,
                one.peer,
                one.kept_in,
                *(
                    write(one.figures[key]) if key in one.figures else ""
                    for _, key, write in columns
                ),
                "" if better is None else f"{better:,.2f}",
                one.said,
            )
        table.notes.append(
            f"The ratio says how many times better beatstore is ({label}; "
            f"{'more' if more else 'less'} is better). Below 1 it is worse."
        )
        found.append(table)
    return found


def write(file: Path, about: dict[str, Any], results: Sequence[Result]) -> None:
    """Write what was measured, and how and where, as JSON."""
    found = {**about, "results": [asdict(one) for one in results]}
    file.write_text(json.dumps(found, indent=1) + "\n")


def read(file: Path) -> tuple[dict[str, Any], list[Result]]:
    """Read what `write` wrote."""
    about = json.loads(file.read_text())
    return about, [Result(**one) for one in about.pop("results")]
