#!/usr/bin/env bash
# Server: OceanBase, as seekdb 1.4.0 (the wheel pylibseekdb 1.4.0.post1), asked through PyMySQL 1.2.4.
#
# A good guess: it speaks MySQL's protocol and has MySQL's `GET_LOCK`, whose lock is free again when its
# session ends, in order or not. So a lock around a migration or a cron job needs no clean-up.
#
# What it does: the lock stays taken after the client has said goodbye and the session is gone from the
# list of processes. Half a minute later nobody gets it, and `IS_USED_LOCK` still names the ended session.
# Only `RELEASE_LOCK` before the end frees it.
#
# Documented: MySQL's manual says that the lock is released when the session ends, normally or abnormally.
#
# Why it matters to schedulers: "run this once at a time" by a named lock works the first time, and waits
# in vain from then on. Release such a lock yourself, whatever happens in between.

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


def connect():
    return pymysql.connect(
        host="127.0.0.1", port=port, user="root", connect_timeout=5, autocommit=True
    )


def ask(session, query):
    with session.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


try:
    while True:
        try:
            first = connect()
            break
        except pymysql.err.MySQLError:
            time.sleep(1)
    print("version:", ask(first, "SELECT version()")[0][0])
    ((session,),) = ask(first, "SELECT connection_id()")
    assert ask(first, "SELECT GET_LOCK('left', 0), GET_LOCK('released', 0)") == ((1, 1),)
    assert ask(first, "SELECT RELEASE_LOCK('released')") == ((1,),)
    first.close()
    second = connect()
    time.sleep(30)
    listed = session in [row[0] for row in ask(second, "SHOW PROCESSLIST")]
    ((used_by,),) = ask(second, "SELECT IS_USED_LOCK('left')")
    ((left, released),) = ask(second, "SELECT GET_LOCK('left', 0), GET_LOCK('released', 0)")
    print("half a minute after the session's end:")
    print("the session is listed:", listed)
    print("the lock is used by that session:", used_by == session)
    print("another session gets the lock:", left, "and the one that was released:", released)
finally:
    server.kill()
    server.wait()
assert (listed, used_by, left, released) == (False, session, 0, 1)
PYTHON

# Output:
# version: 5.7.25-OceanBase seekdb-v1.4.0.0
# half a minute after the session's end:
# the session is listed: False
# the lock is used by that session: True
# another session gets the lock: 0 and the one that was released: 1
