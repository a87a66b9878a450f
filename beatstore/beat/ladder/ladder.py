"""Decide on the step of each batch, and make its messages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from beatstore.beat.confirms import loose_exchanges
from beatstore.beat.ladder.genuine import hook_of_app
from beatstore.beat.ladder.publish import Publish, hook_of_publish, publish_template
from beatstore.beat.ladder.push import Push, hook_of_push, push_template
from beatstore.beat.ladder.template import Making, Rendered, Templates
from beatstore.tick.claims import Claim

__all__ = ["Ladder", "Step"]

logger = logging.getLogger(__name__)

_MEANING = {
    "push": "from templates, with one LPUSH for each queue and batch",
    "publish": "from templates, with RabbitMQ's confirms",
    "hooks": "by apply_async for each message",
}


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the ladder.

    Attributes:
        name: "push", "publish" or "hooks"; see `beatstore.beat.ladder`.
        why: why it is not a higher one; "" if there is none.
    """

    name: str
    why: str = ""

    def __str__(self) -> str:
        text = f"{self.name}: {_MEANING[self.name]}"
        return f"{text}, since {self.why}" if self.why else text


class Ladder:
    """Makes the messages of claims that need nothing of Celery's way, for one scheduler."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._templates: Templates | None = None
        #: The step of the latest batch; None before the first.
        self.step: Step | None = None

    def render(self, claims: Sequence[Claim]) -> list[Rendered | None]:
        """Return the message of each claim, for `batch`; None where Celery has to send it.

        Raises:
            Exception: the transport's error, if the broker can't be reached.
        """
        producer = self._scheduler.producer
        step, make = self._choose(producer)
        if step != self.step:
            logger.info("messages are sent on the step %s", step)
            self.step = step
        if make is None:
            self._templates = None
            return [None] * len(claims)
        if self._templates is None or self._templates.channel is not producer.channel:
            self._templates = Templates(self._scheduler, producer.channel, make)
        return self._templates.render(claims)

    def batch(self) -> Push | Publish:
        """Return the batch that takes the rendered messages of this step."""
        assert self.step is not None
        producer = self._scheduler.producer
        if self.step.name == "push":
            return Push(producer)
        app = self._scheduler.app
        return Publish(producer, one_by_one=False, loose=partial(loose_exchanges, app))

    def forget(self) -> None:
        """Make all templates anew, since their queues may have to be declared again."""
        self._templates = None

    def _choose(self, producer: Any) -> tuple[Step, Making | None]:
        """Return the highest step that is safe now, and what makes its templates."""
        if self._scheduler.store.settings.send == "hooks":
            return Step("hooks", "beatstore_send says so"), None
        kind = producer.connection.transport.driver_type
        if kind not in {"redis", "amqp"}:
            return Step("hooks", f"the broker is neither Redis nor RabbitMQ, but {kind}"), None
        own = hook_of_push if kind == "redis" else hook_of_publish
        if why := self._hooked() or own(producer):
            return Step("hooks", why), None
        if kind == "redis":
            return Step("push"), push_template
        return Step("publish"), publish_template

    def _hooked(self) -> str | None:
        """Return what is hooked into all messages, in words; None: nothing.

        Celery reads some of its settings when they are first needed. With a wrong one each message
        is sent by Celery, so that its run tells the error.
        """
        try:
            return hook_of_app(self._scheduler)
        except Exception as error:  # noqa: BLE001  (of any setting)
            return f"a setting of the app can't be used ({type(error).__name__}: {error})"
