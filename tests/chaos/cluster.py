"""What a chaos run is done to: servers of its own, two beats and two workers.

Each of them has a place: `database`, `broker`, `workers`, `beat-1` and so on. Here all places are
this machine, on its loopback device; `tests.regions.cluster` has a network between them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import psycopg
import pymysql
import redis

from tests.chaos.world import SETTINGS
from tests.support.broker_servers import PrivateRabbitMQ, PrivateRedis
from tests.support.brokers import Broker
from tests.support.database_servers import PrivateMariaDB, PrivatePostgreSQL
from tests.support.processes import Process, below
from tests.support.project import Project
from tests.support.servers import PrivateServer

__all__ = ["BROKERS", "DATABASES", "Cluster"]

S = TypeVar("S", bound=PrivateServer)

DATABASES = ("postgresql", "mariadb", "sqlite")
BROKERS = ("redis", "rabbitmq")

#: The account of beatstore and the user, which read-only windows hold for.
_USER = "chaos"

#: An unacknowledged message comes again after so many seconds, on Redis.
VISIBILITY_TIMEOUT = 10


class Cluster:
    """The servers and processes.

    Args:
        directory: for logs and the witness.
        database: one of `DATABASES`.
        broker: one of `BROKERS`.
        settings: of the app, on top of those of the world.
    """

    #: The places of the beats that `start` starts.
    BEATS: ClassVar[tuple[str, ...]] = ("beat-1", "beat-2")

    #: How many children each worker has.
    CHILDREN: ClassVar[int] = 3

    def __init__(
        self,
        directory: Path,
        database: str,
        broker: str,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        self.database = database
        self._stack = ExitStack()
        self.beats: list[Process] = []
        self.workers: list[Process] = []
        self._server = self._database_server()
        self.url = self._made()
        # Results go to Redis with any broker: chords need a place for theirs.
        self.redis = self._started(PrivateRedis(), "broker")
        self.broker = (
            self.redis if broker == "redis" else self._started(PrivateRabbitMQ(), "broker")
        )
        options = {"visibility_timeout": VISIBILITY_TIMEOUT} if broker == "redis" else {}
        made = {**SETTINGS, "result_backend": f"{self.redis.url[:-1]}1", **(settings or {})}
        self.project = Project(
            directory,
            Broker(broker, self.broker.url, "chaos", options),
            self.url,
            made,
            "tests.chaos.app",
        )

    # -- places ------------------------------------------------------------------------------

    def address(self, place: str) -> str:
        """Return the address of a place."""
        return "127.0.0.1"

    def inside(self, place: str) -> AbstractContextManager[None]:
        """Have what is started in this context, and what connects in it, be in a place."""
        return nullcontext()

    # -- processes ---------------------------------------------------------------------------

    def start_beat(self, place: str = "beat-1") -> Process:
        """Start one more beat, in a place."""
        with self.inside(place):
            self.beats.append(self.project.beat(scheduler="beatstore"))
        return self.beats[-1]

    def start_worker(self) -> Process:
        """Start one more worker."""
        arguments = ("--pool", "prefork", "--concurrency", str(self.CHILDREN))
        with self.inside("workers"):
            self.workers.append(self.project.worker(*arguments))
        return self.workers[-1]

    def start(self) -> None:
        """Start two workers and a beat in each of its places, and wait until they are ready."""
        self.start_worker()
        self.start_worker()
        for place in self.BEATS:
            self.start_beat(place)
        for process in self.workers:
            process.wait_for_output(" ready.", 90)
        for process in self.beats:
            process.wait_for_output("beat: Start", 90)

    def alive(self, processes: Sequence[Process]) -> list[Process]:
        """Return those that run."""
        return [process for process in processes if process.running]

    def children(self, worker: Process) -> list[int]:
        """Return the processes in which a worker runs its tasks."""
        return below(worker.pid)

    # -- the database -------------------------------------------------------------------------

    def cut(self) -> None:
        """End all connections to the database."""
        if self.database == "postgresql":
            with self._postgresql() as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s",
                    (_USER,),
                )
        elif self.database == "mariadb":
            with self._mariadb() as run:
                listed = "SELECT id FROM information_schema.processlist WHERE user = %s"
                for (number,) in run(listed, _USER):
                    with suppress(pymysql.OperationalError):  # it may have ended by itself
                        run(f"KILL CONNECTION {number}")

    def read_only(self, on: bool, *, cut: bool) -> None:
        """Begin or end a time in which nothing can be written; cut the connections too."""
        if self.database == "postgresql":
            with self._postgresql() as connection:
                word = "on" if on else "off"
                connection.execute(
                    f"ALTER DATABASE chaos SET default_transaction_read_only = {word}"
                )
        elif self.database == "mariadb":
            with self._mariadb() as run:
                run(f"SET GLOBAL read_only = {int(on)}")
        if cut:
            self.cut()

    def _database_server(self) -> PrivateServer | None:
        if self.database == "postgresql":
            options = ("synchronous_commit=off", "max_connections=200")
            return self._started(PrivatePostgreSQL(*options), "database")
        if self.database == "mariadb":
            return self._started(PrivateMariaDB(), "database")
        return None

    def _made(self) -> str:
        """Make a database and an account that is none of an administrator's."""
        if self.database == "postgresql":
            with self._postgresql() as connection:
                connection.execute(f"CREATE ROLE {_USER} LOGIN")
                connection.execute(f"CREATE DATABASE chaos OWNER {_USER}")
            return f"postgresql+psycopg://{_USER}@{self.address('database')}:{self._port}/chaos"
        if self.database == "mariadb":
            with self._mariadb() as run:
                run("CREATE DATABASE chaos CHARACTER SET utf8mb4")
                run(f"CREATE USER {_USER}@'%' IDENTIFIED BY ''")
                run(f"GRANT ALL ON chaos.* TO {_USER}@'%'")
            return f"mysql+pymysql://{_USER}@{self.address('database')}:{self._port}/chaos?ssl_disabled=1"
        path = self.directory / "chaos.db"
        sqlite3.connect(path).close()
        return f"sqlite:///{path}"

    @property
    def _port(self) -> int:
        assert self._server is not None
        return self._server.port

    def _postgresql(self) -> psycopg.Connection:
        # Of another database, which is never read-only.
        login = {"host": "127.0.0.1", "port": self._port, "user": "postgres"}
        with self.inside("database"):
            return psycopg.connect(**login, dbname="postgres", autocommit=True)  # type: ignore[arg-type]

    @contextmanager
    def _mariadb(self) -> Iterator[Callable[..., Sequence[tuple[Any, ...]]]]:
        with self.inside("database"):
            connection = pymysql.connect(
                host="127.0.0.1", port=self._port, user="root", autocommit=True
            )
        with connection, connection.cursor() as cursor:

            def run(statement: str, *given: object) -> Sequence[tuple[Any, ...]]:
                cursor.execute(statement, given or None)
                return list(cursor.fetchall())

            yield run

    # -- the broker ----------------------------------------------------------------------------

    def cut_broker(self) -> None:
        """End all connections to Redis; on RabbitMQ nothing."""
        with redis.Redis.from_url(self.redis.url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
            client.client_kill_filter(_type="pubsub", skipme=True)

    def stop_broker(self) -> None:
        """Stop the broker in order."""
        self.broker.stop()

    def start_broker(self) -> None:
        """Start it again, with what it had."""
        self.broker.start()

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """End everything."""
        for process in (*self.beats, *self.workers):
            process.resume()
            process.kill9()
        self._stack.close()

    def _started(self, server: S, place: str) -> S:
        self._stack.enter_context(server)
        server.host = self.address(place)
        with self.inside(place):
            server.start()
        return server
