"""Digests of declarations, which are the same in every process.

Invariants:
    * Declarations with equal digests make equal rows, also if the digests were made in different
      processes. A declaration without a certain digest has none.
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
    """Return a digest that changes whenever the row would; None if that is uncertain.

    This is much cheaper than parsing the schedule. Digests include the version of beatstore,
    since another version may store the same declaration differently.

    Args:
        one: the declaration.
        context: what else the row depends on, such as the default time zone.
    """
    parts: list[object] = [__version__, *map(form, context)]
    kind: Any = type(one)
    try:
        names, defaults, values = _fields_of(kind)
        for name, default, value in zip(names, defaults, values(one), strict=True):
            if value is not default:
                parts.append((name, _task(value) if name == "task" else form(value)))
        return blake2b(repr(parts).encode(), digest_size=16).hexdigest()
    except Exception:  # noqa: BLE001  (no identity, or an object that will be refused)
        return None


@cache
def _fields_of(
    kind: type[Any],
) -> tuple[tuple[str, ...], tuple[Any, ...], Callable[[Declared], tuple[Any, ...]]]:
    """Return the names of the fields, their defaults, and a getter for all of them."""
    names = tuple(field.name for field in fields(kind))
    return names, tuple(field.default for field in fields(kind)), attrgetter(*names)


def form(value: object) -> object:
    """Return builtins whose `repr` is equal in every process, and only for equal values.

    Values that are equal as JSON are equal: a subclass of dict is a dict.

    Raises:
        NoIdentityError: the value has no such form.
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
    """Return what distinguishes a value from others of its type, as `form` returns it.

    Each type that a declaration may contain registers a function here.

    Raises:
        NoIdentityError: the type has no function, or the value is an exception to it.
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
    """Return the identity of a task: of a Task, only the name is stored."""
    name = getattr(value, "name", None)
    return form(value) if isinstance(value, Mapping) or not isinstance(name, str) else name


_EXACT = ((str, str.__str__), (int, int.__int__), (float, float.__float__))

#: The functions that make the form of a type, for JSON's types and their subclasses.
_KNOWN: dict[type, Callable[[Any], object]] = {
    **dict.fromkeys((str, int, float, bool, type(None)), _itself),
    **{dict: _items, list: _listed, tuple: _listed},
}
