"""What is measured of a scheduler, each with a limit of time.

A cell stores what is to be due, starts a real beat, and looks at its process and at the broker.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from benchmarks.beat import cpu_of, peak_mb
from benchmarks.peers.peer import Due
from benchmarks.peers.scene import Beat, DidNotFinishError, NotMeasuredError, Scene
from benchmarks.report import quantile

__all__ = ["CELLS", "Figures", "lateness_of", "reached"]

Figures = dict[str, float]

#: The period of entries that are due once while they are measured.
ONCE = 36_000

#: The period of a steady load.
PERIOD = 10


def start(scene: Scene, due: int) -> Figures:
    """Measure from the spawn of a beat to the end of its first tick; nothing is due.

    It is the median of three starts, since the first one may read its files from the disk; of one
    if that takes longer than a quarter of the limit.
    """
    scene.store_due([])
    taken: list[tuple[float, float, float]] = []
    while len(taken) < 3 and (not taken or taken[-1][0] < scene.limit / 4):
        with _beat(scene) as beat:
            first = beat.wait_for_ticks(1, scene.limit)[0]
            taken.append((first[0] - beat.started_at, first[2], peak_mb(beat.process.pid)))
    scene.start_s, cpu, peak = (median(values) for values in zip(*taken, strict=True))
    return {"start_s": scene.start_s, "cpu_s": cpu, "peak_mb": peak}


def idle(scene: Scene, due: int) -> Figures:
    """Measure the ticks of a beat with nothing due, and the memory it has had by then."""
    scene.store_due([])
    with _beat(scene) as beat:
        beat.wait_for_ticks(2, scene.limit)
        began, cpu = time.monotonic(), cpu_of(beat.process.pid)
        # Some look each second, others each five.
        ticks = beat.wait_for_ticks(5, scene.limit)
        time.sleep(max(0.0, 5.0 - (time.monotonic() - began)))
        ticks = beat.ticks()
        spent = cpu_of(beat.process.pid) - cpu
        return {
            "cpu_ms_a_tick": 1e3 * (ticks[-1][2] - ticks[1][2]) / (len(ticks) - 2),
            "cpu_s_a_minute": 60 * spent / (time.monotonic() - began),
            "peak_mb": peak_mb(beat.process.pid),
        }


def burst(scene: Scene, due: int) -> Figures:
    """Measure how entries are sent that are all due at the same instant."""
    with _due_together(scene, due) as (beat, at):
        cpu = cpu_of(beat.process.pid)
        seen = _watch(scene, due, at)
        cpu = cpu_of(beat.process.pid) - cpu
        sent = seen[-1][1] if seen else 0
        figures: Figures = {"due": due, "sent": sent, "finished": float(sent >= due)}
        if sent:
            # Of one that did not finish: what it sent until the limit.
            until = seen[-1][0] if sent >= due else at + scene.limit
            figures["msgs_per_s"] = sent / (until - at)
            figures["cpu_us_a_message"] = 1e6 * cpu / sent
        if sent >= due:
            figures["lateness_p50_s"] = reached(seen, 0.50 * due) - at
            figures["lateness_p99_s"] = reached(seen, 0.99 * due) - at
        return figures


def steady(scene: Scene, rate: int) -> Figures:
    """Measure how late the messages of a steady load are, against the times they are due at."""
    count, seconds = rate * PERIOD, 2 * PERIOD

    def entries(at: float) -> list[Due]:
        return [Due(n, at + PERIOD * n / count, PERIOD) for n in range(count)]

    with _ready(scene, entries, rate) as (beat, at):
        _sleep_until(at)
        cpu, taken = cpu_of(beat.process.pid), []
        while time.time() < at + seconds:
            found = scene.tap.take()
            taken += found
            if not found:
                time.sleep(0.005)
        cpu = cpu_of(beat.process.pid) - cpu
        late = lateness_of(taken, at, count, seconds)
        if not late:
            raise DidNotFinishError("nothing was sent")
        return {
            "rate": rate,
            "sent_share": len(late) / (rate * seconds),
            "lateness_p50_s": quantile(late, 0.50),
            "lateness_p99_s": quantile(late, 0.99),
            "cpu_share": cpu / seconds,
            "cpu_ms_a_message": 1e3 * cpu / len(late),
        }


def change(scene: Scene, due: int) -> Figures:
    """Measure from the commit of an entry that is due at once to its message."""
    samples = 5
    scene.store_due([])
    took: list[float] = []
    with _beat(scene) as beat:
        beat.wait_for_ticks(2, scene.limit)
        cpu = cpu_of(beat.process.pid)
        for number in range(samples):
            time.sleep(0.37 * (number + 1))  # at different moments of the beat's own rhythm
            written = scene.write("add", number, scene.limit)
            deadline = written + scene.limit
            while not scene.tap.count():
                if time.time() > deadline:
                    raise DidNotFinishError(f"{len(took)} of {samples} changes were seen")
                time.sleep(0.002)
            took.append(max(0.0, time.time() - written))
            scene.tap.purge()
        cpu = cpu_of(beat.process.pid) - cpu
    return {
        "median_s": quantile(took, 0.5),
        "slowest_s": max(took),
        "cpu_s_a_change": cpu / samples,
    }


def kill(scene: Scene, due: int) -> Figures:
    """Kill a beat in the middle of a burst, start another one, and count what was sent."""
    with _due_together(scene, due) as (beat, at):
        _watch(scene, due // 3, at)
        beat.process.kill9()
        before = scene.tap.count()
        if before >= due:
            raise NotMeasuredError("it was through before it could be killed")
        if not before:
            raise NotMeasuredError("nothing was sent before it was killed")
    with _beat(scene) as beat:
        back = _watch(scene, before + 1, beat.started_at)
        if not back or back[-1][1] <= before:
            raise DidNotFinishError(f"not back at work; {before} of {due} were sent before")
        _until_quiet(scene)
    numbers = _numbers(scene)
    counts = Counter(number for number in numbers if number >= 0)
    return {
        "due": due,
        "sent_before": before,
        "lost": due - len(counts),
        "doubled": sum(count - 1 for count in counts.values()),
        "back_s": reached(back, before + 1) - beat.started_at,
    }


CELLS: dict[str, Callable[[Scene, int], Figures]] = {
    "start": start,
    "idle": idle,
    "burst": burst,
    "steady": steady,
    "change": change,
    "kill": kill,
}


# -- beats that are ready when entries become due --------------------------------------------


@contextmanager
def _beat(scene: Scene) -> Iterator[Beat]:
    beat = scene.beat()
    try:
        yield beat
    finally:
        beat.end()


@contextmanager
def _due_together(scene: Scene, count: int) -> Iterator[tuple[Beat, float]]:
    """Yield a beat that waits, and when its `count` entries become due."""

    def entries(at: float) -> list[Due]:
        return [Due(n, at, ONCE) for n in range(count)]

    with _ready(scene, entries, count) as ready:
        yield ready


@contextmanager
def _ready(
    scene: Scene, entries: Callable[[float], list[Due]], count: int
) -> Iterator[tuple[Beat, float]]:
    """Yield a beat that has ticked before its entries become due, and that instant."""
    # To write them takes a while too, and they make the start longer.
    lead = 4 + 1.5 * scene.start_s + count / 2_000
    for _ in range(3):
        at = math.ceil(time.time() + lead)
        scene.store_due(entries(at))
        with _beat(scene) as beat:
            beat.wait_for_ticks(1, lead + scene.limit)
            if time.time() < at - 0.5:
                yield beat, at
                return
        lead *= 2
    raise DidNotFinishError("its start took longer each time")


def _sleep_until(at: float) -> None:
    time.sleep(max(0.0, at - time.time()))


def _watch(scene: Scene, count: int, at: float) -> list[tuple[float, int]]:
    """Count messages from `at` until there are `count` or the limit is over.

    Returns:
        (time, messages) whenever there were more.
    """
    _sleep_until(at - 0.05)
    seen: list[tuple[float, int]] = []
    last = 0
    while time.time() < at + scene.limit:
        found = scene.tap.count()
        if found > last:
            seen.append((time.time(), found))
            last = found
        if found >= count:
            break
        time.sleep(0.003)
    return seen


def _until_quiet(scene: Scene) -> None:
    """Wait until nothing has come for six seconds: longer than anyone's pause between looks."""
    deadline = time.monotonic() + scene.limit
    last, quiet_since = -1, time.monotonic()
    while time.monotonic() < min(deadline, quiet_since + 6):
        found = scene.tap.count()
        if found != last:
            last, quiet_since = found, time.monotonic()
        time.sleep(0.1)


def _numbers(scene: Scene) -> list[int]:
    numbers: list[int] = []
    while taken := scene.tap.take():
        numbers += [number for _, number in taken]
    return numbers


# -- what is computed ------------------------------------------------------------------------


def reached(seen: list[tuple[float, int]], count: float) -> float:
    """Return when there were first so many messages.

    Raises:
        ValueError: there never were.
    """
    for at, found in seen:
        if found >= count:
            return at
    raise ValueError(f"there were never {count:g} messages")


def lateness_of(
    taken: list[tuple[float, int]], first: float, count: int, seconds: float
) -> list[float]:
    """Return the seconds by which messages of a steady load came after they were due.

    Args:
        taken: the time and the number of each message, in the order they came.
        first: when the load began. Entry n of `count` is due then and n/count of a `PERIOD`
            later, and each `PERIOD` after that.
        count: how many entries there are.
        seconds: due times after so many seconds do not count.
    """
    turns: Counter[int] = Counter()
    late = []
    for came, number in taken:
        due = first + PERIOD * (number / count + turns[number])
        turns[number] += 1
        if due < first + seconds:
            late.append(came - due)
    return late
