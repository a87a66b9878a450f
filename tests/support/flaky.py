"""A broker within the process that fails on demand, under the real kombu and celery.

    flaky = FlakyBroker()
    app.conf.update(flaky.settings)
    flaky.fail_on(3, ConnectionError("cut"))      # the third message from now
    flaky.down = True                             # nobody can connect any more

Messages are taken one at a time, as by every transport without batches, and lie in
kombu's memory transport, where `tests.support.brokers.drain` finds them.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import memory

__all__ = ["FlakyBroker", "RefusedError"]


class FlakyBroker:
    """What a test decides, and what was asked of the broker."""

    def __init__(self) -> None:
        self.down = False
        self.connected = 0
        self.published = 0
        self._failures: dict[int, BaseException] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """The Celery settings with which an app sends here."""
        flaky = self

        class Channel(memory.Channel):
            def basic_publish(self, *args: Any, **kwargs: Any) -> Any:
                flaky.publish()
                return super().basic_publish(*args, **kwargs)

        class Transport(memory.Transport):
            connection_errors = (ConnectionError,)
            channel_errors = (RefusedError,)

            def establish_connection(self) -> Any:
                flaky.connect()
                return super().establish_connection()

        Transport.Channel = Channel
        return {"broker_transport": Transport, "broker_connection_retry_on_startup": True}

    def fail_on(self, number: int, error: BaseException, *, times: int = 1) -> None:
        """Answer a message with an error, and those after it: the `number`-th from now."""
        for later in range(times):
            self._failures[self.published + number + later] = error

    def connect(self) -> None:
        """Take a connection, or refuse it."""
        if self.down:
            raise ConnectionRefusedError("the broker is down")
        self.connected += 1

    def publish(self) -> None:
        """Take a message, or raise what was asked for."""
        self.published += 1
        error = self._failures.pop(self.published, None)
        if error is not None:
            raise error


class RefusedError(Exception):
    """The broker's answer to a message it does not want, as of AMQP's channel errors."""
