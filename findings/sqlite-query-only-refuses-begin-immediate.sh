#!/usr/bin/env bash
# Database: SQLite 3.54.1, by apsw 3.54.1.0, which brings it along.
#
# A good guess: a connection with `PRAGMA query_only = ON` does what one opened with `?mode=ro` does.
# The pragma "prevents data changes on database files", and can be switched off again.
#
# What it does: it refuses more, and it lets one change of the file pass. BEGIN IMMEDIATE and BEGIN
# EXCLUSIVE, which a `mode=ro` connection may execute, are "attempt to write a readonly database". So
# are a temporary table, new or old, though it is in no database file, and VACUUM INTO, which writes
# a file of its own. `PRAGMA journal_mode = DELETE` works: the file is no longer in WAL mode, for all
# later connections.
#
# Documented: that the pragma refuses CREATE, DELETE, DROP, INSERT and UPDATE, and that a checkpoint
# and a COMMIT are still possible. BEGIN, temporary tables, VACUUM INTO and journal_mode are not named.
#
# Why it matters to schedulers: they begin with BEGIN IMMEDIATE, so that two of them do not fail as
# both go from reading to writing, and set the journal mode when they connect. With query_only, code
# that runs on a `mode=ro` connection fails at its BEGIN, and a page that only reads can still take
# WAL mode from the scheduler.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet apsw==3.54.1.0

venv/bin/python - <<'PYTHON'
import apsw

assert apsw.sqlite_lib_version() == "3.54.1"

STATEMENTS = {
    "a read": ("SELECT * FROM run",),
    "an insert": ("INSERT INTO run VALUES (2)",),
    "BEGIN": ("BEGIN", "SELECT * FROM run", "COMMIT"),
    "BEGIN IMMEDIATE": ("BEGIN IMMEDIATE", "SELECT * FROM run", "COMMIT"),
    "BEGIN EXCLUSIVE": ("BEGIN EXCLUSIVE", "SELECT * FROM run", "COMMIT"),
    "a new temporary table": ("CREATE TEMPORARY TABLE chosen (id)",),
    "a temporary table of before": ("INSERT INTO earlier VALUES (1)",),
    "VACUUM INTO": ("VACUUM INTO '{}.copy'",),
    "another journal mode": ("PRAGMA journal_mode = DELETE",),
}


def read_only(file, how):
    if how == "mode=ro":
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(f"file:{file}?mode=ro", flags=flags)
    else:
        connection = apsw.Connection(file)
    connection.execute("CREATE TEMPORARY TABLE earlier (id)").fetchall()
    if how == "query_only":
        connection.execute("PRAGMA query_only = ON").fetchall()
    return connection


def attempt(how, what):
    """Execute statements on a read-only connection to a new file in WAL mode; say how it went."""
    file = f"{how} {what}.sqlite".replace(" ", "-")
    owner = apsw.Connection(file)
    owner.execute("PRAGMA journal_mode = WAL").fetchall()
    owner.execute("CREATE TABLE run (id)").fetchall()
    owner.close()
    connection = read_only(file, how)
    try:
        for statement in STATEMENTS[what]:
            connection.execute(statement.format(file)).fetchall()
        said = "works"
    except (apsw.ReadOnlyError, apsw.IOError):
        said = "fails"
    connection.close()
    after = apsw.Connection(file)
    mode = after.execute("PRAGMA journal_mode").get
    after.close()
    return said if mode == "wal" else f"{said}: the file is in mode {mode}"


seen = {what: (attempt("mode=ro", what), attempt("query_only", what)) for what in STATEMENTS}
print(f"{'':30}{'mode=ro':10}query_only")
for what, (by_mode, by_pragma) in seen.items():
    print(f"{what:30}{by_mode:10}{by_pragma}")
assert list(seen.values()) == [
    ("works", "works"),
    ("fails", "fails"),
    ("works", "works"),
    ("works", "fails"),
    ("works", "fails"),
    ("works", "fails"),
    ("works", "fails"),
    ("works", "fails"),
    ("fails", "works: the file is in mode delete"),
], seen
PYTHON
