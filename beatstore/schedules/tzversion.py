"""The version of the time-zone data in use.

Hosts with different versions can disagree by an hour about the same wall-clock time, so a beat
records its version. This is the only module of the package that reads files, once per process.
If a file is unreadable, the version is "unknown".
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
    """Return the version of zoneinfo's data, such as "2026f", or "unknown".

    As in zoneinfo, the operating system's data takes precedence over the `tzdata` package,
    unless PYTHONTZPATH is empty.
    """
    for folder in map(Path, zoneinfo.TZPATH):
        if (folder / "UTC").is_file():
            return _named_in(folder) or "unknown"
    try:
        return str(import_module("tzdata").IANA_VERSION)
    except (ImportError, AttributeError):
        return "unknown"


def _named_in(folder: Path) -> str | None:
    """Return the version named in a compiled zone database.

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
