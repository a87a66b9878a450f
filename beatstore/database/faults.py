"""What an error of the database means, by its code, whichever driver raised it.

    an outage        the database can't do it now: nobody answers, it is read-only, full, ...
    to do again      the transaction was undone, or the connection is in a bad state
    contended        a lock was not to be had in time
    denied           the database's user may not do it
    missing          a table or column of ours is not there, as in the middle of a migration
    timed out        a statement was ended because it took longer than it may
    a mistake        the statement, or a value in it, is refused; it will be again

The codes decide, not the classes: drivers raise OperationalError for much that is no
outage, as a number out of range on MySQL, and other classes for much that is one, as a
server that is read-only. The class counts only where there is no code: then the error is
the driver's own, and mostly about the connection.
"""

from __future__ import annotations

from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

__all__ = [
    "codes",
    "contended",
    "denied",
    "is_soft_time_limit",
    "lost",
    "missing",
    "read_only",
    "refused",
    "rolled_back",
    "timed_out",
    "unavailable",
    "unprepared",
    "withheld",
]

#: SQLSTATE classes of PostgreSQL that mean an outage: connection exceptions, refused logins,
#: insufficient resources, operator intervention, system errors.
_OUTAGE_CLASSES = ("08", "28", "53", "57", "58")

#: Other states of PostgreSQL that do: no such database, read-only, timeouts of transactions.
_OUTAGE_STATES = {"3D000", "25006", "25P03", "25P04"}

#: A server that takes no writes: PostgreSQL, then MySQL and MariaDB.
_READ_ONLY: set[object] = {"25006", 1290, 1792, 1836}

#: A right that the user lacks: PostgreSQL, then MySQL and MariaDB (of a table, of a column).
_DENIED: set[object] = {"42501", 1142, 1143}

#: Missing table and missing column: PostgreSQL, then MySQL and MariaDB.
_MISSING: set[object] = {"42P01", "42703", 1146, 1054}

#: The same of SQLite, in words.
_MISSING_WORDS = ("no such table", "no such column", "has no column named")

#: Transactions that the server undid: serialization failures and deadlocks.
_UNDONE_STATES = {"40000", "40001", "40003", "40P01"}

#: Prepared statements that are gone or there already. Poolers do that, and DISCARD ALL.
_UNPREPARED_STATES = {"26000", "42P05"}

#: A lock that was not to be had in time.
_CONTENDED: set[object] = {"55P03", 1205, 3572, "SQLITE_BUSY", "SQLITE_LOCKED"}

#: The same of MySQL and MariaDB, where undone also means "changed since it was read" (1020,
#: 1412) and "to be prepared anew" (1243, 1615).
_UNDONE_NUMBERS = {1020, 1213, 1243, 1297, 1412, 1614, 1615, 1689, 3101}

#: A statement that was ended: PostgreSQL, then MariaDB, MySQL and SQLite.
_TIMED_OUT: set[object] = {"57014", 1969, 3024, "SQLITE_INTERRUPT"}

#: Outages of MySQL and MariaDB, beside the client's own errors.
_OUTAGE_NUMBERS = {
    *(1021, 1026, 1030, 1114),  # disk full, or an error of it
    *(1037, 1038, 1041, 1135, 1206, 1637),  # out of memory, threads, locks, transactions
    *(1040, 1129, 1203, 1226, 3170),  # too many connections, or more than a user may have
    *(1042, 1043, 1044, 1045, 1049, 1130, 1251, 1820, 1862, 3118, 4151),  # refused logins
    *(1047, 1053, 1077, 1079, 1080),  # shutting down, or not yet up (1047: Galera)
    *(1152, 1156, 1158, 1159, 1160, 1161, 1184, 1835, 1927, 3169, 4031),  # connection aborted
    *(1223, 1290, 1792, 1836),  # read-only
    *(1180, 3100, 3168),  # an error during commit, or in replication
    *(1317, 1969, 3024),  # interrupted, or its time limit is over
    1449,  # the account is gone that made the triggers: no row can be written until they are mended
    *(9001, 9006),  # ProxySQL has no server
}

#: The client's own numbers: can't connect, gone away, lost, ...
_CLIENT_NUMBERS = range(2000, 3000)

#: Those of them that are mistakes: a packet too large, parameters of prepared statements.
_CLIENT_MISTAKES = {2020, *range(2030, 2037)}

_VAGUE = (DBAPIError, DatabaseError)

