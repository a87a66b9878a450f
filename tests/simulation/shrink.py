"""From a plan that breaks a rule to the shortest that still does: ever smaller parts are left out.

A plan that breaks another rule than the first one did is not taken for a shorter form of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tests.simulation.plan import Plan

__all__ = ["rule_of", "shrunk"]

T = TypeVar("T")

#: What every entry of a plan has, or must have for its schedule to come to rest.
_NEEDED = {"task", "schedule", "after", "run_timeout", "end_at"}

Found = Callable[[Plan], "list[str]"]


def rule_of(violations: list[str]) -> str:
    """Return the rule that a schedule broke first, or "" if it broke none."""
    return violations[0].partition(":")[0] if violations else ""


def shrunk(plan: Plan, found: Found, *, tries: int = 2_000) -> Plan:
    """Return the shortest plan that breaks the same rule.

    Args:
        plan: one that breaks a rule.
        found: plays a plan and returns what it broke.
        tries: how many plans to play at most.
    """
    rule = rule_of(found(plan))
    assert rule, "a plan that breaks no rule can't be made shorter"
    left = tries

    def breaks(other: Plan) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and rule_of(found(other)) == rule

    size = None
    while size != _size(plan) and left > 0:
        size = _size(plan)
        plan = _fewer_steps(plan, breaks)
        for other in _simpler(plan):
            if breaks(other):
                plan = other
                break
    return plan


def _size(plan: Plan) -> tuple[int, ...]:
    given = sum(len(one) for one in plan.entries.values())
    ends = sum(len(one) for one in plan.ends.values())
    plain = sum((plan.sends != "each", plan.patience != 1, plan.heartbeats))
    return len(plan.steps), len(plan.entries), given, ends, plan.beats, plan.workers, plain


def _fewer_steps(plan: Plan, breaks: Callable[[Plan], bool]) -> Plan:
    length = max(1, len(plan.steps) // 2)
    while True:
        start = 0
        while start < len(plan.steps):
            other = replace(plan, steps=plan.steps[:start] + plan.steps[start + length :])
            if breaks(other):
                plan = other
            else:
                start += length
        if length == 1:
            return plan
        length //= 2


def _simpler(plan: Plan) -> Iterator[Plan]:
    """Yield plans with one thing less: an entry, an argument, an end, a process."""
    yield from _fewer_entries(plan)
    for name, given in plan.entries.items():
        for key in sorted(given.keys() - _NEEDED):
            yield replace(plan, entries={**plan.entries, name: _without(given, key)})
    for name, ends in plan.ends.items():
        if ends:
            yield replace(plan, ends={**plan.ends, name: list(_but_last(ends))})
    if plan.beats > 1:
        yield replace(plan, beats=plan.beats - 1)
    if plan.workers > 1:
        yield replace(plan, workers=plan.workers - 1)
    if plan.sends != "each":
        yield replace(plan, sends="each")
    if plan.patience > 1:
        yield replace(plan, patience=1)
    if plan.heartbeats:
        yield replace(plan, heartbeats=False)


def _fewer_entries(plan: Plan) -> Iterator[Plan]:
    for name in plan.entries:
        kept = {key: given for key, given in plan.entries.items() if key != name}
        for key, given in kept.items():
            if "after" in given:
                kept[key] = {**given, "after": _without(given["after"], name)}
        if all("schedule" in given or given.get("after") for given in kept.values()):
            yield replace(plan, entries=kept, ends=_without(plan.ends, name))


def _without(given: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != name}


def _but_last(given: Sequence[T]) -> Sequence[T]:
    return given[:-1]
