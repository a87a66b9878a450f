"""Bounds on the time by the wall, which grow where the machine is busy with other things.

pace = Pace()
with pace.usual():
    work()
with pace.within(6):
    work_that_must_wait_for_nobody()
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Pace"]

#: How many times the usual work a bound leaves room for, beside its own seconds.
_ROOM = 20


class Pace:
    """Compares work that may be held up with work of the same kind that is not.

    Attributes:
        usual_s: what the usual work took.
    """

    usual_s = 0.0

    @contextmanager
    def usual(self) -> Iterator[None]:
        """Measure work that nothing holds up."""
        began = time.monotonic()
        yield
        self.usual_s = time.monotonic() - began

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Fail if what happens inside takes `seconds` longer than it could for a busy machine."""
        began = time.monotonic()
        yield
        took, limit = time.monotonic() - began, seconds + _ROOM * self.usual_s
        assert took < limit, f"it took {took:.1f} s, where {limit:.1f} s were allowed"
