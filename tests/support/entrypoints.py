"""What installing beatstore adds for other programs, for a checkout that is not installed."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

from tests.support.processes import ROOT

__all__ = ["announce", "entry_points"]


def entry_points() -> dict[str, list[str]]:
    """Read the lines of each group of entry points off `pyproject.toml`."""
    text = (ROOT / "pyproject.toml").read_text()
    sections = re.finditer(r'\[project\.entry-points\."([^"]+)"\]\n((?:.+\n)+)', text)
    return {found[1]: found[2].replace('"', "").splitlines() for found in sections}


def announce(directory: Path) -> None:
    """Let processes with `directory` on their path find the entry points, as after installing.

    Where beatstore is installed, nothing is done: its own entry points are what is tested.
    """
    try:
        importlib.metadata.distribution("beatstore")
    except importlib.metadata.PackageNotFoundError:
        made = directory / "beatstore-0.0.0.dist-info"
        made.mkdir()
        made.joinpath("METADATA").write_text("Name: beatstore\nVersion: 0.0.0\n")
        groups = (f"[{name}]\n" + "\n".join(lines) for name, lines in entry_points().items())
        made.joinpath("entry_points.txt").write_text("\n".join(groups))
