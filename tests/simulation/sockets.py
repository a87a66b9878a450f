"""One end of a connection to a broker of ours, as clients see it."""

from __future__ import annotations

from typing import Any

from tests.simulation.broker import Broker

__all__ = ["Socket"]


class Socket:
    """What the sockets of all protocols have in common; the other end is in the subclass.

    Attributes:
        broker: to whom it leads.
        broken: whether the connection is cut.
        replies: what was answered and not read yet.
        by: the name of the process that has published on it last.
    """

    def __init__(self, broker: Broker) -> None:
        if not broker.up:
            raise ConnectionRefusedError("the broker is down")
        self.broker = broker
        self.broken = False
        self.replies = b""
        self.by = ""

    def __getattr__(self, name: str) -> Any:
        """Have no options, and nothing to close."""
        return lambda *given, **options: None

    def check(self) -> None:
        """Raise if nothing can be written: it is cut, or the broker is down."""
        if self.broken or not self.broker.up:
            self.broken = True
            raise ConnectionResetError("the connection is closed")

    def read(self, size: int) -> bytes:
        """Return what was answered; nothing else will come."""
        if not self.replies:
            raise TimeoutError("there is no answer")
        given, self.replies = self.replies[:size], self.replies[size:]
        return given
