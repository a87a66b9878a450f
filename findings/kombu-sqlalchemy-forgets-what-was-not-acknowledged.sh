#!/usr/bin/env bash
# Library: kombu 5.7.0, its transport for SQLAlchemy 2.1.9 (`sqlalchemy+sqlite://` and the like).
#
# A good guess: a message that a consumer has fetched and not acknowledged is delivered again when the
# consumer dies. The message is a row of a table, so it is even easier to keep than with Redis, whose
# transport brings it back after the visibility timeout.
#
# What it does: to fetch a message is to set `visible` to false in its row, and to commit. An ack does
# nothing to the row. Only the consumer itself, on a clean exit, puts what it still has into the table
# once more. Killed, it leaves a row that nobody ever reads again. A row that was acknowledged looks
# the same, so one can't tell which messages are lost.
#
# Documented: the module's page in kombu's reference has a table of features (type, direct, topic,
# fanout, priority, TTL), and says nothing on acknowledgement. Celery's user guide (Tasks,
# Task.acks_late) says that such a task may run again if the worker crashes in the middle of it.
#
# Why it matters to schedulers: who has no broker uses the database. A worker that is killed, by the
# kernel or in a deployment, takes with it what it was at with `acks_late`, and what it had prefetched;
# with Celery's defaults the latter are four messages for each process.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet kombu==5.7.0 SQLAlchemy==2.1.9

cat >consumer.py <<'PYTHON'
import os
import signal
import sys

import kombu

with kombu.Connection("sqlalchemy+sqlite:///broker.sqlite") as connection:
    queue = connection.SimpleQueue("work")
    message = queue.get(timeout=10)
    print(f"the consumer that is to end by {sys.argv[1]} has", message.payload, flush=True)
    if sys.argv[1] == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[1] == "ack":
        message.ack()
PYTHON

timeout 100 venv/bin/python - <<'PYTHON'
import queue
import sqlite3
import subprocess
import sys

import kombu


def left():
    """Take all messages that there are; return them."""
    found = []
    with kombu.Connection("sqlalchemy+sqlite:///broker.sqlite") as connection:
        work = connection.SimpleQueue("work")
        while True:
            try:
                message = work.get(timeout=3)
            except queue.Empty:
                return found
            found.append(message.payload)
            message.ack()


def after(end):
    """Send a message, have a consumer get it and end in this way; return what is left for others."""
    with kombu.Connection("sqlalchemy+sqlite:///broker.sqlite") as connection:
        connection.SimpleQueue("work").put(f"message of {end}")
    subprocess.run([sys.executable, "consumer.py", end])
    return left()


seen = {end: after(end) for end in ("ack", "exit", "SIGKILL")}
for end, messages in seen.items():
    print(f"left after {end}:", messages)
rows = sqlite3.connect("broker.sqlite").execute("SELECT id, visible FROM kombu_message").fetchall()
print("rows (id, visible):", rows)
assert seen == {"ack": [], "exit": ["message of exit"], "SIGKILL": []}, seen
assert rows and not any(visible for _, visible in rows)
PYTHON
