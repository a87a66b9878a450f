"""Redis: messages as text from templates, one LPUSH for each queue and batch.

kombu's transport keeps a queue as a list, and each message as JSON. Several values of one LPUSH
are one atomic write, in their order.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from base64 import b64encode
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

import kombu.transport.virtual.base
from kombu.exceptions import OperationalError
from kombu.utils.json import dumps

from beatstore.beat.batches import Batch, Fate
from beatstore.beat.ladder.genuine import replaced_in
from beatstore.beat.ladder.template import BODY, Caught, filled
from beatstore.beat.replies import note_replies
from beatstore.errors import UnsureError

__all__ = ["Push", "hook_of_push", "push_template"]

#: How many characters one LPUSH carries, about.
_LARGE = 1_000_000

#: The places in the text of a message: no message holds such words.
_WORD = uuid.uuid4().hex
_PLACES = [f"{_WORD}-{number}" for number in range(BODY)]
_BODY, _TAG = f"{_WORD}-body", f"{_WORD}-tag"

_PLACE = re.compile(rf'"{_WORD}-(\w+)"')


class _PushTemplate:
    """The text of a message; `%s` stands where the values of a run are.

    Attributes:
        key: the list that the message goes to.
    """

    def __init__(self, channel: Any, caught: Caught, values: Sequence[Any]) -> None:
        self._channel = channel
        routing_key = caught.options["routing_key"]
        self.key = _key(channel, caught)
        made = caught.message
        placed = {
            **made,
            "headers": filled(made["headers"], values, _PLACES),
            "properties": {**made["properties"], "correlation_id": _PLACES[0]},
        }
        placed["properties"]["delivery_info"] = dict(placed["properties"]["delivery_info"])
        channel._inplace_augment_message(placed, "", routing_key)
        placed["body"], placed["properties"]["delivery_tag"] = _BODY, _TAG
        pieces = _PLACE.split(dumps(placed))
        self._text = "%s".join(piece.replace("%", "%%") for piece in pieces[::2])
        order = {"body": BODY, "tag": BODY + 1}
        self._order = [order.get(name) or int(name) for name in pieces[1::2]]

    def render(self, values: Sequence[Any], body: str, tag: str = "") -> tuple[str, str]:
        """Return the list that a message goes to, and its text."""
        texts = [quoted(value) if type(value) is str else str(value) for value in values]
        texts += [""] * (BODY - len(texts))
        texts.append(f'"{b64encode(body.encode()).decode()}"')
        texts.append(f'"{tag or uuid.uuid4()}"')
        return self.key, self._text % tuple([texts[number] for number in self._order])

    def equals(self, rendered: tuple[str, str], caught: Caught) -> bool:
        """Return whether a rendered message is what kombu would have written."""
        tag = json.loads(rendered[1])["properties"]["delivery_tag"]
        message = caught.message
        self._channel._inplace_augment_message(message, "", caught.options["routing_key"])
        message["properties"]["delivery_tag"] = tag
        return rendered == (_key(self._channel, caught), dumps(message))


def _key(channel: Any, caught: Caught) -> str:
    priority = channel._get_message_priority(caught.message, reverse=False)
    key: str = channel._q_for_pri(caught.options["routing_key"], priority)
    return key


def push_template(channel: Any, caught: Caught, values: Sequence[Any]) -> _PushTemplate | None:
    """Return the template of a message for a plain list; None for any other."""
    message, queue = caught.message, caught.options.get("routing_key")
    is_json = message["content-type"] == "application/json" and not message["headers"].get(
        "compression"
    )
    if caught.options.get("exchange") or not is_json or queue in channel._expires:
        return None
    return _PushTemplate(channel, caught, values)


def hook_of_push(producer: Any) -> str | None:
    """Return why messages can't be pushed by us, in words; None: they can."""
    channel = producer.channel
    kind = type(channel)
    if (kind.__module__, kind.__qualname__) != ("kombu.transport.redis", "Channel"):
        return f"the transport's channel is a {kind.__module__}.{kind.__qualname__}"
    # kombu before 5.7 can't tell.
    if not getattr(producer, "supports_batch_publish", False):
        return "redis-py might repeat a batch by itself"
    if channel.body_encoding != "base64":
        return f"body_encoding is {channel.body_encoding!r}"
    # Not imported above, since it needs redis-py, which users of other brokers lack.
    own = sys.modules[kind.__module__]
    return replaced_in(
        (channel, "prepare_message", kombu.transport.virtual.base),
        (channel, "basic_publish", kombu.transport.virtual.base),
        (channel, "_inplace_augment_message", kombu.transport.virtual.base),
        (channel, "_put", own),
        (channel, "_q_for_pri", own),
    )


class Push(Batch):
    """Messages that are pushed together when the batch ends."""

    def __init__(self, producer: Any) -> None:
        super().__init__(producer)
        self._commands: list[tuple[str, list[str]]] = []
        self._open: dict[str, int] = {}
        self._sizes: list[int] = []
        self._in: list[int] = []
        self._replies: list[object] = []

    def put(self, message: tuple[str, str]) -> None:
        """Add a message: the list that it goes to, and its text."""
        key, text = message
        number = self._open.get(key)
        if number is None or self._sizes[number] > _LARGE:
            number = self._open[key] = len(self._commands)
            self._commands.append((key, []))
            self._sizes.append(0)
        self._commands[number][1].append(text)
        self._sizes[number] += len(text)
        self._in.append(number)

    def fates(self) -> list[Fate]:
        """Return the fate of each marked entry."""
        return [self._fate(number) for number in self._in[: self.marked]]

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None or not self._commands:
            return
        channel = self.producer.channel
        with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            for key, texts in self._commands:
                pipe.lpush(key, *texts)
            note_replies(pipe, self._replies, self.producer.connection.connection_errors)
            pipe.execute(raise_on_error=False)

    def _fate(self, number: int) -> Fate:
        if number >= len(self._replies):
            return UnsureError("Redis did not answer")
        reply = self._replies[number]
        if isinstance(reply, Exception):
            refused = OperationalError(str(reply))
            refused.__cause__ = reply
            return refused
        return None
