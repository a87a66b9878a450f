"""How long reports are gathered: hardly where they are few, and for longer where they are many."""

from __future__ import annotations

import pytest

from beatstore.worker.pace import LEAST, MANY, MOST, Pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a clock that stands still until its value is changed."""
    now = [1000.0]
    monkeypatch.setattr("beatstore.worker.pace.time.monotonic", lambda: now[0])
    return now


def gap(pace: Pace, clock: list[float]) -> float:
    return pace.left(clock[0], 1)


def test_the_first_end_is_written_at_once(clock: list[float]) -> None:
    """Nothing was written a moment ago, so nothing is waited for."""
    assert Pace().left(clock[0], 1) <= 0


def test_starts_alone_are_gathered(clock: list[float]) -> None:
    """A start waits for its end, however long ago the last write was."""
    pace = Pace()
    assert pace.left(clock[0], 0) == pytest.approx(LEAST)
    clock[0] += LEAST
    assert pace.left(clock[0] - LEAST, 0) <= 0


def test_few_ends_are_written_after_the_least_time(clock: list[float]) -> None:
    """So a downstream of a slow upstream is woken as soon as may be."""
    pace = Pace()
    for _ in range(5):
        pace.write(MANY - 1)
        assert gap(pace, clock) == pytest.approx(LEAST)


def test_many_ends_make_the_time_longer_up_to_a_limit(clock: list[float]) -> None:
    """It doubles with each write that had many, and is the least again after one that had few."""
    pace, gaps = Pace(), []
    for _ in range(5):
        pace.write(MANY)
        gaps.append(gap(pace, clock))
    assert gaps == pytest.approx([2 * LEAST, 4 * LEAST, MOST, MOST, MOST])
    pace.write(1)
    assert gap(pace, clock) == pytest.approx(LEAST)


def test_a_longer_least_time_is_never_cut(clock: list[float]) -> None:
    """Who gathers for longer than the limit anyway goes on to do so."""
    pace = Pace(2 * MOST)
    pace.write(MANY)
    assert gap(pace, clock) == pytest.approx(2 * MOST)
