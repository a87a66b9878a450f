#!/usr/bin/env bash
# Library: SQLAlchemy 2.1.9, its dialect for MariaDB.
#
# A good guess: `with_for_update(of=run, skip_locked=True)` locks the rows of `run` alone, or is an
# error on a server that has no FOR UPDATE OF. MariaDB has none.
#
# What it does: the dialect leaves out OF and says nothing. MariaDB then locks the rows of every
# joined table, and with SKIP LOCKED it skips a row of `run` because somebody holds the row of
# another table. The other options of the same clause stay. Against MySQL 8 the same statement
# keeps its OF, but only after the first connection: compiled before, it has none either.
#
# Seen on MariaDB 10.11: with a row of `entry` changed in another open transaction, the join with
# SKIP LOCKED returns nothing, and the scalar subquery returns the run.
#
# Documented: not that we found; the reference says what `of` means where it is supported.
#
# Why it matters to schedulers: a queue joins its runs with their entries and locks "only the runs",
# so that an open transaction on an entry holds up nobody. On MariaDB it does. A scalar subquery in
# place of the join reads the other table without a lock, on each database.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet SQLAlchemy==2.1.9

timeout 50 venv/bin/python - <<'PYTHON'
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.dialects.mysql.mariadb import MariaDBDialect

meta = sa.MetaData()
entry = sa.Table("entry", meta, sa.Column("id", sa.Integer, primary_key=True))
run = sa.Table(
    "run",
    meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("entry_id", sa.Integer),
)
joined = sa.select(run.c.id).join(entry, entry.c.id == run.c.entry_id)
locking = joined.with_for_update(of=run, skip_locked=True)


def clause(dialect):
    text = str(locking.compile(dialect=dialect)).replace("\n", " ")
    return text[text.index("FOR UPDATE") :]


after_connecting_to_8 = mysql.dialect()
after_connecting_to_8.server_version_info = (8, 4, 0)
after_connecting_to_8._initialize_mysql(None)
seen = {
    "PostgreSQL": clause(postgresql.dialect()),
    "MariaDB": clause(MariaDBDialect()),
    "MySQL 8, before the first connection": clause(mysql.dialect()),
    "MySQL 8, after it": clause(after_connecting_to_8),
}
for name, text in seen.items():
    print(f"{name}: {text}")

assert seen == {
    "PostgreSQL": "FOR UPDATE OF run SKIP LOCKED",
    "MariaDB": "FOR UPDATE SKIP LOCKED",
    "MySQL 8, before the first connection": "FOR UPDATE SKIP LOCKED",
    "MySQL 8, after it": "FOR UPDATE OF run SKIP LOCKED",
}, seen
print("MariaDB locks the rows of both tables, and nobody is told")
PYTHON
