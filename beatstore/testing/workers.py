"""Simulated workers: what is queued, what runs, and how it ends. Pure: no clock, no database."""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, cast, get_args

from beatstore.errors import ConfigError

__all__ = ["Durations", "Outcome", "Outcomes", "Running", "Script", "Sent", "Work", "Workers"]

#: The shortest duration of a run, so that its end is after its start.
_MOMENT = timedelta(microseconds=1)

#: The longest: its end is an instant that a database can hold.
_LONGEST = timedelta(days=36525)

#: The states in which a run can end.
End: TypeAlias = Literal["succeeded", "failed", "lost", "cancelled"]

_ENDS: tuple[End, ...] = get_args(End)


@dataclass(frozen=True, slots=True)
class Work:
    """A run as its worker sees it, for the callables given to `simulate`.

    Attributes:
        name: the entry's name.
        task: the task's name.
        args: the task's positional arguments.
        kwargs: the task's keyword arguments.
        due_at: its due time.
        attempt: 1 for the first attempt, higher for retries.
        sent_at: when beat sent it.
        started_at: when the worker started it.
        number: its number among the entry's runs in this simulation, from 1.
        run_id: the id of its row.
        task_id: the id of its task.
    """

    name: str
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    due_at: datetime
    attempt: int
    sent_at: datetime
    started_at: datetime
    number: int
    run_id: int
    task_id: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ends.

    Attributes:
        state: succeeded, failed, cancelled, or lost (its worker dies without a report).
        duration: how long it takes, in seconds; None uses `duration` of `simulate`.
        error: the exception, in one line.
        reason: why, in words.
    """

    state: End = "succeeded"
    duration: float | None = None
    error: str | None = None
    reason: str | None = None


_SUCCESS = Outcome()

#: The values of `outcome` and `duration`: for every run, in a list for one run each, or callable.
RunOutcome = End | Outcome | Exception
Outcomes = RunOutcome | Sequence[RunOutcome] | Callable[[Work], RunOutcome | None]
Durations = float | timedelta | Sequence[float | timedelta] | Callable[[Work], float | timedelta]


class Script:
    """The `outcome` and `duration` given to `simulate`."""

    def __init__(self, outcome: Any, duration: Any) -> None:
        self._outcome = outcome
        self._duration = duration
        self._numbers: Counter[str] = Counter()

    def work(self, sent: Sent, now: datetime) -> Work:
        """Return the run that a worker starts."""
        self._numbers[sent.name] += 1
        return Work(
            *(sent.name, sent.task, sent.args, sent.kwargs, sent.due_at, sent.attempt),
            *(sent.sent_at, now, self._numbers[sent.name], sent.run_id, sent.task_id),
        )

    def end(self, work: Work) -> tuple[Outcome, timedelta]:
        """Return how a run ends, and after how long."""
        outcome = _as_outcome(_given(self._outcome, work))
        seconds = outcome.duration
        if seconds is None:
            seconds = _given(self._duration, work)
        return outcome, _as_span(1.0 if seconds is None else seconds)


def _given(given: Any, work: Work) -> Any:
    """Return the given value for one run, or None."""
    if isinstance(given, Mapping):
        given = given.get(work.name)
    if callable(given):
        return given(work)
    if isinstance(given, Sequence) and not isinstance(given, str):
        return given[work.number - 1] if work.number <= len(given) else None
    return given


def _as_outcome(given: object) -> Outcome:
    if isinstance(given, Exception):
        return Outcome("failed", error=f"{type(given).__name__}: {given}")
    made = Outcome(cast(End, given)) if isinstance(given, str) else given
    if made is None:
        return _SUCCESS
    if not isinstance(made, Outcome) or made.state not in _ENDS:
        raise ConfigError("outcome", given, f"one of {', '.join(_ENDS)}, or an Outcome", "'failed'")
    if made.state == "failed" and made.error is None:
        return replace(made, error="made to fail by simulate()")
    return made


def _as_span(seconds: object) -> timedelta:
    span = seconds
    if isinstance(seconds, (int, float)) and 0 <= seconds <= _LONGEST.total_seconds():
        span = timedelta(seconds=seconds)
    if not isinstance(span, timedelta) or not timedelta(0) <= span <= _LONGEST:
        expected = "seconds, 0 or more, or a timedelta, up to a hundred years"
        raise ConfigError("duration", seconds, expected, "60")
    return max(span, _MOMENT)


@dataclass(slots=True)
class Sent:
    """A queued message.

    `watched`: it has a run timeout, so its start must be reported. `started_at`: when it was
    started in an earlier simulation.
    """

    run_id: int
    name: str
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    due_at: datetime
    attempt: int
    sent_at: datetime
    watched: bool
    started_at: datetime | None = None
    task_id: str = ""


@dataclass(order=True, slots=True)
class Running:
    """A run in progress, ordered by its end."""

    at: datetime
    number: int
    work: Work = field(compare=False)
    outcome: Outcome = field(compare=False)
    #: Whether its start is reported at once. Otherwise only at the end of the simulation.
    reported: bool = field(compare=False)


class Workers:
    """The workers: the queue, and the runs in progress."""

    def __init__(self, script: Script, concurrency: int | None) -> None:
        self._script = script
        self._free = math.inf if concurrency is None else concurrency
        self._queued: deque[Sent] = deque()
        self._running: list[Running] = []
        self._count = 0

    def take(self, sent: Iterable[Sent]) -> None:
        """Add messages to the queue."""
        self._queued.extend(sent)

    def begin(self, now: datetime) -> list[Running]:
        """Start runs on free workers, and return those whose start must be reported."""
        begun: list[Running] = []
        while self._queued and self._free:
            sent = self._queued.popleft()
            begun.append(self._begin(sent, sent.started_at or now))
        return [running for running in begun if running.reported]

    def _begin(self, sent: Sent, at: datetime) -> Running:
        self._free -= 1
        self._count += 1
        work = self._script.work(sent, at)
        outcome, span = self._script.end(work)
        reported = sent.started_at is None and (sent.watched or outcome.state == "lost")
        running = Running(at + span, self._count, work, outcome, reported)
        heapq.heappush(self._running, running)
        return running

    def next_end(self) -> datetime | None:
        """Return when the next run ends, or None."""
        return self._running[0].at if self._running else None

    def end(self, now: datetime) -> list[Running]:
        """Remove and return the runs that have ended by now."""
        ended: list[Running] = []
        while self._running and self._running[0].at <= now:
            ended.append(heapq.heappop(self._running))
        self._free += len(ended)
        return ended

    def unreported(self) -> list[Running]:
        """Return the runs in progress whose start is not reported."""
        return sorted(running for running in self._running if not running.reported)
