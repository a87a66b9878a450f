"""A ledger put in order: what belongs to what, and what each occurrence came to.

An occurrence has one row per attempt. A rerun begins anew: so the attempts of an occurrence
fall into `Chain`s, each of which has one final outcome, and counts once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from tests.chaos.ledger import Act, Edge, EntryRow, Event, Ledger, Life, Line, RunRow

__all__ = ["OPEN", "Chain", "Phase", "View", "Violation", "given_up"]

K = TypeVar("K")
V = TypeVar("V")

#: The states of a run that has not ended.
OPEN = ("claimed", "sent", "started")

#: The events in which nobody, or no worker, may reach the database or the broker. While one beat
#: can't, the others go on: that is no outage.
OUTAGES = (
    *("database cut", "read-only", "broker cut", "broker restart", "no beat"),
    "worker partition",
)


#: Why a run is called lost.
_GIVEN_UP = ("stopped sending heartbeats", "no worker reported")


def given_up(run: RunRow) -> bool:
    """Say whether a run was called lost, though it may have been heard of since."""
    return any(words in (run.reason or "") for words in _GIVEN_UP)


@dataclass(frozen=True)
class Violation:
    """One breach of a rule, with what shows it.

    Attributes:
        rule: in a word or two; violations are counted by it.
        subject: the entry, mostly.
        text: what is, and what should be.
        runs: the rows that show it.
        lines: the lines of the witness that show it.
    """

    rule: str
    subject: str
    text: str
    runs: Sequence[RunRow] = ()
    lines: Sequence[Line] = ()


@dataclass(frozen=True)
class Chain:
    """The attempts from a first one, or a rerun, to the last of its retries."""

    runs: tuple[RunRow, ...]
    rerun: bool = False

    @property
    def last(self) -> RunRow:
        """The last attempt."""
        return self.runs[-1]

    @property
    def success(self) -> RunRow | None:
        """The attempt that succeeded, if one did."""
        return next((run for run in self.runs if run.state == "succeeded"), None)

    @property
    def outcome(self) -> str | None:
        """Return `success`, `failure`, None for what counts for nobody, or `open`."""
        if any(run.state in OPEN for run in self.runs):
            return "open"
        if self.success is not None:
            return "success"
        if self.last.state in ("failed", "lost"):
            return "failure"
        if self.last.state == "skipped":
            # Only what was given up for its upstream is a failure to its downstreams.
            return None if "overlap" in (self.last.reason or "") else "failure"
        # A next attempt that is cancelled leaves it at the failure before.
        return "failure" if self.last.state == "cancelled" and self.last.attempt > 1 else None

    @property
    def ended_at(self) -> float:
        """The earliest instant at which the outcome may have been known."""
        decisive = self.success or self.last
        if self.late:
            return decisive.sent_at or decisive.due_at
        return decisive.finished_at or decisive.due_at

    @property
    def late(self) -> bool:
        """Whether it was given up before it was heard of: no row says when it counted."""
        decisive = self.success or self.last
        return given_up(decisive) and decisive.state != "lost"

    @property
    def late_success(self) -> bool:
        """Whether it succeeded, and may have counted as a failure before that was heard of."""
        return self.success is not None and self.late


@dataclass(frozen=True)
class Phase:
    """A time in which an entry was active under one period.

    It begins between the two instants of `begin` and ends between those of `end`: the user's
    call tells no better. `cut` is whether the user has ended it, and not the end of the run.
    """

    period: float
    begin: tuple[float, float]
    end: tuple[float, float]
    cut: bool

    def occurrences(self, after: float, until: float) -> list[float]:
        """Return the multiples of the period in (after, until]."""
        first = int(after // self.period) + 1
        last = int(until // self.period)
        return [number * self.period for number in range(first, last + 1)]

    @cached_property
    def possible(self) -> list[float]:
        """What may have been due."""
        return self.occurrences(self.begin[0], self.end[1])

    @cached_property
    def certain(self) -> list[float]:
        """What was due."""
        return self.occurrences(self.begin[1], self.end[0])


@dataclass
class View:
    """A ledger in order."""

    ledger: Ledger
    lives: dict[int, Life] = field(init=False)
    runs: dict[int, RunRow] = field(init=False)

    def __post_init__(self) -> None:
        self.lives = {life.id: life for life in self.ledger.lives}
        self.runs = {run.id: run for run in self.ledger.runs}

    @cached_property
    def entries(self) -> dict[int, EntryRow]:
        """The entries that were there at the end."""
        return {entry.id: entry for entry in self.ledger.entries}

    @cached_property
    def by_entry(self) -> dict[int, list[RunRow]]:
        """The runs of each entry, in the order in which they were made."""
        return _grouped((run.entry_id, run) for run in sorted(self.ledger.runs, key=_by_id))

    @cached_property
    def lines(self) -> dict[int, list[Line]]:
        """The lines of the witness about each run."""
        return _grouped((line.run, line) for line in self.ledger.lines if line.run is not None)

    @cached_property
    def acts(self) -> dict[int, list[Act]]:
        """What the user did to each entry, in order."""
        acts = sorted(self.ledger.acts, key=lambda act: act.begun)
        return _grouped((act.entry_id, act) for act in acts if act.entry_id is not None)

    @cached_property
    def upstreams(self) -> dict[int, list[Edge]]:
        """The edges of each downstream."""
        return _grouped((edge.downstream_id, edge) for edge in self.ledger.edges)

    @cached_property
    def asked_for(self) -> set[int]:
        """The ids of the runs that a trigger or a rerun has returned."""
        return {
            int(act.value["run_id"])
            for act in self.ledger.acts
            if act.verb in ("trigger", "rerun") and act.outcome == "ok"
        }

    def reruns(self, entry_id: int, due_at: float) -> set[int]:
        """Return the attempts of an occurrence that are reruns."""
        runs = self.occurrences(entry_id).get(due_at, [])
        return {run.attempt for run in runs if run.attempt > 1 and run.id in self.asked_for}

    def occurrences(self, entry_id: int) -> dict[float, list[RunRow]]:
        """Return the attempts of each occurrence of an entry, by its due time."""
        return self._occurrences.get(entry_id, {})

    @cached_property
    def _occurrences(self) -> dict[int, dict[float, list[RunRow]]]:
        found: dict[int, dict[float, list[RunRow]]] = defaultdict(lambda: defaultdict(list))
        for run in sorted(self.ledger.runs, key=lambda run: run.attempt):
            found[run.entry_id][run.due_at].append(run)
        return found

    def chains(self, entry_id: int, due_at: float | None = None) -> list[Chain]:
        """Return the chains of attempts of an entry, or of one occurrence of it."""
        found = []
        for at, runs in self.occurrences(entry_id).items():
            if due_at is None or at == due_at:
                found += self._chains_of(runs)
        return found

    def _chains_of(self, runs: Sequence[RunRow]) -> list[Chain]:
        chains: list[Chain] = []
        current: list[RunRow] = []
        for run in runs:
            again = run.attempt > 1 and run.id in self.asked_for
            if again and current:
                chains.append(Chain(tuple(current), self._is_rerun(current)))
                current = []
            current.append(run)
        return [*chains, Chain(tuple(current), self._is_rerun(current))]

    def _is_rerun(self, runs: Sequence[RunRow]) -> bool:
        return runs[0].attempt > 1

    def completions(self, entry_id: int, on: str) -> list[float]:
        """Return when, at the earliest, an entry came to what an edge asks for, in order."""
        fitting = {"success": ("success",), "failure": ("failure",)}
        wanted = fitting.get(on, ("success", "failure"))
        found = []
        for chain in self.chains(entry_id):
            if chain.outcome in wanted or (on == "failure" and chain.late_success):
                found.append(chain.ended_at)
        return sorted(found)

    def is_manual(self, run: RunRow) -> bool:
        """Say whether somebody asked for a run by hand."""
        return run.id in self.asked_for or (run.reason or "").startswith("triggered")

    def scheduled(self, entry_id: int) -> list[RunRow]:
        """Return the first attempts that the schedule or the upstreams made, in order."""
        runs = self.by_entry.get(entry_id, [])
        return [run for run in runs if run.attempt == 1 and not self.is_manual(run)]

    # -- time ------------------------------------------------------------------------------

    def phases(self, life: Life) -> list[Phase]:
        """Return the times in which an entry with a clock was active."""
        stop = (self.ledger.stopped, self.ledger.stopped_by)
        found: list[Phase] = []
        period, begin = life.period, None
        for act in self.acts.get(life.id, []):
            if act.verb not in _PHASES or act.outcome == "refused":
                continue
            moment = (act.begun, act.ended)
            if begin is not None and period is not None:
                found.append(Phase(period, begin, moment, cut=True))
                begin = None
            period = act.value.get("period", period)
            if act.verb in ("add", "resume", "change"):
                paused = act.value.get("paused", False)
                begin = None if paused else moment
        if begin is not None and period is not None:
            found.append(Phase(period, begin, stop, cut=False))
        return [phase for phase in found if phase.begin[0] < phase.end[1]]

    def near(self, at: float, kinds: Iterable[str], before: float, after: float) -> Event | None:
        """Return an event of these kinds between `at - before` and `at + after`, if any was."""
        wanted = tuple(kinds)
        for event in self.ledger.events:
            if event.kind in wanted and event.begun - after <= at <= event.ended + before:
                return event
        return None


_PHASES = ("add", "pause", "resume", "change", "remove", "cancel")


def _by_id(run: RunRow) -> int:
    return run.id


def _grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    found: dict[K, list[V]] = defaultdict(list)
    for key, value in pairs:
        found[key].append(value)
    return dict(found)
