"""The liveness file of a beat, which says when it last ticked.

A liveness probe asks one question: does this process hang, so that a restart helps? The
database can't answer it: during an outage or a migration nothing new is written there, although
beat is running and recovers by itself. So beat also writes a file, and
`beatstore check --self` reads only that.

The file holds the time of the monotonic clock, which all processes of a host share and nobody
can set, so changes of the system time do not matter.

On failure: if the directory can't be written to, beat logs it once and continues.
"""

from __future__ import annotations

import getpass
import logging
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DIRECTORY", "Pulse", "Sign", "directory", "signs"]

logger = logging.getLogger(__name__)

#: The environment variable that names the directory.
DIRECTORY = "BEATSTORE_RUN_DIR"

#: Seconds between two writes.
_INTERVAL = 5.0

#: Files of beats that have not ticked for this many seconds are deleted.
_OLD = 86_400.0

_NAME = re.compile(r"beat-(?P<host>.+)-(?P<pid>\d+)")


@dataclass(frozen=True, slots=True)
class Sign:
    """The contents of one beat's file.

    Attributes:
        host: where the beat runs.
        pid: its process there.
        silent_s: how many seconds ago it last ticked.
        sleeps_s: how many seconds it may sleep between two ticks.
    """

    host: str
    pid: int
    silent_s: float
    sleeps_s: float


class Pulse:
    """Writes the file of one beat, and creates it at the first call of `beat`."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._due = 0.0
        self._warned = False

    def beat(self, sleeps_s: float) -> None:
        """Write the time of this tick, if the last write is old enough.

        Args:
            sleeps_s: how many seconds it may sleep before it ticks again.
        """
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + _INTERVAL
        try:
            if self._path is None:
                _create_directory()
            self._path = directory() / f"beat-{_host()}-{os.getpid()}"
            _write(self._path, f"{now:020.3f} {sleeps_s:012.3f}\n")
        except OSError as error:
            self._path = None  # the directory may be gone: create it again next time
            level = logging.DEBUG if self._warned else logging.WARNING
            self._warned = True
            logger.log(
                level,
                "`beatstore check --self` can't see this beat because its file could not be "
                "written: %s; set %s to a directory that beat can write to",
                *(error, DIRECTORY),
            )

    def end(self) -> None:
        """Delete the file. Safe to call more than once."""
        path, self._path = self._path, None
        if path is not None:
            with suppress(OSError):
                path.unlink()


def directory() -> Path:
    """Return the directory of the files: this user's own, unless the environment names one."""
    named = os.environ.get(DIRECTORY)
    if named:
        return Path(named)
    user = os.geteuid() if hasattr(os, "geteuid") else getpass.getuser()
    return Path(tempfile.gettempdir()) / f"beatstore-{user}"


def signs() -> list[Sign]:
    """Return the files of the beats of this host and user, latest tick first."""
    if not _is_ours(directory()):
        return []
    mine = [sign for _, sign in _read_all() if sign.host == _host() and sign.silent_s >= 0]
    return sorted(mine, key=lambda sign: sign.silent_s)


def _host() -> str:
    return re.sub(r"[^\w.-]", "_", socket.gethostname())


def _create_directory() -> None:
    """Create the directory, and delete the files of beats that are long gone."""
    place = directory()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(place):
        raise PermissionError(f"{place} belongs to another user")
    for path, sign in _read_all():
        if not 0 <= sign.silent_s < _OLD:  # less than 0: written before the host was restarted
            with suppress(OSError):
                path.unlink()


def _is_ours(place: Path) -> bool:
    """Return whether only this user can write there, or the environment names it."""
    if os.environ.get(DIRECTORY) or not hasattr(os, "geteuid"):
        return True
    return place.is_dir() and place.lstat().st_uid == os.geteuid()


def _read_all() -> Iterator[tuple[Path, Sign]]:
    now = time.monotonic()
    for path in directory().glob("beat-*"):
        name = _NAME.fullmatch(path.name)
        if name is None:
            continue
        with suppress(OSError, ValueError):
            at, sleeps = path.read_text().split()
            silent = now - float(at)  # the file has milliseconds
            silent = 0.0 if -1.0 < silent < 0.0 else silent
            yield path, Sign(name["host"], int(name["pid"]), silent, float(sleeps))


def _write(path: Path, text: str) -> None:
    """Overwrite the file in place: the length stays the same, so a full disk does not matter."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)
