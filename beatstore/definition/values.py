"""Convert arguments between Python and the JSON of the columns.

A column holds the output of kombu's JSON encoder. A UUID is stored as
`{"__type__": "uuid", "__value__": {"hex": "…"}}`. The sender decodes it before it calls celery,
so a worker gets what `apply_async` would have sent, and any serializer gets real values.

Integers beyond 64 bits, which MySQL's JSON can't store exactly, and NaN and the infinities, which
JSON lacks, are stored in the same form, under a type of beatstore's own.

Invariants:
    * `decoded(encoded(value))` is what a worker would get for `value` with kombu's JSON.
    * A caller's dict that kombu would read as an encoded value is refused. A value read from a
      row (`Typed`) may be stored again.
    * kombu is only imported for values that are not plain JSON.

On failure: `InvalidEntryError`, naming the argument.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from beatstore.definition import fields
from beatstore.errors import InvalidEntryError

__all__ = ["Typed", "canonical", "check_serializer", "copied", "decoded", "encoded", "opened"]


class Typed(dict[str, Any]):
    """An encoded value, read from a row.

    It equals the plain dict, which a caller may not pass. The class marks that the value was
    checked when it was stored.
    """

    KEYS = ("__type__", "__value__")


#: The two keys of an object that kombu reads as an encoded value.
_TYPE, _VALUE = Typed.KEYS
_KEYS = frozenset(Typed.KEYS)

#: The type of numbers that MySQL or JSON can't represent.
_NUMBER = "beatstore.number"

#: The range of integers that MySQL's JSON stores exactly.
_LEAST, _MOST = -(2**63), 2**64 - 1

#: The containers.
_HOLDING = (dict, list, tuple)

_EXPECTED = f"{fields.ANY_JSON}, or a value that kombu's JSON can encode"


def encoded(path: str, value: object) -> Any:
    """Return `value` as the JSON that a column holds.

    Tuples become lists. Keys become text as JSON makes them: 1 becomes "1".

    Args:
        path: the path of the value, such as `kwargs['when']`, for errors.
        value: the caller's value.

    Raises:
        InvalidEntryError: kombu's JSON can't encode the value, or would decode another one.
    """
    return _encoded(path, value, fields.DEPTH)


def decoded(path: str, value: object) -> Any:
    """Return the values that a column's JSON encodes, in new lists and dicts.

    Raises:
        InvalidEntryError: kombu can't decode one of the values.
    """
    try:
        return _decoded(value)
    except _UnknownValueError as error:
        raise InvalidEntryError(
            path,
            error.given,
            f"a value that kombu can decode ({error})",
            "a type that kombu knows, such as 'uuid' or 'datetime'",
        ) from None
    except RecursionError:
        expected = f"JSON of at most {fields.DEPTH} levels"
        raise InvalidEntryError(path, "deeper JSON", expected) from None


def opened(
    args: object, kwargs: object, options: object
) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Return the decoded arguments and options of a message."""
    found = (decoded("args", args), decoded("kwargs", kwargs), decoded("options", options))
    for field, value in zip(("args", "kwargs", "options"), found, strict=True):
        kind: Any = (list, tuple) if field == "args" else dict
        if not isinstance(value, kind):
            expected = "a list" if field == "args" else "a dict"
            raise InvalidEntryError(field, value, expected)
    return [*found[0]], found[1], found[2]


def canonical(value: object) -> str:
    """Return JSON as a text by which it is compared: to Python, 1, 1.0 and True are equal."""
    return json.dumps(value, sort_keys=True)


