"""What the benchmarks ask of a scheduler.

This module and those of the schedulers are imported on both sides: by the process that measures,
and in the scheduler's own environment, where alone its package is installed. So they import
neither that package nor beatstore at their top.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

__all__ = [
    "COMMON",
    "NAMES",
    "PEER",
    "SETTINGS",
    "TASK",
    "TICKS",
    "WHERE",
    "Due",
    "Peer",
    "Writer",
    "peer_called",
]

#: The task that is sent. Nobody runs it.
TASK = "bench.work"

#: The variables that tell a process in a scheduler's environment which one it is, with which
#: settings, where its entries are, and in which file a beat writes down its ticks.
PEER, SETTINGS, WHERE, TICKS = (
    f"BEATSTORE_BENCH_{name}" for name in ("PEER", "SETTINGS", "WHERE", "TICKS")
)

#: What is installed for each: the same Celery, transports and drivers.
COMMON = (
    "celery[redis]==5.7.0",
    "kombu==5.7.0",
    "redis==8.1.0",
    "amqp==5.4.2",
    "psycopg[binary]==3.3.9",
    "pymysql==1.2.4",
)

_MODULES = {
    "beatstore": "ours",
    "django-celery-beat": "django_beat",
    "sqlalchemy-celery-beat": "sqlalchemy_beat",
    "celery-redbeat": "redbeat_beat",
    "PersistentScheduler": "persistent",
}
NAMES = tuple(_MODULES)


@dataclass(frozen=True)
class Due:
    """An entry with an interval.

    Attributes:
        number: the one argument of its task, by which its messages are known.
        at: when it is first due, in seconds since 1970.
        period: seconds from one due time to the next.
    """

    number: int
    at: float
    period: float

    @property
    def first_at(self) -> datetime:
        """When it is first due."""
        return datetime.fromtimestamp(self.at, timezone.utc)

    @property
    def last_at(self) -> datetime:
        """When it would have run before that."""
        return self.first_at - timedelta(seconds=self.period)


class Writer(ABC):
    """Writes a scheduler's entries, in its own environment."""

    @abstractmethod
    def store_far(self, count: int) -> None:
        """Store entries that are not due before 29 February, by minute of the hour."""

    @abstractmethod
    def store_due(self, due: Sequence[Due]) -> None:
        """Store these entries in place of those that this stored before; no beat runs."""

    def add(self, number: int) -> None:
        """Store one entry that is due at once, as an application does it."""
        raise NotImplementedError


class Peer(ABC):
    """A scheduler.

    Attributes:
        name: what its users call it.
        requirements: what is installed besides `COMMON`, pinned.
        scheduler: the argument `--scheduler` of `celery beat`.
        options: further arguments of it.
        databases: where it can keep its entries.
        takes_changes: whether entries can be added while it runs.
    """

    name: ClassVar[str]
    requirements: ClassVar[tuple[str, ...]]
    scheduler: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    databases: ClassVar[tuple[str, ...]] = ("postgresql", "mariadb", "sqlite")
    takes_changes: ClassVar[bool] = True

    @abstractmethod
    def settings(self, where: str) -> dict[str, Any]:
        """Return its Celery settings, given the URL or file of its entries."""

    def configure(self, app: Any, where: str) -> None:  # noqa: B027  (most need nothing)
        """Do what a project does before its app is used."""

    @abstractmethod
    def writer(self, app: Any, where: str) -> Writer:
        """Make what is needed to keep entries there, and return what writes them."""


def peer_called(name: str) -> Peer:
    """Return the scheduler of that name, one of `NAMES`."""
    module = importlib.import_module(f"benchmarks.peers.{_MODULES[name]}")
    found: Peer = module.PEER
    return found
