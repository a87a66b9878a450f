"""Every error beatstore raises on purpose.

    BeatstoreError
    ├── ConfigError (ValueError)          a beatstore_* setting is wrong
    ├── ScheduleError (ValueError)        a schedule is invalid or can never match
    ├── EntryError
    │   ├── InvalidEntryError (ValueError)   a field of an entry can't be stored
    │   ├── EntryNotFoundError (LookupError)
    │   └── EntryExistsError
    └── StoreError
        ├── SessionError (ValueError)     session= belongs to another database
        ├── SchemaError                   tables missing, or of another revision
        └── UnavailableError              the database did not answer

A message says what was given, what was expected, and what to write instead; the
facts are attributes too, so that programs need not parse the text.
"""

from __future__ import annotations

__all__ = [
    "BeatstoreError",
    "ConfigError",
    "EntryError",
    "EntryExistsError",
    "EntryNotFoundError",
    "InvalidEntryError",
    "ScheduleError",
    "SchemaError",
    "SessionError",
    "StoreError",
    "UnavailableError",
]


class BeatstoreError(Exception):
    """Base of every error raised by beatstore."""


class _FieldError(BeatstoreError, ValueError):
    """A named value was refused.

    Args:
        field: the name of the argument, column or setting.
        given: the refused value, as it was given.
        expected: what would have been right, as a noun phrase.
        write: something the reader can copy, or None where there is no one answer.
    """

    def __init__(self, field: str, given: object, expected: str, write: str | None = None) -> None:
        self.field = field
        self.given = given
        self.expected = expected
        self.write = write
        super().__init__(field, given, expected, write)

    def __str__(self) -> str:
        text = f"{self.field}: expected {self.expected}, got {_short(self.given)}"
        return f"{text}; write {self.write}" if self.write else text


class ConfigError(_FieldError):
    """A `beatstore_*` setting is unknown or has a value that can't be used."""


class ScheduleError(_FieldError):
    """A schedule is invalid, or valid and never due."""


class EntryError(BeatstoreError):
    """Base of the errors about one entry."""


class InvalidEntryError(_FieldError, EntryError):
    """A field of an entry can't be stored as it was given."""


class EntryNotFoundError(EntryError, LookupError):
    """There is no entry of that name.

    Args:
        name: the name asked for.
        nearest: the most similar name stored, or None.
    """

    def __init__(self, name: str, nearest: str | None = None) -> None:
        self.name = name
        self.nearest = nearest
        super().__init__(name, nearest)

    def __str__(self) -> str:
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        return f"no entry is named {self.name!r}{hint}"


class EntryExistsError(EntryError):
    """An entry of that name is already stored.

    Args:
        name: the name that is taken.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)

    def __str__(self) -> str:
        return (
            f"an entry named {self.name!r} exists already; "
            "use put() to create or update, or change() to edit it"
        )


class StoreError(BeatstoreError):
    """Base of the errors about the database itself."""


class SessionError(StoreError, ValueError):
    """The `session=` given is bound to another database than the store's."""


class SchemaError(StoreError):
    """The tables are missing, or of a revision this version can't work with."""


class UnavailableError(StoreError):
    """The database did not answer; what was asked may or may not have happened."""


def _short(value: object, limit: int = 200) -> str:
    """Return `repr(value)`, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
