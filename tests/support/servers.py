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

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

from tests.support.absent import Unavailable
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.wait import wait_until

__all__ = ["PrivateServer", "on_path", "package"]

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
        #: Where clients find it; it listens on the loopback device in any case.
        self.host = "127.0.0.1"
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
    def listens_on(self) -> list[str]:
        """The addresses that it listens on."""
        return sorted({"127.0.0.1", self.host})

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


def package(name: str) -> Iterator[Path]:
    """Yield where a package is installed; it need not be importable."""
    spec = importlib.util.find_spec(name)
    for place in (spec and spec.submodule_search_locations) or ():
        yield Path(place)


def on_path(*names: str) -> Path:
    for name in names:
        # Daemons live in sbin, which is not on everybody's PATH.
        if found := shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
            return Path(found)
    raise Unavailable(f"no program {' or '.join(names)} on this machine")
