#!/usr/bin/env bash
# Database: DuckDB 2.0.1, beside SQLite (that of Python).
#
# A good guess: INSERT ... ON CONFLICT DO UPDATE with one key twice in a statement either fails, as in
# PostgreSQL (which cannot "affect row a second time"), or applies the rows one after the other, as in
# SQLite, so the last one is what is stored.
#
# What it does: the first row of each key is used, and all others of this statement are dropped. There
# is no error and no warning. Neither are they compared or added: with `WHERE excluded.seen > job.seen`
# a newer second row is not looked at, and a counter goes up by one for a thousand rows of a key. INSERT
# OR REPLACE and MERGE do the same; the standard has an error for MERGE. The same rows by executemany,
# which is a statement for each, end with the last one.
#
# Documented: DuckDB's manual (INSERT Statement, ON CONFLICT) has shown an error for such a statement.
# That there is none any more, and which row is used, we did not find there.
#
# Why it matters to schedulers: the heartbeats or states of a batch are written by one statement. Of
# "started" and "finished" of one run only "started" is stored, and each batch of n ticks counts 1.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet duckdb==2.0.1

timeout 50 venv/bin/python - <<'PYTHON'
import sqlite3

import duckdb

TABLE = "CREATE TABLE job (id integer PRIMARY KEY, state text, seen integer, ticks integer)"
ROWS = "INTO job VALUES (1, 'started', 10, 1), (1, 'finished', 20, 1)"
UPSERT = f"INSERT {ROWS} ON CONFLICT (id) DO UPDATE SET "
ALL = UPSERT + "state = excluded.state, seen = excluded.seen, ticks = job.ticks + excluded.ticks"
STATEMENTS = {
    "ON CONFLICT": ALL,
    "... WHERE newer": ALL + " WHERE excluded.seen > job.seen",
    "OR REPLACE": "INSERT OR REPLACE " + ROWS,
}


def state(connect, statement, *, stored=False):
    """Return what a table has after a statement, where a row of the key is stored before it or not."""
    connection = connect(":memory:")
    connection.execute(TABLE)
    if stored:
        connection.execute("INSERT INTO job VALUES (1, 'queued', 5, 0)")
    connection.execute(statement)
    return connection.execute("SELECT state, ticks FROM job").fetchone()


seen = {}
for name, statement in STATEMENTS.items():
    for stored in (False, True):
        seen[name, stored] = state(duckdb.connect, statement, stored=stored)
        other = state(sqlite3.connect, statement, stored=stored)
        print(f"{name:16} stored before: {stored!s:5}  DuckDB {seen[name, stored]}, SQLite {other}")
        assert other[0] == "finished", other
        assert seen[name, stored][0] == "started", seen

merge = (
    "MERGE INTO job USING (VALUES (1, 'started'), (1, 'finished')) AS new (id, state) "
    "ON job.id = new.id WHEN MATCHED THEN UPDATE SET state = new.state"
)
merged = state(duckdb.connect, merge, stored=True)[0]

connection = duckdb.connect()
connection.execute(TABLE)
connection.execute("INSERT INTO job VALUES (1, 'queued', 5, 0)")
count = "FROM range(1000) ON CONFLICT (id) DO UPDATE SET ticks = job.ticks + excluded.ticks"
connection.execute(f"INSERT INTO job SELECT 1, 'tick', range, 1 {count}")
ticks = connection.execute("SELECT ticks FROM job").fetchone()[0]
one = "INSERT INTO job VALUES (1, ?, 0, 1) ON CONFLICT (id) DO UPDATE SET state = excluded.state"
connection.executemany(one, [["started"], ["finished"]])
last = connection.execute("SELECT state FROM job").fetchone()[0]
print("MERGE:", merged)
print("a counter after 1000 rows:", ticks)
print("by executemany:", last)
print("DuckDB", duckdb.__version__, "and SQLite", sqlite3.sqlite_version)
assert seen["ON CONFLICT", True] == ("started", 1)
assert (merged, ticks, last) == ("started", 1, "finished")
PYTHON
