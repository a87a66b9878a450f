"""How much a run does: `make test` is quick, and `.ci/run` thorough.

A thorough run is one where `BEATSTORE_TEST_REQUIRE` names a database; whatever that says,
`BEATSTORE_TEST_THOROUGH` decides where it is 1 or 0. It runs every test on every database,
the heavy ones too, and tries more cases.

In a quick run, what `make test` leaves out is marked `thorough`. A test that can run on several
databases is marked so on all but one of them, by turns: each test runs, and each database has
its share. Other marks change that:

    every_database        it stays on SQLite, and on one of the servers by turns, since databases
                          differ in what it tests
    quick_on("sqlite")    it stays on that one, whatever the turn
    by_turns("broker")    the values of this parameter take turns too
    heavy                 it is left out whole

In a thorough run, what a quick one leaves out is skipped after `BEATSTORE_TEST_UNTIL`, an instant
in seconds since 1970: continuous integration must end in time on a slow machine too.

A thorough run too leaves out what is marked `repeat`: of a test with the mark `any_database`, whose
words and refusals are the same on any database, all variants run on the first database, and one
variant runs on each of the others.
"""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import pytest

from tests.support.absent import required
from tests.support.databases import BACKENDS

__all__ = [
    "THOROUGH",
    "leave_for_thorough",
    "leave_repeats",
    "params_of",
    "skip_if_time_is_over",
    "tries",
]

_said = os.environ.get("BEATSTORE_TEST_THOROUGH", "")

#: Whether this run is a thorough one.
THOROUGH = _said != "0" if _said else not required().isdisjoint(BACKENDS)

#: Until when a thorough run does more than a quick one.
_UNTIL = float(os.environ.get("BEATSTORE_TEST_UNTIL") or math.inf)


def tries(thorough: int, quick: int | None = None) -> int:
    """Return how many cases a test tries: a quarter, or `quick`, where the run is quick."""
    if THOROUGH:
        return thorough
    return max(1, thorough // 4) if quick is None else quick


def params_of(item: pytest.Item) -> Mapping[str, Any]:
    """Return the parameters of a test, and of its fixtures, by name."""
    given = getattr(item, "callspec", None)
    return given.params if given is not None else {}


def leave_for_thorough(
    items: Sequence[pytest.Item], present: Sequence[str], mark: str = "thorough"
) -> None:
    """Mark what a quick run leaves out, and a thorough one does if there is time.

    Args:
        items: the tests, with the variants of each.
        present: the databases that take turns.
        mark: `thorough` is deselected by `make test`; `later` is run if there is time.
    """
    variants: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("heavy") is not None:
            item.add_marker(mark)
        else:
            variants[_name_without_turns(item)].append(item)
    for name, group in variants.items():
        quick_on = group[0].get_closest_marker("quick_on")
        able = present if quick_on is None else quick_on.args
        there = [one for one in group if params_of(one).get("backend", able[0]) in able] or group
        turn = there[crc32(name.encode()) % len(there)]
        for item in group:
            if item is not turn:
                item.add_marker(mark)


def skip_if_time_is_over(item: pytest.Item) -> None:
    """Skip what a quick run leaves out, if there is no time for it."""
    if item.get_closest_marker("later") is not None and time.time() > _UNTIL:
        pytest.skip("it has run on another database, and the time is over (BEATSTORE_TEST_UNTIL)")


def leave_repeats(items: Sequence[pytest.Item]) -> None:
    """Mark the variants of tests marked `any_database` that no run needs.

    Args:
        items: the tests, with the variants of each.
    """
    variants: dict[tuple[str, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        backend = params_of(item).get("backend")
        if backend is not None and item.get_closest_marker("any_database") is not None:
            variants[item.nodeid.partition("[")[0], backend].append(item)
    for (test, backend), group in variants.items():
        if backend == BACKENDS[0] or (test, BACKENDS[0]) not in variants:
            continue
        smoke = group[crc32(f"{test} {backend}".encode()) % len(group)]
        for item in group:
            if item is not smoke:
                item.add_marker("repeat")


def _name_without_turns(item: pytest.Item) -> str:
    """Return what those variants of a test share of which a quick run takes one."""
    turning = {name for one in item.iter_markers("by_turns") for name in one.args}
    every = item.get_closest_marker("every_database") is not None
    params = params_of(item)
    fixed = every and item.get_closest_marker("quick_on") is None and "backend" not in turning
    if not (fixed and params.get("backend") == BACKENDS[0]):
        turning.add("backend")
    test, _, variant = item.nodeid.partition("[")
    for name in sorted(turning & params.keys()):
        variant = variant.replace(str(params[name]), "*")
    return f"{test}[{variant}"
