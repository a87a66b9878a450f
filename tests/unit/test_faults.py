"""What an error of a driver means, by codes as the drivers really gave them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from beatstore.database.faults import codes, contended, lost, rolled_back, unavailable, unprepared


class Error(Exception):
    """What the errors of all drivers derive from here, named as theirs are."""


class DatabaseError(Error):
    """As all drivers have it."""


def raised(kind: str, *args: Any, **attributes: Any) -> DBAPIError:
    """Return an error as SQLAlchemy hands it on: its class by name, arguments and codes."""
    base = Error if kind in ("InterfaceError", "DatabaseError") else DatabaseError
    orig = type(kind, (base,), attributes)(*args)
    made = DBAPIError.instance("SELECT 1", {}, orig, Error)
    assert isinstance(made, DBAPIError)
    return made


def psycopg(state: str | None, kind: str = "OperationalError", said: str = "") -> DBAPIError:
    return raised(kind, said, sqlstate=state)


def psycopg2(state: str | None, kind: str = "OperationalError", said: str = "") -> DBAPIError:
    return raised(kind, said, pgcode=state)


def pg8000(state: str, said: str = "") -> DBAPIError:
    return raised("ProgrammingError", {"S": "ERROR", "C": state, "M": said})


def pymysql(number: int, kind: str = "OperationalError") -> DBAPIError:
    return raised(kind, number, "words")


def connector(number: int, state: str | None, kind: str = "DatabaseError") -> DBAPIError:
    return raised(kind, number, "words", state, errno=number, sqlstate=state)


def mariadb(number: int, state: str, kind: str = "OperationalError") -> DBAPIError:
    return raised(kind, "words", errno=number, sqlstate=state)


POSTGRESQL = [psycopg, psycopg2, pg8000]
MYSQL = {
    "pymysql": pymysql,
    "connector": lambda number: connector(number, "HY000"),
    "mariadb": lambda number: mariadb(number, "HY000"),
}

OUTAGE_STATES = (
    *("08000", "08006", "28P01", "3D000", "25006", "25P03", "53100", "53300"),
    *("57014", "57P01", "57P02", "57P03", "58030"),
)
OUTAGE_NUMBERS = (
    *(1021, 1030, 1040, 1045, 1047, 1049, 1053, 1114, 1203, 1226, 1290, 1317, 1449, 1792, 1836),
    *(1927, 1969, 2002, 2003, 2006, 2013, 2055, 4031),
)
MISTAKE_STATES = ("22003", "22008", "22P02", "23505", "42601", "42703", "42P01", "42501", "0A000")
MISTAKE_NUMBERS = (
    *(1050, 1054, 1062, 1101, 1064, 1142, 1146, 1264, 1292, 1364, 1366, 1406, 1442, 1451),
    *(1452, 1690, 3140),
)


@pytest.mark.parametrize("driver", POSTGRESQL)
@pytest.mark.parametrize("state", OUTAGE_STATES)
def test_outages_of_postgresql(driver: Any, state: str) -> None:
    """A state that says "not now" is an outage, whatever class the driver raises."""
    error = driver(state)
    assert unavailable(error)
    assert not rolled_back(error)
    assert not contended(error)


@pytest.mark.parametrize("driver", MYSQL)
@pytest.mark.parametrize("number", OUTAGE_NUMBERS)
def test_outages_of_mysql(driver: str, number: int) -> None:
    """A number that says "not now" is an outage, whatever class the driver raises."""
    error = MYSQL[driver](number)
    assert unavailable(error)
    assert not rolled_back(error)
    assert not contended(error)


@pytest.mark.parametrize("driver", POSTGRESQL)
@pytest.mark.parametrize("state", MISTAKE_STATES)
def test_mistakes_on_postgresql(driver: Any, state: str) -> None:
    """A statement or value that is refused is no outage, and is not tried again."""
    error = driver(state)
    assert not unavailable(error)
    assert not rolled_back(error)


@pytest.mark.parametrize("driver", MYSQL)
@pytest.mark.parametrize("number", MISTAKE_NUMBERS)
def test_mistakes_on_mysql(driver: str, number: int) -> None:
    """A statement or value that is refused is no outage, though its class is OperationalError."""
    error = MYSQL[driver](number)
    assert not unavailable(error)
    assert not rolled_back(error)


@pytest.mark.parametrize(
    "error",
    [
        *[driver(state) for driver in POSTGRESQL for state in ("40001", "40P01", "26000", "42P05")],
        *[make(number) for make in MYSQL.values() for number in (1020, 1213, 1412, 1615)],
        psycopg("0A000", "NotSupportedError", "cached plan must not change result type"),
        psycopg("08P01", "OperationalError", 'prepared statement name "_pg3_0" is already in use'),
    ],
    ids=lambda error: "-".join(sorted(map(str, codes(error)))),
)
def test_what_is_to_be_done_again(error: DBAPIError) -> None:
    """What the server undid, and what a new connection mends, is done again."""
    assert rolled_back(error)
    assert unavailable(error)
    assert not contended(error)


@pytest.mark.parametrize(
    "error",
    [
        *[driver("55P03") for driver in POSTGRESQL],
        *[make(number) for make in MYSQL.values() for number in (1205, 3572)],
    ],
    ids=lambda error: "-".join(sorted(map(str, codes(error)))),
)
def test_locks_not_had_in_time(error: DBAPIError) -> None:
    """A lock that was not to be had in time is told apart from everything else."""
    assert contended(error)
    assert not rolled_back(error)


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("OperationalError", ("server closed the connection unexpectedly",)),
        ("InterfaceError", ("network error",)),
        ("InterfaceError", (0, "")),  # PyMySQL, of a connection that is closed
        ("DatabaseError", ("error with status PGRES_TUPLES_OK and no message from the libpq",)),
    ],
)
def test_without_a_code_the_class_decides(kind: str, args: tuple[object, ...]) -> None:
    """An error of the driver's own about the connection means that it is lost."""
    error = raised(kind, *args)
    assert lost(error)
    assert unavailable(error)


