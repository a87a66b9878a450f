"""The cluster of a chaos run, each part of it in a network of its own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from tests.chaos.cluster import Cluster
from tests.regions.network import Network

__all__ = ["PAIRS", "PLACES", "Regions"]

_BEATS = ("beat-1", "beat-2", "beat-3")

PLACES = (*_BEATS, "workers", "database", "broker")

#: Each two that talk to each other: beats and workers are told nothing by each other.
PAIRS = tuple((one, server) for one in PLACES[:-2] for server in PLACES[-2:])


class Regions(Cluster):
    """Three beats, two workers, a database and a broker in a network.

    Args:
        network: that has `PLACES`.
        directory: for logs and the witness.
        database: `postgresql` or `mariadb`.
        broker: `redis` or `rabbitmq`.
        settings: of the app, on top of those of the world.
    """

    BEATS: ClassVar[tuple[str, ...]] = _BEATS

    #: A child waits for a far database at the start and the end of each task.
    CHILDREN: ClassVar[int] = 8

    def __init__(
        self,
        network: Network,
        directory: Path,
        database: str = "postgresql",
        broker: str = "redis",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.network = network
        super().__init__(directory, database, broker, settings)

    def address(self, place: str) -> str:
        """Return the address of a place."""
        return self.network.address(place)

    def inside(self, place: str) -> AbstractContextManager[None]:
        """Have this thread, and what it starts, in the namespace of a place."""
        return self.network.inside(place)
