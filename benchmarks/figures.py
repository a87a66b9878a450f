"""`python -m benchmarks.figures`: write the figures in docs/ anew from what was measured.

A page has blocks between `<!-- figures: NAME -->` and `<!-- end of figures -->`. What stands there
comes from `peers.json` (`make bench-peers`) and from `scaling.json` (`python -m benchmarks scaling
--json benchmarks/scaling.json`), so that a new run is all that it takes to bring a page up to date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.results import medians, read, tables
from benchmarks.report import Table

__all__ = ["PAGES", "arithmetic", "renewed"]

_HERE = Path(__file__).parent
_DOCS = _HERE.parent / "docs"

#: The pages that have blocks.
PAGES = (_DOCS / "performance.md", _DOCS / "scaling.md")

_BLOCK = re.compile(r"(<!-- figures: (.+?) -->\n).*?(<!-- end of figures -->)", re.DOTALL)

#: What is asked for on docs/scaling.md.
ENTRIES, SENDS = 10**7, 10**5


def renewed(page: str) -> str:
    """Return a page with its blocks as the files say.

    Raises:
        KeyError: there is no block of that name.
    """
    return _BLOCK.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]]()}\n\n{found[3]}", page)


def _peers(cell: str) -> str:
    _, results = read(_HERE / "peers.json")
    return _plain(tables([one for one in medians(results) if one.cell == cell])[0])


def _method() -> str:
    about, _ = read(_HERE / "peers.json")
    servers = ", ".join(about["servers"].values())
    return f"{about['method']}\n\n{about['machine']} {servers}."


def _scaling() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_HERE / "scaling.json").read_text())
    return found


def _beats() -> str:
    found = _scaling()
    table = Table(**next(one for one in found["tables"] if "Beats on one" in one["title"]))
    return f"{_plain(table)}\n\n{found['machine']}"


def _needs() -> str:
    found = _scaling()
    figures = next(one["figures"] for one in found["tables"] if "Beats on one" in one["title"])
    return _plain(arithmetic(figures))


def _plain(table: Table) -> str:
    """Return a table without its heading: the page has one."""
    return str(table).split("\n", 2)[2].rstrip()


def arithmetic(figures: dict[str, float]) -> Table:
    """Return what so many entries and sends need, from what one beat was measured to take."""
    beat_us = figures["1 beats: CPU of the beats, µs a message"]
    database_us = figures["1 beats: CPU of the database, µs a message"]
    rate = figures["1 beats: messages per second"]
    entry, run = figures["bytes of an entry"], figures["bytes of a run"]
    table = Table("", ["what", "arithmetic", "is", ""])
    measured, estimated = "measured", "estimated"
    add = table.add
    add("one beat, from due to the last message", "", f"{rate:,.0f}/s", measured)
    add("CPU of a beat a message", "", f"{beat_us:,.0f} µs", measured)
    add("CPU of the database a message", "", f"{database_us:,.0f} µs", measured)
    add("an entry, with its indexes", "", f"{entry:,.0f} bytes", measured)
    add("a run, with its indexes", "", f"{run:,.0f} bytes", measured)
    add(
        "one beat, with a core for itself",
        f"1 s / {beat_us:,.0f} µs",
        f"{1e6 / beat_us:,.0f}/s",
        estimated,
    )
    add(
        f"the entries' table at {ENTRIES:,}",
        f"{ENTRIES:,} * {entry:,.0f} bytes",
        f"{ENTRIES * entry / 1e9:.1f} GB",
        estimated,
    )
    for name, seconds in (("a day", 86_400), ("an hour", 3_600), ("a minute", 60)):
        add(
            f"{ENTRIES:,} entries, each once {name}",
            f"{ENTRIES:,} / {seconds:,} s",
            f"{ENTRIES / seconds:,.0f}/s",
            "arithmetic",
        )
    add(
        f"beats for {SENDS:,}/s",
        f"{SENDS:,} * {beat_us:,.0f} µs",
        f"{SENDS * beat_us / 1e6:,.0f} cores",
        estimated,
    )
    add(
        f"the database for {SENDS:,}/s",
        f"{SENDS:,} * {database_us:,.0f} µs",
        f"{SENDS * database_us / 1e6:,.0f} cores",
        estimated,
    )
    add(
        f"runs of a day at {SENDS:,}/s",
        f"{SENDS:,} * 86,400 * {run:,.0f} bytes",
        f"{SENDS * 86_400 * run / 1e12:.1f} TB",
        estimated,
    )
    return table


BLOCKS: dict[str, Callable[[], str]] = {
    "method": _method,
    "beats": _beats,
    "needs": _needs,
    **{
        f"peers, {cell}": partial(_peers, cell)
        for cell in ("start", "idle", "burst", "steady", "change", "kill")
    },
}


def main() -> None:
    for page in PAGES:
        page.write_text(renewed(page.read_text()))


if __name__ == "__main__":
    main()
