#!/usr/bin/env bash
# Library: alembic 1.20.1, with SQLAlchemy 2.1.9 on SQLite.
#
# A good guess: `alembic check` and autogenerate see that an index has changed. They compare its columns,
# whether it is unique, and an expression such as `due DESC`; SQLAlchemy reflects the WHERE of a partial
# index, and batch mode keeps it.
#
# What it does: the WHERE is not compared. An index whose condition was changed, or dropped, or added is
# the same index to it: no operation is proposed, `alembic check` finds nothing to do, and nothing is
# logged. With PostgreSQL 15 it was so, too. The database goes on with the old condition.
#
# Documented: the manual's list of what autogenerate does not detect names renamed tables and columns,
# types and constraints without a name. It does not name conditions of indexes.
#
# Why it matters to schedulers: "at most one unfinished run for each job" is a unique partial index over
# the states. Whoever adds a state to it in the model has tests that pass, since they create the
# tables anew, and a database in production that lets a second run begin.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet alembic==1.20.1 SQLAlchemy==2.1.9

timeout 60 venv/bin/python - <<'PYTHON'
import logging

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

logging.basicConfig(level=logging.WARNING)


def model(*columns, unique=True, where="state = 'running'"):
    metadata = sa.MetaData()
    run = sa.Table(
        "run",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job", sa.Integer),
        sa.Column("state", sa.String(10)),
    )
    condition = {"sqlite_where": sa.text(where)} if where else {}
    columns = [run.c[name] for name in columns or ("job",)]
    sa.Index("one_run", *columns, unique=unique, **condition)
    return metadata


engine = sa.create_engine("sqlite://")
model().create_all(engine)
CHANGES = {
    "none": model(),
    "another column": model("job", "state"),
    "not unique": model(unique=False),
    "another condition": model(where="state IN ('running', 'queued')"),
    "no condition": model(where=None),
}
with engine.connect() as connection:
    reflected = sa.inspect(connection).get_indexes("run")[0]["dialect_options"]["sqlite_where"]
    print("SQLAlchemy reflects: WHERE", reflected)
    context = MigrationContext.configure(connection)
    seen = {
        name: [operation for operation, _ in compare_metadata(context, new)]
        for name, new in CHANGES.items()
    }
for name, operations in seen.items():
    print(f"{name:17}", operations or "nothing to do")

both = ["remove_index", "add_index"]
assert str(reflected) == "state = 'running'"
assert list(seen.values()) == [[], both, both, [], []], seen
PYTHON
