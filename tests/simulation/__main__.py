"""Play schedules: `python -m tests.simulation --seeds 1000`.

Ends with 0 if no schedule broke a rule, and with 1 at the first that did: it is made shorter, and
printed as a test. `--replay SEED` plays one seed and prints what happened.
"""

from __future__ import annotations

import argparse
import functools
import logging
import math
import os
import sys
import time

from tests.simulation.many import played
from tests.simulation.plan import drawn, printed
from tests.simulation.play import play
from tests.simulation.shrink import shrunk


def main(given: list[str] | None = None) -> int:
    """Play what the arguments say, and return the exit status."""
    arguments = _arguments().parse_args(given)
    logging.getLogger("beatstore").setLevel(logging.CRITICAL + 1)
    if arguments.replay is not None:
        return _replay(arguments.replay, arguments.backend)
    return _play_all(arguments)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--seeds", type=int, default=1_000, help="how many schedules")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="stop after so many seconds"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--backend", default="sqlite", choices=("sqlite", "postgresql", "mariadb"), help="where"
    )
    parser.add_argument("--replay", type=int, help="play this seed alone, and print its steps")
    parser.add_argument("--no-shrink", action="store_true", help="print a failing plan as it is")
    return parser


def _replay(seed: int, backend: str) -> int:
    lines: list[str] = []
    found = play(drawn(seed), backend=backend, trace=lines)
    print(*lines, *found, sep="\n")
    return 1 if found else 0


def _play_all(arguments: argparse.Namespace) -> int:
    began, total = time.monotonic(), 0
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    played_by = functools.partial(play, backend=arguments.backend)
    for count, seed in played(seeds, arguments.jobs, arguments.backend):
        total += count
        if seed is not None:
            plan = drawn(seed)
            violation = played_by(plan)[0]
            print(f"seed {seed}: {violation}\n", flush=True)
            if not arguments.no_shrink:
                plan = shrunk(plan, played_by)
                violation = played_by(plan)[0]
            print(printed(plan, violation))
            print(f"violation in seed {seed} after {total} schedules")
            return 1
        if time.monotonic() - began > arguments.seconds:
            break
    took = time.monotonic() - began
    rate = total / took if took else 0.0
    print(f"no violation in {total} schedules, {took:.1f} s, {rate:.1f} schedules a second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
