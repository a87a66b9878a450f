#!/usr/bin/env bash
# Library: SQLAlchemy 2.1.9.
#
# A good guess: after Connection.detach() everything works as before, and only the pool has
# forgotten the connection. The documentation promises that the Connection can still be used.
#
# What it does: it has no pool record any more, and three things quietly depended on that record.
#   * `connection.connection.driver_connection` is None, though `dbapi_connection` is there.
#   * `connection.invalidate()` says that it invalidated, but the driver's connection stays open.
#   * `execution_options(isolation_level=...)` raises AttributeError on None.
#
# Documented: not that we found.
#
# Why it matters to schedulers: a leader that holds an advisory lock or a LISTEN detaches the
# connection to keep it out of the pool. It then relies on invalidate() to end the session, and so
# the lock, when something is wrong: the session, and the lock, stay.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet SQLAlchemy==2.1.9

timeout 50 venv/bin/python - <<'PYTHON'
import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

engine = sa.create_engine("sqlite://", poolclass=QueuePool)

pooled = engine.connect()
in_pool = pooled.connection.dbapi_connection
assert pooled.connection.driver_connection is in_pool
pooled.invalidate()
try:
    in_pool.execute("SELECT 1")
    closed_in_pool = False
except Exception as error:
    closed_in_pool = True
    print("in the pool, invalidate() closes the driver's connection:", error)

lone = engine.connect()
raw = lone.connection.dbapi_connection
lone.detach()
assert lone.scalar(sa.text("SELECT 1")) == 1
lone.rollback()
driver = lone.connection.driver_connection
print("detached: driver_connection is", driver, "and dbapi_connection is", raw)

try:
    lone.execution_options(isolation_level="AUTOCOMMIT")
    refused = None
except AttributeError as error:
    refused = error
print("detached: isolation_level raises", repr(refused))

lone.invalidate()
answer = raw.execute("SELECT 1").fetchall()
print("detached: invalidated is", lone.invalidated, "and the driver's connection answers", answer)

assert closed_in_pool
assert driver is None and raw is not None
assert isinstance(refused, AttributeError)
assert lone.invalidated and answer == [(1,)]
raw.close()
PYTHON
