"""A network of namespaces, in which the test decides how far and how well places are connected.

    with Network(["beat", "database"]) as network:
        with network.inside("database"):
            server.start()              # and whatever else is started here, is there
        network.set(round_trip_s=0.05, loss=0.01)
        network.cut("beat", "database")
        network.heal()

Each place is a network namespace with an address of its own, and a TUN device as its only way
out; the packets of all of them go through `tests.regions.switch`. This process has an address in
the network too, from which every place is near and never cut off.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.absent import Unavailable
from tests.support.processes import ROOT

__all__ = ["Network"]

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_NAMESPACES = Path("/run/netns")

#: How many packets a device keeps for a switch that is not given the processor.
_QUEUE = 5000


class Network:
    """Places, and what connects them.

    Args:
        places: their names; each pair of them is connected.

    Raises:
        Unavailable: there can be no namespaces here; the text says why.
    """

    def __init__(self, places: Sequence[str]) -> None:
        _check()
        _remove_abandoned()
        # The addresses that are set aside for measurements, which no real network uses.
        self._net = f"198.{random.choice((18, 19))}.{random.randrange(256)}"
        self._address = {place: f"{self._net}.{number}" for number, place in enumerate(places, 1)}
        self._here = f"{self._net}.254"
        self._round_trip_s, self._loss = 0.0, 0.0
        self._cut: set[tuple[str, str]] = set()
        self._files: list[int] = []
        self._switch: subprocess.Popen[str] | None = None

    def __enter__(self) -> Network:
        try:
            devices = {self._here: self._connect(None, 0)}
            for number, (place, address) in enumerate(self._address.items(), 1):
                devices[address] = self._connect(place, number)
            self._switch = subprocess.Popen(
                [sys.executable, "-m", "tests.regions.switch", json.dumps(devices)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=list(devices.values()),
                start_new_session=True,
            )
            self._tell()
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            said = getattr(error, "stderr", "")
            raise Unavailable(f"no network namespaces: {error} {said}".strip()) from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the switch, and remove the namespaces."""
        if self._switch is not None:
            self._switch.kill()
            self._switch.communicate()
        for file in self._files:
            os.close(file)
        self._files = []
        for place in self._address:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", self._name(place))

    def address(self, place: str) -> str:
        """Return the address of a place."""
        return self._address[place]

    @contextmanager
    def inside(self, place: str) -> Iterator[None]:
        """Have this thread, and each process that it starts, in the namespace of a place."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _enter(_NAMESPACES / self._name(place))
            yield
        finally:
            _enter(Path(f"/proc/self/fd/{before}"))
            os.close(before)

    def set(self, *, round_trip_s: float, loss: float = 0.0) -> None:
        """Say how long a packet and its answer take, and what share of packets is lost."""
        self._round_trip_s, self._loss = round_trip_s, loss
        self._tell()

    def cut(self, one: str, other: str) -> None:
        """Pass nothing on between two places any more: neither of them is told."""
        self._cut.add((one, other))
        self._tell()

    def heal(self) -> None:
        """Connect again what was cut."""
        self._cut.clear()
        self._tell()

    def _tell(self) -> None:
        assert self._switch is not None
        assert self._switch.stdin is not None
        assert self._switch.stdout is not None
        state = {
            "delay_s": self._round_trip_s / 2,
            "loss": self._loss,
            "cut": [[self._address[place] for place in pair] for pair in self._cut],
            "near": self._here,
        }
        self._switch.stdin.write(json.dumps(state) + "\n")
        self._switch.stdin.flush()
        assert self._switch.stdout.readline() == "ok\n", "the switch has ended"

    def _name(self, place: str) -> str:
        return f"beatstore-{os.getpid()}-{place}"

    def _connect(self, place: str | None, number: int) -> int:
        """Make a device in the namespace of a place, or in this process's own; return its file."""
        device = f"bs{os.getpid()}n{number}"
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._files.append(file)
        wanted = struct.pack("16sH", device.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(file, _TUNSETIFF, wanted)
        there: tuple[str, ...] = ()
        if place is not None:
            _ip("netns", "add", self._name(place))
            _ip("link", "set", device, "netns", self._name(place))
            there = ("-n", self._name(place))
            _ip(*there, "link", "set", "lo", "up")
        address = self._here if place is None else self._address[place]
        _ip(*there, "address", "add", f"{address}/24", "dev", device)
        _ip(*there, "link", "set", device, "txqueuelen", str(_QUEUE), "up")
        return file


def _check() -> None:
    """Say why there can be no namespaces here, if so."""
    if not sys.platform.startswith("linux"):
        raise Unavailable(f"network namespaces are Linux's, and this is {sys.platform}")
    if os.geteuid() != 0:
        raise Unavailable("making network namespaces needs root")
    if shutil.which("ip") is None:
        raise Unavailable("no program ip, which is in the package iproute2")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise Unavailable("no device /dev/net/tun")


def _remove_abandoned() -> None:
    """Remove the namespaces of processes that were killed before they could."""
    for path in _NAMESPACES.glob("beatstore-*-*") if _NAMESPACES.is_dir() else ():
        if not Path("/proc", path.name.split("-")[1]).exists():
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", path.name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _enter(namespace: Path) -> None:
    # os.setns is there from Python 3.12 on.
    libc = ctypes.CDLL(None, use_errno=True)
    with namespace.open() as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(namespace))
