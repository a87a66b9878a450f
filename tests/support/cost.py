"""What something costs, in seconds of this thread's own time on a processor.

    with Cost() as cost:
        work()
    assert cost.seconds < 0.5

Other processes, other threads and the garbage of earlier tests do not count; a busy machine
still makes it up to twice as much, so a bound leaves room for that.
"""

from __future__ import annotations

import gc
from time import thread_time

__all__ = ["Cost"]


class Cost:
    """Measures what happens inside.

    Attributes:
        seconds: what it took, once it is over.
    """

    seconds: float

    def __enter__(self) -> Cost:
        self._collects = gc.isenabled()
        gc.disable()
        self._begun = thread_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = thread_time() - self._begun
        if self._collects:
            gc.enable()
