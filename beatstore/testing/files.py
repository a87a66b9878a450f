"""A broker in a folder, for demos and tests: kombu's `filesystem` transport with whole messages.

    app = Celery("project", broker="filesystem://")
    app.conf.broker_transport = "beatstore.testing.files:Transport"
    app.conf.broker_transport_options = {"data_folder_in": …, "data_folder_out": …}

kombu 5.7.0 makes the file of a message in the folder that workers look into, and writes into it
then. A worker that looks in between takes the empty file, ends with an error, and the message is
lost. Here a file gets the name that workers look for when it is complete.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from kombu.exceptions import ChannelError
from kombu.transport import filesystem
from kombu.utils.json import dumps

__all__ = ["Channel", "Transport"]

T = TypeVar("T")

#: How often a file of bindings is read that another process may just write, and how many seconds
#: lie between.
_TRIES, _PAUSE = 20, 0.01


class Channel(filesystem.Channel):
    """A channel whose messages appear as a whole."""

    # The stubs name it payload here, and message in a class above.
    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Write a message under a name that nobody looks for, and rename it."""
        number = uuid.uuid4()
        # Workers take them in the order of their names.
        name = f"{time.monotonic_ns()}_{number}.{queue}.msg"
        part, whole = (os.path.join(self.data_folder_out, one) for one in (f"{number}.part", name))
        try:
            with open(part, "w", encoding="utf-8") as file:
                file.write(dumps(payload))
            os.replace(part, whole)
        except OSError as error:
            raise ChannelError(f"can't write {whole!r}: {error}") from error

    def get_table(self, exchange: str) -> Any:
        """Return the bindings of an exchange."""
        return _patiently(lambda: super(Channel, self).get_table(exchange))

    def _queue_bind(self, *args: Any) -> None:
        """Bind a queue."""
        _patiently(lambda: super(Channel, self)._queue_bind(*args))


class Transport(filesystem.Transport):
    """The transport, for `broker_transport`."""

    Channel = Channel


def _patiently(read: Callable[[], T]) -> T:
    """Read a file of bindings again that another process has made and not written yet."""
    for _ in range(_TRIES):
        try:
            return read()
        except ValueError:  # of empty JSON
            time.sleep(_PAUSE)
    return read()
