"""How things are going: what the first page of the dashboard shows, and `beatstore top`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from beatstore.rules.states import ERRORS
from beatstore.store import Store
from beatstore.store.coming_load import UpcomingCounts
from beatstore.store.figures import FailureGroup, RunCount
from beatstore.store.status import Status
from beatstore.types import Page, SessionLike

__all__ = ["Load", "LoadStep", "Today", "today"]

#: How far the load goes back and on, and how long each of its steps is.
_REACH = timedelta(hours=12)
_STEP = timedelta(minutes=30)

_DAY = timedelta(days=1)

#: How many groups of failures are read.
_FAILURES = 8


@dataclass(frozen=True, slots=True)
class LoadStep:
    """One step of time.

    Attributes:
        at: when it begins.
        fine: how many runs that were due in it ran without an error, or have not ended.
        failed: how many runs that were due in it failed, were lost or were missed.
        coming: how many due times are in it; the step that now is in has runs only.
    """

    at: datetime
    fine: int = 0
    failed: int = 0
    coming: int = 0

    @property
    def total(self) -> int:
        """How many there are in all."""
        return self.fine + self.failed + self.coming


@dataclass(frozen=True, slots=True)
class Load:
    """What ran in each half hour, and what is due in those to come.

    Attributes:
        steps: the half hours from 12 hours ago to 12 hours ahead, the oldest first.
        middle: when the step that now is in begins.
        cut: why numbers are missing, in words; "" if none are.
    """

    steps: tuple[LoadStep, ...]
    middle: datetime
    cut: str = ""

    @property
    def most(self) -> int:
        """The number of the fullest step."""
        return max((step.total for step in self.steps), default=0)

    @property
    def text(self) -> str:
        """The whole in a sentence."""
        failed = sum(step.failed for step in self.steps)
        ran = failed + sum(step.fine for step in self.steps)
        due = sum(step.coming for step in self.steps)
        runs = "1 run" if ran == 1 else f"{ran:,} runs"
        return (
            f"{runs} in the last 12 hours, {failed:,} of them failed, lost or missed; "
            f"{due:,} due in the next 12 hours"
        )


@dataclass(frozen=True, slots=True)
class Today:
    """What needs a person, and how things are going.

    Attributes:
        status: entries, runs, lateness, beats, workers and warnings.
        load: of the last and the next 12 hours.
        failures: those of the last day, grouped by error, the most frequent first.
    """

    status: Status
    load: Load
    failures: Page[FailureGroup]


def today(store: Store, session: SessionLike) -> Today:
    """Return what needs a person, and how things are going.

    It joins the transaction of `session`, such as that of `Store.reading`.

    Raises:
        UnavailableError: the database did not answer, or a statement took too long.
    """
    status = store.status(session=session)
    failures = store.failures(since=status.now - _DAY, limit=_FAILURES, session=session)
    return Today(status, _load(store, session, status.now), failures)


def _load(store: Store, session: SessionLike, now: datetime) -> Load:
    middle = now.replace(minute=now.minute // 30 * 30, second=0, microsecond=0)
    past = store.run_counts(
        since=middle - _REACH, until=middle + _STEP, step=_STEP, session=session
    )
    coming = store.upcoming_counts(
        start=middle + _STEP, until=middle + _REACH, step=_STEP, session=session
    )
    return _joined(past, coming, middle)


def _joined(past: Sequence[RunCount], coming: UpcomingCounts, middle: datetime) -> Load:
    """Return the runs of the past and the due times to come as one load."""
    steps: dict[datetime, LoadStep] = {}
    for count in past:
        failed = sum(count.states.get(state, 0) for state in (*ERRORS, "missed"))
        fine = sum(count.states.values()) - failed
        steps[count.at] = LoadStep(count.at, fine, failed)
    for number, due in enumerate(coming.counts):
        at = coming.start + number * coming.step
        ran = steps.get(at, LoadStep(at))
        steps[at] = LoadStep(at, ran.fine, ran.failed, due)
    return Load(tuple(steps[at] for at in sorted(steps)), middle, _cut(past, coming))


def _cut(past: Sequence[RunCount], coming: UpcomingCounts) -> str:
    """Return what is missing from the numbers, in words."""
    said = []
    if not all(count.complete for count in past):
        said.append("The oldest columns are not complete: there are too many runs")
    if coming.share < 1:
        said.append(f"What is to come is estimated from {coming.share:.0%} of the entries")
    if coming.cut:
        said.append(f"{coming.left_out:,} entries are left out of what is to come")
    return ". ".join(said)
