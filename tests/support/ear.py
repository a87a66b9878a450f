"""A port where somebody listens, to see who connects."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

__all__ = ["Ear"]


class Ear:
    """A port of this machine that counts who connects to it, and answers nobody.

    with Ear() as ear:
        connect_to(ear.port)
    assert ear.heard == 1
    """

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.heard = 0
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Ear:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # shutdown wakes the accept; close alone would leave it waiting.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)
        for held in self._held:
            held.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.heard += 1
            self._held.append(connection)
