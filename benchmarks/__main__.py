"""`python -m benchmarks [--quick] [name ...]`: measure, print tables and ratios, write JSON."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.check import RECORDED, check, record
from benchmarks.places import Places
from benchmarks.report import Table, machine, save
from tests.support.absent import Unavailable

#: Measured where no name is given: sending, in some minutes.
NAMES = (
    "idle",
    "throughput",
    "costs",
    "lateness",
    "changes",
    "hops",
    "tracking",
    "working",
    "scaling",
)
#: Measured by name, or all with `all`.
OTHERS = ("fans", "cli", "pages", "readers", "far", "writing", "imports")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    known = ", ".join((*NAMES, *OTHERS))
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"of {known}, or all; without a name, {', '.join(NAMES)}",
    )
    parser.add_argument("--quick", action="store_true", help="small figures, in a minute or two")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        default=Path("build", "bench.json"),
        help="where to write what was measured (default: %(default)s)",
    )
    short = parser.add_mutually_exclusive_group()
    short.add_argument(
        "--check",
        action="store_true",
        help=f"compare ratios with those in {RECORDED.name}, and end with 1 if one has fallen",
    )
    short.add_argument("--record", action="store_true", help=f"write {RECORDED.name}")
    options = parser.parse_args()
    for name in options.names:
        if name not in (*NAMES, *OTHERS, "all"):
            parser.error(f"no benchmark {name!r}; there are {known}")
    # So that processes, databases and queues are cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with Places(quick=options.quick) as places:
        if options.check or options.record:
            sys.exit(_short(places, recording=options.record))
        described = machine()
        names = (*NAMES, *OTHERS) if "all" in options.names else options.names or NAMES
        tables = _measure(places, names)
    print(f"\n{described}")
    for table in tables:
        print(f"\n{table}")
    ratios = Table("Ratios within this run", ["of", "ratio"])
    for table in tables:
        for name, ratio in table.ratios.items():
            ratios.add(f"{table.title}: {name}", f"{ratio:.2f}")
    print(f"\n{ratios}")
    save(options.json, described, tables)
    print(f"Written to {options.json}.")


def _measure(places: Places, names: Sequence[str]) -> list[Table]:
    tables: list[Table] = []
    for name in names:
        began = time.monotonic()
        print(f"{name} ...", end=" ", flush=True)
        module = importlib.import_module(f"benchmarks.{name}")
        try:
            tables += module.measure(places)
        except Unavailable as reason:
            print(f"left out: {reason}")
            continue
        print(f"{time.monotonic() - began:.0f} s")
    return tables


def _short(places: Places, *, recording: bool) -> int:
    """Record ratios, or compare them; return the exit code."""
    began = time.monotonic()
    table, down = (record(places), []) if recording else check(places)
    print(f"{machine()}\n\n{table}\nIn {time.monotonic() - began:.0f} s.")
    for name in down:
        print(f"Fallen by more than a quarter: {name}")
    return 1 if down else 0


if __name__ == "__main__":
    main()
