"""Redis, as far as beats need it: they write to it by real kombu and real redis-py.

A beat's connection is a socket of ours. What is written to it arrives in the pieces in which it
was sent, and commands that have arrived when it breaks were done.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import redis
from kombu.transport.redis import Channel

from beatstore.beat.ladder import template
from beatstore.headers import DUE_AT
from tests.simulation.broker import Broker, Message
from tests.simulation.kernel import Kernel, Moment
from tests.simulation.sockets import Socket

__all__ = ["lists_of"]

#: How Redis refuses a message because of its queue's key.
_REFUSED = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"

#: What Redis answers to commands that change nothing here.
_ANSWERS = {
    b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n",
    b"PING": b"+PONG\r\n",
    b"SADD": b":1\r\n",
    b"LPUSHX": b":0\r\n",
}

#: When nobody has begun to send anything.
_NEVER = Moment(0.0, 0)


@contextmanager
def lists_of(broker: Broker) -> Iterator[None]:
    """Have the connections to Redis that are made here lead to this broker.

    A template is made for the first message: a schedule has too few for it to pay.
    """

    class Line(redis.Connection):
        def _connect(self) -> Any:
            return _Socket(broker)

    with (
        patch.object(Channel, "connection_class", Line),
        patch.object(template, "_WORTH", 1),
    ):
        yield


class _Socket(Socket):
    """One end of a connection; the other end executes what has arrived."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._arrived = b""
        self._queued: list[list[bytes]] | None = None

    def sendall(self, data: bytes) -> None:
        """Stop if messages arrive with this piece, and then execute what is complete."""
        self.check()
        self._arrived += data
        commands, self._arrived = _complete(self._arrived)
        messages = [
            _headers(text)
            for command in (*(self._queued or ()), *commands)
            for text in _texts(command)
        ]
        if messages:
            self._publish(commands, messages)
        else:
            self._execute(commands)

    def recv(self, size: int) -> bytes:
        """Return what was answered; nothing else will come."""
        if not self.replies:
            self.check()
        return self.read(size)

    def _publish(self, commands: list[list[bytes]], messages: list[dict[str, Any]]) -> None:
        process = Kernel.current()
        assert process is not None
        begun, self.by = process.kernel.now(), process.name
        named = ", ".join(f"{one['periodic_task_name']} {one[DUE_AT]}" for one in messages)
        order = process.point("publish", named)
        if order == "cut":
            self.broken = True
        self.check()
        done = commands
        if order in ("lost", "undo"):
            # It may have read only a part of what has arrived.
            done = commands[: self.broker.chance.randrange(len(commands) + 1)]
            self.broken = True
        refused = None
        if order == "refuse":
            refused = self.broker.chance.choice(_queues([*(self._queued or ()), *commands]))
        self._execute(done, begun, refused)

    def _execute(
        self, commands: list[list[bytes]], begun: Moment = _NEVER, refused: bytes | None = None
    ) -> None:
        answers = [self._do(one, begun, refused) for one in commands]
        if self.broken and answers:  # some may have arrived before
            answers = answers[: self.broker.chance.randrange(len(answers))]
        self.replies += b"".join(answers)

    def _do(self, command: list[bytes], begun: Moment, refused: bytes | None) -> bytes:
        """Execute a command, or queue it in a transaction, and return the answer.

        Args:
            command: its words.
            begun: when the beat began to send it.
            refused: the queue whose messages are refused.
        """
        if command[0] == b"MULTI":
            self._queued = []
            return b"+OK\r\n"
        if command[0] == b"EXEC":
            queued, self._queued = self._queued or [], None
            answers = [self._do(one, begun, refused) for one in queued]
            return b"*%d\r\n" % len(answers) + b"".join(answers)
        if self._queued is not None:
            self._queued.append(command)
            return b"+QUEUED\r\n"
        if command[:2] == [b"LPUSH", refused]:
            return _REFUSED
        for text in _texts(command):
            self.broker.take(Message.of(_headers(text), begun), begun, self.by)
        return _answer(command)


def _queues(commands: list[list[bytes]]) -> list[bytes]:
    return sorted({command[1] for command in commands if command[0] == b"LPUSH"})


def _texts(command: list[bytes]) -> list[bytes]:
    return command[2:] if command[0] == b"LPUSH" else []


def _headers(text: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)["headers"]
    return found


def _answer(command: list[bytes]) -> bytes:
    if command[0] == b"SMEMBERS":  # which queues an exchange leads to
        queue = command[1].removeprefix(b"_kombu.binding.") + b"\x06\x16\x06\x16celery"
        return b"*1\r\n$%d\r\n%s\r\n" % (len(queue), queue)
    if command[0] == b"LPUSH":
        return b":%d\r\n" % len(command[2:])
    return _ANSWERS.get(command[0], b"+OK\r\n")


def _complete(data: bytes) -> tuple[list[list[bytes]], bytes]:
    """Return the commands that have arrived, each as its words, and what is left."""
    commands: list[list[bytes]] = []
    at = 0
    while (end := data.find(b"\r\n", at)) >= 0:
        words: list[bytes] = []
        number, next_at = int(data[at + 1 : end]), end + 2
        for _ in range(number):
            end = data.find(b"\r\n", next_at)
            if end < 0:
                return commands, data[at:]
            size, begin = int(data[next_at + 1 : end]), end + 2
            next_at = begin + size + 2
            if len(data) < next_at:
                return commands, data[at:]
            words.append(data[begin : begin + size])
        commands.append([words[0].upper(), *words[1:]])
        at = next_at
    return commands, data[at:]
