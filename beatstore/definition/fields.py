"""Check single values: return what a column stores, or raise an error.

Invariants:
    * Every database stores an accepted value exactly: it cuts no text, rounds no number and
      changes no JSON key.
    * This module knows no entry, no database and no clock.

On failure: `InvalidEntryError`, with the field (for JSON, the path within it), the given value,
what was expected and what to write instead.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from typing import Any, TypeVar

from beatstore.errors import InvalidEntryError
from beatstore.words import nearest, similar

__all__ = [
    "ANY_JSON",
    "DEPTH",
    "NAME_LENGTH",
    "age",
    "choice",
    "flag",
    "instant",
    "instead",
    "nearest",
    "note",
    "number",
    "plain",
    "row_id",
    "seconds",
    "shortened",
    "sought",
    "storable",
    "tags",
    "text",
    "too_deep",
    "whole",
]

W = TypeVar("W", bound=str)

#: The most characters of a name, a task's name or a source.
NAME_LENGTH = 255

#: Characters of the digest in a shortened name.
_DIGEST_LENGTH = 16

_TAG_LENGTH = 64

# MySQL's TEXT holds 65,535 bytes, and a character takes up to four.
_NOTE_LENGTH = 16_000

#: MySQL's JSON has at most 100 levels, and stores integers exactly up to 64 bits.
DEPTH = 90
_LEAST, _MOST = -(2**63), 2**64 - 1

# The longest span (see `decide`), and the first year of MySQL's DATETIME.
_SECONDS_LIMIT = 1e9
_YEAR_S = 365.25 * 86_400
_CENTURY_S = 36_500 * 86_400.0
_FIRST_YEAR = 1000

# Control characters, half surrogate pairs, and line and paragraph separators.
_UNSEEN = ("Cc", "Cs", "Zl", "Zp")

#: The types of JSON, for errors.
ANY_JSON = "text, a number, True, False, None, a list or a dict"


def text(field: str, value: object, most: int = NAME_LENGTH, *, write: str | None = None) -> str:
    """Return one line of text of 1 to `most` characters, without space at either end.

    Case matters. Control characters and half surrogate pairs are refused: they look alike in a
    log, or can't be stored.
    """
    if (
        isinstance(value, str)
        and 0 < len(value) <= most
        and value == value.strip()
        and (
            value.isprintable() or not any(unicodedata.category(char) in _UNSEEN for char in value)
        )
    ):
        return str.__str__(value)
    expected = f"1 to {most} characters on one line, without space at either end"
    cleaned = " ".join(value.split())[:most].strip() if isinstance(value, str) else ""
    if cleaned == value:
        cleaned = ""
    raise InvalidEntryError(field, value, expected, write or (repr(cleaned) if cleaned else None))


def shortened(name: str) -> str:
    """Return a name; shorten one that is too long, and append a digest of the whole.

    The result is the same in every process, and differs for different names.
    """
    if len(name) <= NAME_LENGTH:
        return name
    found = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
    return f"{name[: NAME_LENGTH - _DIGEST_LENGTH - 2]}… {found}"


def storable(value: object) -> bool:
    """Return True if a value is text that every database can store and search for."""
    return isinstance(value, str) and not any(
        char == "\0" or unicodedata.category(char) == "Cs" for char in value
    )


def sought(field: str, value: object, most: int | None = None) -> str:
    """Return text to search for; raise an error if no row can contain it."""
    long = isinstance(value, str) and most is not None and len(value) > most
    if isinstance(value, str) and storable(value) and not long:
        return str.__str__(value)
    length = f" of at most {most} characters" if long else ""
    raise InvalidEntryError(field, value, f"text{length}, without NUL or lone surrogates")


def _is_unseen(char: str) -> bool:
    return unicodedata.category(char) in _UNSEEN


def note(field: str, value: object, most: int = _NOTE_LENGTH) -> str | None:
    """Return text of any number of lines, of at most `most` characters, or None."""
    if value is None:
        return None
    if isinstance(value, str) and len(value) <= most and storable(value):
        return str.__str__(value)
    raise InvalidEntryError(
        field, value, f"text of at most {most} characters, without NUL", "a shorter text"
    )


def tags(value: object) -> tuple[str, ...]:
    """Return the tags, sorted and without duplicates."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        found = {text("tags", tag, _TAG_LENGTH) for tag in value}
        return tuple(sorted(found))
    write = f"[{value!r}]" if isinstance(value, str) else "['etl', 'nightly']"
    raise InvalidEntryError("tags", value, "a list of words", write)


def instant(field: str, value: object) -> datetime:
    """Return an instant in UTC; refuse a datetime without a time zone."""
    if not isinstance(value, datetime):
        write = "datetime(2030, 1, 31, 9, 30, tzinfo=timezone.utc)"
        raise InvalidEntryError(field, value, "an aware datetime", write)
    if value.utcoffset() is None:
        write = "it with tzinfo=ZoneInfo('Europe/Berlin'), or tzinfo=timezone.utc"
        raise InvalidEntryError(field, value, "a datetime with a time zone", write)
    try:
        utc = value.astimezone(timezone.utc)
    except OverflowError:
        utc = None
    if utc is None or utc.year < _FIRST_YEAR:
        expected = f"an instant from the year {_FIRST_YEAR} to 9999 in UTC"
        raise InvalidEntryError(field, value, expected)
    return utc


