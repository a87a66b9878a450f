"""Fixtures of stories that run on every database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from beatstore import ManualClock
from beatstore.tick.reports import Reports
from tests.support.play import Play


@pytest.fixture
def play(migrated_url: str, clock: ManualClock) -> Iterator[Play]:
    """Return a store, and a beat without a broker, at noon."""
    play = Play(migrated_url, clock)
    yield play
    play.queue.close()
    play.store.close()


@pytest.fixture
def reports(play: Play) -> Iterator[Reports]:
    """Return a worker's half of the store."""
    reports = Reports(play.store.database, play.store.settings)
    yield reports
    reports.close()
