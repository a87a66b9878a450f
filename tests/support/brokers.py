"""Brokers for tests: found on this machine, started from a wheel, or kept in files.

Each test gets a queue name of its own, and a broker that nobody else writes to: a free
database of the Redis server, a virtual host of RabbitMQ, a new directory.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import kombu
import redis
from kombu.transport import memory

from tests.support.absent import Unavailable, given_url
from tests.support.broker_servers import PrivateRedis

__all__ = ["BROKERS", "Broker", "BrokerSource", "Message", "drain", "open_broker"]

#: The brokers a real beat and a real worker can talk over.
BROKERS = ("redis", "rabbitmq", "filesystem")


@dataclass(frozen=True)
class Message:
    """A task message as it lay in the queue.

    Attributes:
        id: the task id.
        task: the task's name.
        args: positional arguments, decoded.
        kwargs: keyword arguments, decoded.
        headers: all headers, Celery's own included.
        properties: AMQP properties: `priority`, `delivery_info`, `correlation_id`, …
        embed: the last part of the body: callbacks, errbacks, chain, chord.
    """

    id: str
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    headers: dict[str, Any]
    properties: dict[str, Any]
    embed: dict[str, Any]


def drain(
    broker_url: str, queue: str, *, transport_options: dict[str, Any] | None = None
) -> list[Message]:
    """Take every message off `queue`, in the order a worker would get them.

    A queue that does not exist yet is an empty one.
    """
    found: list[Message] = []
    with _channel(broker_url, transport_options) as channel:
        while (raw := channel.basic_get(queue, no_ack=True)) is not None:
            found.append(_decoded(channel.message_to_python(raw)))
    return found


@contextmanager
def _channel(url: str, transport_options: dict[str, Any] | None) -> Iterator[Any]:
    """Open a channel; what asks for an unknown queue ends there, quietly."""
    with (
        kombu.Connection(url, transport_options=transport_options or {}) as connection,
        suppress(*connection.channel_errors),
    ):
        yield connection.channel()


def _decoded(raw: Any) -> Message:
    args, kwargs, embed = raw.decode()
    headers = dict(raw.headers)
    properties = {**raw.properties, "delivery_info": dict(raw.delivery_info or {})}
    return Message(
        headers.get("id", ""), headers.get("task", ""), args, kwargs, headers, properties, embed
    )


@dataclass
class Broker:
    """A broker, and the queue on it that is this test's own.

    Attributes:
        name: `redis`, `rabbitmq`, `filesystem` or `memory`.
        url: what Celery's `broker_url` is set to.
        queue: a name that no other test uses.
        transport_options: what `broker_transport_options` is set to.
    """

    name: str
    url: str
    queue: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:12]}")
    transport_options: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The Celery settings that send to this broker and queue."""
        whole = {"broker_transport": "beatstore.testing.files:Transport"}
        return {
            **(whole if self.name == "filesystem" else {}),
            "broker_url": self.url,
            "broker_transport_options": self.transport_options,
            "broker_connection_retry_on_startup": True,
            "task_default_queue": self.queue,
        }

    def drain(self, queue: str | None = None) -> list[Message]:
        """Take every message off the test's queue, or off another one."""
        return drain(self.url, queue or self.queue, transport_options=self.transport_options)

    def count(self, queue: str | None = None) -> int:
        """Return how many messages wait, without taking them."""
        if self.name == "memory":
            # kombu walks over all queues to close a channel: meanwhile no thread may add one.
            waiting = memory.Channel.queues.get(queue or self.queue)
            return 0 if waiting is None else waiting.qsize()
        with _channel(self.url, self.transport_options) as channel:
            return int(channel.queue_declare(queue or self.queue, passive=True).message_count)
        return 0

    def purge(self, queue: str | None = None) -> None:
        """Throw away what waits in the test's queue, or in another one."""
        with _channel(self.url, self.transport_options) as channel:
            channel.queue_purge(queue or self.queue)


