"""Partitions: each two that talk to each other are cut off from each other, one pair at a time."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.chaos.faults import Trouble
from tests.chaos.ledger import Ledger
from tests.chaos.play import play_on
from tests.regions.cluster import PAIRS, PLACES, Regions
from tests.regions.network import Network

__all__ = ["CutPlan", "play_cuts"]


#: A beat that is far holds the rows that it looks at for several round trips. A report that finds
#: its downstream held has it woken a second later, and again if it is held then.
_SLACK = 10.0


@dataclass(frozen=True)
class CutPlan:
    """What to do.

    Attributes:
        seed: the user's acts are drawn from it.
        database: `postgresql` or `mariadb`.
        broker: `redis` or `rabbitmq`.
        round_trip_s: between any two places.
        loss: the share of packets that is lost.
        cut_s: how long two are cut off from each other: longer than a claim lives.
        back_s: how long it takes until they talk again. TCP tries again after pauses that grow, so
            after 8 seconds the next try is 13 seconds after the last answer.
        pause_s: from then to the next cut.
    """

    seed: int
    database: str = "postgresql"
    broker: str = "redis"
    round_trip_s: float = 0.02
    loss: float = 0.01
    cut_s: float = 8.0
    back_s: float = 5.0
    pause_s: float = 2.0

    def __str__(self) -> str:
        return (
            f"seed {self.seed}, {self.database}, {self.broker}, "
            f"{self.round_trip_s * 1000:g} ms of round trip, {self.loss:.0%} of packets lost, "
            f"{len(PAIRS)} pairs cut for {self.cut_s:g} s"
        )


class _Cuts(Trouble):
    """Cuts one pair after the other, and says that it is over."""

    def __init__(self, network: Network, plan: CutPlan) -> None:
        super().__init__(threading.Event())
        self.network = network
        self.plan = plan

    def happenings(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """Yield each pair, with a pause before it."""
        for one, server in PAIRS:
            if self.over.wait(self.plan.pause_s):
                return
            kind = "worker partition" if one == "workers" else "beat partition"
            yield kind, partial(self._cut, one, server)
        self.over.set()

    def _cut(self, one: str, server: str) -> str:
        self.network.cut(one, server)
        self.over.wait(self.plan.cut_s)
        self.network.heal()
        self.over.wait(self.plan.back_s)
        return f"{one} and {server}"


def play_cuts(plan: CutPlan, directory: Path) -> Ledger:
    """Play the world of the chaos run while every pair is cut once; return what is known of it.

    Args:
        plan: what to do.
        directory: for logs, the witness and the ledger.

    Raises:
        Unavailable: there can be no namespaces here, or a server is missing.
    """
    longest = len(PAIRS) * (plan.cut_s + plan.back_s + plan.pause_s) + 60
    with Network(PLACES) as network:
        cluster = Regions(network, directory, plan.database, plan.broker)
        try:
            network.set(round_trip_s=plan.round_trip_s, loss=plan.loss)
            cuts = _Cuts(network, plan)
            rng = random.Random(plan.seed)
            return play_on(cluster, cuts, str(plan), longest, rng, slack=_SLACK)
        finally:
            cluster.close()
