"""The version of the time-zone data in force.

The one module of this package that reads files by itself, once per process. Hosts
with different versions can disagree by an hour about the same wall-clock time, so a
beat records the version it runs under. Anything unreadable is "unknown", never an
error.
"""

from __future__ import annotations

import zoneinfo
from functools import lru_cache
from importlib import import_module
from pathlib import Path

__all__ = ["tzdata_version"]

_PREFIX = "# version "


@lru_cache(maxsize=1)
def tzdata_version() -> str:
    """Return the version zoneinfo's data has, such as "2026f", or "unknown".

    The operating system's data wins over the `tzdata` package, as it does in
    zoneinfo itself; an empty PYTHONTZPATH makes the package the one in force.
    """
    for folder in map(Path, zoneinfo.TZPATH):
        if (folder / "UTC").is_file():
            return _named_in(folder) or "unknown"
    try:
        return str(import_module("tzdata").IANA_VERSION)
    except (ImportError, AttributeError):
        return "unknown"


def _named_in(folder: Path) -> str | None:
    """Return the version that a compiled zone database says it has.

    BSD and macOS write it into `+VERSION`, Linux into the first line of `tzdata.zi`.
    """
    for name in ("+VERSION", "tzdata.zi"):
        try:
            with (folder / name).open(encoding="ascii", errors="replace") as lines:
                line = lines.readline(100).strip()
        except OSError:
            continue
        version = line.removeprefix(_PREFIX)
        if version and (name == "+VERSION" or line != version):
            return version
    return None
