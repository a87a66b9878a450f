"""Play schedules: `python -m tests.simulation --seeds 1000`.

Ends with 0 if no schedule broke a rule, and with 1 at the first that did: it is made shorter, and
printed as a test. `--replay SEED` plays one seed and prints what happened.
"""

from __future__ import annotations

import argparse
import functools
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator

from tests.simulation.plan import drawn, printed
from tests.simulation.play import play
from tests.simulation.shrink import shrunk

#: How many seeds a process plays before it tells of them.
_SHARE = 25


def main(given: list[str] | None = None) -> int:
    """Play what the arguments say, and return the exit status."""
    arguments = _arguments().parse_args(given)
    logging.getLogger("beatstore").setLevel(logging.CRITICAL + 1)
    if arguments.replay is not None:
        return _replay(arguments.replay, arguments.backend)
    return _play_all(arguments)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many schedules")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
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
    began, played = time.monotonic(), 0
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    played_by = functools.partial(play, backend=arguments.backend)
    for count, seed in _played(seeds, arguments.jobs, arguments.backend):
        played += count
        if seed is not None:
            plan = drawn(seed)
            violation = played_by(plan)[0]
            print(f"seed {seed}: {violation}\n", flush=True)
            if not arguments.no_shrink:
                plan = shrunk(plan, played_by)
                violation = played_by(plan)[0]
            print(printed(plan, violation))
            print(f"violation in seed {seed} after {played} schedules")
            return 1
    took = time.monotonic() - began
    rate = played / took if took else 0.0
    print(f"no violation in {played} schedules, {took:.1f} s, {rate:.1f} schedules a second")
    return 0


def _played(seeds: range, jobs: int, backend: str) -> Iterator[tuple[int, int | None]]:
    """Play seeds; yield how many were played, and one that broke a rule, if one did."""
    shares = [seeds[start : start + _SHARE] for start in range(0, len(seeds), _SHARE)]
    if jobs == 1:
        yield from map(functools.partial(_share, backend), shares)
        return
    # Each process makes its own tables.
    with multiprocessing.get_context("spawn").Pool(jobs, _quiet) as pool:
        yield from pool.imap(functools.partial(_share, backend), shares)


def _share(backend: str, seeds: range) -> tuple[int, int | None]:
    for number, seed in enumerate(seeds):
        if play(drawn(seed), backend=backend):
            return number + 1, seed
    return len(seeds), None


def _quiet() -> None:
    logging.getLogger("beatstore").setLevel(logging.CRITICAL + 1)


if __name__ == "__main__":
    sys.exit(main())
