"""RabbitMQ: messages from templates, published on the channel that counts the confirms."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from kombu.transport import pyamqp

from beatstore.beat.batches import Confirmed
from beatstore.beat.ladder.genuine import replaced_in
from beatstore.beat.ladder.template import BODY, Caught, filled

__all__ = ["Publish", "hook_of_publish", "publish_template"]


class _PublishTemplate:
    """The properties and headers of a message, without those of a run."""

    def __init__(self, caught: Caught, values: Sequence[Any]) -> None:
        message = caught.message
        self._make: Any = type(message)
        self._options = dict(caught.options)
        self._properties = dict(message.properties)
        held = self._properties.pop("application_headers")
        places = [_Place(number) for number in range(BODY)]
        placed = filled(held, values, places)
        # In the order of Celery's headers; those of a run are overwritten.
        self._headers = dict(held)
        self._places = [
            (name, place.number) for name, place in placed.items() if isinstance(place, _Place)
        ]

    def render(self, values: Sequence[Any], body: str) -> tuple[Any, dict[str, Any]]:
        """Return a message, and the keyword arguments of `basic_publish`."""
        found = dict(self._headers)
        for name, number in self._places:
            found[name] = values[number]
        properties = {**self._properties, "correlation_id": values[0]}
        message = self._make(body.encode(), application_headers=found, **properties)
        return message, self._options

    def equals(self, rendered: tuple[Any, dict[str, Any]], caught: Caught) -> bool:
        """Return whether a rendered message is what kombu would have published."""
        message, options = rendered
        body = caught.message.body
        return (
            message.body == (body.encode() if isinstance(body, str) else body)
            and message.properties == caught.message.properties
            and list(message.properties["application_headers"].items())
            == list(caught.message.properties["application_headers"].items())
            and options == caught.options
        )


class _Place:
    """Stands in the headers where the value of a run was."""

    def __init__(self, number: int) -> None:
        self.number = number


def publish_template(
    channel: Any, caught: Caught, values: Sequence[Any]
) -> _PublishTemplate | None:
    """Return the template of a message; None if its body is not plain JSON."""
    properties = caught.message.properties
    is_json = properties.get("content_type") == "application/json"
    if not is_json or properties["application_headers"].get("compression"):
        return None
    return _PublishTemplate(caught, values)


def hook_of_publish(producer: Any) -> str | None:
    """Return why messages can't be published by us, in words; None: they can."""
    channel = producer.channel
    if type(channel) is not pyamqp.Channel:
        return f"the transport's channel is a {type(channel).__qualname__}"
    if channel.connection.confirm_publish:
        return "confirm_publish waits for each message"
    own: Any = pyamqp.Channel
    # py-amqp's module, which beatstore itself does not import.
    publishing = sys.modules[own.__mro__[1].__module__]
    return replaced_in(
        (channel, "prepare_message", pyamqp), (channel, "_basic_publish", publishing)
    )


class Publish(Confirmed):
    """Messages from templates, which RabbitMQ confirms."""

    def put(self, message: tuple[Any, dict[str, Any]]) -> None:
        """Publish a message now; its confirm is awaited when the batch ends."""
        made, options = message
        self.producer.channel.basic_publish(made, **options)