#: What SQLite has, beside a lock: read-only, I/O error, damaged, full, no file.
_SQLITE_OUTAGES = {
    *("SQLITE_NOMEM", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_FULL"),
    *("SQLITE_CANTOPEN", "SQLITE_PROTOCOL", "SQLITE_NOTADB"),
}

#: Python 3.10 tells no codes of SQLite's, but its words are always the same.
_SQLITE_WORDS = {
    "database is locked": "SQLITE_BUSY",
    "database table is locked": "SQLITE_LOCKED",
    "readonly database": "SQLITE_READONLY",
    "disk I/O error": "SQLITE_IOERR",
    "database disk image is malformed": "SQLITE_CORRUPT",
    "database or disk is full": "SQLITE_FULL",
    "unable to open database file": "SQLITE_CANTOPEN",
    "locking protocol": "SQLITE_PROTOCOL",
    "file is not a database": "SQLITE_NOTADB",
    "interrupted": "SQLITE_INTERRUPT",
}


def codes(error: BaseException | None) -> set[object]:
    """Return the codes of an error: SQLSTATE, MySQL's number, SQLite's name; or nothing."""
    orig = getattr(error, "orig", None) or error
    first = next(iter(getattr(orig, "args", ())), None)
    found = {getattr(orig, name, None) for name in ("sqlstate", "pgcode", "errno")}
    if isinstance(first, dict):  # pg8000 gives the fields of the server's answer
        found.add(first.get("C"))
    elif isinstance(first, int):
        found.add(first)
    elif type(orig).__module__ == "sqlite3":
        found.add(_sqlite_name(orig))
    return {code for code in found if code and code != -1}


def unavailable(error: BaseException) -> bool:
    """Say whether the database could not do it now, and may later: no mistake of a statement.

    True as well of what `rolled_back` and `contended` are true of: when doing it again has
    not helped, there is nothing but to wait.
    """
    return lost(error) or rolled_back(error) or contended(error) or _outage(error)


def refused(error: BaseException) -> bool:
    """Say whether the server has answered that it does not do this: a mistake, not an outage."""
    return bool(codes(error)) and not unavailable(error)


def rolled_back(error: BaseException | None) -> bool:
    """Say whether to do it again, on a new connection: nothing of the transaction is left."""
    found = codes(error)
    number = _number(found)
    if number is not None:
        return number in _UNDONE_NUMBERS
    return bool(found & _UNDONE_STATES) or unprepared(error)


def contended(error: BaseException | None) -> bool:
    """Say whether a lock was not to be had in time."""
    found = codes(error)
    number = _number(found)
    return number in _CONTENDED if number is not None else bool(found & _CONTENDED)


def read_only(error: BaseException | None) -> bool:
    """Say whether the server takes no writes, as one that another has taken over from."""
    return bool(codes(error) & _READ_ONLY)


def is_soft_time_limit(error: BaseException | None) -> bool:
    """Return whether Celery's soft time limit ended a statement before its answer was read.

    A signal raises it anywhere. pg8000 then takes that answer for the one to the next statement,
    and mysql-connector refuses all further statements.
    """
    return any(one.__name__ == "SoftTimeLimitExceeded" for one in type(error).__mro__)


def denied(error: BaseException | None) -> bool:
    """Say whether the user lacks a right."""
    return bool(codes(error) & _DENIED)


def missing(error: BaseException | None) -> bool:
    """Say whether a statement named a table or column of ours that does not exist."""
    if not isinstance(error, DBAPIError):
        return False
    # MySQL does not say of which table a column is missing.
    if "beatstore_" not in f"{error.orig} {error.statement}":
        return False
    said = str(error.orig)
    return bool(codes(error) & _MISSING) or any(words in said for words in _MISSING_WORDS)


def withheld(error: BaseException | None) -> bool:
    """Say whether a right, a table or a column of ours is missing: no row is at fault."""
    return denied(error) or missing(error)


def timed_out(error: BaseException | None) -> bool:
    """Say whether a statement was ended, where a limit of its time was set."""
    return bool(codes(error) & _TIMED_OUT)


def unprepared(error: BaseException | None) -> bool:
    """Say whether the connection and the server disagree about what is prepared."""
    if codes(error) & _UNPREPARED_STATES:
        return True
    said = str(getattr(error, "orig", None) or error)
    if "0A000" in codes(error):
        return "cached plan" in said
    return "08P01" in codes(error) and "prepared statement" in said


def lost(error: BaseException | None) -> bool:
    """Say whether there is no connection (any more)."""
    if isinstance(error, (OSError, PoolTimeoutError)):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    found = codes(error)
    number = _number(found)
    if number is not None:
        return number in _CLIENT_NUMBERS and number not in _CLIENT_MISTAKES
    # `DatabaseError` itself is what a driver raises that knows nothing but that it failed.
    about = isinstance(error, (OperationalError, InterfaceError)) or type(error) in _VAGUE
    return about and not found


def _outage(error: BaseException) -> bool:
    found = codes(error)
    number = _number(found)
    if number is not None:
        return number in _OUTAGE_NUMBERS
    return any(
        code in _OUTAGE_STATES or code in _SQLITE_OUTAGES or code.startswith(_OUTAGE_CLASSES)
        for code in found
        if isinstance(code, str)
    )


def _number(found: set[object]) -> int | None:
    """Return MySQL's number. It counts more than the SQLSTATE, which is often "HY000"."""
    return next((code for code in found if isinstance(code, int)), None)


def _sqlite_name(error: object) -> str | None:
    """Return the name of SQLite's primary code, also of an extended one."""
    name = getattr(error, "sqlite_errorname", None)
    if name is not None:
        return "_".join(str(name).split("_")[:2])
    said = str(error)
    return next((code for words, code in _SQLITE_WORDS.items() if words in said), "SQLITE_ERROR")
