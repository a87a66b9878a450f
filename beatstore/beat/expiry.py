"""When a message expires, if the clock of beat's machine is behind.

Celery adds the seconds of `expires` to the time of the machine that sends. A worker compares the
sum with its own time, and revokes every message of a beat that is behind by more than that.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

__all__ = ["in_step"]

#: What two clocks may differ by, in seconds, before it matters.
_IN_STEP = timedelta(seconds=1)


def in_step(entry: Any, now: datetime) -> None:
    """Let the message of an entry expire by the database's time, if the machine's is behind it.

    A machine that is ahead only lets it expire later. There Celery's own way is better: RabbitMQ is
    told in how many seconds, and from an instant Celery would compute too few.

    Args:
        entry: a `BeatEntry`, before it is sent.
        now: the database's time.
    """
    given = entry.given_expires
    if isinstance(given, int | float) and now - entry.app.now() > _IN_STEP:
        entry.options["expires"] = now + timedelta(seconds=given)