def test_a_subclass_counts_as_its_class() -> None:
    """A driver, as psycopg, has a class of its own for a connection that took too long."""
    timeout = type("ConnectionTimeout", (type("OperationalError", (DatabaseError,), {}),), {})
    made = DBAPIError.instance("SELECT 1", {}, timeout("timeout expired"), Error)
    assert lost(made)


@pytest.mark.parametrize("kind", ["ProgrammingError", "DataError", "NotSupportedError"])
def test_mistakes_that_the_driver_finds(kind: str) -> None:
    """An error of the driver's own about a value is no outage."""
    assert not unavailable(raised(kind, "the query has 1 placeholder but 2 were given"))


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), PoolTimeoutError()])
def test_no_connection_at_all(error: Exception) -> None:
    """A socket's error, and a pool with no connection left, are outages."""
    assert lost(error)
    assert unavailable(error)


@pytest.mark.parametrize(
    ("said", "is_outage", "is_lock"),
    [
        ("database is locked", True, True),
        ("database table is locked: beatstore_run", True, True),
        ("attempt to write a readonly database", True, False),
        ("database or disk is full", True, False),
        ("disk I/O error", True, False),
        ("unable to open database file", True, False),
        ("database disk image is malformed", True, False),
        ("no such table: beatstore_entry", False, False),
        ('near "SELEC": syntax error', False, False),
        ("table beatstore_entry already exists", False, False),
    ],
)
def test_words_of_sqlite(said: str, is_outage: bool, is_lock: bool) -> None:
    """Where Python tells no code of SQLite's, as in 3.10, its words decide."""
    error = DBAPIError("SELECT 1", {}, sqlite3.OperationalError(said))
    assert unavailable(error) is is_outage
    assert contended(error) is is_lock


def test_codes_of_sqlite(tmp_path: Any) -> None:
    """SQLite's own errors are known by their codes."""
    path = str(tmp_path / "x.db")
    one, two = (sqlite3.connect(path, timeout=0) for _ in range(2))
    with closing(one), closing(two):
        one.execute("CREATE TABLE x (y)")
        one.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError) as busy:
            two.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError) as missing:
            two.execute("SELECT * FROM nonesuch")
    assert contended(DBAPIError("", {}, busy.value))
    assert not unavailable(DBAPIError("", {}, missing.value))


def test_only_prepared_statements_are_unprepared() -> None:
    """A feature that the server lacks is no sign of a pooler."""
    assert unprepared(psycopg("26000"))
    assert not unprepared(psycopg("0A000", "NotSupportedError", "not supported"))
    assert not unprepared(psycopg("08P01", "OperationalError", "server login failed"))
