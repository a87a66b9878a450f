"""The time of a schedule: the database's clock, and the monotonic clock of all processes.

Both stand still unless a step moves them. beatstore's modules get a `time` and a `random` that
know nothing else; the database gets a `strftime` of ours.
"""

from __future__ import annotations

import random
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

from tests.simulation.kernel import Kernel

__all__ = ["BASE", "Virtual", "installed", "micros", "text_of"]

#: When each schedule begins.
BASE = datetime(2031, 3, 5, 12, tzinfo=timezone.utc)

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICRO = timedelta(microseconds=1)
_read: dict[str, int] = {}


class Virtual:
    """The two clocks, in seconds since `BASE`."""

    def __init__(self) -> None:
        self.wall = 0.0
        self.monotonic = 1_000.0
        self.stepped = False
        self.random = random.Random(0)
        self._ids = 0

    def reset(self, seed: int) -> None:
        """Begin anew."""
        self.wall, self.monotonic, self.stepped = 0.0, 1_000.0, False
        self.random.seed(seed)
        self._ids = 0

    def advance(self, seconds: float) -> None:
        """Let time pass for everybody."""
        self.wall = round(self.wall + seconds, 3)
        self.monotonic = round(self.monotonic + seconds, 3)

    def step(self, seconds: float) -> None:
        """Set the database's clock forward or back; nobody has waited for it."""
        self.wall = round(self.wall + seconds, 3)
        self.stepped = True

    def now(self) -> datetime:
        """Return what the database's clock says."""
        return BASE + timedelta(seconds=self.wall)

    def new_id(self) -> uuid.UUID:
        """Return the next of a row of ids."""
        self._ids += 1
        return uuid.UUID(int=(0xABCD << 64) + self._ids, version=4)

    def strftime(self, form: str, at: str, *rest: object) -> str:
        """Do what SQLite's function of this name does, as far as beatstore asks it."""
        if at == "now":
            assert form == "%Y-%m-%d %H:%M:%f000", form
            return text_of(self.now())
        assert form == "%s", form
        return str(micros(at) // 1_000_000)


class _Time:
    """Stands for the module `time` in beatstore."""

    def __init__(self, virtual: Virtual) -> None:
        self._virtual = virtual

    def monotonic(self) -> float:
        """Return the virtual monotonic clock."""
        return self._virtual.monotonic

    def sleep(self, seconds: float) -> None:
        """Let time pass, and others go on: whoever sleeps waits for them."""
        self._virtual.advance(seconds)
        process = Kernel.current()
        if process is not None:
            process.point("sleep", f"{seconds:g} s")

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class _Uuid:
    """Stands for the module `uuid` in beatstore: its random ids come in a row."""

    def __init__(self, virtual: Virtual) -> None:
        self.uuid4 = virtual.new_id

    def __getattr__(self, name: str) -> Any:
        return getattr(uuid, name)


class _OfThread:
    """Stands for a module in the thread that plays, and is that module in all others.

    Threads of beatstore that other tests have left go on: their sleep is no time of a schedule.
    """

    def __init__(self, thread: int, ours: Any, module: Any) -> None:
        self._thread, self._ours, self._module = thread, ours, module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ours if threading.get_ident() == self._thread else self._module, name)


@contextmanager
def installed(virtual: Virtual) -> Iterator[None]:
    """Give beatstore's modules the virtual clocks, and chance from the seed."""
    mine = threading.get_ident()
    instead: dict[Any, Any] = {
        time: _OfThread(mine, _Time(virtual), time),
        random: _OfThread(mine, virtual.random, random),
        uuid: _OfThread(mine, _Uuid(virtual), uuid),
    }
    replaced: list[tuple[Any, str, Any]] = []
    for name, module in list(sys.modules.items()):
        if not name.startswith("beatstore."):
            continue
        for attribute in ("time", "random", "uuid"):
            was = vars(module).get(attribute)
            if was in (time, random, uuid):
                replaced.append((module, attribute, was))
                setattr(module, attribute, instead[was])
    try:
        yield
    finally:
        for module, attribute, was in replaced:
            setattr(module, attribute, was)


def text_of(at: datetime) -> str:
    """Write an instant as SQLite's tables have it."""
    return at.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")


def micros(text: str) -> int:
    """Read such a text; return microseconds since 1970."""
    found = _read.get(text)
    if found is None:
        at = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
        if len(_read) > 100_000:
            _read.clear()
        found = _read[text] = (at - _EPOCH) // _MICRO
    return found
