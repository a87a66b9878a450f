"""Workers without tasks: what is with the broker, what runs, when and how it ends.

No clock, no database: they are given the time, and their words are written by others.
"""

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

#: Even what takes no time takes a moment, so that its end comes after its beginning.
_MOMENT = timedelta(microseconds=1)

#: How a run can end, in a word.
End: TypeAlias = Literal["succeeded", "failed", "lost", "cancelled"]

_ENDS: tuple[End, ...] = get_args(End)


@dataclass(frozen=True, slots=True)
class Work:
    """A run as its worker sees it, for the callables given to `simulate`.

    Attributes:
        name: its entry's.
        task: the task's name.
        args: the task's arguments.
        kwargs: and those by keyword.
        due_at: when it was due.
        attempt: 1, and one more for each retry.
        sent_at: when beat sent it.
        started_at: when the worker began.
        number: which of the entry's runs it is in this simulation, from 1 on.
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
        state: succeeded, failed, cancelled, or lost: its worker dies without a word.
        duration: how long it takes until then, in seconds; None: as `simulate` was told.
        error: the exception, in one line.
        reason: why, in words.
    """

    state: End = "succeeded"
    duration: float | None = None
    error: str | None = None
    reason: str | None = None


_WELL = Outcome()

#: What may be said of a run, of the runs of an entry one by one, or by a callable.
Said = End | Outcome | Exception
Outcomes = Said | Sequence[Said] | Callable[[Work], Said | None]
Durations = float | timedelta | Sequence[float | timedelta] | Callable[[Work], float | timedelta]


class Script:
    """How runs go: what was given to `simulate`, asked about one run."""

    def __init__(self, outcome: Any, duration: Any) -> None:
        self._outcome = outcome
        self._duration = duration
        self._numbers: Counter[str] = Counter()

    def work(self, sent: Sent, now: datetime) -> Work:
        """Let a worker begin a run."""
        self._numbers[sent.name] += 1
        return Work(
            *(sent.name, sent.task, sent.args, sent.kwargs, sent.due_at, sent.attempt),
            *(sent.sent_at, now, self._numbers[sent.name], sent.run_id, sent.task_id),
        )

    def end(self, work: Work) -> tuple[Outcome, timedelta]:
        """Say how a run ends, and after how long."""
        outcome = _as_outcome(_said(self._outcome, work))
        seconds = outcome.duration
        if seconds is None:
            seconds = _said(self._duration, work)
        return outcome, _as_span(1.0 if seconds is None else seconds)


def _said(given: Any, work: Work) -> Any:
    """Return what was said of one run, or None."""
    if isinstance(given, Mapping):
        given = given.get(work.name)
    if callable(given):
        return given(work)
    if isinstance(given, Sequence) and not isinstance(given, str):
        return given[work.number - 1] if work.number <= len(given) else None
    return given


def _as_outcome(said: object) -> Outcome:
    if isinstance(said, Exception):
        return Outcome("failed", error=f"{type(said).__name__}: {said}")
    made = Outcome(cast(End, said)) if isinstance(said, str) else said
    if made is None:
        return _WELL
    if not isinstance(made, Outcome) or made.state not in _ENDS:
        raise ConfigError("outcome", said, f"one of {', '.join(_ENDS)}, or an Outcome", "'failed'")
    if made.state == "failed" and made.error is None:
        return replace(made, error="made to fail by simulate()")
    return made


def _as_span(seconds: object) -> timedelta:
    span = timedelta(seconds=seconds) if isinstance(seconds, (int, float)) else seconds
    if not isinstance(span, timedelta) or span < timedelta(0):
        raise ConfigError("duration", seconds, "seconds, 0 or more, or a timedelta", "60")
    return max(span, _MOMENT)


@dataclass(slots=True)
class Sent:
    """A message with the broker.

    `watched`: beat asks after it if nobody says that it was started. `started_at`: it was,
    in a simulation before this one.
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
    """A run that a worker does; in the order of their ends."""

    at: datetime
    number: int
    work: Work = field(compare=False)
    outcome: Outcome = field(compare=False)
    #: Whether its row says that it was started; it need not, unless somebody would look.
    told: bool = field(compare=False)


class Workers:
    """The workers: what is with the broker, what runs and when it ends."""

    def __init__(self, script: Script, concurrency: int | None) -> None:
        self._script = script
        self._free = math.inf if concurrency is None else concurrency
        self._queued: deque[Sent] = deque()
        self._running: list[Running] = []
        self._count = 0

    def take(self, sent: Iterable[Sent]) -> None:
        """Put messages into the queue."""
        self._queued.extend(sent)

    def begin(self, now: datetime) -> list[Running]:
        """Begin what can be, and return those of it whose rows must say so."""
        begun: list[Running] = []
        while self._queued and self._free:
            sent = self._queued.popleft()
            begun.append(self._begin(sent, sent.started_at or now))
        return [running for running in begun if running.told]

    def _begin(self, sent: Sent, at: datetime) -> Running:
        self._free -= 1
        self._count += 1
        work = self._script.work(sent, at)
        outcome, span = self._script.end(work)
        told = sent.started_at is None and (sent.watched or outcome.state == "lost")
        running = Running(at + span, self._count, work, outcome, told)
        heapq.heappush(self._running, running)
        return running

    def next_end(self) -> datetime | None:
        """Return when the next run ends."""
        return self._running[0].at if self._running else None

    def end(self, now: datetime) -> list[Running]:
        """Return the runs that have ended by now."""
        ended: list[Running] = []
        while self._running and self._running[0].at <= now:
            ended.append(heapq.heappop(self._running))
        self._free += len(ended)
        return ended

    def untold(self) -> list[Running]:
        """Return what runs without its row saying so."""
        return sorted(running for running in self._running if not running.told)
