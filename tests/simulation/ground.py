"""Where schedules are played: an app, a store, and a database that is empty for each of them."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import Celery
from sqlalchemy import Engine
from sqlalchemy.pool import NullPool

from beatstore import Store
from beatstore.config import Settings
from beatstore.database.address import checked
from beatstore.database.drivers import prepare_engine
from beatstore.database.engine import make_engine
from tests.simulation.beats import SIMULATED
from tests.simulation.broker import CHAIN, GROUP
from tests.simulation.kernel import Kernel, Process
from tests.simulation.ledger import Book, SQLiteBook
from tests.simulation.virtual import Virtual
from tests.simulation.wire import Wires
from tests.simulation.workers import GUARDED, LATE, PLAIN

if TYPE_CHECKING:
    from tests.simulation.play import World

__all__ = ["TABLES", "Ground", "ground"]

#: All tables with rows; what a DELETE of others would write to comes first.
TABLES = [
    f"beatstore_{name}"
    for name in ("entry", "dependency", "token", "wait", "tag", "run", "audit", "beat", "worker")
]


class Ground(ABC):
    """What all schedules of this process share.

    Attributes:
        serial: whether writers take turns, so that nothing changes under one of them.
        cascades_fire: whether triggers fire for rows that a foreign key deletes.
        store: that of all processes; each has connections of its own.
        beats: by how they send, the app and the store of beats.
    """

    serial = cascades_fire = True
    store: Store

    def __init__(self) -> None:
        self.virtual = Virtual()
        self.beats: dict[str, tuple[Celery, Store]] = {}

    def open(self, engine: Engine, url: str) -> None:
        """Make the store."""
        settings = Settings(url=url, listen=False)
        self.store = Store(engine, settings=settings)
        hooks = Store(engine, settings=replace(settings, send="hooks"))
        redis, rabbitmq = _app("redis://127.0.0.1", url), _app("amqp://127.0.0.1", url)
        self.beats = {
            "each": (_app(SIMULATED, url), self.store),
            "pipeline": (redis, hooks),
            "push": (redis, self.store),
            "confirms": (rabbitmq, hooks),
            "publish": (rabbitmq, self.store),
        }

    @abstractmethod
    def fresh(self, world: World) -> Book:
        """Put empty tables in place for a schedule, and return what reads them."""

    def time_moved(self) -> None:  # noqa: B027  (SQLite asks for the time at each statement)
        """Tell the database what the time is."""


class SQLiteGround(Ground):
    """SQLite, in a file that is in memory where there is such a place."""

    def __init__(self) -> None:
        super().__init__()
        where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._home = Path(tempfile.mkdtemp(prefix="beatstore-sim-", dir=where))
        path = self._home / "sim.db"
        made = Store(f"sqlite:///{path}")
        made.migrate()
        made.close()
        self._world: World | None = None
        self._wires = Wires(path, self.virtual, self._committed)
        self._book = SQLiteBook(path)
        url = checked(f"sqlite:///{path}")
        engine = make_engine(url, creator=self._connect, poolclass=NullPool)
        prepare_engine(engine)
        self.open(engine, str(url))

    def fresh(self, world: World) -> Book:
        """Delete all rows, and begin to count anew."""
        self._world = world
        self._book.empty(("sqlite_sequence", *TABLES))
        return self._book

    def __del__(self) -> None:
        shutil.rmtree(self._home, ignore_errors=True)

    def _connect(self) -> Any:
        world = self._world
        assert world is not None
        wire = self._wires.connect()
        process = Kernel.current()
        if process is not None:
            world.wires.setdefault(process.name, []).append(wire)
        return wire

    def _committed(self, process: Process) -> None:
        assert self._world is not None
        self._world.commit(process)


def _app(broker: str, url: str) -> Celery:
    app = Celery("sim", set_as_current=False, broker=broker, loader="default")
    app.conf.update(timezone="UTC", beatstore_url=url)
    for name in (PLAIN, GUARDED, LATE, GROUP, CHAIN):
        app.task(name=name, shared=False)(_nothing)
    app.finalize()
    return app


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Do nothing: workers of a schedule play their tasks."""


@functools.cache
def ground(backend: str = "sqlite") -> Ground:
    """Return that of this process for a kind of database."""
    if backend == "sqlite":
        return SQLiteGround()
    from tests.simulation.servers import ServerGround

    return ServerGround(backend)
