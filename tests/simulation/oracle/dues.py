"""Due times, by arithmetic: docs/schedules.md and docs/misfires.md. In microseconds."""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.ledger import Edge, Entry
from tests.simulation.virtual import BASE, micros

__all__ = ["Row", "between", "count_of", "late", "period_of"]

_SECOND = 1_000_000
_BASE = int(BASE.timestamp()) * _SECOND


def count_of(up: Entry, edge: Edge) -> int:
    """Return the counter of an upstream that an edge looks at."""
    counts = {"success": up.success_seq, "failure": up.failure_seq}
    return counts.get(edge.on, up.done_seq)


@dataclass(frozen=True)
class Row:
    """A row that a policy asks for: its due time, whether it is sent, and what it counts."""

    due: int
    state: str
    count: int
    first: int | None


def period_of(entry: Entry) -> int | None:
    """Return the microseconds between two due times; None of an entry without a clock."""
    if entry.kind == "every":
        return round(float(entry.spec.split()[0]) * _SECOND)
    if entry.kind == "cron":
        assert entry.spec == "*/1 * * * *", entry.spec
        return 60 * _SECOND
    return None


def between(entry: Entry, after: int, until: int) -> list[int]:
    """Return the due times of an entry after one instant, and not after another."""
    if entry.end_at is not None:
        until = min(until, micros(entry.end_at))
    if entry.start_at is not None:
        after = max(after, micros(entry.start_at) - 1)
    period = period_of(entry)
    if period is None:
        return []
    first = (after - _BASE) // period + 1
    if entry.kind == "every":
        first = max(first, 0)  # its anchor is BASE
    last = (until - _BASE) // period
    return [_BASE + number * period for number in range(first, last + 1)]


def late(dues: list[int], now: int, policy: str, grace_s: float) -> list[Row]:
    """Return what a misfire policy makes of due times that are first seen now."""
    limit = now - round(grace_s * _SECOND)
    misfires = [due for due in dues if due < limit]
    if not misfires or policy == "all":
        return [Row(due, "claimed", 0, None) for due in dues]
    if policy == "coalesce":
        return [Row(dues[-1], "claimed", len(dues) - 1, dues[0] if dues[1:] else None)]
    missed = Row(misfires[-1], "missed", len(misfires), misfires[0])
    return [missed, *(Row(due, "claimed", 0, None) for due in dues if due >= limit)]
