"""What `status`, `health` and `explain` name as standing still, which all three agree on."""

from __future__ import annotations

from datetime import timedelta

from beatstore.store.explain.wording import Wording
from tests.support.harness.play import Play

__all__ = ["explained", "later", "stalled"]


def later(play: Play, **span: float) -> None:
    """Let time pass, and beats look."""
    play.clock.advance(timedelta(**span).total_seconds())
    play.tick()


def stalled(play: Play, name: str) -> list[str]:
    """Return what stands still, which all three must agree on."""
    warnings = play.store.status().warnings
    assert list(play.store.health().warnings) == warnings
    for said in warnings:
        assert explained(play, said) in play.store.explain(name).sentences
    return warnings


def explained(play: Play, said: str) -> str:
    """Return a warning as `explain` has it, which tells instants as people do."""
    return Wording("UTC", play.clock.now()).retold(said)
