#!/usr/bin/env bash
# Server: OceanBase, as seekdb 1.4.0 (the wheel pylibseekdb 1.4.0.post1), asked through PyMySQL 1.2.4.
#
# A good guess: it speaks MySQL's protocol and takes `FOR UPDATE SKIP LOCKED`, so a queue is read as on
# MySQL, MariaDB and PostgreSQL: `ORDER BY … LIMIT 3 FOR UPDATE SKIP LOCKED` gives each session the first
# three rows that nobody has locked.
#
# What it does: it takes the first three rows, and then leaves out those that are locked. While one
# session holds rows 1 to 3, another one that asks for three gets none, though rows 4 to 9 are free. If it
# asks for five, it gets two. Without LIMIT, or with one that is larger than what is locked, it gets all.
#
# Documented: SKIP LOCKED is, its order with LIMIT was not found. MySQL's manual speaks of rows that are
# removed from the result set, and PostgreSQL's says that a LIMIT stops locking once enough rows were
# returned.
#
# Why it matters to schedulers: two workers of one queue never work at the same time if they ask for equal
# batches. The second one takes an empty answer for an empty queue, and sleeps. It must look again soon, or
# ask for several batches at once.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet pylibseekdb==1.4.0.post1 pymysql==1.2.4

venv/bin/python - <<'PYTHON'
import pathlib
import signal
import socket
import subprocess
import time

import pylibseekdb
import pymysql

signal.alarm(280)
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
run = [
    *(pathlib.Path(pylibseekdb.__file__).with_name("seekdb"), "--nodaemon", f"--port={port}"),
    *(f"--base-dir={pathlib.Path('data').resolve()}", "--log-level=ERROR"),
    *("--parameter=memory_budget=1G", "--parameter=log_disk_size=2G"),
]
server = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def connect(**given):
    return pymysql.connect(host="127.0.0.1", port=port, user="root", connect_timeout=5, **given)


def ids(session, query):
    with session.cursor() as cursor:
        cursor.execute(query)
        return [row[0] for row in cursor.fetchall()]


QUEUE = "SELECT id FROM job ORDER BY due_at, id"
try:
    while True:
        try:
            first = connect()
            break
        except pymysql.err.MySQLError:
            time.sleep(1)
    with first.cursor() as cursor:
        cursor.execute("CREATE DATABASE work")
        cursor.execute("USE work")
        cursor.execute("CREATE TABLE job (id INT PRIMARY KEY, due_at INT NOT NULL, KEY due (due_at, id))")
        cursor.execute("INSERT INTO job VALUES " + ", ".join(f"({n}, {n})" for n in range(1, 10)))
    first.commit()
    second = connect(database="work")
    print("version:", ids(second, "SELECT version()")[0])
    taken = ids(first, QUEUE + " LIMIT 3 FOR UPDATE SKIP LOCKED")
    print("the first session takes", taken)
    found = {}
    for limit in (3, 5, 100):
        found[limit] = ids(second, f"{QUEUE} LIMIT {limit} FOR UPDATE SKIP LOCKED")
        second.rollback()
        print(f"the second one asks for {limit}:", found[limit])
    found[None] = ids(second, QUEUE + " FOR UPDATE SKIP LOCKED")
    print("the second one asks for all:", found[None])
finally:
    server.kill()
    server.wait()
assert taken == [1, 2, 3], taken
assert found == {3: [], 5: [4, 5], 100: [4, 5, 6, 7, 8, 9], None: [4, 5, 6, 7, 8, 9]}, found
PYTHON

# Output:
# version: 5.7.25-OceanBase seekdb-v1.4.0.0
# the first session takes [1, 2, 3]
# the second one asks for 3: []
# the second one asks for 5: [4, 5]
# the second one asks for 100: [4, 5, 6, 7, 8, 9]
# the second one asks for all: [4, 5, 6, 7, 8, 9]
