"""The figures of a status as text, for `status` and `top`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from beatstore.cli.output import View
from beatstore.store import BeatStatus, Status, WorkerStatus

__all__ = ["by_state", "lateness", "overdue", "processes", "runs_last_hour"]

#: How many stopped processes are shown.
_STOPPED_SHOWN = 3


def by_state(counts: Mapping[str, int]) -> str:
    """Return counts by state; "" if there are none."""
    return ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items()))


def runs_last_hour(found: Status, view: View) -> str:
    """Return how many runs were due in the last hour, by state; "" if there are none."""
    counts = by_state(found.runs_last_hour)
    if found.runs_counted_since is None:
        return counts
    return f"{counts}; of the newest, due since {view.with_zone(found.runs_counted_since)}"


def overdue(found: Status, view: View) -> str:
    """Return how many entries are overdue, and since when the oldest is."""
    if found.oldest_overdue_at is None:
        return "none"
    return f"{found.overdue:,}, the oldest since {view.with_zone(found.oldest_overdue_at)}"


def lateness(found: Status) -> str:
    """Return how late messages were sent; "" if none were sent."""
    if found.lateness_p50_s is None or found.lateness_p99_s is None:
        return ""
    half, most = f"{found.lateness_p50_s:.3g} s", f"{found.lateness_p99_s:.3g} s"
    return f"{half} (median), {most} (99th percentile)"


def processes(
    found: Sequence[BeatStatus] | Sequence[WorkerStatus], view: View
) -> tuple[list[str], int]:
    """Return a line for each beat or worker, but only for the newest few stopped ones.

    Returns:
        The lines, and how many stopped processes have none.
    """
    stopped = [one for one in found if one.stopped_at is not None]
    shown = [one for one in found if one.stopped_at is None] + stopped[:_STOPPED_SHOWN]
    return [_line(one, view) for one in shown], max(len(stopped) - _STOPPED_SHOWN, 0)


def _line(process: BeatStatus | WorkerStatus, view: View) -> str:
    lives = _lives(process, view)
    if isinstance(process, WorkerStatus):
        facts = f"{process.name} pid {process.pid}: {lives}, {process.running:,} running"
    else:
        took = "" if process.tick_s is None else f", last tick {process.tick_s:.3g} s"
        facts = f"{process.host} pid {process.pid}: {lives}, {process.sent:,} sent{took}"
        if process.step is not None:
            return f"{facts}, {process.version}; {process.step}"
    return f"{facts}, {process.version}"


def _lives(process: BeatStatus | WorkerStatus, view: View) -> str:
    if process.stopped_at is not None:
        return f"stopped at {view.with_zone(process.stopped_at)}"
    return "alive" if process.alive else f"silent since {view.with_zone(process.heartbeat_at)}"
