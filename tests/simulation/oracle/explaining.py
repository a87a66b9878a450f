"""What must be true of the answers of `Store.explain`: the same as what happened, and happens."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from tests.simulation.ledger import Entry, Run
from tests.simulation.oracle.change import OPEN, said
from tests.simulation.oracle.dues import between, count_of, period_of
from tests.simulation.virtual import micros

if TYPE_CHECKING:
    from tests.simulation.oracle.judge import Judge

__all__ = ["ahead", "explained"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

#: What `explain(name, at)` may say of an occurrence whose last attempt is in this state.
_VERDICTS = {
    "succeeded": {"ran", "late", "coalesced"},
    "failed": {"failed"},
    "lost": {"lost"},
    "missed": {"missed"},
    "skipped": {"skipped"},
    "cancelled": {"cancelled"},
}


def explained(judge: Judge) -> Iterator[str]:
    """`explain` says of each entry and of each run what the rows say."""
    store = judge.world.ground.store
    for entry in judge.state.entries.values():
        found = store.explain(entry.name)
        if found.state != entry.state:
            yield f"{entry.name!r} is {entry.state}, and explain says {found.state}"
        unmet = _unmet(judge, entry)
        if unmet is not None and found.waits_for_count != unmet:
            yield f"{entry.name!r} waits for {unmet}, and explain says {found.waits_for_count}"
        last: dict[str, Run] = {}
        for run in judge.state.runs_of(entry.id):
            if run.id in judge.pruned:
                continue
            if run.due_at not in last or run.attempt > last[run.due_at].attempt:
                last[run.due_at] = run
        for due_at, run in last.items():
            verdict = store.explain(entry.name, _instant(due_at)).verdict
            if verdict not in _VERDICTS.get(run.state, {verdict}):
                yield f"{said(run)} is {run.state}, and explain says {verdict}"


def _unmet(judge: Judge, entry: Entry) -> int | None:
    """Return how many upstreams an entry waits for, where that is plain."""
    edges = judge.state.upstreams(entry.id)
    waits = entry.kind == "after" or entry.pending_due_at is not None
    open_runs = any(run.state in OPEN for run in judge.state.runs_of(entry.id))
    if entry.state != "active" or not waits or open_runs:
        return None
    if not edges or any(edge.align == "same" for edge in edges):
        return None
    ups = ((edge, judge.state.entries.get(edge.upstream_id)) for edge in edges)
    return sum(up is not None and count_of(up, edge) <= edge.consumed_seq for edge, up in ups)


def ahead(judge: Judge) -> Iterator[str]:
    """In the middle of it, `explain` names the due time that comes next."""
    if judge.world.virtual.stepped:
        return
    for entry in judge.state.entries.values():
        plain = entry.overlap == "allow" and entry.max_runs is None
        plain = plain and not judge.state.upstreams(entry.id)
        if entry.state != "active" or period_of(entry) is None or not plain:
            continue
        cursor = micros(entry.cursor_at or entry.created_at)
        after = max(judge.now, cursor)
        coming = between(entry, after, after + 200_000_000)
        share = round(entry.jitter_s * 1_000_000)  # which part of it, is beatstore's to choose
        put_off = between(entry, max(judge.now - share, cursor), judge.now)
        named = {_at(due) for due in (*put_off, *coming[:1])}
        found = judge.world.ground.store.explain(entry.name)
        if found.overdue_since is None and coming and found.next_due_at not in named:
            yield f"{entry.name!r} is due at {_at(coming[0])}, and explain says {found.next_due_at}"


def _instant(text: str) -> datetime:
    return _at(micros(text))


def _at(micro: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micro)
