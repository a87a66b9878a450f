"""The app of `tests.support.app`, for processes under libfaketime; they sleep in another way.

libfaketime is told to leave the monotonic clock alone, as a change of the real clock does.
Then it refuses to sleep until an instant of that clock, which is how Python 3.11 and later
sleep.
"""

from __future__ import annotations

import select
import time
from typing import Any

from tests.support.app import app

__all__ = ["app"]


def _sleep(seconds: Any) -> None:
    select.select([], [], [], seconds)


time.sleep = _sleep