def copied(value: Any) -> Any:
    """Return JSON in new lists and dicts; much faster than `copy.deepcopy`."""
    if isinstance(value, dict):
        return {
            key: copied(item) if isinstance(item, _HOLDING) else item for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [copied(item) if isinstance(item, _HOLDING) else item for item in value]
    return value


def check_serializer(serializer: object, *stored: object) -> None:
    """Refuse arguments that the serializer of their message can't encode.

    If this process does not know the serializer, beat checks it when it sends.

    Args:
        serializer: its name, or None for JSON, which can encode all stored values.
        stored: the column values of the message.
    """
    if serializer is None or serializer == "json" or not isinstance(serializer, str):
        return
    import kombu.exceptions  # noqa: PLC0415  (most processes never need it)
    import kombu.serialization  # noqa: PLC0415

    body = decoded("args", list(stored))
    try:
        kombu.serialization.dumps(body, serializer)
    except kombu.exceptions.SerializerNotInstalled:
        return
    except kombu.exceptions.EncodeError as error:
        raise InvalidEntryError(
            "options['serializer']",
            serializer,
            f"a serializer that can encode these arguments ({_first_line(error)})",
            "'json'",
        ) from None


# -- encoding --------------------------------------------------------------------------------


def _encoded(path: str, value: object, depth: int) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        exact = _LEAST <= value <= _MOST if isinstance(value, int) else math.isfinite(value)
        return fields.plain(path, value) if exact else _encoded_number(path, value)
    if value is None or isinstance(value, str | bool):
        return fields.plain(path, value)
    if depth == 0:
        raise fields.too_deep(path, value)
    if isinstance(value, list | tuple):
        return [_encoded(f"{path}[{at}]", item, depth - 1) for at, item in enumerate(value)]
    if isinstance(value, Typed):
        return value
    if isinstance(value, dict):
        return _encoded_dict(path, value, depth)
    return _encoded_value(path, value, depth)


def _encoded_number(path: str, value: float) -> dict[str, str]:
    _kombu()  # registers the type
    plain = int(value) if isinstance(value, int) else float(value)
    try:
        return {_TYPE: _NUMBER, _VALUE: json.dumps(plain)}
    except ValueError as error:  # more digits than Python converts
        expected = f"a shorter integer ({error})"
        raise InvalidEntryError(path, type(value).__name__, expected, "it as text") from None


def _encoded_dict(path: str, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in value.items():
        name = _key(path, key)
        if name in found:
            expected = f"keys that differ as text, since JSON keys are text; {name!r} is repeated"
            raise InvalidEntryError(path, key, expected, "each key once, as text")
        found[name] = _encoded(f"{path}[{key!r}]", item, depth - 1)
    if found.keys() == _KEYS:
        raise _reserved(path, found)
    return found


def _key(path: str, key: object) -> str:
    """Return the text that JSON makes of a key."""
    if isinstance(key, str):
        return str(fields.plain(path, key))
    if key is None or isinstance(key, bool):
        return json.dumps(key)
    if isinstance(key, int | float):
        return json.dumps(int(key) if isinstance(key, int) else float(key))
    expected = "text for a key, or a number, True, False or None, which JSON turns into text"
    raise InvalidEntryError(path, key, expected, repr(str(key)))


def _reserved(path: str, found: dict[str, Any]) -> InvalidEntryError:
    """Return the error for a dict that kombu would decode as another value, or not at all."""
    expected = (
        f"a dict with other keys than just {_TYPE!r} and {_VALUE!r}, which kombu reads as an "
        "encoded value"
    )
    try:
        write = f"the value itself, {_decoded(found)!r}"
    except _UnknownValueError:
        write = "other keys, such as 'type' and 'value'"
    return InvalidEntryError(path, found, expected, write)


def _encoded_value(path: str, value: object, depth: int) -> Any:
    """Encode a value that JSON lacks, with kombu's encoder."""
    try:
        made = _kombu().JSONEncoder().default(value)
    except Exception as error:  # noqa: BLE001  (encoders can be anybody's)
        known = isinstance(error, TypeError) and "not JSON serializable" in str(error)
        expected = _EXPECTED if known else f"{_EXPECTED} ({_first_line(error)})"
        raise InvalidEntryError(path, value, expected, fields.instead(value)) from None
    if not isinstance(made, dict) or made.keys() != _KEYS:
        return _encoded(path, made, depth - 1)
    found = {_TYPE: made[_TYPE], _VALUE: _encoded(path, made[_VALUE], depth - 1)}
    try:
        _decoded(found)
    except _UnknownValueError as error:
        expected = f"a value that kombu can decode again ({error})"
        raise InvalidEntryError(path, value, expected, fields.instead(value)) from None
    return found


# -- decoding --------------------------------------------------------------------------------


class _UnknownValueError(ValueError):
    """kombu can't decode `given`, a stored value."""

    def __init__(self, given: object, why: object) -> None:
        self.given = given
        super().__init__(why)


def _decoded(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_decoded(item) if isinstance(item, _HOLDING) else item for item in value]
    if not isinstance(value, dict):
        return value
    found = {
        key: _decoded(item) if isinstance(item, _HOLDING) else item for key, item in value.items()
    }
    if _TYPE not in found or found.keys() != _KEYS:
        return found
    try:
        return _kombu().object_hook(found)
    except Exception as error:  # noqa: BLE001  (decoders can be anybody's)
        named = isinstance(found[_TYPE], str)
        known = f"its type is {found[_TYPE]!r}" if named else "its type is not text"
        why = known if "Unsupported type" in str(error) else f"{known}: {_first_line(error)}"
        raise _UnknownValueError(value, why) from None


@lru_cache(maxsize=1)
def _kombu() -> Any:
    """Import kombu's JSON, and register the type of beatstore's numbers."""
    import kombu.utils.json  # noqa: PLC0415  (most processes never need it)

    known: Any = kombu.utils.json
    known.register_type(_Number, _NUMBER, str, _number)
    return known


class _Number:
    """A class without instances: its registration provides the decoder."""


def _number(text: str) -> int | float:
    found = json.loads(text)
    if isinstance(found, int | float) and not isinstance(found, bool):
        return found
    raise ValueError(f"{text[:40]!r} is not a number")


def _first_line(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {line}"[:200]