class BrokerSource:
    """A kind of broker for a whole session; this one is Celery's, within the process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def broker(self) -> Broker:
        """Return a broker for one test, with nothing in it."""
        return Broker("memory", "memory://")

    def clean(self, broker: Broker) -> None:
        """Take away what the test left behind."""
        broker.purge()

    def close(self) -> None:
        """Give back what the session took."""


class _Files(BrokerSource):
    def broker(self) -> Broker:
        own = self.directory / uuid.uuid4().hex[:12]
        for part in ("messages", "control"):
            (own / part).mkdir(parents=True)
        options = {
            "data_folder_in": str(own / "messages"),
            "data_folder_out": str(own / "messages"),
            "control_folder": str(own / "control"),
        }
        return Broker("filesystem", "filesystem://", transport_options=options)

    def clean(self, broker: Broker) -> None:
        own = Path(broker.transport_options["control_folder"]).parent
        shutil.rmtree(own, ignore_errors=True)


class _Redis(BrokerSource):
    """A database that nobody else uses, or else a server of our own."""

    #: Says that a database of a shared server is taken; gone by itself after an hour.
    _TAKEN = "beatstore-test"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._server: PrivateRedis | None = None
        given = given_url("REDIS")
        url = None if given == "" else _free_database(given, self._TAKEN)
        if url is None:
            self._server = PrivateRedis()
            self._server.start()
            url = self._server.url
        self._url = url

    def broker(self) -> Broker:
        # Again, in case a process of the test before wrote after it was cleaned up.
        broker = Broker("redis", self._url)
        self.clean(broker)
        return broker

    def clean(self, broker: Broker) -> None:
        with redis.Redis.from_url(self._url) as client:
            # The mark is never away: meanwhile another run would take the database.
            client.set(self._TAKEN, 1, ex=3600)
            left = [key for key in client.scan_iter(count=1000) if key != self._TAKEN.encode()]
            if left:
                client.delete(*left)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            return
        with redis.Redis.from_url(self._url) as client:
            client.flushdb()


def _free_database(given: str | None, mark: str) -> str | None:
    """Mark an empty database of the given server, or of the default one; return its URL.

    Returns:
        None where no server was given, and the default one is not there or full.
    """
    parts = urlsplit(given or "redis://127.0.0.1:6379")
    number = parts.path.strip("/")
    for database in [number] if number else range(15, 0, -1):
        url = parts._replace(path=f"/{database}").geturl()
        try:
            with redis.Redis.from_url(url, socket_connect_timeout=2) as client:
                if not client.set(mark, 1, nx=True, ex=3600):
                    continue
                if client.dbsize() == 1:
                    return url
                client.delete(mark)
        except redis.RedisError as error:
            if given:
                raise RuntimeError(f"BEATSTORE_TEST_REDIS_URL: {error}") from error
            return None
    if given:
        raise RuntimeError(f"BEATSTORE_TEST_REDIS_URL: no empty database at {given}")
    return None


class _RabbitMQ(BrokerSource):
    """A virtual host of our own, or else the given one with queues of our own."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        given = given_url("AMQP")
        if given == "":
            raise Unavailable("BEATSTORE_TEST_AMQP_URL=none")
        self._url = given or "amqp://guest:guest@127.0.0.1:5672//"
        try:
            with kombu.Connection(self._url, connect_timeout=2) as connection:
                connection.connect()
        except OSError as error:
            if given:
                raise RuntimeError(f"BEATSTORE_TEST_AMQP_URL: {error}") from error
            raise Unavailable(f"nothing answers at {self._url} ({error})") from error
        self._server = urlsplit(self._url)
        self._vhost = f"beatstore-test-{uuid.uuid4().hex[:12]}"
        self._by = next((by for by in (self._ctl, self._http) if by("add")), None)
        if self._by is not None:
            self._by("allow")
            self._url = self._server._replace(path=f"/{self._vhost}").geturl()

    def broker(self) -> Broker:
        return Broker("rabbitmq", self._url)

    def clean(self, broker: Broker) -> None:
        with _channel(self._url, None) as channel:
            channel.queue_delete(broker.queue)
            channel.exchange_delete(broker.queue)

    def close(self) -> None:
        if self._by is not None:
            self._by("remove")

    def _ctl(self, verb: str) -> bool:
        """Do `verb` to the virtual host by rabbitmqctl, which knows this machine's node."""
        program = shutil.which("rabbitmqctl")
        here = self._server.hostname in ("127.0.0.1", "localhost")
        if program is None or not here or self._server.port not in (None, 5672):
            return False
        user = self._server.username or "guest"
        arguments = {
            "add": ["add_vhost", self._vhost],
            "allow": ["set_permissions", "-p", self._vhost, user, ".*", ".*", ".*"],
            "remove": ["delete_vhost", self._vhost],
        }[verb]
        done = subprocess.run([program, "-q", *arguments], check=False, capture_output=True)
        return done.returncode == 0

    def _http(self, verb: str) -> bool:
        """Do `verb` to the virtual host by the management plugin's interface."""
        user, password = self._server.username or "guest", self._server.password or "guest"
        method, path = {
            "add": ("PUT", f"vhosts/{self._vhost}"),
            "allow": ("PUT", f"permissions/{self._vhost}/{quote(user)}"),
            "remove": ("DELETE", f"vhosts/{self._vhost}"),
        }[verb]
        request = Request(
            f"http://{self._server.hostname}:15672/api/{path}",
            method=method,
            data=json.dumps({"configure": ".*", "write": ".*", "read": ".*"}).encode(),
            headers={
                "authorization": "Basic "
                + base64.b64encode(f"{user}:{password}".encode()).decode(),
                "content-type": "application/json",
            },
        )
        try:
            with urlopen(request, timeout=5):
                return True
        except OSError:
            return False


def open_broker(name: str, directory: Path) -> BrokerSource:
    """Find a broker, or start one, for the whole session.

    Args:
        name: one of `BROKERS`, or `memory`.
        directory: where file brokers may put theirs.

    Raises:
        Unavailable: there is none, and none could be started.
    """
    kinds = {"memory": BrokerSource, "filesystem": _Files, "redis": _Redis, "rabbitmq": _RabbitMQ}
    return kinds[name](directory)
