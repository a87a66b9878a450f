"""One claim, sent; and tasks whose `apply_async` answers in its own way."""

from __future__ import annotations

from typing import Any

from celery import Celery, Task
from celery.result import AsyncResult

from beatstore.beat.scheduler import DBScheduler
from beatstore.tick.claims import Claim, Outcome
from tests.support.brokers import Broker, Message
from tests.support.harness.inprocess import send

__all__ = ["raising", "register", "sent_by"]


def sent_by(scheduler: DBScheduler, broker: Broker, claim: Claim) -> Message:
    """Send one claim, which must go well, and return its message."""
    assert send(scheduler, claim) == [Outcome(claim, "sent")]
    (message,) = broker.drain()
    return message


def register(app: Celery, name: str, answer: Any) -> None:
    """Register a task whose `apply_async` does `answer(send)`, `send` sending the message."""

    class Answering(Task):  # type: ignore[type-arg]
        def apply_async(  # type: ignore[override]
            self, args: Any = None, kwargs: Any = None, **options: Any
        ) -> Any:
            def send(**more: Any) -> AsyncResult[Any]:
                return super(Answering, self).apply_async(args, kwargs, **{**options, **more})

            return answer(send)

    @app.task(name=name, base=Answering, shared=False)
    def answering(*args: Any, **kwargs: Any) -> None:
        """Do nothing."""


def raising(error: Exception) -> Any:
    """Return an answer that is no message but an error."""

    def answer(_: Any) -> None:
        raise error

    return answer
