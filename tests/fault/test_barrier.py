"""Upstreams that end at the same instant, a thousand times, with two workers and two beats.

`make test` runs the same fifty times; see `tests/integration/test_link_races.py`.
"""

from __future__ import annotations

import os
import time

import pytest

from beatstore import Store
from tests.support.harness.races import fan, join

ROUNDS = int(os.environ.get("BEATSTORE_TEST_ROUNDS", "1000"))


@pytest.mark.slow
@pytest.mark.timeout(60 + ROUNDS)
@pytest.mark.parametrize("align", ["latest", "same"])
def test_two_upstreams_at_the_same_instant(store: Store, align: str) -> None:
    """The downstream of two upstreams that end at the same instant runs, once, each time."""
    started = time.monotonic()
    deadlocks = join(store, ROUNDS, align)
    print(f"{ROUNDS} rounds in {time.monotonic() - started:.1f} s, {deadlocks} deadlocks in plans")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_fan_that_beats_are_planning(store: Store) -> None:
    """An upstream that ends while beats look at all of its downstreams sets each free, once."""
    started = time.monotonic()
    rounds = max(1, ROUNDS // 20)
    deadlocks = fan(store, rounds, 200)
    print(f"{rounds} rounds in {time.monotonic() - started:.1f} s, {deadlocks} deadlocks in plans")
