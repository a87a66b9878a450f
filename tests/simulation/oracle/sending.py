"""What must be true of each message that the broker takes: docs/reliability.md."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.simulation.broker import Publication

if TYPE_CHECKING:
    from tests.simulation.oracle.judge import Judge

__all__ = ["message"]


def message(judge: Judge, sent: Publication) -> Iterator[str]:
    """Only committed claims are sent, by the beat that holds them, once unless something broke."""
    one, world = sent.message, judge.world
    run = judge.state.runs.get(one.run_id)
    name = f"the message of run {one.run_id} ({one.name!r}, due {one.due_at[11:19]})"
    if run is None:
        yield f"{name} was sent before its run was committed"
        return
    if run.task_id != one.task_id or run.attempt != one.attempt:
        yield f"{name} has the task id {one.task_id}, and its run {run.task_id}"
    beat = world.bodies[sent.by].id
    holder, since = judge.holders.get(run.id, ("", 0.0))
    if holder != beat and sent.begun > since:
        yield f"{name} was sent by {sent.by}, which had lost its claim"
    copies = [other for other in world.broker.published if other.message.task_id == one.task_id]
    # What was pruned is not known any more: a schedule that asks for it again gets it again.
    anew = any(other.task_id == one.task_id for other in judge.pruned.values())
    # Who refuses one message says so, and has the others.
    broke = world.broker.closed or any(fault.what != "refuse" for fault in world.trace.faults)
    if len(copies) > 1 and not (broke or run.id in judge.outlived or anew):
        yield f"{name} was sent twice, and nothing had broken"
    entry = judge.state.entries.get(run.entry_id)
    claimed = judge.claimed.get(run.id, 0)
    if entry is not None and claimed > judge.stopped.get(run.entry_id, math.inf):
        # A retry of what was asked for by hand is asked for, too.
        withdrawn = {run_id for run_id, at in judge.withdrawn.items() if at < claimed}
        asked = judge.asked if entry.state == "paused" else judge.asked - withdrawn
        chain = (one.id for one in judge.state.runs_of(entry.id) if one.due_at == run.due_at)
        if asked.isdisjoint(chain):
            yield f"{name} was claimed and sent after its entry had been {entry.state}"
