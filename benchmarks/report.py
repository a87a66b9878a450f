"""Tables of figures, in Markdown, and the machine that they were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["Table", "machine", "ms", "quantile", "save", "verdict"]

_PACKAGES = ("beatstore", "celery", "kombu", "sqlalchemy", "psycopg", "pymysql", "redis", "amqp")


@dataclass
class Table:
    """A heading, columns, rows of text, and what there is to say about them.

    Attributes:
        title: the heading.
        columns: their headings.
        rows: the text of each cell.
        notes: a line each.
        ratios: by name, what was measured within one run; other machines have much the same.
        figures: by name, further values, with their unit in the name.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def add(self, *cells: object) -> None:
        """Append a row."""
        self.rows.append([str(cell) for cell in cells])

    def __str__(self) -> str:
        lines = [list(self.columns), *self.rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(self.columns))]
        rule = ["-" * width for width in widths]
        shown = [self.columns, rule, *self.rows]
        table = "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in shown)
        notes = "".join(f"\n{note}" for note in self.notes)
        return f"### {self.title}\n\n{table}\n{notes}"


def save(file: Path, described: str, tables: Iterable[Table]) -> None:
    """Write the machine, and all tables with their ratios and figures, as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": described, "tables": [asdict(table) for table in tables]}
    file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def ms(seconds: float) -> str:
    """Write seconds as milliseconds."""
    return f"{seconds * 1000:.2f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


def verdict(value: float, target: float, *, above: bool = False) -> str:
    """Say whether a target is met: below it, or above it."""
    return "met" if (value > target if above else value < target) else "**missed**"


def machine() -> str:
    """Describe the machine and the versions in one paragraph."""
    cores = os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return (
        f"{cores} cores ({_processor()}), {platform.system()} {platform.release().split('-')[0]}"
        f"{load}; Python {platform.python_version()}, {', '.join(_versions())}."
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def _versions() -> list[str]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found
