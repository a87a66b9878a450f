"""Declarations, and a sync of them as one source."""

from __future__ import annotations

from typing import Any

import pytest

from beatstore import Declared, Store
from tests.support.harness.play import Play

__all__ = ["NIGHTLY", "one", "store", "sync", "verdicts"]

NIGHTLY = "0 2 * * *"


@pytest.fixture
def store(play: Play) -> Store:
    """Return the store of the play."""
    return play.store


def one(name: str = "a", schedule: Any = NIGHTLY, **given: Any) -> Declared:
    """Return a declaration."""
    return Declared(name, "t", schedule, **given)


def sync(store: Store, *given: Declared, **options: Any) -> Any:
    """Sync what is given as the source `app`."""
    return store.sync(given, source="app", **options)


def verdicts(report: Any) -> dict[str, str]:
    """Return what a report says of each entry."""
    kinds = ("created", "updated", "deactivated", "unchanged", "refused")
    found = [(name, kind) for kind in kinds for name in getattr(report, kind)]
    assert len(found) == len(dict(found)), "an entry is reported once"
    return dict(found)
