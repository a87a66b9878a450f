"""Ports for servers of our own."""

from __future__ import annotations

import fcntl
import getpass
import os
import random
import socket
import tempfile
from pathlib import Path

__all__ = ["free_port"]

#: The locked files of the ports that this process was given.
_HELD: list[int] = []


def free_port() -> int:
    """Return a TCP port that nothing listens on, and that no other test process was given.

    Below the range that systems give to outgoing connections: a client that keeps
    dialling a stopped server there would in the end connect to itself, and hold the
    port against the server.

    A file that stays locked until this process ends keeps the port for it: a server takes
    a while to listen, and may be stopped in between. Two servers on one port would look as
    if one answered for the other.
    """
    files = Path(tempfile.gettempdir(), f"beatstore-ports-{getpass.getuser()}")
    files.mkdir(exist_ok=True)
    while True:
        port = random.SystemRandom().randint(20000, 32000)
        held = os.open(files / str(port), os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(held)
            continue
        _HELD.append(held)
        return port
