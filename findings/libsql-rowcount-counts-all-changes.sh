#!/usr/bin/env bash
# Library: libsql 0.1.11 (Turso's driver for Python, with an interface like that of sqlite3).
#
# A good guess: `cursor.rowcount` is the number of rows that the statement has changed. It is 0 when an
# UPDATE found nothing, or INSERT OR IGNORE ignored its row.
#
# What it does: it is the number of all rows that the statements of this cursor have changed so far. It
# never goes back: a statement that changes nothing repeats the number of before, and so does CREATE
# TABLE. With a new cursor for each statement the numbers are right, as in most examples and tests.
#
# Documented: PEP 249 (Cursor attributes, .rowcount): the rows that the last .execute*() produced or
# affected. That libsql differs from it is not documented, as far as we found.
#
# Why it matters to schedulers: "UPDATE job SET owner = ? WHERE id = ? AND owner IS NULL", and then a
# look whether rowcount is 1, is how two beats claim a job without a lock. With one cursor for all
# claims, the loser of a race reads the number of its earlier claims: after the first job it takes the
# next one whoever has it, and once it has two, it believes that it never gets any.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet libsql==0.1.11

timeout 50 venv/bin/python - <<'PYTHON'
import sqlite3

import libsql

STATEMENTS = (
    "INSERT INTO job (id) VALUES (1)",
    "INSERT OR IGNORE INTO job (id) VALUES (1)",
    "UPDATE job SET owner = 'other' WHERE id = 1 AND owner IS NULL",
    "UPDATE job SET owner = 'me' WHERE id = 1 AND owner IS NULL",
    "DELETE FROM job WHERE id = 7",
    "CREATE TABLE log (id)",
)


def counts(module):
    connection = module.connect(f"{module.__name__}.db")
    connection.execute("CREATE TABLE job (id INTEGER PRIMARY KEY, owner TEXT)")
    cursor = connection.cursor()
    return [cursor.execute(statement).rowcount for statement in STATEMENTS]


seen = {module.__name__: counts(module) for module in (sqlite3, libsql)}
for number, statement in enumerate(STATEMENTS):
    print(f"{statement:62} sqlite3: {seen['sqlite3'][number]:2}  libsql: {seen['libsql'][number]}")
assert seen["sqlite3"] == [1, 0, 1, 0, 0, -1], seen
assert seen["libsql"] == [1, 1, 2, 2, 2, 2], seen
PYTHON
