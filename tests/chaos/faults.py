"""What happens to the processes and servers, drawn from a seed before anything starts.

    script(rng, minutes, …)   what is to happen when
    Trouble(over)             a thread that makes something happen, and writes it down
    Faults(cluster, …)        the one that makes a script happen

One thing at a time happens to a kind of victim: a freeze, a window or an outage ends before
the next one begins, and at least one beat and one worker are left or come back.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from tests.chaos.cluster import Cluster
from tests.chaos.ledger import Event

__all__ = ["Fault", "Faults", "Trouble", "script"]

#: How often each kind is drawn, compared with the others.
_WEIGHTS = {
    "kill beat": 4,
    "kill worker": 4,
    "kill child": 5,
    "freeze beat": 3,
    "freeze worker": 3,
    "database cut": 3,
    "read-only": 2,
    "broker cut": 2,
    "broker restart": 1,
}

#: A frozen process stands still for longer than a claim lives, and than heartbeats may fail.
_FREEZE = (9.0, 14.0)
_READ_ONLY = (4.0, 10.0)
_OUTAGE = (2.0, 6.0)

#: For so long after a whole second a beat is busy.
_BURST = 0.15

#: From the end of one fault to the next, in seconds; and at times it is quiet for longer, so
#: that what is seen then has no such cause.
_PAUSE = (2.0, 8.0)
_LULL = (20.0, 40.0)
_LULLS = 0.2

#: What a server that has no connections, or cannot be read-only, is spared.
_NOT_ON_SQLITE = ("database cut", "read-only")


@dataclass(frozen=True)
class Fault:
    """One thing to happen: so many seconds after the last, for how long, to which of several."""

    after: float
    kind: str
    lasts: float
    draw: float


def script(rng: random.Random, seconds: float, database: str, broker: str) -> list[Fault]:
    """Return what is to happen within so many seconds."""
    kinds = dict(_WEIGHTS)
    if database == "sqlite":
        kinds = {kind: weight for kind, weight in kinds.items() if kind not in _NOT_ON_SQLITE}
    if broker == "rabbitmq":
        kinds.pop("broker cut")
    spans = {"read-only": _READ_ONLY, "broker restart": _OUTAGE}
    found: list[Fault] = []
    at = 0.0
    while at < seconds:
        [kind] = rng.choices(list(kinds), list(kinds.values()))
        span = _FREEZE if kind.startswith("freeze") else spans.get(kind, (0.0, 0.0))
        pause = _LULL if rng.random() < _LULLS else _PAUSE
        found.append(Fault(rng.uniform(*pause), kind, rng.uniform(*span), rng.random()))
        at += found[-1].after + found[-1].lasts
    return found


class Trouble(threading.Thread):
    """Makes things happen until they are all over, or `over` is set.

    Attributes:
        events: what has happened.
        error: what it failed with, if it did.
    """

    def __init__(self, over: threading.Event) -> None:
        super().__init__(name="trouble", daemon=True)
        self.over = over
        self.events: list[Event] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        """Make all of it happen."""
        try:
            for kind, happen in self.happenings():
                at = time.time()
                target = happen()
                self.events.append(Event(kind, at, time.time(), target))
        except BaseException as error:  # noqa: BLE001  (told by the thread that waits)
            self.error = error

    def happenings(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """Yield each kind of thing when it is to happen, and what does it and returns to whom."""
        raise NotImplementedError


class Faults(Trouble):
    """Makes a script happen.

    Args:
        cluster: what it happens to.
        faults: the script.
        over: set to end early.
    """

    def __init__(self, cluster: Cluster, faults: Sequence[Fault], over: threading.Event) -> None:
        super().__init__(over)
        self.cluster = cluster
        self.script = faults

    def happenings(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """Yield the faults of the script, with a pause before each."""
        kinds: dict[str, Callable[[Fault], str]] = {
            "kill beat": self._kill_beat,
            "kill worker": self._kill_worker,
            "kill child": self._kill_child,
            "freeze beat": lambda fault: self._freeze(self._a_beat(fault), fault),
            "freeze worker": lambda fault: self._freeze(self._a_worker(fault), fault),
            "database cut": self._cut_database,
            "read-only": self._read_only,
            "broker cut": self._cut_broker,
            "broker restart": self._restart_broker,
        }
        for fault in self.script:
            if self.over.wait(fault.after):
                return
            yield fault.kind, partial(kinds[fault.kind], fault)

    # -- processes ---------------------------------------------------------------------------

    def _a_beat(self, fault: Fault) -> int:
        return self._one(self.cluster.beats, fault)

    def _a_worker(self, fault: Fault) -> int:
        return self._one(self.cluster.workers, fault)

    def _one(self, processes: Sequence[object], fault: Fault) -> int:
        return int(fault.draw * len(processes))

    def _kill_beat(self, fault: Fault) -> str:
        victim = self.cluster.beats.pop(self._a_beat(fault))
        # Entries are due on whole seconds: what is sent then may be cut in two.
        self.over.wait(1 - time.time() % 1 + fault.draw * _BURST)
        victim.kill9()
        # Before the other one is killed too, there are two again.
        self.cluster.start_beat().wait_for_output("beat: Start", 90)
        return str(victim.pid)

    def _kill_worker(self, fault: Fault) -> str:
        victim = self.cluster.workers.pop(self._a_worker(fault))
        victim.kill9()
        self.cluster.start_worker()
        return str(victim.pid)

    def _kill_child(self, fault: Fault) -> str:
        children = self.cluster.children(self.cluster.workers[self._a_worker(fault)])
        if not children:
            return ""
        victim = children[int(fault.draw * len(children))]
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        return str(victim)

    def _freeze(self, index: int, fault: Fault) -> str:
        processes = self.cluster.beats if fault.kind == "freeze beat" else self.cluster.workers
        victim = processes[index]
        victim.pause()
        self.over.wait(fault.lasts)
        victim.resume()
        return str(victim.pid)

    # -- servers -------------------------------------------------------------------------------

    def _cut_database(self, fault: Fault) -> str:
        self.cluster.cut()
        return ""

    def _read_only(self, fault: Fault) -> str:
        """Let the server be read-only; those who came meanwhile stay so until they are cut."""
        self.cluster.read_only(True, cut=True)
        self.over.wait(fault.lasts)
        self.cluster.read_only(False, cut=fault.draw < 0.5)
        return "cut" if fault.draw < 0.5 else "not cut"

    def _cut_broker(self, fault: Fault) -> str:
        self.cluster.cut_broker()
        return ""

    def _restart_broker(self, fault: Fault) -> str:
        self.cluster.stop_broker()
        self.over.wait(fault.lasts)
        self.cluster.start_broker()
        return ""
