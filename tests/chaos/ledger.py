"""What is known at the end of a chaos run, as plain data that can be kept and read again.

Instants are seconds since 1970. Everything here was written down by somebody who did it or
saw it; nothing is worked out yet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Act", "Edge", "EntryRow", "Event", "Ledger", "Life", "Line", "RunRow", "Sample"]


@dataclass(frozen=True)
class RunRow:
    """A row of `beatstore_run`, as it was at the end."""

    id: int
    entry_id: int
    entry_name: str
    due_at: float
    attempt: int
    task_id: str
    state: str
    reason: str | None = None
    first_missed_at: float | None = None
    missed_count: int = 0
    wake_at: float | None = None
    sent_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    worker: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class EntryRow:
    """A row of `beatstore_entry`, as it was at the end."""

    id: int
    name: str
    kind: str
    state: str
    wake_at: float | None = None
    cursor_at: float | None = None
    pending_due_at: float | None = None
    pending_since: float | None = None
    pending_reason: str | None = None
    blocked_by: int | None = None
    success_seq: int = 0
    failure_seq: int = 0
    done_seq: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Edge:
    """A row of `beatstore_dependency`, as it was at the end."""

    downstream_id: int
    upstream_id: int
    on: str = "success"
    first_free: bool = False
    align: str = "latest"
    consumed_seq: int = 0
    on_upstream_failure: str = "wait"
    timeout_s: float | None = None


@dataclass(frozen=True)
class Life:
    """One entry as it was added: what the checker knows of it without asking beatstore.

    Attributes:
        id: the row's; a name that was removed and added again has two lives.
        name: when it was added.
        period: seconds between two occurrences, which lie on multiples of it since 1970;
            None where there is no clock.
        at: when a one-shot is due.
        jitter: by how much it may be sent late.
        overlap: the policy.
        max_retries: how many further attempts there are.
        guarded: whether its task has the start-once guard.
        acks_late: whether its message is acknowledged at the end.
        parts: the parts of its canvas, all of which must end well.
        stable: whether nobody edits it or its edges.
    """

    id: int
    name: str
    period: float | None = None
    at: float | None = None
    jitter: float = 0.0
    overlap: str = "allow"
    max_retries: int = 0
    guarded: bool = False
    acks_late: bool = False
    parts: tuple[str, ...] = ()
    stable: bool = True


@dataclass(frozen=True)
class Act:
    """One call of the API: which, of what, from when to when, and what came of it.

    `outcome` is `ok`, `refused` (nothing was done) or `unknown` (the connection broke).
    """

    verb: str
    name: str
    begun: float
    ended: float
    outcome: str = "ok"
    entry_id: int | None = None
    value: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """One thing that happened to the processes and servers, and until when it lasted."""

    kind: str
    begun: float
    ended: float
    target: str = ""


@dataclass(frozen=True)
class Line:
    """One line of the witness: a task of a run has started, or ended `ok`, `fail` or `retry`.

    `asked_s` is for how many seconds the guard has kept it waiting.
    """

    at: float
    what: str
    run: int | None
    entry: str | None = None
    due: str | None = None
    attempt: int | None = None
    task_id: str = ""
    part: str | None = None
    retries: int = 0
    redelivered: bool = False
    worker: str = ""
    pid: int = 0
    asked_s: float = 0.0


@dataclass(frozen=True)
class Sample:
    """What was overdue at one moment: entries and runs with a `wake_at` long past."""

    at: float
    entries: Mapping[str, float] = field(default_factory=dict)
    runs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ledger:
    """All of it.

    Attributes:
        title: what was played.
        begun: when the first process was ready.
        stopped: the `end_at` that all clocks were given.
        stopped_by: when the last of them had it.
        ended: when the rows were read.
        at_rest: whether everything had come to rest by then.
        slack: how many seconds later all may be than with everything on one machine.
    """

    title: str
    begun: float
    stopped: float
    stopped_by: float
    ended: float
    at_rest: bool
    runs: Sequence[RunRow] = ()
    entries: Sequence[EntryRow] = ()
    edges: Sequence[Edge] = ()
    lives: Sequence[Life] = ()
    acts: Sequence[Act] = ()
    events: Sequence[Event] = ()
    lines: Sequence[Line] = ()
    samples: Sequence[Sample] = ()
    slack: float = 0.0

    def save(self, path: Path) -> None:
        """Write it to a file."""
        path.write_text(json.dumps(asdict(self), default=list))

    @classmethod
    def load(cls, path: Path) -> Ledger:
        """Read it from a file that `save` wrote."""
        return cls.of(json.loads(path.read_text()))

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Ledger:
        """Make one of plain data."""
        lists = {name: [kind(**row) for row in given[name]] for name, kind in _KINDS.items()}
        return cls(**{**given, **lists})


_KINDS: dict[str, type[Any]] = {
    "runs": RunRow,
    "entries": EntryRow,
    "edges": Edge,
    "lives": Life,
    "acts": Act,
    "events": Event,
    "lines": Line,
    "samples": Sample,
}
