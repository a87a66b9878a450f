"""How messages reach the broker: on the highest step that is safe, decided for each batch.

    push      Redis       messages from templates, one LPUSH for each queue and batch
    publish   RabbitMQ    messages from templates, confirmed together
    hooks     any broker  Celery's `apply_entry` and `apply_async` for each message

A template is what Celery itself has made of one message, with places for what differs between
the runs of a task: ids, times, arguments. It stands on the broker's side of Celery, so nothing
that a user has hooked into the way there would see the messages. Therefore `Ladder` looks at each
batch for what is hooked or patched, and falls back to `hooks` if it finds anything.

Invariants:
    * The message from a template equals the one that `apply_async` makes, field by field. Each
      template is compared with two messages of Celery when it is made.
    * What is unsure is sent by `hooks`: a claim, a task or the whole batch.
    * The fate of each message is known as on every step; see `beatstore.beat.batches`.
"""

from beatstore.beat.ladder.ladder import Ladder, Step
from beatstore.beat.ladder.publish import Publish
from beatstore.beat.ladder.push import Push
from beatstore.beat.ladder.template import Rendered

__all__ = ["Ladder", "Publish", "Push", "Rendered", "Step"]
