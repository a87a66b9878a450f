"""What must be true where a beat decides: docs/misfires.md, docs/dependencies.md."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from tests.simulation.ledger import Edge, Entry, Run, State
from tests.simulation.oracle.change import Change, said
from tests.simulation.oracle.dues import Row, between, count_of, late, period_of
from tests.simulation.virtual import BASE, micros

__all__ = ["RULES"]


def _decided(change: Change) -> Iterator[tuple[Entry, Entry, list[Run]]]:
    """Yield the entries a beat made first attempts for: before, after, and those."""
    if not change.is_beat:
        return
    made: dict[int, list[Run]] = {}
    for run in change.new():
        if run.attempt == 1:
            made.setdefault(run.entry_id, []).append(run)
    for number, entry in change.after.entries.items():
        was = change.before.entries.get(number)
        if was is not None and (number in made or was.cursor_at != entry.cursor_at):
            yield was, entry, made.pop(number, [])


def alive(change: Change) -> Iterator[str]:
    """Only an active entry sends anything by itself."""
    if not change.is_beat:
        return
    for run in change.new():
        entry = change.before.entries.get(run.entry_id)
        if (
            run.attempt == 1
            and run.state == "claimed"
            and (entry is None or entry.state != "active")
        ):
            state = entry.state if entry else "removed"
            yield f"{said(run)} was made, and its entry is {state}"


def due(change: Change) -> Iterator[str]:
    """A run is for a due time of its entry that has come, and that no other run is for."""
    for was, _, runs in _decided(change):
        for run in runs:
            at = micros(run.due_at)
            if was.kind == "after":
                at -= 1_000_000  # it is moved on where another run has that very instant
            if at > max(change.now, change.looked) and not change.world.virtual.stepped:
                yield f"{said(run)} was made before it was due"
            if period_of(was) is not None and at not in between(was, at - 1, at):
                yield f"{said(run)} is for no due time of {was.spec!r}"
            if was.kind == "once" and at != _once(was):
                yield f"{said(run)} is not for the time of its one-shot"


def covered(change: Change) -> Iterator[str]:
    """What a beat puts behind it is in one row each, or counted by one."""
    for was, entry, runs in _decided(change):
        if period_of(was) is None or entry.cursor_at is None or _aligned(change.before, was):
            continue
        begin = micros(was.cursor_at or was.created_at)
        end = micros(entry.cursor_at)
        if end < begin:
            yield f"the cursor of {entry.name!r} went back"
            continue
        dues = between(was, begin, end)
        seen: list[int] = []
        for run in runs:
            first = micros(run.first_missed_at or run.due_at)
            mine = between(was, first - 1, micros(run.due_at))
            own = 0 if run.state in ("missed", "skipped") else 1
            if len(mine) != run.missed_count + own and not (own == 0 and run.missed_count == 0):
                yield f"{said(run)} stands for {len(mine)} and counts {run.missed_count}"
            seen += mine
        wrong = sorted(seen) != dues
        if change.world.virtual.stepped:  # what has a row may lie ahead of the clock again
            of_rows = {micros(run.due_at) for run in change.before.runs_of(was.id)}
            wrong = not set(dues) - of_rows <= set(seen) <= set(dues)
        if wrong and entry.state != "finished":
            yield (
                f"{entry.name!r} went on to {entry.cursor_at[11:19]}: due were {_times(dues)}, "
                f"and its new rows are for {_times(seen)}"
            )


def misfires(change: Change) -> Iterator[str]:
    """What is late gets what its policy says: of entries that nothing else holds back.

    With jitter it depends on the entry's share of it, which is beatstore's to choose.
    """
    if change.world.virtual.stepped:
        return
    for was, entry, runs in _decided(change):
        plain = was.overlap == "allow" and not change.before.upstreams(was.id)
        plain = plain and was.max_runs is None and not was.jitter_s
        if not plain or period_of(was) is None or was.pending_due_at is not None:
            continue
        begin = micros(was.cursor_at or was.created_at)
        dues = between(was, begin, change.looked)
        grace = 60.0 if was.grace_s is None else was.grace_s
        wanted = late(dues, change.looked, was.misfire or "coalesce", grace) if dues else []
        got = [
            Row(
                micros(run.due_at),
                run.state,
                run.missed_count,
                None if run.first_missed_at is None else micros(run.first_missed_at),
            )
            for run in runs
        ]
        if sorted(got, key=lambda row: row.due) != sorted(wanted, key=lambda row: row.due):
            yield (
                f"{entry.name!r} ({was.misfire}, grace {grace:g}), seen at "
                f"{(change.looked - begin) / 1e6:g} s after {begin}: wanted {wanted}, got {got}"
            )


def resumed(change: Change) -> Iterator[str]:
    """What was due while an entry was paused is neither run nor counted as missed."""
    if change.world.virtual.stepped:
        return
    for was, _, runs in _decided(change):
        since = change.world.judge.resumed.get(was.id)
        if since is None or period_of(was) is None:
            continue
        for run in runs:
            if micros(run.first_missed_at or run.due_at) <= since:
                yield f"{said(run)} stands for a due time at which {was.name!r} was paused"


def dependencies(change: Change) -> Iterator[str]:
    """A run is made only when each edge is satisfied, and uses up what it saw."""
    for was, _, runs in _decided(change):
        made = [run for run in runs if run.state == "claimed"]
        for edge in change.before.upstreams(was.id) if made else ():
            up = change.before.entries.get(edge.upstream_id)
            if up is None or edge.align == "same":
                continue
            count = count_of(up, edge)
            if count <= edge.consumed_seq:
                yield f"{said(made[0])} was made, and {up.name!r} has not completed ({edge.on})"
            still = change.after.edges.get((edge.downstream_id, edge.upstream_id))
            # On a server the upstream may complete again before this commit.
            exact = change.world.ground.serial
            if exact and still is not None and still.consumed_seq != count:
                yield (
                    f"{said(made[0])} used up {still.consumed_seq} of {up.name!r}, "
                    f"which had completed {count} times"
                )


def given_up(change: Change) -> Iterator[str]:
    """What is given up uses up what the upstreams have done; a first run that is free stays so."""
    for was, _, runs in _decided(change):
        over = [run for run in runs if run.state == "skipped" and "overlap" not in str(run.reason)]
        edges = change.before.upstreams(was.id)
        # On a server an upstream may complete again before this commit. Due times that are shared
        # are given up one by one, and leave the other edges alone.
        exact = change.world.ground.serial and all(edge.align != "same" for edge in edges)
        for edge in edges if over and exact else ():
            up = change.before.entries.get(edge.upstream_id)
            still = change.after.edges.get((edge.downstream_id, edge.upstream_id))
            if up is None or still is None or edge.consumed_seq < 0:
                continue
            if still.consumed_seq != count_of(up, edge):
                yield f"{said(over[0])} was given up, and did not use up what {up.name!r} had done"


def same(change: Change) -> Iterator[str]:
    """With `align="same"` a run is made only when each upstream's run of its due time fits."""
    for was, _, runs in _decided(change):
        edges = [edge for edge in change.before.upstreams(was.id) if edge.align == "same"]
        for run in runs if edges else ():
            if run.state != "claimed":
                continue
            for edge in edges:
                mine = change.before.runs_of(edge.upstream_id)
                pruned = change.world.judge.pruned.values()
                mine += [one for one in pruned if one.entry_id == edge.upstream_id]
                up = change.before.entries.get(edge.upstream_id)
                first = run.first_missed_at or run.due_at
                fits = any(
                    _fits(change, edge, one) for one in mine if first <= one.due_at <= run.due_at
                )
                if up is not None and not fits and not edge.first_free:
                    yield f"{said(run)} was made without {up.name!r} at {edge.on} for its due time"


def _fits(change: Change, edge: Edge, run: Run) -> bool:
    failed = run.state in ("failed", "lost", "skipped", "cancelled")
    well = run.state == "succeeded"
    # A failure that had counted stays one, also if the run ended well after all.
    was_failed = run.id in change.world.judge.failed
    return {"success": well, "failure": failed or was_failed}.get(edge.on, well or failed)


def _aligned(state: State, entry: Entry) -> bool:
    return any(edge.align == "same" for edge in state.upstreams(entry.id))


def _once(entry: Entry) -> int:
    at = datetime.fromisoformat(entry.spec)
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def _times(dues: list[int]) -> list[float]:
    return [due / 1e6 - BASE.timestamp() for due in dues]


#: All of them.
RULES = (alive, due, covered, misfires, resumed, dependencies, given_up, same)
