"""Rules about edges: a downstream runs for what its upstreams did, once, and does run for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.chaos.ledger import Edge, EntryRow, Life, RunRow
from tests.chaos.view import OPEN, Chain, View, Violation

__all__ = ["latest", "order", "same", "standing", "swallowed"]

#: What is due may have been read from the database so much before it was written.
_TOLERANCE = 1.0

#: Within so many seconds of a completion its downstream is sent, with nothing in the way.
_APART = 4.5


def _stable_downstreams(view: View) -> Iterator[tuple[Life, EntryRow, list[Edge]]]:
    for entry_id, edges in view.upstreams.items():
        life, entry = view.lives.get(entry_id), view.entries.get(entry_id)
        known = all(edge.upstream_id in view.lives for edge in edges)
        if life is not None and entry is not None and life.stable and known:
            yield life, entry, edges


# -- align="latest" ------------------------------------------------------------------------


def latest(view: View) -> Iterator[Violation]:
    """The n-th occurrence of a downstream comes after n completions of each upstream."""
    for life, _, edges in _stable_downstreams(view):
        runs = [run for run in view.scheduled(life.id) if run.state != "missed"]
        for edge in edges:
            if edge.align != "latest" or edge.upstream_id == life.id:
                continue
            ends = view.completions(edge.upstream_id, edge.on)
            free = 1 if edge.first_free else 0
            yield from _not_before(view, life, edge, [run for run in runs[free:]], ends)


def _not_before(
    view: View, life: Life, edge: Edge, runs: Sequence[RunRow], ends: Sequence[float]
) -> Iterator[Violation]:
    """A given up occurrence used up what was there, which may have been nothing."""
    up = view.lives[edge.upstream_id].name
    used = 0
    for run in runs:
        if run.state == "skipped":
            continue
        moment = _moment(run) + _TOLERANCE
        if used >= len(ends) or ends[used] > moment:
            text = f"start {used + 1} is before completion {used + 1} of {up!r} ({edge.on})"
            yield Violation("without token", life.name, text, [run])
            return  # those that follow are all too early
        used += 1


def swallowed(view: View) -> Iterator[Violation]:
    """A completion sets its downstream going before the next one, if nothing is in the way."""
    for life, entry, edges in _stable_downstreams(view):
        if entry.kind != "after" or any(edge.align != "latest" for edge in edges):
            continue
        runs = [run for run in view.scheduled(life.id) if run.state != "missed"]
        for edge in edges:
            ends = view.completions(edge.upstream_id, edge.on)
            if ends and view.ledger.at_rest and not _is_met(view, edge):
                yield from _last(view, life, edge, ends[-1], runs)
        if len(edges) == 1:
            ends = view.completions(edges[0].upstream_id, edges[0].on)
            yield from _each(view, life, edges[0], ends, runs)


def _last(
    view: View, life: Life, edge: Edge, end: float, runs: Sequence[RunRow]
) -> Iterator[Violation]:
    """What is used up was used up by a run."""
    if not any(_moment(run) + _TOLERANCE >= end for run in runs):
        up = view.lives[edge.upstream_id].name
        text = f"the last completion of {up!r} is used up, and there is no run after it"
        yield Violation("token swallowed", life.name, text, runs[-1:])


def _each(
    view: View, life: Life, edge: Edge, ends: Sequence[float], runs: Sequence[RunRow]
) -> Iterator[Violation]:
    """Between two completions that are far enough apart there is a run."""
    kinds = {event.kind for event in view.ledger.events}
    for end, following in pairwise(ends):
        apart = following - end >= _APART + view.ledger.slack
        if not apart or view.near(end, kinds, 2 * _APART, _APART) is not None:
            continue
        if not any(end - _TOLERANCE <= run.due_at < following for run in runs):
            up = view.lives[edge.upstream_id].name
            text = f"no run follows the completion of {up!r} at {end:.3f}"
            yield Violation("token swallowed", life.name, text)


def _moment(run: RunRow) -> float:
    """Return the latest instant at which a run may have been decided."""
    moments = (run.due_at, run.sent_at, run.started_at, run.finished_at)
    return max(at for at in moments if at is not None)


# -- align="same" --------------------------------------------------------------------------


def same(view: View) -> Iterator[Violation]:
    """With `align="same"` there is a run for each due time that all upstreams fit, only."""
    for life, entry, edges in _stable_downstreams(view):
        aligned = [edge for edge in edges if edge.align == "same"]
        if aligned:
            yield from _without_token(view, life, aligned)
        if aligned and len(aligned) == len(edges) and entry.kind == "after":
            yield from _not_run(view, life, aligned)


def _without_token(view: View, life: Life, edges: Sequence[Edge]) -> Iterator[Violation]:
    for run in view.scheduled(life.id):
        if run.state in ("skipped", "missed"):
            continue
        for edge in edges:
            if not _fits(view, edge, run.due_at):
                up = view.lives[edge.upstream_id].name
                rows = view.occurrences(edge.upstream_id).get(run.due_at, [])
                text = f"runs for a due time that {up!r} has not come to {edge.on} at"
                yield Violation("without token", life.name, text, [run, *rows])


def _not_run(view: View, life: Life, edges: Sequence[Edge]) -> Iterator[Violation]:
    """Each due time is decided by itself, and once what it waits for is there or over."""
    mine = view.occurrences(life.id)
    since = max(act.ended for act in view.acts[life.id] if act.verb == "add")
    dues = {due for edge in edges for due in view.occurrences(edge.upstream_id)}
    for due in sorted(dues - set(mine)):
        expected = _expected(view, edges, due)
        if expected is not None and due > since + _TOLERANCE:
            rows = [
                run for edge in edges for run in view.occurrences(edge.upstream_id).get(due, [])
            ]
            text = f"has no row for {due:.3f}, for which it should have {expected}"
            yield Violation("token swallowed", life.name, text, rows)


def _expected(view: View, edges: Sequence[Edge], due: float) -> str | None:
    """Return what should have become of a due time; None: it waits, or nobody asked."""
    if all(_fits(view, edge, due) for edge in edges):
        return "run"
    for edge in edges:
        skips = edge.on == "success" and edge.on_upstream_failure == "skip"
        if skips and _outcomes(view, edge, due) & {"failure"}:
            return "been skipped"
    # What no edge asks for begins no wait: a failure, without `skip`, is nothing to `success`.
    begun = any(_fits(view, edge, due) for edge in edges)
    if begun and any(edge.timeout_s is not None for edge in edges):
        return "been given up"
    return None


def _fits(view: View, edge: Edge, due: float) -> bool:
    wanted = {"success": {"success"}, "failure": {"failure"}}
    return bool(_outcomes(view, edge, due) & wanted.get(edge.on, {"success", "failure"}))


def _outcomes(view: View, edge: Edge, due: float) -> set[str | None]:
    """Return all that an upstream's due time has come to; a rerun may differ from the first."""
    found: set[str | None] = set()
    for chain in view.chains(edge.upstream_id, due):
        found.add(chain.outcome)
        if chain.late_success or _counted_as_failed(chain):
            found.add("failure")
    return found


