"""A value of each field of an entry, for tests that go through all of them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

__all__ = ["FAR", "VALUES"]

FAR = datetime(2525, 11, 11, 9, 30, tzinfo=timezone.utc)

#: Of each field a value that is not its default; they can be given together.
VALUES: dict[str, Any] = {
    **{"task": "t.other", "schedule": "0 3 * * *", "timezone": "Asia/Tokyo"},
    **{"args": [1, "two"], "kwargs": {"a": None}, "options": {"queue": "q"}},
    **{"start_at": FAR, "end_at": FAR + timedelta(days=9), "max_runs": 3, "jitter": 5},
    **{"misfire": "skip", "grace": 7, "after": ["up"], "overlap": "wait", "run_timeout": 60},
    **{"max_retries": 3, "retry_delay": 60, "retry_backoff": 2, "retry_jitter": 1},
    **{"tags": ["x"], "description": "two\nlines", "source": "s", "paused": True},
}
