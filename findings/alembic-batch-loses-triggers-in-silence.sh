#!/usr/bin/env bash
# Libraries: alembic 1.20.1 and SQLAlchemy 2.1.9 on SQLite.
#
# A good guess: `batch_alter_table`, which makes a table of SQLite anew and copies its rows, keeps what
# it does not change. Alembic warns of what it can't keep: it does so of an unnamed CHECK, and
# SQLAlchemy of an index of an expression.
#
# What it does: without any warning, a default for one column costs the table
# - its triggers,
# - AUTOINCREMENT: the id of a deleted row is given to the next one,
# - COLLATE NOCASE: names that differ in case only are no longer equal to UNIQUE,
# - ON DELETE CASCADE and DEFERRABLE of a foreign key that is written beside its column,
# - DESC in an index.
# It keeps the WHERE of a partial index, and STRICT.
#
# Documented: alembic says that batch mode depends on what SQLAlchemy reflects, and names CHECK
# constraints as what is not. It does not name these.
#
# Why it matters to schedulers: a job table is woken by triggers, and its ids are in messages and logs.
# After a migration that looks harmless nobody is woken, and an old message names a new row.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet alembic==1.20.1 SQLAlchemy==2.1.9

venv/bin/python -W error - <<'PYTHON'
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

STATEMENTS = (
    "CREATE TABLE queue (id INTEGER PRIMARY KEY)",
    """CREATE TABLE job (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL COLLATE NOCASE,
        due TEXT,
        queue_id INTEGER REFERENCES queue (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
        UNIQUE (name)
    ) STRICT""",
    "CREATE INDEX newest ON job (due DESC)",
    "CREATE INDEX some ON job (due) WHERE due > '2026'",
    "CREATE TABLE wakes (job_id INTEGER)",
    "CREATE TRIGGER wake AFTER INSERT ON job BEGIN INSERT INTO wakes VALUES (new.id); END",
    "INSERT INTO job (name, due) VALUES ('one', '2026-01-01'), ('two', '2026-01-02')",
    "DELETE FROM job WHERE name = 'two'",
)

with sa.create_engine("sqlite://").begin() as connection:
    for statement in STATEMENTS:
        connection.exec_driver_sql(statement)

    def defined():
        rows = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE tbl_name = 'job'")
        return " ".join(text for (text,) in rows if text)

    words = ("AUTOINCREMENT", "NOCASE", "CASCADE", "DEFERRABLE", "DESC", "TRIGGER", "STRICT", "WHERE")
    before = [word for word in words if word in defined()]
    operations = Operations(MigrationContext.configure(connection))
    with operations.batch_alter_table("job") as batch:
        batch.alter_column("due", server_default="2026-01-01", existing_type=sa.Text())
    after = [word for word in words if word in defined()]

    connection.exec_driver_sql("INSERT INTO job (name) VALUES ('ONE')")
    rows = connection.exec_driver_sql("SELECT id, name FROM job ORDER BY id").all()
    woken = connection.exec_driver_sql("SELECT job_id FROM wakes ORDER BY job_id").all()

print("before:", *before)
print("after: ", *after)
print("rows:  ", rows)
print("woken: ", woken)
assert before == list(words)
assert after == ["STRICT", "WHERE"]
assert rows == [(1, "one"), (2, "ONE")]
assert woken == [(1,), (2,)]  # of before; the new row has the id of the deleted one
PYTHON
