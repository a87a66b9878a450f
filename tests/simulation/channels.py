"""RabbitMQ, as far as beats need it: they publish by real kombu and real py-amqp, with confirms.

A beat's connection is a socket of ours. RabbitMQ confirms when it likes, one message or several at
once. While its alarm is on, it reads nothing of a connection that publishes, and confirms what it
has read before. What was written there arrives afterwards, even if the connection has broken since.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from struct import pack, unpack_from
from typing import Any
from unittest.mock import patch

import amqp
from amqp import spec
from amqp.serialization import dumps
from amqp.transport import AMQP_PROTOCOL_HEADER, TCPTransport

from beatstore.headers import DUE_AT
from tests.simulation.broker import Broker, Message, Publication
from tests.simulation.kernel import Kernel, Moment
from tests.simulation.sockets import Socket

__all__ = ["channels_of"]

#: What RabbitMQ answers to methods that change nothing here: the method, and its arguments.
_ANSWERS: dict[tuple[int, int], tuple[tuple[int, int], str, tuple[Any, ...]]] = {
    spec.Connection.StartOk: (spec.Connection.Tune, "BlB", (2_047, 131_072, 0)),
    spec.Connection.Open: (spec.Connection.OpenOk, "", ()),
    spec.Connection.Close: (spec.Connection.CloseOk, "", ()),
    spec.Channel.Open: (spec.Channel.OpenOk, "", ()),
    spec.Channel.Close: (spec.Channel.CloseOk, "", ()),
    spec.Exchange.Declare: (spec.Exchange.DeclareOk, "", ()),
    spec.Queue.Declare: (spec.Queue.DeclareOk, "sll", ("q", 0, 0)),
    spec.Queue.Bind: (spec.Queue.BindOk, "", ()),
    spec.Confirm.Select: (spec.Confirm.SelectOk, "", ()),
}

_METHOD, _HEADER = 1, 2

#: How many of the messages that were written during an alarm are refused at its end, of one.
_REFUSES = 0.2

#: What RabbitMQ says of itself first; by this beat learns of its alarm.
_ABLE = {"capabilities": {"connection.blocked": True, "publisher_confirms": True}}


@contextmanager
def channels_of(broker: Broker) -> Iterator[None]:
    """Have the connections to RabbitMQ that are made here lead to this broker."""
    transport: Any = TCPTransport

    class Line(transport):  # type: ignore[misc]
        def _connect(self, host: str, port: int, timeout: float | None) -> None:
            self.sock = _Socket(broker)

        def _init_socket(self, *given: Any) -> None:
            self._setup_transport()
            self._write(AMQP_PROTOCOL_HEADER)

    def line(self: Any, host: str, *given: Any, **options: Any) -> Line:
        return Line(host)

    with patch.object(amqp.Connection, "Transport", line):
        yield


class _Socket(Socket):
    """One end of a connection; the other end executes what has arrived.

    Attributes:
        unread: what was written since RabbitMQ stopped reading, and when.
    """

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._publishes = self._closed = self._confirms = False
        self._published = 0
        self._timeout: float | None = None
        self._unanswered: dict[int, Publication | None] = {}
        self._nacked: set[int] = set()
        self.unread: list[tuple[bytes, Moment]] = []

    def sendall(self, data: Any) -> None:
        """Stop if a message arrives with this piece, and execute it unless an alarm is on."""
        self.check()
        frames, process = bytes(data), Kernel.current()
        begun = Moment(0.0, 0) if process is None else process.kernel.now()
        order = "go"
        if _is_message(frames):
            assert process is not None
            self.by = process.name
            order = process.point("publish", _named(frames))
            if order == "cut":
                self.broken = True
            self.check()
            self._publishes = True
        if self.broker.alarm and self._publishes:
            self._wait_for_its_end(frames, begun)
        else:
            self._execute(frames, begun, order)
        if order in ("lost", "undo"):
            self.broken = True
            self.replies = b""

    def recv(self, size: int) -> bytes:
        """Return what was answered; who waits for a confirm stops before it comes."""
        self.check()
        waits = self._timeout != 0  # py-amqp looks for answers before it writes
        if not self.replies and self._unanswered and waits:
            process = Kernel.current()
            if process is not None and process.point("answer", "confirms") != "go":
                self.broken = True
            self.check()
            self._confirm()
        return self.read(size)

    def go_on(self) -> None:
        """Read what was written during the alarm; nobody gets an answer if it broke since."""
        unread, self.unread = self.unread, []
        for frames, begun in unread:
            refuses = self.broker.chance.random() < _REFUSES and _is_message(frames)
            self._execute(frames, begun, "refuse" if refuses else "go")
        self._reply(0, spec.Connection.Unblocked)

    def settimeout(self, seconds: float | None) -> None:
        """Note whether a reader waits; there is an answer, or there will be none."""
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        """Return what was noted."""
        return self._timeout

    def _wait_for_its_end(self, frames: bytes, begun: Moment) -> None:
        if self not in self.broker.held:
            self.broker.held.append(self)
            self._reply(0, spec.Connection.Blocked, "s", ("low on memory",))
        self.unread.append((frames, begun))

    def _execute(self, data: bytes, begun: Moment, order: str) -> None:
        if data == AMQP_PROTOCOL_HEADER:
            given = (0, 9, _ABLE, "PLAIN", "en_US")
            self._reply(0, spec.Connection.Start, "ooFSS", given)
            return
        for kind, channel, payload in _frames(data):
            if kind == _HEADER:
                self._take(channel, payload, begun, order)
            if kind != _METHOD:
                continue
            method = unpack_from(">HH", payload)
            if method == spec.Channel.Open:
                self._closed = self._confirms = False
            if method == spec.Confirm.Select:
                self._confirms, self._published = True, 0
                self._nacked.clear()
            if method in _ANSWERS:
                self._reply(channel, *_ANSWERS[method])

    def _take(self, channel: int, header: bytes, begun: Moment, order: str) -> None:
        """Take a message, or refuse it in one of the ways in which RabbitMQ does."""
        if self._closed:
            return
        self._published += 1
        number, chance = self._published, self.broker.chance
        if order != "refuse":
            sent = self.broker.take(Message.of(_headers(header), begun), begun, self.by)
            if self._confirms:
                self._unanswered[number] = sent
            if order == "go" and chance.random() < 0.5:
                self._confirm()
            return
        how = chance.choice(("nack", "return", "close"))
        if how == "nack":
            self._nacked.add(number)
            self._unanswered[number] = None
            if chance.random() < 0.5:  # the others are answered later
                del self._unanswered[number]
                self._answer(number)
        elif how == "return":
            returned = dumps("Bsss", (312, "NO_ROUTE", "", "celery"))
            self._frame(_METHOD, channel, pack(">HH", *spec.Basic.Return) + returned)
            self._frame(_HEADER, channel, header[:4] + bytes(8) + header[12:])
            self._unanswered[number] = None
        else:  # what was not confirmed yet will not be, nor what is sent before new confirms
            self._closed = True
            for sent in filter(None, self._unanswered.values()):
                sent.unanswered = True
            self._unanswered.clear()
            why = (404, "NOT_FOUND - no exchange", *spec.Basic.Publish)
            self._reply(channel, spec.Channel.Close, "BsBB", why)

    def _confirm(self) -> None:
        """Confirm what was not yet: all at once, or each by itself and in any order."""
        numbers = list(self._unanswered)
        self._unanswered.clear()
        several = numbers[1:] and self._nacked.isdisjoint(numbers)
        if several and self.broker.chance.random() < 0.5:
            self._reply(1, spec.Basic.Ack, "Lb", (numbers[-1], True))
            return
        for number in self.broker.chance.sample(numbers, len(numbers)):
            self._answer(number)

    def _answer(self, number: int) -> None:
        """Say of one message whether it was taken."""
        if number in self._nacked:
            self._reply(1, spec.Basic.Nack, "Lbb", (number, False, False))
        else:
            self._reply(1, spec.Basic.Ack, "Lb", (number, False))

    def _reply(
        self, channel: int, method: tuple[int, int], form: str = "", given: tuple[Any, ...] = ()
    ) -> None:
        self._frame(_METHOD, channel, pack(">HH", *method) + dumps(form, given))

    def _frame(self, kind: int, channel: int, payload: bytes) -> None:
        self.replies += pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def _frames(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the frames of what was written at once; py-amqp writes whole frames."""
    at = 0
    while at < len(data):
        kind, channel, size = unpack_from(">BHI", data, at)
        yield kind, channel, data[at + 7 : at + 7 + size]
        at += size + 8


def _is_message(data: bytes) -> bool:
    return data[7:11] == pack(">HH", *spec.Basic.Publish)


def _headers(header: bytes) -> dict[str, Any]:
    content: Any = amqp.Message()
    content.inbound_header(header)
    found: dict[str, Any] = content.properties["application_headers"]
    return found


def _named(data: bytes) -> str:
    header = next(payload for kind, _, payload in _frames(data) if kind == _HEADER)
    headers = _headers(header)
    return f"{headers['periodic_task_name']} {headers[DUE_AT]}"
