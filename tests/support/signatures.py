"""Signatures of every kind, of an app with two tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery, chain, chord, group

__all__ = ["SIGNATURES", "add", "app", "total"]

app = Celery("calls", broker="memory://", backend="cache+memory://", set_as_current=False)


def _add(x: int, y: int = 0) -> int:
    return x + y


def _total(numbers: list[int]) -> int:
    return sum(numbers)


add: Any = app.task(name="calls.add")(_add)
total: Any = app.task(name="calls.total")(_total)


def _set(signature: Any, **options: Any) -> Any:
    return signature.set(**options)


def _stamped() -> Any:
    signature = add.s(1)
    signature.stamp(order="A1")
    return signature


SIGNATURES: dict[str, Callable[[], Any]] = {
    "signature": lambda: add.s(1, y=2),
    "immutable": lambda: add.si(1, 2),
    "callback": lambda: add.s(1).set(link=add.s(3), link_error=[add.s(4)]),
    "options": lambda: add.s(1).set(queue="q", expires=60, headers={"a": 1}, priority=3),
    "stamped": _stamped,
    "chain": lambda: chain(add.s(1, 2), add.s(3), add.s(4)),
    "piped": lambda: add.s(1, 2) | add.s(3),
    "chain into group": lambda: add.s(1, 2) | group(add.s(1), add.s(2)),
    "group": lambda: group(add.s(1, 2), add.s(3, 4)),
    "lazy group": lambda: group(add.s(i, i) for i in range(3)),
    "group of chains": lambda: group(add.s(1, 2) | add.s(2), add.s(1, 1)),
    "chord": lambda: chord([add.s(1, 2), add.s(3, 4)], total.s()),
    "lazy chord": lambda: chord((add.s(i, i) for i in range(3)), total.s()),
    "group into task": lambda: group(add.s(1, 2), add.s(1, 3)) | total.s(),
    "nested": lambda: chain(group(add.s(1, 2), add.s(1, 3)), total.s(), add.s(4)),
    "map": lambda: add.map([1, 2]),
    "starmap": lambda: add.starmap(zip(range(3), range(3), strict=True)),
    "chunks": lambda: add.chunks(zip(range(4), range(4), strict=True), 2),
    "chain with options": lambda: (add.s(1, 2) | add.s(3)).set(queue="q"),
    "chord with options": lambda: _set(chord([add.s(1, 2)], total.s()), interval=2, max_retries=9),
}
