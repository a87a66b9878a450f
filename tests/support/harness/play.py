"""Stories of entries, told by the hour: a store, a beat without a broker, workers in a word."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from sqlalchemy.orm import Session

from beatstore import ManualClock, Run, Store
from beatstore.tick.claims import Claim
from beatstore.tick.queue import Queue
from tests.support.harness.base import Harness
from tests.support.harness.ticks import report, tick

__all__ = ["NOON", "Play", "held"]

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


class Play(Harness):
    """A store, a beat without a broker, a clock, and workers in a word."""

    def __init__(self, url: str, clock: ManualClock) -> None:
        super().__init__(Store(url, clock=clock))
        self.clock = clock
        self.queue = Queue(self.store.database, self.store.settings, str(uuid.uuid4()))
        self.held: dict[str, list[Claim]] = {}

    def add(self, name: str, schedule: Any = None, **given: Any) -> None:
        """Add an entry of that name."""
        self.store.add(name, f"tests.{name}", schedule, **given)

    def at(self, when: str) -> list[str]:
        """Move the clock to a time of the day, tick, and return the names sent."""
        hour, minute = when.split(":")
        self.clock.set(NOON.replace(hour=int(hour), minute=int(minute)))
        return self.tick()

    def tick(self) -> list[str]:
        """Tick until nothing is due, and return the names sent, in order."""
        claims = tick(self.queue)
        for claim in claims:
            self.held.setdefault(claim.name, []).append(claim)
        return [claim.name for claim in claims]

    def end(self, name: str, state: str = "succeeded") -> list[str]:
        """Let the runs of `name` that are under way end, tick, and return the names sent."""
        report(
            self.store,
            state,
            self.held.pop(name),
            "RuntimeError: no" if state == "failed" else None,
        )
        return self.tick()

    def history(self, name: str) -> list[tuple[str, str, int]]:
        """Return the runs of an entry, oldest first: due time, state, others folded in."""
        found = sorted(self.store.runs(name), key=lambda run: (run.due_at, run.attempt))
        return [(f"{run.due_at:%H:%M}", run.state, run.missed_count) for run in found]

    def last(self, name: str) -> Run:
        """Return the latest run of an entry."""
        return self.store.runs(name, limit=1)[0]

    def close(self) -> None:
        """Give back what the beat and the store hold."""
        self.queue.close()
        super().close()


@contextmanager
def held(play: Play, name: str) -> Iterator[None]:
    """Keep a transaction open that has changed one entry, and roll it back in the end."""
    application = Store(play.store.database.url.render_as_string(hide_password=False))
    with Session(application.database.engine) as session:
        application.change(name, description="a long transaction", session=session)
        yield
        session.rollback()
    application.close()
