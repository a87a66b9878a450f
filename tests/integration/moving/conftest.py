"""Fixtures of the tests of moving over from other schedulers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from beatstore import Store
from beatstore.clock import ManualClock
from tests.support.theirs import NOW, Theirs


@pytest.fixture
def at_noon(migrated_url: str) -> Iterator[Store]:
    """Hand out a store whose clock stands at noon."""
    store = Store(migrated_url, clock=ManualClock(NOW))
    yield store
    store.close()


@pytest.fixture
def theirs(package: str, migrated_url: str) -> Theirs:
    """Hand out their tables, in the database that ours are in."""
    return Theirs(package, migrated_url)
