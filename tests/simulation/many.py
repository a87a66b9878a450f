"""Play many seeds, in several processes.

It is a module of its own since a process that is started to play can't import `__main__`.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
from collections.abc import Iterator

from tests.simulation.plan import drawn
from tests.simulation.play import play

__all__ = ["played"]

#: How many seeds a process plays before it tells of them.
_SHARE = 25


def played(seeds: range, jobs: int, backend: str) -> Iterator[tuple[int, int | None]]:
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