def number(
    field: str,
    value: object,
    *,
    least: float = 0.0,
    above: bool = False,
    limit: float = _SECONDS_LIMIT,
) -> float:
    """Return a number below `limit` of at least `least`, or with `above`, more than `least`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        # A comparison with NaN is false, so NaN is refused here as well.
        enough = value > least if above else value >= least
        if enough and value < limit:
            return int(value) if isinstance(value, int) else float(value)
    than = f"above {least:g}" if above else f"of {least:g} or more"
    expected = f"a number {than}, below {limit:g}"
    raise InvalidEntryError(field, value, expected, "60")


def seconds(
    field: str, value: object, *, above: bool = False, limit: float = _SECONDS_LIMIT
) -> float:
    """Return a span below `limit` in seconds, 0 or more (with `above`, more than 0)."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    try:
        return float(number(field, value, above=above, limit=limit))
    except InvalidEntryError:
        least = "more than 0" if above else "0 or more"
        if isinstance(value, int | float) and value >= limit:
            least += f" and less than {limit:g} ({limit / _YEAR_S:.0f} years)"
        raise InvalidEntryError(
            field, value, f"seconds, {least}, or a timedelta", "60, or timedelta(minutes=1)"
        ) from None


def age(field: str, value: object) -> float:
    """Return in seconds how old something is, up to a hundred years, as the setting `retention`."""
    return seconds(field, value, limit=_CENTURY_S + 1)


def whole(field: str, value: object, *, least: int = 0, most: int = 2**31 - 1) -> int:
    """Return a whole number from `least` to `most`."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return int(value)
    expected = f"a whole number of {least} or more"
    if not isinstance(value, bool) and isinstance(value, int) and value > most:
        expected = f"a whole number of at most {most}"
    raise InvalidEntryError(field, value, expected, str(max(least, 1)))


def row_id(field: str, value: object) -> int:
    """Return the id of a row, also of one that is not there."""
    return whole(field, value, most=2**63 - 1)


def flag(field: str, value: object) -> bool:
    """Return a bool; refuse other values."""
    if isinstance(value, bool):
        return value
    raise InvalidEntryError(field, value, "True or False", repr(bool(value)))


def choice(field: str, value: object, options: Iterable[W]) -> W:
    """Return one of `options`."""
    known = tuple(options)
    for one in known:
        if isinstance(value, str) and value == one:
            return one
    near = similar(value, known)
    write = None if near is None else repr(near)
    raise InvalidEntryError(field, value, f"one of {', '.join(known)}", write)


def plain(path: str, value: object) -> Any:
    """Return a copy of `value` in plain JSON types, equal to what a database returns.

    Tuples become lists; subclasses (a Signature, a text enum, a lazy list of celery's) become
    plain values.

    Raises:
        InvalidEntryError: JSON would change the value; `field` is its path, such as
            `kwargs['when']`.
    """
    return _plain(path, value, DEPTH)


def too_deep(path: str, value: object) -> InvalidEntryError:
    """Return the error for a list or an object below `DEPTH` levels."""
    expected = f"JSON of at most {DEPTH} levels, which does not contain itself"
    return InvalidEntryError(path, type(value).__name__, expected)


def _plain(path: str, value: object, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _plain_text(path, value)
    if isinstance(value, int | float):
        return _plain_number(path, value)
    if depth == 0:
        raise too_deep(path, value)
    if isinstance(value, list | tuple):
        return [_plain(f"{path}[{at}]", item, depth - 1) for at, item in enumerate(value)]
    if isinstance(value, dict):
        return {
            _plain_key(path, key): _plain(f"{path}[{key!r}]", item, depth - 1)
            for key, item in value.items()
        }
    raise InvalidEntryError(path, value, ANY_JSON, instead(value))


def _plain_text(path: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidEntryError(path, value, "text that UTF-8 can encode") from None
    return str.__str__(value)


def _plain_number(path: str, value: float) -> int | float:
    if isinstance(value, int):
        if _LEAST <= value <= _MOST:
            return int(value)
        raise InvalidEntryError(path, value, "an integer of at most 64 bits", "it as text")
    if math.isfinite(value):
        return float(value)
    raise InvalidEntryError(path, value, "a finite number, since JSON has no other", "None")


def _plain_key(path: str, key: object) -> str:
    if isinstance(key, str):
        return _plain_text(path, key)
    raise InvalidEntryError(
        path, key, "text for a key, since JSON converts keys to text", repr(str(key))
    )


def instead(value: object) -> str:
    """Suggest what to write instead of a value that JSON lacks."""
    if isinstance(value, datetime):
        return f"{value.isoformat()!r} (its isoformat()), and read it in the task"
    if isinstance(value, timedelta):
        return f"{value.total_seconds()!r} (its total_seconds())"
    if isinstance(value, set | frozenset):
        return "sorted(…), a list"
    if isinstance(value, bytes | bytearray):
        return "base64.b64encode(…).decode(), text"
    if callable(value):
        return "a plain value, and compute in the task what depends on the time of the run"
    return "str(…), or an id with which the task finds it"
