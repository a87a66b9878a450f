"""An entry as code declares it: what `Store.sync` makes the database agree with.

Invariants:
    * Two declarations with the same digest make the same row, in whatever processes the two
      digests were made. What can't be told for certain has no digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import singledispatch
from hashlib import blake2b, sha256
from operator import attrgetter
from types import MappingProxyType
from typing import Any, cast

from beatstore.schedules import Schedule
from beatstore.types import DeclaredUpstreams, Duration, Misfire, Overlap, ScheduleLike, TaskLike
from beatstore.version import __version__

__all__ = [
    "DEFAULTS",
    "NAME_LENGTH",
    "Declared",
    "Unsure",
    "digest",
    "fitting",
    "form",
    "identity",
]

#: Characters in a name, a task's name or a source.
NAME_LENGTH = 255

#: Characters of a digest, in a name that would be too long.
_DIGEST_LENGTH = 16


@dataclass(frozen=True, kw_only=True)
class _Policies:
    """What may be said of an entry beside its name, task and schedule."""

    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] | None = None
    options: Mapping[str, Any] | None = None
    timezone: str | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    max_runs: int | None = None
    jitter: Duration | None = None
    misfire: Misfire | None = None
    grace: Duration | None = None
    after: DeclaredUpstreams = ()
    overlap: Overlap = "allow"
    run_timeout: Duration | None = None
    max_retries: int = 0
    retry_delay: Duration = 300
    retry_backoff: float = 1
    retry_jitter: Duration = 0
    tags: Iterable[str] = ()
    description: str | None = None
    paused: bool = False


#: What an entry is where nothing is said, by the names of the options.
DEFAULTS: Mapping[str, Any] = MappingProxyType({one.name: one.default for one in fields(_Policies)})


@dataclass(frozen=True)
class Declared(_Policies):
    """An entry that code declares, in a list `SCHEDULES` or for `Store.sync`.

    The arguments are those of `Store.add`, and mean the same. Nothing is checked here: what
    can't be stored is refused by `sync`, for this entry alone.

        SCHEDULES = [
            Declared("nightly", "etl.extract", "0 2 * * *", timezone="Europe/Berlin"),
            Declared("load", "etl.load", after=["nightly"], max_retries=3),
        ]
    """

    name: str
    task: TaskLike
    schedule: ScheduleLike | None = None

    def __post_init__(self) -> None:
        """Keep what can be gone through once only: it is read more than once."""
        for name, given in (("tags", self.tags), ("after", self.after)):
            # By its type: isinstance would ask a task's proxy, and so make the task.
            kind = type(given)
            if kind is not tuple and kind is not list and issubclass(kind, Iterator):
                object.__setattr__(self, name, tuple(cast("Iterable[Any]", given)))

    def given(self) -> dict[str, Any]:
        """Return the arguments after the name, by the names that `Store.add` has for them."""
        found = dict(zip(_NAMES, _VALUES(self), strict=True))
        del found["name"]
        return found


class Unsure(Exception):  # noqa: N818  (an answer, not an error)
    """What a value comes to can't be told without storing it."""


def digest(one: Declared, *context: object) -> str | None:
    """Return a short text that changes whenever the row would; None where that is not certain.

    Much cheaper than reading the schedule. Another version of beatstore may store the same
    declaration in another way, so its digests differ.

    Args:
        one: what is declared.
        context: what else the row depends on, such as the default zone.
    """
    said: list[object] = [__version__, *map(form, context)]
    try:
        for name, default, value in zip(_NAMES, _DEFAULTS, _VALUES(one), strict=True):
            if value is not default:
                said.append((name, _task(value) if name == "task" else form(value)))
        return blake2b(repr(said).encode(), digest_size=16).hexdigest()
    except Exception:  # noqa: BLE001  (Unsure, or an object that will be refused)
        return None


def form(value: object) -> object:
    """Return builtins whose `repr` is the same for equal values only, in every process.

    What JSON would make of a value decides: a subclass of dict is its items.

    Raises:
        Unsure: there are none.
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
        raise Unsure
    return "dict", sorted((str.__str__(key), form(item)) for key, item in value.items())


@singledispatch
def identity(value: object) -> object:
    """Return what tells a value from others of its type, as `form` returns it.

    For each type that may be declared there is a function registered here.

    Raises:
        Unsure: there is none, or this value is a special one.
    """
    raise Unsure


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
_NAMES = tuple(field.name for field in fields(Declared))
_DEFAULTS = tuple(field.default for field in fields(Declared))
_VALUES = attrgetter(*_NAMES)


def fitting(name: str) -> str:
    """Return a name as it is, or of one that is too long its beginning and a digest of it all.

    It is the same in every process, and two long names stay two, however alike they begin.
    """
    if len(name) <= NAME_LENGTH:
        return name
    found = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
    return f"{name[: NAME_LENGTH - _DIGEST_LENGTH - 2]}… {found}"
