"""A TCP relay between a client and a server, which holds back answers and cuts connections.

with Proxy(5672) as proxy:
    connect_to(proxy.port)
    proxy.hold()       # what the server answers stays here
    proxy.release()    # and goes on
    proxy.cut()        # every connection ends, on both sides
    proxy.refuse = True
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

__all__ = ["Proxy"]


class Proxy:
    """A relay to a port of this machine.

    Attributes:
        port: where clients connect to.
        accepted: how many connections were relayed so far.
        trips: how often a client has begun to send, at first or after an answer.
        refuse: whether new connections are closed at once.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self.trips = 0
        self.refuse = False
        self._answers = threading.Event()
        self._answers.set()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Proxy:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse = True
        self.release()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def hold(self) -> None:
        """Keep back what servers answer from now on."""
        self._answers.clear()

    def release(self) -> None:
        """Pass on what was kept back."""
        self._answers.set()

    def cut(self) -> None:
        """End all connections."""
        with self._lock:
            ended, self._open = self._open, set()
        for one in ended:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuse:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            self.accepted += 1
            with self._lock:
                self._open |= {client, server}
            answered = threading.Event()
            answered.set()
            self._start(self._relay, client, server, False, answered)
            self._start(self._relay, server, client, True, answered)

    def _relay(
        self, source: socket.socket, sink: socket.socket, answers: bool, answered: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if answers:
                    self._answers.wait()
                    answered.set()
                elif answered.is_set():
                    answered.clear()
                    self.trips += 1
                sink.sendall(data)
        with self._lock:
            self._open -= {source, sink}
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
