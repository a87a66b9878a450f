"""Every error that beatstore raises on purpose.

    BeatstoreError
    ├── ConfigError (ValueError)          a beatstore_* setting is wrong
    │   └── UnknownDatabaseError          the URL is of a database that beatstore can't use
    ├── ScheduleError (ValueError)        a schedule is invalid or can never match
    ├── EntryError
    │   ├── InvalidEntryError (ValueError)   a field of an entry can't be stored
    │   │   └── DependencyCycleError      an edge would create a dependency cycle
    │   ├── EntryNotFoundError (LookupError)
    │   ├── EntryExistsError
    │   ├── EntryChangedError             the entry has another version than if_version says
    │   ├── NotReadError                  tags, after or edited were not read with the entry
    │   └── LoadError (ValueError)        documents that can't be loaded
    └── StoreError
        ├── SessionError (ValueError)     session= belongs to another database
        ├── SchemaError                   tables missing, or of another revision
        ├── DeniedError                   the database user may not do this
        └── UnavailableError              the database did not answer
            └── QueryTimeoutError         a statement took longer than its time limit

A message says what was given, what was expected, and what to write instead; the
facts are attributes too, so that programs need not parse the text.
"""

from __future__ import annotations

__all__ = [
    "BeatstoreError",
    "ConfigError",
    "DeniedError",
    "DependencyCycleError",
    "EntryChangedError",
    "EntryError",
    "EntryExistsError",
    "EntryNotFoundError",
    "InvalidEntryError",
    "LoadError",
    "NotReadError",
    "QueryTimeoutError",
    "ScheduleError",
    "SchemaError",
    "SessionError",
    "StoreError",
    "UnavailableError",
    "UnknownDatabaseError",
]


#: The most characters of a value that a message shows.
_LONGEST = 300


class BeatstoreError(Exception):
    """Base of every error raised by beatstore."""


class _FieldError(BeatstoreError, ValueError):
    """A named value is invalid.

    Args:
        field: the name of the argument, column or setting.
        given: the invalid value.
        expected: what is valid, as a noun phrase.
        write: what to write instead, to be copied; None where there is no single answer.
    """

    def __init__(self, field: str, given: object, expected: str, write: str | None = None) -> None:
        self.field = field
        self.given = given
        self.expected = expected
        self.write = write
        super().__init__(field, given, expected, write)

    def __str__(self) -> str:
        field = self.field if len(self.field) <= _LONGEST else f"{self.field[:_LONGEST]}…"
        text = f"{field}: expected {self.expected}, got {_short(self.given)}"
        # Half of a value is of no use to copy, and neither is a page of it.
        return f"{text}; write {self.write}" if self.write and len(self.write) <= _LONGEST else text


class ConfigError(_FieldError):
    """A `beatstore_*` setting is unknown or has a value that can't be used."""


class UnknownDatabaseError(ConfigError):
    """The URL or engine is of a database that beatstore does not run on.

    Args:
        field: the name of the argument or setting.
        given: the URL, without a password, or the name of the database.
        write: what to write instead; None where beatstore can't use that server.
        why: what is to be known about this database, or None.
    """

    def __init__(self, field: str, given: object, write: str | None, why: str | None) -> None:
        super().__init__(field, given, "PostgreSQL, MySQL/MariaDB or SQLite", write)
        self.why = why
        self.args = (field, given, write, why)

    def __str__(self) -> str:
        text = f"beatstore runs on PostgreSQL, MySQL/MariaDB and SQLite; got {_short(self.given)}"
        parts = [f"{self.field}: {text}", self.why, f"write {self.write}" if self.write else None]
        return "; ".join(part for part in parts if part)


class ScheduleError(_FieldError):
    """A schedule is invalid, or is never due."""


class EntryError(BeatstoreError):
    """Base of the errors about one entry."""


class InvalidEntryError(_FieldError, EntryError):
    """A field of an entry has a value that can't be stored."""


class DependencyCycleError(InvalidEntryError):
    """An edge would create a dependency cycle.

    Args:
        upstream: the name of the edge's upstream.
        cycle: the names of the cycle, from an entry to its downstream and so on, as text.
    """

    def __init__(self, upstream: str, cycle: str) -> None:
        super().__init__("after", upstream, "no dependency cycle", "first_free=True on one edge")
        self.cycle = cycle
        self.args = (upstream, cycle)

    def __str__(self) -> str:
        cycle = self.cycle if len(self.cycle) <= _LONGEST else f"{self.cycle[:_LONGEST]}…"
        return (
            f"after: {_short(self.given)} would create a dependency cycle: {cycle}; "
            f"write {self.write}"
        )


class EntryNotFoundError(EntryError, LookupError):
    """No entry has that name.

    Args:
        name: the name asked for.
        nearest: the most similar stored name, or None.
    """

    def __init__(self, name: str, nearest: str | None = None) -> None:
        self.name = name
        self.nearest = nearest
        super().__init__(name, nearest)

    def __str__(self) -> str:
        hint = f"; did you mean {_short(self.nearest)}?" if self.nearest else ""
        return f"no entry is named {_short(self.name)}{hint}"


