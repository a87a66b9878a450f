"""`python -m benchmarks [--quick] [name ...]`: measure, and print the tables."""

from __future__ import annotations

import argparse
import importlib
import time

from benchmarks.places import Places
from benchmarks.report import Table, machine
from tests.support.absent import Unavailable

NAMES = (
    "idle",
    "throughput",
    "costs",
    "lateness",
    "changes",
    "hops",
    "tracking",
    "fans",
    "cli",
    "pages",
    "far",
    "imports",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="small figures, in a minute or two")
    options = parser.parse_args()
    for name in options.names:
        if name not in NAMES:
            parser.error(f"no benchmark {name!r}; there are {', '.join(NAMES)}")
    described = machine()
    tables: list[Table] = []
    with Places(quick=options.quick) as places:
        for name in options.names or NAMES:
            began = time.monotonic()
            print(f"{name} ...", end=" ", flush=True)
            module = importlib.import_module(f"benchmarks.{name}")
            try:
                tables += module.measure(places)
            except Unavailable as reason:
                print(f"left out: {reason}")
                continue
            print(f"{time.monotonic() - began:.0f} s")
    print(f"\n{described}")
    for table in tables:
        print(f"\n{table}")


if __name__ == "__main__":
    main()
