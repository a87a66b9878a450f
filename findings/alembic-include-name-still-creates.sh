#!/usr/bin/env bash
# Library: alembic 1.20.1 (with SQLAlchemy 2.1.9).
#
# A good guess: `include_name` returning False for a table takes that table out of autogenerate.
#
# What it does: the hook is asked only about names found in the database. A table that is also in
# target_metadata is no longer seen there, so autogenerate takes it for new and proposes to create
# what exists already. `include_object` filters both sides and proposes nothing.
#
# Documented: the manual says that the hook is for reflected names; it does not spell out that
# hiding a name which the metadata has turns into a CREATE.
#
# Why it matters to schedulers: a scheduler's tables often share a MetaData with the application's.
# Whoever hides them by name gets a migration that fails with "table already exists".

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet alembic==1.20.1 SQLAlchemy==2.1.9

timeout 50 venv/bin/python - <<'PYTHON'
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

metadata = sa.MetaData()
for name in ("orders", "scheduler_entries"):
    sa.Table(name, metadata, sa.Column("id", sa.Integer, primary_key=True))

asked = []


def by_name(name, kind, parents):
    asked.append((kind, name))
    return name != "scheduler_entries"


def by_object(thing, name, kind, reflected, compared_to):
    return name != "scheduler_entries"


def proposed(connection, **opts):
    context = MigrationContext.configure(connection, opts=opts)
    return [(step[0], step[1].name) for step in compare_metadata(context, metadata)]


with sa.create_engine("sqlite://").connect() as connection:
    metadata.create_all(connection)
    plain = proposed(connection)
    named = proposed(connection, include_name=by_name)
    objects = proposed(connection, include_object=by_object)

print("database and metadata are the same; proposed without a hook:", plain)
print("the table hidden by include_name:  ", named)
print("the table hidden by include_object:", objects)
assert plain == [] and objects == []
assert ("table", "scheduler_entries") in asked
assert named == [("add_table", "scheduler_entries")], named
PYTHON