class EntryExistsError(EntryError):
    """An entry with that name already exists.

    Args:
        name: the name that is taken.
        instead: what to do where `put` and `change` do not help.
    """

    def __init__(self, name: str, instead: str | None = None) -> None:
        self.name = name
        self.instead = instead
        super().__init__(name, instead)

    def __str__(self) -> str:
        instead = self.instead or "use put() to create or update, or change() to edit it"
        return f"an entry named {self.name!r} already exists; {instead}"


class EntryChangedError(EntryError):
    """Somebody has edited the entry since the caller read it; nothing was written.

    Args:
        name: the entry's name.
        expected: the version that `if_version` named.
        found: the version that the entry has.
    """

    def __init__(self, name: str, expected: int, found: int) -> None:
        self.name = name
        self.expected = expected
        self.found = found
        super().__init__(name, expected, found)

    def __str__(self) -> str:
        return (
            f"entry {_short(self.name)} has version {self.found}, and if_version is "
            f"{self.expected}: it was edited since you read it; read it again, and if your change "
            f"is still right, write if_version={self.found}"
        )


class NotReadError(EntryError):
    """An entry was read without its tags, its upstreams or its edits.

    Args:
        name: the entry's name.
        extra: the attribute that was read: "tags", "after" or "edited".
    """

    def __init__(self, name: str, extra: str) -> None:
        self.name = name
        self.extra = extra
        super().__init__(name, extra)

    def __str__(self) -> str:
        return (
            f"entry {_short(self.name)} was read without {self.extra!r}; write "
            f"store.get({_short(self.name)}).{self.extra}, or "
            f"store.entries(include=[{self.extra!r}]) for many"
        )


class LoadError(EntryError, ValueError):
    """Some documents are invalid, so nothing was loaded.

    Args:
        refused: what is wrong with each invalid document, by its line.
    """

    def __init__(self, refused: dict[int, str]) -> None:
        self.refused = refused
        super().__init__(refused)

    def __str__(self) -> str:
        shown = [f"line {line}: {reason}" for line, reason in list(self.refused.items())[:3]]
        more = len(self.refused) - len(shown)
        many = (
            "1 document has" if len(self.refused) == 1 else f"{len(self.refused):,} documents have"
        )
        rest = f"; and {more:,} more" if more else ""
        return f"nothing was loaded, because {many} errors: {'; '.join(shown)}{rest}"


class StoreError(BeatstoreError):
    """Base of the errors about the database itself."""


class SessionError(StoreError, ValueError):
    """`session=` is not a session, or its database is not the store's."""


class SchemaError(StoreError):
    """The tables are missing, or their revision does not fit this version of beatstore."""


class DeniedError(StoreError):
    """The database's user lacks a right that the operation needs.

    Args:
        database: the URL of the database, with its password hidden.
        said: what the database said.
    """

    def __init__(self, database: str, said: str) -> None:
        self.database = database
        self.said = said
        super().__init__(database, said)

    def __str__(self) -> str:
        # PostgreSQL numbers rows by sequences, which have rights of their own.
        of_rows = "SELECT, INSERT, UPDATE, DELETE"
        grant = "USAGE ON ALL SEQUENCES IN SCHEMA …" if "sequence" in self.said else of_rows
        return (
            f"{self.database}: this user may not read and write the tables of beatstore "
            f"({self.said}); use a user that may, or GRANT {grant}"
        )


class UnavailableError(StoreError):
    """The database did not answer; the operation may or may not have taken effect."""


class QueryTimeoutError(UnavailableError):
    """A statement took longer than `Store.reading` allows, and the database ended it.

    Args:
        timeout: the time limit, in seconds.
        database: the URL of the database, with its password hidden.
    """

    def __init__(self, timeout: float, database: str) -> None:
        self.timeout = timeout
        self.database = database
        super().__init__(timeout, database)

    def __str__(self) -> str:
        return (
            f"{self.database}: a statement took longer than {self.timeout:g} s and was ended; ask "
            "for less, or write store.reading(timeout=…)"
        )


# -- inside beatstore: caught before a caller of the public API sees them -------------------


class NoIdentityError(Exception):
    """A value has no digest: only storing it shows what row it makes."""


class LazyArgumentError(ValueError):
    """A function among the arguments of a `beat_schedule` entry is missing, or raised."""


class PoolerError(Exception):
    """A connection pooler stands between this process and PostgreSQL."""


class CollisionError(Exception):
    """Another run already has the due time of a run that was to be inserted."""


class HeldError(Exception):
    """Another transaction holds the lock on the row of a run."""


class BrokerError(BeatstoreError):
    """The broker did not answer."""


class BlockedError(Exception):
    """RabbitMQ accepts no messages because of an alarm; it keeps those it has for later."""


class UnsureError(Exception):
    """It is unknown whether the broker has the message."""


class OutOfTimeError(Exception):
    """No time is left to send claims: another beat may hold them by now."""


class NackedError(Exception):
    """RabbitMQ rejected the message: a policy of its queue forbids it, or its disk is full."""


class UnroutableError(Exception):
    """RabbitMQ has the exchange, but no queue that the message would reach."""


def _short(value: object) -> str:
    """Return `repr(value)`, cut where it is long."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  (it is too deep, or its class is broken)
        return f"a {type(value).__name__} that can't be shown"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