def _counted_as_failed(chain: Chain) -> bool:
    """Say whether a late outcome came after the failure had counted."""
    return chain.outcome == "success" and chain.last.state in ("failed", "lost")


# -- at rest -------------------------------------------------------------------------------


def standing(view: View) -> Iterator[Violation]:
    """At rest no entry stands still while something could move it."""
    if not view.ledger.at_rest:
        return
    for entry in view.ledger.entries:
        life = view.lives.get(entry.id)
        if life is None or entry.state != "active":
            if entry.state == "broken":
                yield Violation("broken", entry.name, f"was taken out of service: {entry.error}")
            continue
        edges = view.upstreams.get(entry.id, [])
        waits = entry.pending_due_at is not None or (entry.kind == "after" and bool(edges))
        aligned = [edge for edge in edges if edge.align == "same"]
        if not waits or aligned:
            continue
        unmet = [edge for edge in edges if not _is_met(view, edge)]
        open_runs = [run for run in view.by_entry.get(entry.id, []) if run.state in OPEN]
        if not unmet and not open_runs:
            text = f"all it waits for is there, and it stands still: {entry.pending_reason}"
            yield Violation(
                "standing still", entry.name, text, view.by_entry.get(entry.id, [])[-3:]
            )


def _is_met(view: View, edge: Edge) -> bool:
    up = view.entries.get(edge.upstream_id)
    if up is None:
        return True
    counts = {"success": up.success_seq, "failure": up.failure_seq}
    return counts.get(edge.on, up.done_seq) > edge.consumed_seq


# -- as the witness saw it -----------------------------------------------------------------


def order(view: View) -> Iterator[Violation]:
    """A run for a due time starts when the upstream's task for that due time has ended."""
    for life, _, edges in _stable_downstreams(view):
        for edge in edges:
            if edge.align != "same" or edge.on != "success":
                continue
            for run in view.scheduled(life.id):
                begun = [line for line in view.lines.get(run.id, []) if line.what == "start"]
                ups = view.occurrences(edge.upstream_id).get(run.due_at, [])
                ended = [
                    line for up in ups for line in view.lines.get(up.id, []) if line.what == "ok"
                ]
                if begun and ended and begun[0].at < min(line.at for line in ended):
                    up_name = view.lives[edge.upstream_id].name
                    text = f"started before the task of {up_name!r} had ended"
                    yield Violation("too early", life.name, text, [run, *ups], [*begun, *ended])
