"""What must be true of each message that the broker takes: docs/reliability.md."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.simulation.broker import Publication

if TYPE_CHECKING:
    from tests.simulation.oracle.judge import Judge
    from tests.simulation.play import World

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
    # What was written in RabbitMQ's alarm may arrive when another beat has its sender's name.
    later = world.kernel.faults[sent.begun.faults :]
    renewed = any(one.to == sent.by and one.what in ("kill", "term") for one in later)
    if holder != beat and sent.begun.at > since and not renewed:
        yield f"{name} was sent by {sent.by}, which had lost its claim"
    copies = [other for other in world.broker.published if other.message.task_id == one.task_id]
    # What was pruned is not known any more: a schedule that asks for it again gets it again.
    anew = any(other.task_id == one.task_id for other in judge.pruned.values())
    if not (run.id in judge.outlived or anew or _all_excused(world, copies)):
        yield f"{name} was sent twice, and nothing of its sender had broken"
    entry = judge.state.entries.get(run.entry_id)
    claimed = judge.claimed.get(run.id, 0)
    if entry is not None and claimed > judge.stopped.get(run.entry_id, math.inf):
        # A retry of what was asked for by hand is asked for, too.
        withdrawn = {run_id for run_id, at in judge.withdrawn.items() if at < claimed}
        asked = judge.asked if entry.state == "paused" else judge.asked - withdrawn
        chain = (one.id for one in judge.state.runs_of(entry.id) if one.due_at == run.due_at)
        if asked.isdisjoint(chain):
            yield f"{name} was claimed and sent after its entry had been {entry.state}"


def _all_excused(world: World, copies: Sequence[Publication]) -> bool:
    """Say whether each copy but the last was one of which its sender might not have heard.

    Something broke for the sender before the next copy was made, or RabbitMQ closed the channel
    before it had confirmed this one. What was written during an alarm may arrive after later ones.
    """
    made = sorted(copies, key=lambda one: one.begun)
    return all(
        one.unanswered or world.kernel.harmed(one.by, one.begun, after.begun)
        for one, after in pairwise(made)
    )
