"""A broker: one queue in order, deliveries that are acknowledged, and all that can go wrong."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from kombu.exceptions import OperationalError

from beatstore.headers import ATTEMPT, DUE_AT, RUN_ID, STEP
from tests.simulation.kernel import Kernel, Moment

__all__ = ["CHAIN", "EXPIRES", "GROUP", "Broker", "Message", "Producer", "Publication"]

#: After how many seconds a message expires, if any does.
EXPIRES = 20.0

#: Tasks that stand for a canvas: a group of two, and a chain of two. And their first parts.
GROUP, CHAIN = "sim.group", "sim.chain"
FIRST: dict[str, tuple[str | None, ...]] = {GROUP: ("1/2", "2/2"), CHAIN: (STEP,)}


class RefusedError(Exception):
    """The broker answers that it does not take this message."""

    code = 540  # not implemented: the one refusal that is the message's own on any transport


@dataclass
class Message:
    """A message in the queue, or in the hands of a worker.

    Attributes:
        visible_at: when it can be delivered, on the monotonic clock.
        redelivered: whether a worker had it before and died.
        part: of a canvas: which of its tasks it is; see `beatstore.tick.parts`.
        expires_at: when no worker starts it any more, on the monotonic clock.
    """

    run_id: int
    task_id: str
    task: str
    name: str
    due_at: str
    attempt: int
    visible_at: float = 0.0
    redelivered: bool = False
    part: str | None = None
    expires_at: float = math.inf

    @classmethod
    def of(cls, headers: dict[str, Any], made: Moment) -> Message:
        """Return the message with these headers, as Celery makes it of a run at that moment."""
        return cls(
            headers[RUN_ID],
            headers["id"],
            headers["task"],
            headers["periodic_task_name"],
            headers[DUE_AT],
            headers[ATTEMPT],
            expires_at=made.at + EXPIRES if headers["expires"] else math.inf,
        )

    def of_another_database(self) -> Message:
        """Return one of a run with the same id in another database with the same broker."""
        return replace(self, task_id=f"other-{self.task_id}"[:60])

    def again(self, visible_at: float) -> Message:
        """Return it as it is delivered once more."""
        return replace(self, visible_at=visible_at, redelivered=True)

    def tasks(self) -> list[Message]:
        """Return the messages that are sent for it: of a canvas, those of its first tasks."""
        return [replace(self, part=part) for part in FIRST.get(self.task, (None,))]


@dataclass
class Publication:
    """A message that the broker took: from whom, and when its sending began.

    Attributes:
        unanswered: whether the sender was told that there will be no answer.
    """

    message: Message
    by: str
    begun: Moment
    unanswered: bool = False


@dataclass
class Broker:
    """The broker of one schedule.

    Attributes:
        up: whether anybody can reach it.
        alarm: whether it has raised an alarm, and reads nothing of who publishes (RabbitMQ).
        held: the connections of which it reads nothing.
        queue: what waits, the oldest first.
        unacknowledged: by worker, what it has and has not acknowledged.
        published: everything that it ever took.
        lost: the ids of tasks whose messages a fault has lost.
        chance: decides how much of what was sent has arrived.
        judge: called with each message that it takes.
    """

    up: bool = True
    alarm: bool = False
    held: list[Any] = field(default_factory=list)
    queue: list[Message] = field(default_factory=list)
    unacknowledged: dict[str, list[Message]] = field(default_factory=dict)
    published: list[Publication] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    chance: random.Random = field(default_factory=random.Random)
    judge: Callable[[Publication], None] = lambda sent: None

    def publish(self, headers: dict[str, Any]) -> None:
        """Take a message with these headers from the process that runs."""
        process = Kernel.current()
        assert process is not None
        begun = process.kernel.now()
        message = Message.of(headers, begun)
        order = process.point("publish", f"{message.name} {message.due_at}")
        if order == "refuse":
            raise RefusedError("made to be refused")
        if order == "cut" or not self.up:
            raise ConnectionResetError("made to break before the message")
        self.take(message, begun, process.name)
        if order in ("lost", "undo"):
            raise ConnectionResetError("made to break after the message")

    def take(self, message: Message, begun: Moment, by: str) -> Publication:
        """Have a message of a beat, which has begun to send it then."""
        self.queue += message.tasks()
        sent = Publication(message, by, begun)
        self.published.append(sent)
        self.judge(sent)
        return sent

    def go_on(self, message: Message, **changed: Any) -> bool:
        """Take a message from a task: its own again, or the next of its chain.

        Returns:
            Whether it was taken.
        """
        process = Kernel.current()
        assert process is not None
        order = process.point("publish", f"{message.name} {message.due_at} goes on")
        if order in ("refuse", "cut") or not self.up:
            return False
        self.queue.append(replace(message, redelivered=False, **changed))
        return True

    def receive(self, worker: str, now: float) -> Message | None:
        """Deliver the oldest message that can be."""
        if not self.up:
            return None
        for number, message in enumerate(self.queue):
            if message.visible_at <= now:
                del self.queue[number]
                self.unacknowledged.setdefault(worker, []).append(message)
                return message
        return None

    def acknowledge(self, worker: str, message: Message) -> None:
        """Forget a message; that of a broker that was away meanwhile comes again."""
        mine = self.unacknowledged.get(worker, [])
        self.unacknowledged[worker] = [one for one in mine if one is not message]

    def give_back(self, worker: str, now: float) -> None:
        """Put back what a worker has not acknowledged, in its place at the front."""
        mine = self.unacknowledged.pop(worker, [])
        self.queue[:0] = [message.again(now) for message in mine]

    def fail(self, what: str, number: int, now: float) -> None:
        """Do what a step says to one waiting message, or to the whole."""
        if what in ("up", "down"):
            self.up = what == "up"
            return
        if what in ("alarm", "calm"):
            self._sound(what == "alarm")
            return
        if not self.queue:
            return
        number %= len(self.queue)
        if what == "lose":
            self.lost.add(self.queue.pop(number).task_id)
        elif what == "double":
            self.queue.insert(number, self.queue[number].again(now))
        elif what == "foreign":
            self.queue.insert(number, self.queue[number].of_another_database())
        elif what == "delay":
            self.queue[number].visible_at = now + 45.0
        elif what == "turn":
            self.queue.append(self.queue.pop(number))

    def _sound(self, alarm: bool) -> None:
        self.alarm = alarm
        while self.held and not alarm:
            self.held.pop(0).go_on()


class _Connection:
    """What beatstore and celery ask of a connection of kombu."""

    connection_errors = recoverable_connection_errors = (ConnectionError,)
    channel_errors = (RefusedError,)
    recoverable_channel_errors: tuple[type[Exception], ...] = ()
    transport = SimpleNamespace(driver_type="simulated")

    def __init__(self) -> None:
        self.declared_entities: set[Any] = set()

    @contextmanager
    def _reraise_as_library_errors(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        try:
            yield
        except (ConnectionError, RefusedError) as error:
            raise OperationalError(str(error)) from error


class Producer:
    """What celery publishes on."""

    auto_declare = False
    channel = SimpleNamespace()

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.connection = _Connection()

    def publish(self, body: Any, headers: dict[str, Any], **properties: Any) -> None:
        """Publish a message of a run."""
        self._broker.publish(headers)
