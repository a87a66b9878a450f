"""What tells values and declarations apart, in every process alike.

Invariants:
    * Two declarations with the same digest make the same row, in whatever processes the two
      digests were made. What can't be told for certain has no digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from functools import cache, singledispatch
from hashlib import blake2b
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from beatstore.errors import NoIdentityError
from beatstore.schedules import Schedule
from beatstore.version import __version__

if TYPE_CHECKING:
    from beatstore.definition.spec import Declared

__all__ = [
    "digest",
    "form",
    "identity",
]


def digest(one: Declared, *context: object) -> str | None:
    """Return a short text that changes whenever the row would; None where that is not certain.

    Much cheaper than reading the schedule. Another version of beatstore may store the same
    declaration in another way, so its digests differ.

    Args:
        one: what is declared.
        context: what else the row depends on, such as the default zone.
    """
    said: list[object] = [__version__, *map(form, context)]
    kind: Any = type(one)
    try:
        names, defaults, values = _fields_of(kind)
        for name, default, value in zip(names, defaults, values(one), strict=True):
            if value is not default:
                said.append((name, _task(value) if name == "task" else form(value)))
        return blake2b(repr(said).encode(), digest_size=16).hexdigest()
    except Exception:  # noqa: BLE001  (NoIdentityError, or an object that will be refused)
        return None


@cache
def _fields_of(
    kind: type[Any],
) -> tuple[tuple[str, ...], tuple[Any, ...], Callable[[Declared], tuple[Any, ...]]]:
    """Return the names of the fields, their defaults, and what reads them all at once."""
    names = tuple(field.name for field in fields(kind))
    return names, tuple(field.default for field in fields(kind)), attrgetter(*names)


def form(value: object) -> object:
    """Return builtins whose `repr` is the same for equal values only, in every process.

    What JSON would make of a value decides: a subclass of dict is its items.

    Raises:
        NoIdentityError: there are none.
    """
    kind = type(value)
    return (_KNOWN.get(kind) or _learned(kind))(value)


def _learned(kind: type) -> Callable[[Any], object]:
    for base, known in ((dict, _items), (list, _listed), (tuple, _listed), *_EXACT):
        if issubclass(kind, base):
            _KNOWN[kind] = known
            return known
    return _named


def _named(value: object) -> object:
    return type(value).__qualname__, identity(value)


def _itself(value: object) -> object:
    return value


def _listed(value: Iterable[object]) -> object:
    return [form(item) for item in value]


def _items(value: Mapping[object, object]) -> object:
    if not all(isinstance(key, str) for key in value):
        raise NoIdentityError
    return "dict", sorted((str.__str__(key), form(item)) for key, item in value.items())


@singledispatch
def identity(value: object) -> object:
    """Return what tells a value from others of its type, as `form` returns it.

    For each type that may be declared there is a function registered here.

    Raises:
        NoIdentityError: there is none, or this value is a special one.
    """
    raise NoIdentityError


@identity.register
def _(value: datetime) -> object:
    return value.isoformat()


@identity.register
def _(value: timedelta) -> object:
    return value // timedelta(microseconds=1)


@identity.register(set)
@identity.register(frozenset)
def _(value: Iterable[object]) -> object:
    return sorted(repr(form(item)) for item in value)


@identity.register
def _(value: range) -> object:
    return repr(value)


@identity.register
def _(value: Schedule) -> object:
    return value.kind, value.spec, value.timezone


def _task(value: object) -> object:
    """Return what a task is known by: a Task has a name, and nothing else of it is stored."""
    name = getattr(value, "name", None)
    return form(value) if isinstance(value, Mapping) or not isinstance(name, str) else name


_EXACT = ((str, str.__str__), (int, int.__int__), (float, float.__float__))

#: What makes the form of a type, as far as it is one of JSON's or stands for one.
_KNOWN: dict[type, Callable[[Any], object]] = {
    **dict.fromkeys((str, int, float, bool, type(None)), _itself),
    **{dict: _items, list: _listed, tuple: _listed},
}
